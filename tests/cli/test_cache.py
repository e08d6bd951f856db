"""What a folder of stages holds is shown and freed; nothing goes that cannot be made again."""

import os
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from mint.cli.app import main
from mint.store.locks import locked
from mint.store.stage_cache import StageCache
from mint.tracking.mlflow_store import Tracker

pytestmark = pytest.mark.usefixtures("empty_folder")

QUICK = "--experiment digits_mlp --smoke --groups 6 --samples-per-class 30"
KEY = "0123456789abcdef"


def _mint(command: str) -> int:
    return main(command.split())


def _fill(folder: Path) -> None:
    (folder / "figures").write_bytes(bytes(5000))


def _stage(name: str, days: float = 0) -> Path:
    cache = StageCache(Path(".mint"))
    folder = cache.produce(name, KEY, _fill)
    then = time.time() - days * 24 * 3600
    os.utime(folder / "manifest.json", (then, then))
    return folder


def test_listing(capsys: pytest.CaptureFixture[str]) -> None:
    assert _mint("cache ls") == 2
    assert "--cache-dir .mint: there is no such folder" in capsys.readouterr().err
    _stage("baselines", days=40)
    _stage("scores")
    (Path(".mint") / "progress").mkdir()
    (Path(".mint") / "progress" / f"retrained-{KEY}.pt").write_bytes(bytes(2_000_000))
    assert _mint("cache ls") == 0
    rows = [line.split("|")[1:4] for line in capsys.readouterr().out.splitlines()]
    told = [[cell.strip() for cell in row] for row in rows]
    assert ["baselines", "1", "0.0"] in told
    assert ["leftovers", "1", "2.0"] in told


def test_only_leftovers_go_unless_more_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    kept = _stage("baselines")
    leftovers = [
        kept.parent / f".{KEY}-half",
        kept.parent / f".damaged-{KEY}-0a1b2c3d",
        Path(".mint") / "progress" / f"retrained-{KEY}.pt",
    ]
    for leftover in leftovers[:2]:
        leftover.mkdir()
    leftovers[2].parent.mkdir()
    leftovers[2].touch()
    assert _mint("cache prune --dry-run") == 0
    assert "would remove 3 of leftovers" in capsys.readouterr().out
    assert all(leftover.exists() for leftover in leftovers)
    assert _mint("cache prune") == 0
    assert "removed 3 of leftovers" in capsys.readouterr().out
    assert not any(leftover.exists() for leftover in leftovers)
    assert kept.exists()


def test_named_stages_go_once_unused_for_so_long(capsys: pytest.CaptureFixture[str]) -> None:
    old, new, other = _stage("scores", days=40), _stage("baselines", days=3), _stage("masks", 40)
    assert _mint("cache prune scores baselines --unused-days 30") == 0
    assert "removed 1 of scores, baselines: 0.0 MB" in capsys.readouterr().out
    assert (old.exists(), new.exists(), other.exists()) == (False, True, True)


def test_trials_stay_until_the_store_has_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert _mint(f"run {QUICK}") == 0
    (folder,) = Path(".mint/trials").glob("[!.]*/")
    assert _mint("cache prune trials --tracking-uri sqlite:///other.db") == 0
    assert "kept 1 trials that the tracking store has no results of" in capsys.readouterr().out
    assert folder.exists()
    tracker = Tracker("sqlite:///mlflow.db")
    (run_id,) = tracker.runs("digits_mlp").values()
    client = MlflowClient(tracker.uri)
    # As if the store had only heard of an earlier failure of the same trial.
    client.set_tag(run_id, "mint.status", "failed")
    client.set_terminated(run_id, "FAILED")
    assert _mint("cache prune trials") == 0
    assert folder.exists()
    client.set_terminated(run_id, "FINISHED")
    assert _mint("cache prune trials") == 0
    assert not folder.exists()
    tables = Path("results/RESULTS.md").read_bytes()
    assert _mint(f"run {QUICK}") == 0  # made again, from what is left of it
    assert Path("results/RESULTS.md").read_bytes() == tables


def test_nothing_goes_while_anything_runs(capsys: pytest.CaptureFixture[str]) -> None:
    kept = _stage("baselines")
    with locked(StageCache(Path(".mint")), "a-sweep", "a_sweep.py"):
        assert _mint("cache prune baselines") == 2
    assert "a-sweep is being run by process" in capsys.readouterr().err
    assert kept.exists()
