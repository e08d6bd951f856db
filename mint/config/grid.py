"""What a sweep is, before its command line says otherwise."""

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mint.config.locations import bundled
from mint.config.schema import Grid


@dataclass(frozen=True)
class SweepDefinition:
    """A question, and the trials that answer it.

    Attributes:
        name: of the sweep.
        question: what it is for, in a sentence or two.
        grids: for every experiment, the blocks of trials that run where no option says otherwise;
            the first experiment is the default.
        seeds: that run where no option says otherwise.
    """

    name: str
    question: str
    grids: Mapping[str, Sequence[Grid]]
    seeds: Sequence[int] = (0,)


def bundled_sweeps() -> dict[str, SweepDefinition]:
    """Return the sweeps that come with mint, by name: the SWEEP of every script in sweeps/."""
    found = {}
    for path in sorted(bundled("sweeps").glob("*.py")):
        spec = importlib.util.spec_from_file_location(f"mint_sweep_{path.stem}", path)
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found[path.stem] = module.SWEEP
    return found
