"""A user's own criterion scores like one of mint's, and each version of its source is another."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mint.config.schema import TrialConfig
from mint.data.datasets import Source
from mint.errors import InputError
from mint.pruning.own_criteria import resolved_criterion
from mint.store.stage_cache import StageCache
from mint.trial.pipeline import TrialPipeline, run_trial
from mint.trial.provenance import Provenance
from mint.trial.result import MASKS_FILE, TrialResult

SOURCE = """
from mint.pruning.criteria import block_magnitude
from mint.pruning.scores import BlockScores

def heavy(pair, inputs) -> BlockScores:
    return block_magnitude(pair, inputs)

def bare(pair, inputs):
    return block_magnitude(pair, inputs)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file of a module of criteria in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    file = tmp_path / "own_scores.py"
    file.write_text(SOURCE)
    yield file
    sys.modules.pop("own_scores", None)


def test_scores_as_what_it_calls(
    module: Path, quick_trial: TrialConfig, digits: Source, tmp_path: Path
) -> None:
    masks = []
    for name in ("own_scores:heavy", "block-magnitude"):
        criterion = resolved_criterion(name)
        config = TrialConfig.model_validate(
            quick_trial.model_dump() | {"criterion": criterion, "fraction": 0.5}
        )
        cache = StageCache(tmp_path / "cache")
        provenance = Provenance.of_this_process(None, ["mint", "run"])
        pipeline = TrialPipeline(config, digits, cache=cache, provenance=provenance)
        folder = run_trial(pipeline)
        masks.append((folder / MASKS_FILE).read_bytes())
        assert TrialResult.load(folder).config.criterion == criterion
    assert masks[0] == masks[1]


def test_an_edit_makes_another_criterion(module: Path, quick_trial: TrialConfig) -> None:
    before = resolved_criterion("own_scores:heavy")
    assert resolved_criterion(before) == before
    module.write_text(SOURCE.replace("def heavy", "# edited\ndef heavy"))
    del sys.modules["own_scores"]
    after = resolved_criterion("own_scores:heavy")
    assert before.partition("@")[0] == after.partition("@")[0] == "own_scores:heavy"
    keys = set()
    for criterion in (before, after):
        config = quick_trial.model_copy(update={"criterion": criterion})
        keys.add((config.key, config.scores_key("fc2")))
        assert config.protocol == quick_trial.protocol
    assert len(set(map(str, keys))) == 2
    with pytest.raises(InputError, match="its source is not what these trials began with"):
        resolved_criterion(before)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("own_scores:bare", "must be a function annotated to return the scores of blocks"),
        ("os:system", "must be a function annotated to return the scores of blocks"),
        ("own_scores:heavi", "did you mean heavy"),
        ("no_such_scores:heavy", "no_such_scores cannot be imported"),
    ],
)
def test_what_is_no_criterion_is_refused(module: Path, name: str, problem: str) -> None:
    with pytest.raises(InputError, match=f"criterion {name}: .*{problem}"):
        resolved_criterion(name)
