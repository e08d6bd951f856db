"""Bad input of every command ends with exit code 2, one line that names it, and nothing written."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

from mint.cli.app import main
from mint.cli.sweep import sweep_main
from mint.config.grid import bundled_sweeps

pytestmark = pytest.mark.usefixtures("empty_folder")

PROGRAMS: dict[str, Callable[[Sequence[str]], int]] = {
    "mint": main,
    "groups_vs_samples.py": partial(sweep_main, bundled_sweeps()["groups_vs_samples"]),
    "criteria.py": partial(sweep_main, bundled_sweeps()["criteria"]),
}
RUN = "mint run --experiment digits_mlp --smoke --groups 6 --samples-per-class 30"
PRUNE = RUN.replace("run", "prune")
SWEEP = "mint sweep groups_vs_samples"
NETWORKS = """
from torch import nn


def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.Linear(20, 10))


def recurrent():
    return nn.LSTM(8, 8)


def raising():
    return {}["absent"]


def lazy():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(10), nn.Linear(10, 10))


def pair():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(64, 20), nn.Linear(20, 10)

        def forward(self, images):
            values = self.one(images.flatten(1))
            return self.two(values), values
    return Pair()


def twisting():
    class Twisting(nn.Module):
        def forward(self, images):
            return images if images.sum() > 0 else -images
    return Twisting()
"""
FILES = {
    "bad_networks.py": NETWORKS,
    "file": "no weights, no folder",
    "junk.csv": "junk",
    "twice.yaml": "limits:\n  fc2: 0.5\n  fc2: 0.1\n",
    "list.yaml": "- digits\n",
    "broken.yaml": "name: [digits\n",
    "unknown.yaml": "name: a\nepoch: 3\n",
    "crop.yaml": "extends: digits_mlp\nname: cropped\ndata: {crop: 9}\n",
}

TABLE = [
    # The program and its commands.
    ("mint", "the following arguments are required: COMMAND"),
    ("mint trian", "COMMAND trian: did you mean train? known are run, train, estimate"),
    ("mint --verison", "--verison: there is no such option; did you mean --version?"),
    ("mint sweep", "the following arguments are required: SWEEP"),
    ("mint sweep criterion", "SWEEP criterion: did you mean criteria? known are groups_vs"),
    ("mint cache", "the following arguments are required: ACTION"),
    ("mint cache lss", "ACTION lss: did you mean ls? known are ls, prune"),
    ("mint completion fish", "SHELL: fish: known are bash, zsh, tcsh"),
    # Options that are not known, or lack a value.
    ("mint run --experimnt digits_mlp", "--experimnt: there is no such option; did you mean --ex"),
    (f"{RUN} extra", "unrecognized arguments: extra"),
    (f"{RUN} --seed", "--seed: expected one argument"),
    (f"{RUN} --da x", "ambiguous option: --da could match --data, --data-dir"),
    (f"{SWEEP} --group-size 5", "--group-size: there is no such option; did you mean --groups?"),
    ("groups_vs_samples.py --sample-per-clas 5", "did you mean --samples-per-class?"),
    # Experiments.
    ("mint run", "the following arguments are required: --experiment"),
    ("mint train --experiment digits", "--experiment digits: there is no such experiment; did you"),
    (f"{SWEEP} --experiment nothing", "there is no such experiment; known are digits_mlp, mnist"),
    (f"{SWEEP} --experiment ../digits_mlp", "--experiment ../digits_mlp: there is no such"),
    ("mint layers --experiment nothing.yaml", "--experiment nothing.yaml: there is no such"),
    ("mint estimate --experiment twice.yaml", "the key fc2 stands there twice"),
    ("mint run --experiment list.yaml", "list.yaml: must be a mapping of keys to values"),
    ("mint run --experiment broken.yaml", "broken.yaml: cannot be read as YAML"),
    ("mint run --experiment unknown.yaml", "unknown key epoch; known are name, title"),
    ("mint run --experiment crop.yaml", "data.crop 9 of cropped: allowed are 1 to 8, the side"),
    ("mint run --experiment resnet56_cifar10_short --smoke", "has no section smoke"),
    ("mint run --experiment resnet50_imagenet", "--init: resnet50_imagenet does not train its"),
    (f"{SWEEP} --experiment vgg16_cifar10", "has no grid of its own for it, so --groups"),
    # One trial.
    (f"{RUN} --groups 0", "--groups: 0: allowed are whole numbers from 1"),
    (f"{RUN} --groups 301", "--groups 301: fc1 -> fc2 of digits_mlp allows 1 to 300"),
    (f"{RUN} --samples-per-class 500", "--samples-per-class 500: digits allows 1 to"),
    (f"{RUN} --upper-limit 2", "--upper-limit 2: allowed are none"),
    (f"{RUN} --fraction 1.5", "--fraction: 1.5: allowed are numbers from 0 to 1"),
    (f"{RUN} --fraction nan", "--fraction: nan: allowed are numbers from 0 to 1"),
    (f"{RUN} --fraction 0.5 --max-drop 1", "--fraction and --max-drop: only one"),
    (f"{RUN} --upper-limit 0.5 --fraction 0.9", "allows at most 0.5000: of 150000"),
    (f"{RUN} --reliability 1", "--reliability: 1: allowed are numbers between 0 and 1"),
    (f"{RUN} --seed -1", "--seed"),
    (f"{RUN} --bootstraps 2.5", "--bootstraps: 2.5: allowed are whole numbers from 1"),
    (f"{RUN} --threads 999", "threads 999 of digits_mlp: this machine allows 1 to"),
    (f"{RUN} --device gpu", "--device: gpu: did you mean cpu? known are auto, cpu, cuda"),
    (f"{RUN} --criterion bn-scales", "no such criterion; did you mean bn-scale? known are mint,"),
    (f"{RUN} --criterion bn-scale", "--criterion bn-scale: digits_mlp prunes fc2"),
    (f"{RUN} --data svhn", "--data svhn: name 'svhn': String should match"),
    (f"{RUN} --data parquet:none", "data/none: holds no files train-*.parquet"),
    (f"{RUN} --data imagefolder:none", "data/none: holds no folder test or val"),
    (f"{RUN} --data-dir nowhere", "--data-dir nowhere: must be a folder"),
    (f"{RUN} --init none.pt", "--init none.pt: cannot be read"),
    (f"{RUN} --init file", "is no file of weights"),
    (f"{RUN} --init other.safetensors", "not the weights of this network: missing fc1.weight"),
    (f"{RUN} --model none:build", "network none:build: none cannot be imported"),
    (f"{RUN} --model bad_networks", "--model bad_networks: name 'bad_networks'"),
    (f"{RUN} --model bad_networks:bild", "has no function bild; did you mean build?"),
    (f"{RUN} --model bad_networks:recurrent", "does not run on an input of shape"),
    (f"{RUN} --model bad_networks:twisting", "Twisting cannot be traced"),
    (f"{RUN} --model bad_networks:raising", "bad_networks:raising with arguments {}: "),
    (f"{RUN} --model bad_networks:pair", "puts out tuple for an image"),
    (f"{RUN} --model bad_networks:lazy", "has lazy layers"),
    (f"{RUN} --output file", "--output file: file is a file, not a folder"),
    (f"{RUN} --cache-dir file/x", "file is a file, not a folder"),
    (f"{RUN} --tracking-uri nothing://x", "--tracking-uri nothing://x: allowed are sqlite:///F"),
    (PRUNE, "--fraction: must be given, for digits_mlp searches"),
    # Sweeps.
    (f"{SWEEP} --groups 5 x", "--groups: x: allowed"),
    ("groups_vs_samples.py --groups 0", "--groups: 0: allowed are whole numbers from 1"),
    (f"{SWEEP} --groups 301", "--groups 301: fc1 -> fc2 of digits_mlp allows 1 to 300"),
    (f"{SWEEP} --samples-per-class 0", "--samples-per-class: 0: allowed"),
    (f"{SWEEP} --upper-limits 1.5", "--upper-limits 1.5: allowed are none, a number from 0 to 1"),
    (f"{SWEEP} --upper-limits=-0.1", "--upper-limits -0.1: allowed are none"),
    (f"{SWEEP} --upper-limits nan", "--upper-limits nan: allowed"),
    (f"{SWEEP} --groups 5 --upper-limits g/2", "--upper-limits g/2 at 5 groups is 2.5"),
    (f"{SWEEP} --seeds 99999999999999999999", "allowed are whole numbers from 0 to 2147483647"),
    (f"{SWEEP} --epochs 0", "--epochs: 0: allowed are whole numbers from 1"),
    (f"{SWEEP} --max-drop 101", "--max-drop: 101: allowed are numbers from 0 to 100"),
    (f"{SWEEP} --max-concurrent 0", "--max-concurrent: 0: allowed"),
    (f"{SWEEP} --gpus-per-trial -1", "--gpus-per-trial"),
    (f"{SWEEP} --gpus-per-trial 64", "--gpus-per-trial 64: this machine has"),
    ("criteria.py --criterion tailor", "no such criterion; did you mean taylor? known are mint"),
    ("criteria.py --criterion mint bn-scale", "--criterion bn-scale: digits_mlp prunes fc2, which"),
    ("criteria.py --data-dir nowhere --experiment mnist_mlp", "--data-dir nowhere: must be a"),
    (f"{SWEEP} --search anneal", "--search: anneal: known are grid, asha, optuna"),
    (f"{SWEEP} --trials 5", "--trials 5: is for --search optuna"),
    (f"{SWEEP} --search asha", "--search asha: compares accuracies"),
    (f"{SWEEP} --search asha --fractions 0.8 0.9", "allowed is exactly one of --fractions"),
    (f"{SWEEP} --search optuna", "--search optuna: draws shares to prune between two --fractions"),
    (f"{SWEEP} --search optuna --fractions 0.8 0.9 --seeds 0 1", "for one of --seeds"),
    (f"{SWEEP} --fractions 0.9 --max-drop 1", "--fractions and --max-drop: only one"),
    (f"{SWEEP} --fractions 0.9 --upper-limits 0.8", "--fraction 0.9: digits_mlp allows at most"),
    (f"{SWEEP} --fractions 2", "2: allowed are numbers from 0 to 1"),
    (f"{SWEEP} --storage nowhere://a", "--storage nowhere://a: cannot be used"),
    (f"{SWEEP} --ray-address 127.0.0.1:9", "--ray-address 127.0.0.1:9: nobody answers there"),
    (f"{SWEEP} --ray-address nonsense", "--ray-address nonsense: nobody answers there"),
    (f"{SWEEP} --tracking-uri http://127.0.0.1:9", "http://127.0.0.1:9: nobody answers"),
    (f"{SWEEP} --tracking-uri http://[::1", "--tracking-uri http://[::1: allowed are sqlite"),
    (f"{SWEEP} --tracking-uri ./mlruns", "--tracking-uri ./mlruns: allowed are sqlite:///FILE"),
    (f"{SWEEP} --tracking-uri sqlite://", "--tracking-uri sqlite://: allowed are sqlite:///FILE"),
    (f"{SWEEP} --tracking-uri sqlite:///:memory:", "allowed are sqlite:///FILE"),
    (
        f"{SWEEP} --tracking-uri postgresql://me:secret@nowhere/x",
        "--tracking-uri postgresql://***@nowhere",
    ),
    (f"{SWEEP} --tracking-uri sqlite:///file", "cannot be used as a tracking store: it is"),
    (f"{SWEEP} --tracking-uri sqlite:///records", "cannot be used as a tracking store: it is"),
    (f"{SWEEP} --output records", "--output records: records/trials.csv: is no file of records"),
    # Reports.
    ("mint layers", "one of the arguments --trial --experiment is required"),
    ("mint layers --trial nowhere", "--trial nowhere: is no folder of a finished trial"),
    ("mint layers --trial x --experiment digits_mlp", "not allowed with argument --trial"),
    ("mint export --trial nowhere --output x", "--trial nowhere: is no folder of a finished"),
    ("mint export --output x", "the following arguments are required: --trial"),
    ("mint report", "there is no such store; run a sweep first, or give --records FILE"),
    ("mint report --records nowhere.csv", "--records nowhere.csv: cannot be read"),
    ("mint report --records junk.csv", "--records junk.csv: is no file of records"),
    ("mint report --output file/x", "file is a file, not a folder"),
    ("mint report --tracking-uri http://127.0.0.1:9", "http://127.0.0.1:9: nobody answers"),
    ("mint ui", "there is no such store; run a trial or a sweep first"),
    ("mint ui --port 0", "--port: 0: allowed are whole numbers from 1 to 65535"),
    ("mint ui --tracking-uri sqlite:///file", "cannot be used as a tracking store: it is no SQL"),
    # Upkeep.
    ("mint sync --tracking-uri nothing://x", "--tracking-uri nothing://x: allowed are sqlite"),
    ("mint cache ls", "--cache-dir .mint: there is no such folder"),
    ("mint cache ls --cache-dir file", "--cache-dir file: file is a file, not a folder"),
    ("mint cache prune --cache-dir nowhere", "--cache-dir nowhere: there is no such folder"),
    ("mint cache prune --unused-days -1", "-1: allowed are numbers from 0 to 36500"),
    ("mint cache prune --cache-dir cache score", "STAGE score: did you mean scores? known are"),
]


def _content() -> dict[Path, bytes]:
    return {
        path: path.read_bytes()
        for path in Path.cwd().rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.mark.parametrize(("command", "named"), TABLE, ids=[command for command, _ in TABLE])
def test_bad_input(command: str, named: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name, text in FILES.items():
        Path(name).write_text(text)
    Path("records").mkdir()
    Path("records/trials.csv").write_text("junk")
    Path("cache").mkdir()
    safetensors.numpy.save_file({"other.weight": np.zeros(3)}, "other.safetensors")
    before, folders = _content(), {path for path in Path.cwd().rglob("*") if path.is_dir()}
    program, *arguments = command.split()
    start = time.monotonic()
    try:
        code: object = PROGRAMS[program](arguments)
    except SystemExit as stop:  # argparse's way out
        code = stop.code
    complaint = capsys.readouterr().err.strip()
    assert time.monotonic() - start < 20  # torch's import included; servers are asked for seconds
    assert code == 2
    assert named in complaint
    assert len(complaint.splitlines()) == 1
    assert _content() == before
    made = {path for path in Path.cwd().rglob("*") if path.is_dir()} - folders
    assert {path.name for path in made} <= {"__pycache__"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*RUN.split()[1:], "--device", "cuda"]) == 2
    assert "--device cuda: this machine has no GPU" in capsys.readouterr().err
