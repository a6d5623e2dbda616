"""Every error that garch_platform raises on purpose.

::

    GarchPlatformError
    ├── ConfigurationError      a setting is missing, unknown or out of range
    ├── CalendarError           a date is not a session, is in the future, or a range is reversed
    ├── SymbolError             a symbol is unknown, malformed or already registered
    ├── DataError               rows do not meet the bar contract
    │   ├── SourceError         a source cannot be read (absent, corrupt, a column is missing)
    │   └── InsufficientData    too few observations for the estimate that was asked for
    ├── StreamError             the live stream refused, or cannot be reached or served
    └── StoreError              the lake or the database refused
        ├── LakeConflict        another writer kept changing the same partition
        ├── StoreBusy           the database stayed locked
        └── StoreFull           no space is left for the write

A message names the value, the place and the remedy, in that order.
"""

from __future__ import annotations

__all__ = [
    "CalendarError",
    "ConfigurationError",
    "DataError",
    "GarchPlatformError",
    "InsufficientData",
    "LakeConflict",
    "SourceError",
    "StoreBusy",
    "StoreError",
    "StoreFull",
    "StreamError",
    "SymbolError",
]


class GarchPlatformError(Exception):
    """Base of all deliberate errors; the CLI prints it without a traceback."""


class ConfigurationError(GarchPlatformError):
    """A setting is missing, unknown or out of range."""


class CalendarError(GarchPlatformError):
    """A date is not a trading session, lies in the future, or a range is reversed."""


class SymbolError(GarchPlatformError):
    """A symbol is unknown, malformed or already registered."""


class DataError(GarchPlatformError):
    """Rows do not meet the bar contract."""


class SourceError(DataError):
    """A source of bars cannot be read."""


class InsufficientData(DataError):
    """Too few observations for the estimate that was asked for."""


class StreamError(GarchPlatformError):
    """The live stream refused the client, or its server cannot be reached, started or controlled."""


class StoreError(GarchPlatformError):
    """The lake or the database refused an operation."""


class LakeConflict(StoreError):
    """Another writer kept changing the same partition of the lake."""


class StoreBusy(StoreError):
    """The database stayed locked longer than the configured wait."""


class StoreFull(StoreError):
    """No space is left on the volume that holds the store."""
