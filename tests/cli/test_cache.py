"""mint cache shows and removes stages; it removes nothing that cannot be computed again."""

import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from mint.cli.app import main
from mint.store.locks import locked
from mint.store.stage_cache import StageCache
from mint.tracking.mlflow_store import MlflowStore
from mint.training.epoch import Epoch
from mint.training.loop import train

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
    shown = [[cell.strip() for cell in row] for row in rows]
    assert ["baselines", "1", "0.0"] in shown
    assert ["leftovers", "1", "2.0"] in shown


def test_prune_reports_what_it_removes(capsys: pytest.CaptureFixture[str]) -> None:
    kept = _stage("baselines")
    leftover = kept.parent / f".{KEY}-half"
    leftover.mkdir()
    assert _mint("cache prune --dry-run") == 0
    assert "would remove 1 of leftovers" in capsys.readouterr().out
    assert leftover.exists()
    assert _mint("cache prune") == 0
    assert "removed 1 of leftovers" in capsys.readouterr().out
    assert not leftover.exists()
    assert kept.exists()
    _stage("scores", days=40)
    assert _mint("cache prune scores baselines --unused-days 30") == 0
    assert "removed 1 of scores, baselines: 0.0 MB" in capsys.readouterr().out


def test_trials_stay_until_the_store_has_their_results(capsys: pytest.CaptureFixture[str]) -> None:
    assert _mint(f"run {QUICK}") == 0
    (folder,) = Path(".mint/trials").glob("[!.]*/")
    assert _mint("cache prune trials --tracking-uri sqlite:///other.db") == 0
    assert "kept 1 trials whose results the tracking store does not have" in capsys.readouterr().out
    assert folder.exists()
    store = MlflowStore("sqlite:///mlflow.db")
    (run_id,) = store.finished_runs("digits_mlp").values()
    client = MlflowClient(store.uri)
    # As if the store had only heard of an earlier failure of the same trial.
    client.set_tag(run_id, "mint.status", "failed")
    client.delete_tag(run_id, "mint.finished")
    client.set_terminated(run_id, "FAILED")
    assert _mint("cache prune trials") == 0
    assert folder.exists()
    client.set_terminated(run_id, "FINISHED")
    assert _mint("cache prune trials") == 0
    assert not folder.exists()


def test_nothing_is_removed_while_a_stage_command_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, codes = _stage("baselines"), []

    def prune_and_train(*arguments: Any, **settings: Any) -> list[Epoch]:
        codes.append(_mint("cache prune baselines"))
        return train(*arguments, **settings)

    monkeypatch.setattr("mint.trial.pipeline.train", prune_and_train)
    assert _mint(f"train {QUICK}") == 0
    assert codes == [2]
    assert re.search(r"digits_mlp-\w+ is being run by process .*: ", capsys.readouterr().err)
    assert kept.exists()


def test_nothing_is_removed_while_a_sweep_runs(capsys: pytest.CaptureFixture[str]) -> None:
    kept = _stage("baselines")
    with locked(StageCache(Path(".mint")), "a-sweep", "a_sweep.py"):
        assert _mint("cache prune baselines") == 2
    assert "a-sweep is being run by process" in capsys.readouterr().err
    assert kept.exists()
