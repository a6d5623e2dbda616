"""A scan whose finished tiles are kept in a folder, so that an interrupted one goes on where it ended."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from garch_platform import __version__
from garch_platform.errors import StoreError
from garch_platform.quant.pairs.scan import SCAN_SCHEMA, scan_tiles

__all__ = ["TileStore"]

TILE_SIZE: Final = 16_384
"""Pairs of a tile."""
INDIFFERENT: Final = ("progress", "workers")
"""Options that do not change what a tile holds."""


class TileStore:
    """Scans like `scan_pairs`, and keeps every tile as a Parquet file until the folder is removed.

    Tiles lie in a subfolder named after a digest of prices and options: those of another scan are never
    taken for this one's.

    Args:
        folder: where the tiles are kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(
        self,
        log_prices: NDArray[np.float64],
        *,
        progress: Callable[[int, int], None] | None = None,
        **options: Any,
    ) -> pl.DataFrame:
        """Scan what no tile holds yet, and give all of them.

        Raises:
            StoreError: a tile cannot be written or read.
        """
        place = self.folder / _digest(log_prices, options)
        try:
            place.mkdir(parents=True, exist_ok=True)
            done = {int(path.stem.removeprefix("tile-")) for path in place.glob("tile-*.parquet")}
            for number, rows in scan_tiles(
                log_prices, skip=done, tile_size=TILE_SIZE, progress=progress, **options
            ):
                partial = place / f"partial-{number:06d}"
                rows.write_parquet(partial)
                partial.replace(place / f"tile-{number:06d}.parquet")
            tiles = [pl.read_parquet(path) for path in sorted(place.glob("tile-*.parquet"))]
        except (OSError, pl.exceptions.PolarsError) as error:
            raise StoreError(
                f"the tiles in {place} cannot be kept ({error}); choose another folder"
            ) from error
        return pl.concat(tiles) if tiles else pl.DataFrame(schema=SCAN_SCHEMA)


def _digest(log_prices: NDArray[np.float64], options: dict[str, Any]) -> str:
    digest = hashlib.blake2b(np.ascontiguousarray(log_prices).tobytes(), digest_size=12)
    digest.update(f"{__version__} {TILE_SIZE} {log_prices.shape} {SCAN_SCHEMA}".encode())
    for name, value in sorted(options.items()):
        if name not in INDIFFERENT:
            held = value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode()
            digest.update(name.encode() + held)
    return digest.hexdigest()
