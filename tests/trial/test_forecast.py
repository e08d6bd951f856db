"""What a plan says of time and memory, held against stages that were really made."""

import subprocess
import sys
from pathlib import Path

import pytest

from mint.config.axes import Retraining
from mint.config.schema import TrialConfig
from mint.data.datasets import Source
from mint.models.layers import Traced
from mint.store.stage_cache import StageCache
from mint.trial.forecast import forecast, format_duration, memory_of, time_of
from mint.trial.pipeline import TrialPipeline, run_trial
from mint.trial.preflight import trace_network
from mint.trial.provenance import Provenance
from mint.trial.result import TrialResult

WAYS: tuple[Retraining, ...] = ("full", "light", "none")


def _traced(config: TrialConfig) -> Traced:
    return trace_network(config.experiment, (1, 8, 8))


@pytest.fixture(scope="module")
def cache(
    tmp_path_factory: pytest.TempPathFactory, quick_trial: TrialConfig, digits: Source
) -> StageCache:
    """A folder of stages with one finished trial."""
    cache = StageCache(tmp_path_factory.mktemp("cache"))
    provenance = Provenance.of_this_process(None, [])
    run_trial(TrialPipeline(quick_trial, digits, cache=cache, provenance=provenance))
    return cache


def test_time_is_that_of_the_stages_still_to_be_made(
    cache: StageCache, quick_trial: TrialConfig
) -> None:
    folder = cache.find("trials", quick_trial.key)
    assert folder
    result = TrialResult.load(folder)
    retraining = sum(step.retraining.seconds for step in result.search_steps)
    coarser = quick_trial.model_copy(update={"groups": 3})
    again = time_of([coarser], cache)
    assert again
    assert again.baselines == 0
    assert again.scores == pytest.approx(result.score_seconds / 4)
    assert again.retraining == pytest.approx(retraining)
    seeds = [coarser.model_copy(update={"seed": seed}) for seed in (1, 2)]
    others = time_of(seeds, cache)
    assert others
    assert others.baselines > 0
    assert others.scores == pytest.approx(2 * again.scores)
    assert others.total == others.baselines + others.scores + others.retraining


def test_a_way_of_retraining_takes_the_time_of_its_epochs(
    cache: StageCache, quick_trial: TrialConfig
) -> None:
    took = {}
    for way in WAYS:
        trial = quick_trial.model_copy(update={"groups": 3, "retraining": way})
        found = time_of([trial, trial], cache)
        assert found
        took[way] = found.retraining
    epochs = {way: quick_trial.experiment.retraining_settings(way).epochs for way in WAYS}
    assert took["none"] == 0
    assert took["light"] == pytest.approx(took["full"] * epochs["light"] / epochs["full"])


def test_nothing_is_said_of_what_was_not_measured(
    cache: StageCache, quick_trial: TrialConfig, digits: Source
) -> None:
    random = quick_trial.model_copy(update={"criterion": "random"})
    assert time_of([random], cache) is None
    gpu = quick_trial.model_copy(update={"device": "cuda"})
    assert time_of([gpu], cache) is None
    longer = quick_trial.experiment.training.model_copy(update={"epochs": 9})
    experiment = quick_trial.experiment.model_copy(update={"training": longer})
    other = quick_trial.model_copy(update={"experiment": experiment})
    lines = forecast([other], digits.facts, _traced(other), cache, 2)
    assert lines[0] == "time:   unknown, no similar trial has finished here yet"
    assert lines[1].startswith("memory: about 1.0 GB a trial, ")


def test_memory_grows_with_what_it_is_for(quick_trial: TrialConfig, digits: Source) -> None:
    traced = _traced(quick_trial)
    memory = memory_of([quick_trial], digits.facts, traced)
    assert memory.data == (1437 + 360) * 64
    more = memory_of(
        [quick_trial.model_copy(update={"samples_per_class": 60})], digits.facts, traced
    )
    assert 3 < more.scores / memory.scores < 5  # of matrices of distances
    assert more.training == memory.training
    magnitude = TrialConfig.model_validate(
        quick_trial.model_dump() | {"criterion": "activation-magnitude"}
    )
    assert memory_of([magnitude], digits.facts, traced).scores == 4 * 10 * 30 * (500 + 300)


def test_finished_cache_is_not_touched(cache: StageCache, quick_trial: TrialConfig) -> None:
    before = sorted(path for path in Path(cache.root).rglob("*"))
    time_of([quick_trial], cache)
    assert sorted(path for path in Path(cache.root).rglob("*")) == before


def test_memory_bounds_what_a_trial_takes(
    quick_trial: TrialConfig, digits: Source, tmp_path: Path
) -> None:
    """Of a real process, whose distance matrices are large beside the libraries."""
    large = quick_trial.model_copy(update={"groups": 40, "samples_per_class": 100})
    forecast_bytes = memory_of([large], digits.facts, _traced(large)).total
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from mint.config.schema import TrialConfig\n"
        "from mint.data.datasets import load_source\n"
        "from mint.store.stage_cache import StageCache\n"
        "from mint.trial.pipeline import TrialPipeline, run_trial\n"
        "from mint.trial.provenance import Provenance\n"
        "config = TrialConfig.model_validate_json(sys.argv[1])\n"
        "source = load_source(config.experiment.data, Path('.'))\n"
        "cache = StageCache(Path(sys.argv[2]))\n"
        "provenance = Provenance.of_this_process(None, [])\n"
        "run_trial(TrialPipeline(config, source, cache=cache, provenance=provenance))\n"
        # Not ru_maxrss, which counts the process that started this one.
        "status = Path('/proc/self/status').read_text()\n"
        "print(1024 * int(status.split('VmHWM:')[1].split()[0]))\n"
    )
    words = [sys.executable, "-c", code, large.model_dump_json(), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    measured = int(done.stdout)
    assert measured <= forecast_bytes <= 2 * measured


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-0.3, "0 s"), (-70, "0 s"), (59.7, "1 min 00 s"), (5, "5 s"), (3600, "1 h 00 min")],
)
def test_times_are_never_negative(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
