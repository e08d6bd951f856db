"""MINT beside its controls; the same as mint sweep criteria."""

from mint.sweep_cli import sweep_main
from mint.sweeps import CRITERIA

if __name__ == "__main__":
    raise SystemExit(sweep_main(CRITERIA))
