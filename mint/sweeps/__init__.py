"""The sweeps that come with mint, by name: mint sweep NAME."""

from collections.abc import Mapping
from types import MappingProxyType

from mint.sweeps.criteria import SWEEP as CRITERIA
from mint.sweeps.definition import SweepDefinition
from mint.sweeps.groups_vs_samples import SWEEP as GROUPS_VS_SAMPLES
from mint.sweeps.puzzles import SWEEP as PUZZLES

SWEEPS: Mapping[str, SweepDefinition] = MappingProxyType(
    {sweep.name: sweep for sweep in (GROUPS_VS_SAMPLES, CRITERIA, PUZZLES)}
)

__all__ = ["CRITERIA", "GROUPS_VS_SAMPLES", "PUZZLES", "SWEEPS", "SweepDefinition"]
