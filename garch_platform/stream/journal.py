"""Spans whose bars are still missing, kept on disk so that a killed client asks for them when it returns."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from garch_platform.stream.gaps import Span
from garch_platform.stream.spool import write_durably

__all__ = ["GapJournal"]

logger = logging.getLogger(__name__)


class GapJournal:
    """A small JSON file: for each stream (`Endpoint.name`) its pending spans.

    A span must be here before a later bar of its symbol is stored, because the stored bars alone would
    say that nothing is missing.

    Args:
        path: of the file.
        stream: whose spans are kept; those of others stay as they are.
    """

    def __init__(self, path: Path, stream: str) -> None:
        self.path = path
        self.stream = stream
        self._written: list[Span] | None = None

    def load(self) -> list[Span]:
        """The spans of an earlier process; none where the file is absent or cannot be read."""
        try:
            return [Span(*fields) for fields in self._read().get(self.stream, [])]
        except (TypeError, ValueError) as error:
            logger.warning("%s cannot be read (%s); gaps of an earlier run are not known", self.path, error)
            return []

    def save(self, spans: Sequence[Span]) -> None:
        """Replace the spans of the stream, if they differ from those written last.

        Raises:
            StoreError: the file cannot be written; `StoreFull` where no space is left.
        """
        wanted = list(dict.fromkeys(spans))
        if wanted == self._written or (self._written is None and not wanted and not self.path.exists()):
            return
        try:
            others = self._read()
        except (TypeError, ValueError):
            others = {}
        content = {**others, self.stream: [[s.symbol, s.start, s.end, s.cause] for s in wanted]}
        write_durably(self.path, json.dumps(content).encode())
        self._written = wanted

    def _read(self) -> dict[str, list[list[Any]]]:
        try:
            content = json.loads(self.path.read_text("utf-8"))
        except FileNotFoundError:
            return {}
        if not isinstance(content, dict):
            raise ValueError(f"a {type(content).__name__} instead of streams")
        return content
