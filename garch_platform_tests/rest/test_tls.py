"""What a server's certificate is checked against: real handshakes, in memory."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme

from garch_platform.errors import ConfigurationError
from garch_platform.rest.tls import tls_context

HOST = "recycler.example"
SETTING = "websocket.recycler.tls_certificate"


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    """It has issued ``leaf.pem``; its own certificate is ``authority.pem``."""
    made = trustme.CA()
    leaf = made.issue_cert(HOST)
    made.cert_pem.write_to_path(tmp_path / "authority.pem")
    leaf.cert_chain_pems[0].write_to_path(tmp_path / "leaf.pem")
    leaf.private_key_pem.write_to_path(tmp_path / "key.pem")
    return made


def shake_hands(context: ssl.SSLContext, folder: Path, host: str = HOST) -> None:
    """Let a client with ``context`` and a server with the leaf speak TLS until both are content."""
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(folder / "leaf.pem", folder / "key.pem")
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(down, up, server_hostname=host)
    server = server_context.wrap_bio(up, down, server_side=True)
    waiting = [client, server]
    while waiting:
        side = waiting.pop(0)
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            waiting.append(side)


@pytest.mark.usefixtures("authority")
@pytest.mark.parametrize("trusted", ["leaf.pem", "authority.pem"])
def test_the_servers_own_certificate_is_trusted_and_its_signers(tmp_path: Path, trusted: str) -> None:
    shake_hands(tls_context(tmp_path / trusted, SETTING), tmp_path)


@pytest.mark.usefixtures("authority")
def test_others_are_not(tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    for context in (tls_context(None, SETTING), tls_context(tmp_path / "other.pem", SETTING)):
        with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer"):
            shake_hands(context, tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake_hands(tls_context(tmp_path / "leaf.pem", SETTING), tmp_path, "other.example")


@pytest.mark.usefixtures("authority")
@pytest.mark.parametrize("name", ["absent.pem", "key.pem", "text.pem"])
def test_a_file_that_is_no_certificate_is_named_with_its_setting(tmp_path: Path, name: str) -> None:
    (tmp_path / "text.pem").write_text("no certificate")
    with pytest.raises(ConfigurationError, match=rf"{name} \({SETTING}\) cannot be read"):
        tls_context(tmp_path / name, SETTING)
