"""Logs of sockets, without what sockets carry."""

from __future__ import annotations

import logging

__all__ = ["socket_log"]


def socket_log(name: str) -> logging.Logger:
    """A log below ``name`` for a WebSocket, never at DEBUG: there the library writes headers, credentials."""
    log = logging.getLogger(f"{name}.sockets")
    log.setLevel(max(logging.INFO, logging.getLogger(name).getEffectiveLevel()))
    return log
