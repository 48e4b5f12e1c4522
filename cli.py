"""The `tpc` command: derive, inspect, train and check infinite-width limits of programs.

Its commands are in tpc/cli. Heavy imports live inside them, so that `tpc --help` answers at once.
"""

from __future__ import annotations

from tpc.cli.main import main

__all__ = ["main"]

if __name__ == "__main__":
    main(prog_name="tpc")
