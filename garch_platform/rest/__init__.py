"""Asking servers: at an agreed pace, again where that may help, over TLS; and Alpaca's REST interface."""

__all__ = ()
