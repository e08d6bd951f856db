"""A real sweep: Ray, SQLite and MLflow on digits, as a user types it."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest
import safetensors.numpy
from mlflow import MlflowClient
from mlflow.entities import Experiment, Run
from services import environment, free_port

from mint.reporting.trials_csv import read_trials
from mint.tracking.ui import Server, paths

ROOT = Path(__file__).resolve().parents[2]
NAMES = {
    f"g{groups}-s50-u{limit}-seed0": (groups, limit)
    for groups in (5, 20)
    for limit in ("none", "0.8")
}
PNG = b"\x89PNG\r\n\x1a\n"
AXES = (
    "--groups 5 20 --samples-per-class 50 --upper-limits none 0.8 --seeds 0 --set training.epochs=3"
)


def _sweep(folder: Path, options: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "sweeps" / "groups_vs_samples.py"), *options.split()],
        cwd=folder,
        capture_output=True,
        text=True,
        env=environment(settings),
        check=False,
    )


def _experiment(folder: Path) -> Experiment:
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("digits_mlp")
    assert experiment is not None
    return experiment


def _runs(folder: Path) -> list[Run]:
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    return list(client.search_runs([_experiment(folder).experiment_id]))


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    for module in ("pandas", "queue", "types"):  # no process of a sweep may take them for its own
        (folder / f"{module}.py").write_text("raise ImportError('this is a file of the user')\n")
    done = _sweep(folder, AXES)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("[")]
    assert [line.split("]")[0] for line in lines] == ["[1/4", "[2/4", "[3/4", "[4/4"]
    return folder


def test_runs_hold_what_a_trial_found(swept: Path) -> None:
    runs = _runs(swept)
    assert {run.info.run_name for run in runs} == set(NAMES)
    for run in runs:
        groups, limit = NAMES[str(run.info.run_name)]
        params, metrics, tags = run.data.params, run.data.metrics, run.data.tags
        assert run.info.status == "FINISHED"
        assert (params["groups"], params["upper_limit"]) == (str(groups), limit)
        assert (params["samples_per_class"], params["seed"], params["epochs"]) == ("50", "0", "3")
        lost = metrics["baseline_accuracy"] - metrics["accuracy"]
        assert metrics["accuracy_drop"] == pytest.approx(lost, abs=0.0015)
        assert tags["mint.sweep"] == "groups_vs_samples"
        assert len(tags["mint.key"]) == 16
        assert "mlflow.source.git.commit" in tags
        client = MlflowClient(f"sqlite:///{swept / 'mlflow.db'}")
        for metric, steps in (
            ("search/params_pruned", metrics["search_steps"]),
            ("search/validation_accuracy", metrics["search_steps"]),
            ("retrain/loss", 3 * metrics["search_steps"]),
            ("retrain/validation_accuracy", 3 * metrics["search_steps"]),
        ):
            history = client.get_metric_history(run.info.run_id, metric)
            assert [point.step for point in history] == list(range(1, int(steps) + 1))
        folder = f"{params['files']}/masks"
        masks = safetensors.numpy.load_file(
            client.download_artifacts(run.info.run_id, f"{folder}/masks.safetensors")
        )
        zeros = sum(int((mask == 0).sum()) for mask in masks.values())
        assert metrics["params_pruned"] == round(100 * zeros / 150000, 3)
        assert limit == "none" or zeros <= float(limit) * 150000
        artifacts = [item.path for item in client.list_artifacts(run.info.run_id, folder)]
        assert sorted(artifacts) == [
            f"{folder}/masks.safetensors",
            f"{folder}/scores.npz",
            f"{folder}/scores.png",
        ]


def test_view_shows_what_runs_have(swept: Path) -> None:
    tag = _experiment(swept).tags["mlflow.sharedViewState.mint"]
    view = json.loads(tag)
    assert len(tag) <= 5000  # the most that MLflow keeps
    for run in _runs(swept):
        params, metrics = run.data.params, run.data.metrics
        names = {f"params.`{name}`" for name in params} | {f"metrics.`{name}`" for name in metrics}
        # One bootstrap alone has no reliability.
        missing = set(view["selectedColumns"]) - names - {"attributes.`Duration`"}
        assert missing <= {"metrics.`reliability`"}
        parallel, scatter = view["compareRunCharts"]
        axes = [params[name] for name in parallel["selectedParams"] if name != "criterion"]
        assert len([float(value) for value in axes]) == 3  # of "none" MLflow draws no number
        assert set(parallel["selectedMetrics"]) <= set(metrics)
        assert {scatter[axis]["key"] for axis in ("xaxis", "yaxis")} <= set(metrics)


def test_description_of_a_run_shows_its_heat_map(swept: Path, tmp_path: Path) -> None:
    client = MlflowClient(f"sqlite:///{swept / 'mlflow.db'}")
    for run in _runs(swept):
        picture = Path(client.download_artifacts(*_picture(run), str(tmp_path)))
        assert picture.read_bytes().startswith(PNG)


def test_pages_in_a_browser(swept: Path, browser: str, tmp_path: Path) -> None:
    with Server(f"sqlite:///{swept / 'mlflow.db'}", free_port()) as server:
        server.wait_until_ready()
        run_id, file = _picture(_runs(swept)[0])
        address = f"{server.address}/get-artifact?path={file}&run_uuid={run_id}"
        with urlopen(address, timeout=60) as answer:
            assert answer.read().startswith(PNG)
        shown = {
            page: _open(browser, f"{server.address}{path}", tmp_path / page)
            for page, path in paths(_experiment(swept).experiment_id).items()
        }
    for name in NAMES:
        assert all(name in text for text in shown.values())
    heads = re.findall(r'col-id="(?:params|metrics)\.`(\w+)`"', shown["runs"])
    assert {"groups", "samples_per_class", "upper_limit", "params_pruned", "accuracy"} <= set(heads)
    assert "Parallel Coordinates" in shown["charts"]
    for axis in ("groups", "upper_limit_or_1", "params_pruned", "accuracy"):
        assert re.search(rf"<text[^>]*>{axis}</text>", shown["charts"]), axis


@pytest.fixture
def browser() -> str:
    found = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if found is None:
        pytest.skip("there is no browser: install chromium")
    return found


def _picture(run: Run) -> tuple[str, str]:
    """Return of the picture in a run's description the run and the path among its artifacts."""
    note = run.data.tags["mlflow.note.content"]
    shown = re.search(r"!\[.*\]\(get-artifact\?path=(.*)&run_uuid=(.*)\)", note)
    assert shown, note
    return shown[2], shown[1]


def _open(browser: str, address: str, profile: Path) -> str:
    """Return a page as it is once its scripts have run."""
    done = subprocess.run(
        [
            *(browser, "--headless", "--no-sandbox", "--disable-gpu"),
            *("--disable-background-networking", f"--user-data-dir={profile}"),
            *("--window-size=1600,1000", "--virtual-time-budget=60000", "--dump-dom", address),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout


def test_same_command_again_runs_nothing(swept: Path) -> None:
    before = (swept / "my-results" / "RESULTS.md").read_bytes()
    done = _sweep(swept, AXES)
    assert done.returncode == 0, done.stderr
    assert "4 already finished, 0 to run" in done.stdout
    slow = "{'torch', 'ray', 'mlflow', 'pandas', 'numba', 'scipy', 'sqlalchemy', 'matplotlib'}"
    (swept / "again.py").write_text(
        "import sys\n"
        "from mint.cli.app import main\n"
        "assert main(['sweep', 'groups_vs_samples', *sys.argv[1:]]) == 0\n"
        f"print('slow:', *{slow} & sys.modules.keys())\n"
    )
    again = [sys.executable, "-P", "again.py", *AXES.split()]
    done = subprocess.run(again, cwd=swept, capture_output=True, text=True, env=environment({}))
    assert done.stdout.splitlines()[-1] == "slow:", done.stderr
    assert "tables: my-results/RESULTS.md" in done.stdout
    assert len(_runs(swept)) == 4
    assert (swept / "my-results" / "RESULTS.md").read_bytes() == before


def test_longer_axis_adds_only_the_new_and_lost_store_is_filled_again(
    swept: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(swept / ".mint", copy / ".mint")
    done = _sweep(copy, AXES.replace("5 20", "5 20 30"))
    assert done.returncode == 0, done.stderr
    assert "6 trials, 4 already finished, 2 to run" in done.stdout
    assert len(_runs(copy)) == 6
    old, new = (read_trials(folder / "my-results" / "trials.csv") for folder in (swept, copy))
    both = new[new["key"].isin(old["key"])].reset_index(drop=True)
    measured = [column for column in old.columns if column not in ("run_id", "git_commit")]
    assert both[measured].equals(old[measured])


def test_report_from_the_trial_table_alone_gives_the_same_bytes(
    swept: Path, tmp_path: Path
) -> None:
    records = swept / "my-results" / "trials.csv"
    done = subprocess.run(
        [
            *(sys.executable, "-c", "from mint.cli.app import main; raise SystemExit(main())"),
            *("report", "--trials", str(records), "--output", str(tmp_path)),
        ],
        check=True,
    )
    assert done.returncode == 0
    written, again = (
        {
            path.relative_to(folder): path.read_bytes()
            for path in folder.rglob("[!.]*")
            if path.is_file()
        }
        for folder in (swept / "my-results", tmp_path)
    )
    assert again == written


@pytest.mark.slow
def test_ray_that_does_not_start_is_one_line(tmp_path: Path) -> None:
    done = _sweep(tmp_path, f"{AXES} --quiet", RAY_TMPDIR="/dev/null")  # no folder
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if "error" in line or "failed" in line]
    assert line.startswith("groups_vs_samples.py: failed: Ray did not start on this machine (")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "my-results").exists()
