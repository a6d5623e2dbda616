"""How a recycler names its run, to those that ask it and to those that follow it."""

from __future__ import annotations

from typing import Final

__all__ = ["RUN_HEADER"]

RUN_HEADER: Final = "Recycler-Run"
"""Of every answer, that of the stream's handshake included: what tells the runs of a server apart."""
