"""Reference results: rows that others published, printed beside the measured ones.

An experiment names a YAML file of them under `reference`. It holds:

    title: heading of the section in RESULTS.md
    experiments: names of the experiments whose trials belong there
    source: where the rows are quoted from (markdown)
    baseline: {accuracy, source}                   # accuracy in percent
    methods:                                       # rows of the comparison
      - {method, params_pruned, accuracy, source}  # percent; null if the source leaves it open
    searched: {upper_limit, groups, samples_per_class}  # optional: a search to compare as well
    groups:                                        # optional: a variation of the groups
      - {block, upper_limit, groups, samples_per_class, params_pruned, accuracy}
    samples: []                                    # optional: of the samples per class, as groups
    layers: the layers of the network, as mint.pruning.layer_table writes them   # optional
    reduced: {LAYER: weights}                      # optional: published kept weights of layers
    notes: []                                      # optional: sentences below the comparison

A method's `quoted` replaces params_pruned where the source prints more than a number. Rows with
the same `block` are one curve. A fraction of the method MINT without trials is "not run".
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from mint.config.loading import experiment_names, read_experiment, read_yaml, validated
from mint.errors import InputError
from mint.pruning.layer_table import LayerCount, parse_layers
from mint.store.atomic import write_atomic

_FOLDER = "reference"
_from_text = BeforeValidator(lambda text: parse_layers(str(text)))


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)


class Baseline(_Part):
    """Published accuracy (percent) of the network before pruning."""

    accuracy: float
    source: str


class Method(_Part):
    """A published row of the comparison."""

    method: str
    params_pruned: float | None
    accuracy: float | None
    source: str
    quoted: str | None = None


class SearchedAxes(_Part):
    """Axes of a search by MINT."""

    upper_limit: str
    groups: int
    samples_per_class: int

    @property
    def axes(self) -> tuple[str, int, int]:
        return self.upper_limit, self.groups, self.samples_per_class


class Variation(SearchedAxes):
    """A published row of a variation."""

    block: str
    params_pruned: float | None
    accuracy: float | None


class ReferenceResults(_Part):
    """The content of a reference file; the module describes its keys."""

    title: str
    experiments: Annotated[tuple[str, ...], Field(min_length=1)]
    source: str
    baseline: Baseline
    methods: tuple[Method, ...]
    searched: SearchedAxes | None = None
    groups: tuple[Variation, ...] = ()
    samples: tuple[Variation, ...] = ()
    layers: Annotated[tuple[LayerCount, ...], _from_text] = ()
    reduced: dict[str, int] = {}
    notes: tuple[str, ...] = ()

    @property
    def variations(self) -> dict[str, tuple[Variation, ...]]:
        """The published rows by the axis that varies."""
        return {"groups": self.groups, "samples_per_class": self.samples}


def read_reference(path: Path) -> ReferenceResults:
    """Read a reference file; raise InputError if it cannot be read or is malformed."""
    return validated(ReferenceResults, read_yaml(path), str(path))


def copied_references(output: Path) -> list[Path]:
    """Return the reference files in a results folder, in the order of their names."""
    return sorted((output / _FOLDER).glob("*.yaml"))


def copy_of(file: Path, output: Path) -> Path:
    """Return where a results folder keeps its copy of a reference file."""
    return output / _FOLDER / file.name


def references_of(experiments: Iterable[str]) -> list[Path]:
    """Return the reference files that the named experiments, of those with mint, name."""
    known = set(experiments) & set(experiment_names())
    files = [read_experiment(name).reference for name in sorted(known)]
    return [file for file in files if file]


def check_references(output: Path, files: Iterable[Path]) -> list[Path]:
    """Return the files that exist, after a check that they can be copied.

    Raises:
        InputError: one is malformed, or would replace the rows of other experiments.
    """
    found = [file for file in dict.fromkeys(files) if file.is_file()]
    for file in found:
        copied = copy_of(file, output)
        own = read_reference(file).experiments
        if copied.exists() and not set(own) & set(read_reference(copied).experiments):
            raise InputError(f"{file}: {copied} is of other experiments; rename one of the files")
    return found


def copy_references(output: Path, files: Iterable[Path]) -> None:
    """Copy the reference files of check_references() into a results folder."""
    for file in check_references(output, files):
        write_atomic(copy_of(file, output), file.read_bytes())
