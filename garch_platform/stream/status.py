"""The status file of a running stream client, and its numbers for Prometheus.

``<workspace>/stream.json`` is replaced every few seconds and at the end; whoever reads it also learns whether
the process that wrote it is still there: for as long as it runs it holds ``<workspace>/stream.lock``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from filelock import FileLock, Timeout

from garch_platform.errors import StoreError, StreamError
from garch_platform.stream.counts import Counts

__all__ = ["Metrics", "StreamStatus", "only_client", "read_status", "status_path", "write_status"]

STATUS_FILE: Final = "stream.json"
LOCK_FILE: Final = "stream.lock"
LOCK_SECONDS: Final = 1.0
"""Longer than anybody takes who only looks whether the lock is held."""


@dataclass(frozen=True)
class StreamStatus:
    """Where a stream client stands.

    Attributes:
        pid: its process.
        is_running: whether a client of the workspace runs, whatever has become of its process number.
        mode: ``alpaca`` or ``recycler``.
        server: address of the stream.
        started_at, written_at: when the client started, and when it wrote this.
        connected: whether it is authenticated and subscribed.
        subscribed: symbols whose bars the server has acknowledged.
        last_bar: per symbol the start of its latest bar.
        lag_seconds: since the end of the latest bar of all; null before the first.
        pending_gaps: spans that are still to be asked for.
        spool_files, spool_bytes: batches that wait for the database.
        counts: see `garch_platform.stream.counts.Counts`.
        error: what hinders it at present; null if nothing does.
    """

    pid: int
    is_running: bool
    mode: str
    server: str
    started_at: datetime
    written_at: datetime
    connected: bool
    subscribed: list[str]
    last_bar: dict[str, datetime]
    lag_seconds: float | None
    pending_gaps: int
    spool_files: int
    spool_bytes: int
    counts: Counts = field(default_factory=Counts)
    error: str | None = None


def status_path(folder: Path) -> Path:
    """The status file of the workspace ``folder``."""
    return folder / STATUS_FILE


def write_status(folder: Path, status: StreamStatus) -> None:
    """Replace the status file of ``folder`` in one step.

    Raises:
        StoreError: it cannot be written.
    """
    path = status_path(folder)
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        partial.write_text(json.dumps(asdict(status), default=datetime.isoformat), "utf-8")
        partial.replace(path)
    except OSError as error:
        raise StoreError(f"{path} cannot be written ({error}); let this user write to {folder}") from error


def read_status(folder: Path) -> StreamStatus | None:
    """What the client of the workspace ``folder`` wrote last; null if there never was one.

    Raises:
        StreamError: the file is not a status.
    """
    path = status_path(folder)
    try:
        content = json.loads(path.read_text("utf-8"))
        return _status(content, is_held=_is_held(folder))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StreamError(f"{path} is no status of a stream client ({error}); delete it") from error


def _status(content: Mapping[str, Any], *, is_held: bool) -> StreamStatus:
    moments = {name: datetime.fromisoformat(content[name]) for name in ("started_at", "written_at")}
    last = {symbol: datetime.fromisoformat(moment) for symbol, moment in content["last_bar"].items()}
    return StreamStatus(
        **{
            **content,
            **moments,
            "last_bar": last,
            "counts": Counts(**content["counts"]),
            "is_running": content["is_running"] and is_held,
        }
    )


def _is_held(folder: Path) -> bool:
    path = folder / LOCK_FILE
    if not path.exists():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except (Timeout, PermissionError):
        return True
    lock.release()
    return False


@contextmanager
def only_client(folder: Path) -> Iterator[None]:
    """Be the one stream client of the workspace ``folder`` for as long as the block lasts.

    Raises:
        StreamError: another one runs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK_FILE)
    try:
        lock.acquire(timeout=LOCK_SECONDS)
    except Timeout:
        status = read_status(folder)
        process = f" (process {status.pid})" if status is not None else ""
        raise StreamError(
            f"a stream client of {folder} is running already{process}; stop it, or use another workspace"
        ) from None
    try:
        yield
    finally:
        lock.release()


class Metrics:
    """The status as Prometheus metrics at ``http://127.0.0.1:port/metrics``, in a registry of their own.

    Args:
        port: of the loopback interface.

    Raises:
        StreamError: something else listens there.
    """

    def __init__(self, port: int) -> None:
        from prometheus_client import CollectorRegistry, Gauge, start_http_server

        registry = CollectorRegistry()

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"garch_stream_{name}", text, labels, registry=registry)

        self._connected = gauge("connected", "1 while authenticated and subscribed")
        self._subscribed = gauge("subscribed_symbols", "Symbols whose bars the server has acknowledged")
        self._lag = gauge("lag_seconds", "Seconds since the end of the latest bar")
        self._pending = gauge("pending_gaps", "Spans that are still to be asked for over REST")
        self._spool = gauge("spool_bytes", "Bytes of the batches that wait for the database")
        self._last = gauge("last_bar_timestamp_seconds", "Start of the latest bar", "symbol")
        self._counts = gauge("count", "Bars and events since the client started", "kind")
        try:
            self._server, self._thread = start_http_server(port, addr="127.0.0.1", registry=registry)
        except OSError as error:
            raise StreamError(
                f"the metrics cannot be served at 127.0.0.1:{port} ({error.strerror}); "
                "change websocket.metrics_port"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def show(self, status: StreamStatus) -> None:
        """Take over the numbers of ``status``."""
        self._connected.set(status.connected)
        self._subscribed.set(len(status.subscribed))
        self._lag.set(float("nan") if status.lag_seconds is None else status.lag_seconds)
        self._pending.set(status.pending_gaps)
        self._spool.set(status.spool_bytes)
        for symbol, moment in status.last_bar.items():
            self._last.labels(symbol).set(moment.timestamp())
        for kind, value in asdict(status.counts).items():
            self._counts.labels(kind).set(value)
