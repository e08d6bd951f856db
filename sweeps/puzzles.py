"""The record's open questions; the same as mint sweep puzzles."""

from mint.sweep_cli import sweep_main
from mint.sweeps import PUZZLES

if __name__ == "__main__":
    raise SystemExit(sweep_main(PUZZLES))
