"""``python -m garch_platform`` is ``garch``."""

from garch_platform.cli import main

__all__ = ()

main()
