"""Asking servers over HTTP: at an agreed pace, again where that may help, and Alpaca's REST interface."""

__all__ = ()
