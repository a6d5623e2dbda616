"""The demo that tests share: it runs once, its failure reaches every test, and nobody waits for it in vain."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from garch_platform_tests import shared_demo
from garch_platform_tests.shared_demo import SharedDemo

PATH = {"PATH": os.environ["PATH"]}


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose `garch` counts its calls in ``calls`` and does what the file ``then`` says."""
    commands = tmp_path / "bin"
    commands.mkdir()
    garch = commands / "garch"
    garch.write_text(f'#!/bin/sh\nmkdir -p "$3"\necho run >> {tmp_path}/calls\n. {tmp_path}/then\n')
    garch.chmod(0o755)
    monkeypatch.setattr(shared_demo.sys, "executable", str(commands / Path(sys.executable).name))
    return tmp_path


def test_two_workers_run_it_once(stand_in: Path) -> None:
    (stand_in / "then").write_text("echo filled\n")
    first, second = (SharedDemo(stand_in / "demo", PATH) for _ in range(2))
    first.begin()
    assert second.filled() == first.filled() == stand_in / "demo"
    first.leave()
    assert (stand_in / "demo" / "demo.log").read_text() == "filled\n"
    assert (stand_in / "calls").read_text() == "run\n"


def test_failure_is_told_to_every_worker_and_not_tried_again(stand_in: Path) -> None:
    (stand_in / "then").write_text("echo broken >&2; exit 3\n")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="garch demo ended with 3:\nbroken"):
            SharedDemo(stand_in / "demo", PATH).filled()
    assert (stand_in / "calls").read_text() == "run\n"


def test_demo_that_nobody_waits_for_is_ended_and_leaves_nothing_half_done(stand_in: Path) -> None:
    (stand_in / "then").write_text(f'echo > {stand_in}/started; exec 3<> "$0.fifo"; read _ <&3\n')
    os.mkfifo(stand_in / "bin" / "garch.fifo")
    demo = SharedDemo(stand_in / "demo", PATH)
    demo.begin()
    while not (stand_in / "started").exists():
        time.sleep(0.01)
    demo.leave()
    assert not (stand_in / "demo").exists()

    (stand_in / "then").write_text("echo filled\n")
    assert (SharedDemo(stand_in / "demo", PATH).filled() / "demo.log").is_file()
