"""Volatility and pairs research as a Dagster asset graph."""

__version__ = "0.1.0"
