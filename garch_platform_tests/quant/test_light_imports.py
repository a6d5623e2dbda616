"""Importing the statistics does not import the heavy libraries that they call."""

from __future__ import annotations

import subprocess
import sys

import pytest

PACKAGES = ("quant", "quant.volatility", "quant.pairs.selection", "quant.timeseries", "quant.stability")


@pytest.mark.parametrize("package", PACKAGES)
def test_heavy_libraries_wait_for_their_first_call(package: str) -> None:
    code = (
        f"import sys, garch_platform.{package} as p\n"
        "heavy = {'arch', 'statsmodels', 'scipy', 'pandas', 'matplotlib', 'numba', 'sklearn'} & set(sys.modules)\n"
        "missing = [n for n in p.__all__ if not hasattr(p, n)]\n"
        "raise SystemExit(f'{sorted(heavy)} {missing}' if heavy or missing else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
