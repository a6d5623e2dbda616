"""What a client checks a server's certificate against."""

from __future__ import annotations

import ssl
from pathlib import Path

from garch_platform.errors import ConfigurationError

__all__ = ["tls_context"]


def tls_context(certificate: Path | None, setting: str) -> ssl.SSLContext:
    """The usual check, which also trusts ``certificate``: as the server's own, or as one of its signers.

    Args:
        certificate: PEM file; null for the system's authorities alone.
        setting: that names the file.

    Raises:
        ConfigurationError: the file is absent, or holds no certificate.
    """
    context = ssl.create_default_context()
    if certificate is None:
        return context
    try:
        context.load_verify_locations(certificate)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"{certificate} ({setting}) cannot be read ({error}); give the PEM file that the recycler has"
        ) from error
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context
