"""Processes for the tests of concurrent writers."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest

from garch_platform_tests.store import writers

PROCESSES = 4


class Together:
    """Four spawned processes that start a function at the same moment, each with its own arguments."""

    def __init__(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.pool = ProcessPoolExecutor(
            PROCESSES, spawn, initializer=writers.meet, initargs=(spawn.Barrier(PROCESSES),)
        )

    def run(self, function: Callable[..., None], arguments: list[tuple[Any, ...]]) -> None:
        """Run ``function`` once per entry of ``arguments`` (four); raise what a process raised."""
        assert len(arguments) == PROCESSES
        for done in [self.pool.submit(function, *given) for given in arguments]:
            done.result(120)


@pytest.fixture(scope="session")
def together() -> Iterator[Together]:
    """Four processes, started once: a spawned process takes a second to import what it needs."""
    processes = Together()
    yield processes
    processes.pool.shutdown(cancel_futures=True)
