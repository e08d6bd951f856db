"""The record's group and sample variations; the same as mint sweep groups_vs_samples."""

from mint.sweep_cli import sweep_main
from mint.sweeps import GROUPS_VS_SAMPLES

if __name__ == "__main__":
    raise SystemExit(sweep_main(GROUPS_VS_SAMPLES))
