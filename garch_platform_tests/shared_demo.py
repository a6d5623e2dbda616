"""The demo that the tests share: `garch demo` runs once, beside the tests that do not need it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

__all__ = ["SharedDemo"]


@dataclass
class SharedDemo:
    """The folder ``root`` that `garch demo` fills once for all workers of a test session.

    Its output is in ``demo.log`` when it has ended well, else in ``demo.error`` beside the folder:
    a demo that failed is not tried a second time.
    """

    root: Path
    environment: dict[str, str]
    _thread: threading.Thread | None = field(default=None, init=False)
    _process: subprocess.Popen[str] | None = field(default=None, init=False)
    _stopped: bool = field(default=False, init=False)

    def begin(self) -> None:
        """Fill the folder while this process goes on, unless another worker does."""
        self._thread = threading.Thread(target=self._fill_unless_begun, daemon=True)
        self._thread.start()

    def filled(self) -> Path:
        """The folder, when the demo has ended.

        Raises:
            RuntimeError: it did not end well.
        """
        self._waiting.touch()
        self._fill()
        if self._error.is_file():
            raise RuntimeError(self._error.read_text("utf-8"))
        return self.root

    def leave(self) -> None:
        """This worker has no more tests: a demo that it runs is ended if no other worker waits for it."""
        self._stopped = not self._waiting.is_file()
        if self._process is None or self._thread is None:
            return
        if self._stopped and self._process.poll() is None:
            self._process.terminate()
        self._thread.join()

    @property
    def _error(self) -> Path:
        return self.root.with_suffix(".error")

    @property
    def _waiting(self) -> Path:
        return self.root.with_suffix(".waiting")

    def _fill_unless_begun(self) -> None:
        with suppress(Timeout):
            self._fill(patience=0)

    def _fill(self, patience: float = -1) -> None:
        """Run the demo, unless it has run; wait while another thread or worker does."""
        with FileLock(f"{self.root}.lock", timeout=patience):
            if self._stopped or (self.root / "demo.log").is_file() or self._error.is_file():
                return
            self._process = subprocess.Popen(
                [str(Path(sys.executable).parent / "garch"), "demo", "--root", str(self.root)],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            output, errors = self._process.communicate()
            if self._stopped:
                shutil.rmtree(self.root, ignore_errors=True)
            elif self._process.returncode:
                text = f"garch demo ended with {self._process.returncode}:\n{output}{errors}"
                self._error.write_text(text, "utf-8")
            else:
                (self.root / "demo.log").write_text(output, "utf-8")
