"""Bad input of every command ends with exit code 2, one line that names it, and nothing written."""

import re
import sys
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
RUN = "mint run --experiment digits_mlp --smoke"
PRUNE = RUN.replace("run", "prune")
SWEEP = "mint sweep groups_vs_samples"
NETWORKS = """
from torch import nn


def build() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.Linear(20, 10))


def recurrent() -> nn.Module:
    return nn.LSTM(8, 8)


def raising() -> nn.Module:
    return {}["absent"]


def lazy() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(10), nn.Linear(10, 10))


def pair() -> nn.Module:
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(64, 20), nn.Linear(20, 10)

        def forward(self, images):
            values = self.one(images.flatten(1))
            return self.two(values), values
    return Pair()


def twisting() -> nn.Module:
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
    "long.yaml": f"extends: digits_mlp\nname: {300 * 'a'}\n",
    "crop.yaml": "extends: digits_mlp\nname: cropped\ndata: {crop: 9}\n",
}

TABLE = [
    # The program and its commands.
    ("mint", "COMMAND: must be given; known are --help, --version, run, train, estimate"),
    ("mint trian", "trian: there is no such command; did you mean train? known are"),
    ("mint --verison", "--verison: there is no such command; did you mean --version?"),
    ("mint sweep", "COMMAND: must be given; known are"),
    ("mint sweep criterion", "criterion: there is no such command; did you mean criteria?"),
    ("mint cache", "COMMAND: must be given; known are"),
    ("mint cache lss", "lss: there is no such command; did you mean ls?"),
    ("mint completion tcsh", 'Invalid value "tcsh" for SHELL. Choose from: "bash", "zsh", "fish"'),
    # Options that are not known, or lack a value.
    ("mint run --experimnt digits_mlp", "Did you mean --experiment instead of --experimnt?"),
    (f"{RUN} extra", "unexpected argument extra"),
    (f"{RUN} --seed", "--seed requires an argument"),
    (f"{RUN} --da x", "Unknown option: --da"),
    (f"{RUN} --epochs 3", "Unknown option: --epochs"),
    (f"{RUN} --compensate", "--compensate requires an argument"),
    (f"{SWEEP} --compensate maybe", 'Invalid value "maybe" for --compensate. Choose from: "no"'),
    (f"{RUN} --set estimate.gaussian.noise=0.0", "estimate.gaussian.noise"),
    (f"{SWEEP} --group-size 5", "Unknown option: --group-size. Did you mean --groups?"),
    ("groups_vs_samples.py --sample-per-clas 5", "Did you mean --samples-per-class?"),
    # Experiments.
    ("mint run", "--experiment requires an argument"),
    ("mint train --experiment digits", "--experiment digits: there is no such experiment; did you"),
    (
        f"{SWEEP} --experiment nothing",
        "there is no such experiment; known are digits_mlp, di",
    ),
    (f"{SWEEP} --experiment ../digits_mlp", "--experiment ../digits_mlp: there is no such"),
    ("mint layers --experiment nothing.yaml", "--experiment nothing.yaml: there is no such"),
    ("mint estimate --experiment twice.yaml", "the key fc2 stands there twice"),
    ("mint run --experiment list.yaml", "list.yaml: must be a mapping of keys to values"),
    ("mint run --experiment broken.yaml", "broken.yaml: cannot be read as YAML"),
    ("mint run --experiment unknown.yaml", "unknown key epoch; known are name, title"),
    ("mint run --experiment long.yaml", "String should have at most 100 characters"),
    ("mint run --experiment crop.yaml", "data.crop 9: allowed are 1 to 8, the side"),
    ("mint run --experiment resnet56_cifar10_short --smoke", "has no section smoke"),
    ("mint run --experiment resnet50_imagenet", "--init: resnet50_imagenet does not train its"),
    (f"{SWEEP} --experiment vgg16_cifar10", "--groups: must be given: groups_vs_samples has no"),
    # Values of the experiment.
    (f"{RUN} --set training.epochs", "--set training.epochs: must be KEY=VALUE"),
    (f"{RUN} --set =3", "--set =3: must be KEY=VALUE"),
    (f"{RUN} --set limits=[", "--set limits=[: must be KEY=VALUE with a YAML value"),
    (f"{RUN} --set training.epoch=3", "unknown key training.epoch; did you mean epochs?"),
    (f"{RUN} --set traning.epochs=3", "unknown key traning; did you mean training?"),
    (f"{RUN} --set training.epochs=few", "training.epochs 'few': Input should be a valid integer"),
    (f"{RUN} --set estimate.reliability=1", "estimate.reliability 1: Input should be less than 1"),
    (f"{RUN} --set threads=999", "threads 999: digits_mlp needs them for a trial; this machine"),
    (f"{RUN} --set keep_connected=maybe", "keep_connected 'maybe': Input should be a valid bool"),
    (f"{RUN} --set data.name=svhn", "data.name 'svhn': String should match"),
    (f"{RUN} --set data.name=parquet:none", "data/none: must hold files train-*.parquet"),
    (f"{RUN} --set data.name=imagefolder:none", "data/none: must hold a folder test or val"),
    (f"{RUN} --set search.margin=101", "search.margin 101: Input should be less than or"),
    (f"{RUN} --set search.steps=1", "search.steps 1: Input should be greater than or equal to 2"),
    (f"{RUN} --fraction 0.5 --set search.margin=1", "--fraction: cannot be combined with --set"),
    (f"{SWEEP} --set training.epochs=-1", "training.epochs -1: Input should be greater than or"),
    (f"{SWEEP} --fractions 0.9 --set search.margin=1", "--fractions: cannot be combined with"),
    # One trial.
    (f"{RUN} --groups 0", 'Invalid value "0" for --groups. Must be >= 1'),
    (f"{RUN} --groups 301", "--groups 301: fc1 -> fc2 of digits_mlp allows 1 to 300"),
    (f"{RUN} --samples-per-class 500", "--samples-per-class 500: digits allows 1 to"),
    (f"{RUN} --upper-limit 2", "--upper-limit 2: allowed are none"),
    (f"{RUN} --fraction 1.5", 'Invalid value "1.5" for --fraction. Must be <= 1'),
    (f"{RUN} --fraction nan", 'Invalid value "nan" for --fraction. Must be <= 1'),
    (f"{RUN} --upper-limit 0.5 --fraction 0.9", "--fraction 0.9: digits_mlp allows at most 0.5000"),
    (f"{RUN} --seed -1", 'Invalid value "-1" for --seed. Must be >= 0'),
    (f"{RUN} --seed 1 --seed 2", "--seed specified multiple times"),
    (f"{RUN} --bootstraps 2.5", "--bootstraps: 2.5: must be a whole number"),
    (f"{RUN} --device gpu", 'for --device. Choose from: "auto", "cpu", "cuda". Did you mean "cpu"'),
    (
        f"{RUN} --criterion bn-scales",
        '"bn-scales" for --criterion. did you mean bn-scale? known are',
    ),
    (f"{RUN} --criterion bn-scale", "--criterion bn-scale: digits_mlp prunes fc2"),
    (f"{RUN} --data-dir nowhere", "--data-dir nowhere: must be a folder"),
    (f"{RUN} --init none.pt", "--init none.pt: cannot be read"),
    (f"{RUN} --init file", "file: not a file of weights; allowed are"),
    (f"{RUN} --init other.safetensors", "not the weights of this network: missing fc1.weight"),
    (f"{RUN} --model none:build", "network none:build: none cannot be imported"),
    (f"{RUN} --model bad_networks", "--model bad_networks: must be MODULE:FUNCTION"),
    (f"{RUN} --model bad_networks:bild", "has no function bild; did you mean build?"),
    (f"{RUN} --model bad_networks:nn", "must be a class of nn.Module, or a function annotated"),
    (f"{RUN} --model bad_networks:recurrent", "does not run on an input of shape"),
    (f"{RUN} --model bad_networks:twisting", "Twisting cannot be traced"),
    (f"{RUN} --model bad_networks:raising", "bad_networks:raising with arguments {}: "),
    (f"{RUN} --model bad_networks:pair --groups 6", "its output for an image is tuple"),
    (f"{RUN} --model bad_networks:lazy", "has lazy layers"),
    (f"{RUN} --output file", "--output file: file is a file, not a folder"),
    (f"{RUN} --output /proc/nope", "--output /proc/nope: /proc cannot be written: "),
    (f"{RUN} --cache-dir file/x", "file is a file, not a folder"),
    (f"{RUN} --tracking-uri nothing://x", "--tracking-uri nothing://x: allowed are sqlite:///F"),
    (PRUNE, "--fraction: must be given: digits_mlp searches"),
    # Sweeps.
    (f"{SWEEP} --groups 5 x", '--groups: unable to convert "x" into int'),
    ("groups_vs_samples.py --groups 0", 'Invalid value "0" for --groups. Must be >= 1'),
    (f"{SWEEP} --groups 301", "--groups 301: fc1 -> fc2 of digits_mlp allows 1 to 300"),
    (f"{SWEEP} --samples-per-class 0", '"0" for --samples-per-class. Must be >= 1'),
    (f"{SWEEP} --upper-limits 1.5", "--upper-limits 1.5: allowed are none, a number from 0 to 1"),
    (f"{SWEEP} --upper-limits=-0.1", "--upper-limits -0.1: allowed are none"),
    (f"{SWEEP} --upper-limits nan", "--upper-limits nan: allowed"),
    (f"{SWEEP} --groups 5 --upper-limits g/2", "--upper-limits g/2 at 5 groups is 2.5"),
    (f"{SWEEP} --seeds 99999999999999999999", "for --seeds. Must be <= 2147483647"),
    (f"{SWEEP} --max-concurrent 0", '"0" for --max-concurrent. Must be >= 1'),
    (f"{SWEEP} --gpus-per-trial -1", '"-1.0" for --gpus-per-trial. Must be >= 0'),
    (f"{SWEEP} --gpus-per-trial 64", "--gpus-per-trial 64: this machine has"),
    (
        "criteria.py --criterion tailor",
        'Invalid value "tailor" for --criterion. did you mean taylor? known',
    ),
    ("criteria.py --criterion mint bn-scale", "--criterion bn-scale: digits_mlp prunes fc2, which"),
    ("criteria.py --data-dir nowhere --experiment mnist_mlp", "--data-dir nowhere: must be a"),
    (f"{SWEEP} --search anneal", 'for --search. Choose from: "grid", "asha", "optuna"'),
    (f"{SWEEP} --trials 5", "--trials 5: is for --search optuna"),
    (f"{SWEEP} --search asha", "--search asha: compares accuracies"),
    (f"{SWEEP} --search asha --fractions 0.8 0.9", "give one of --fractions"),
    (f"{SWEEP} --search optuna", "--search optuna: draws the pruned fraction between two"),
    (f"{SWEEP} --search optuna --fractions 0.8 0.9 --seeds 0 1", "for one of --seeds"),
    (f"{SWEEP} --fractions 0.9 --upper-limits 0.8", "--fractions 0.9: digits_mlp allows at most"),
    (f"{SWEEP} --fractions 2", 'Invalid value "2.0" for --fractions. Must be <= 1'),
    (f"{SWEEP} --watch --quiet", "Mutually exclusive arguments: {--watch, --quiet}"),
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
    (f"{SWEEP} --output records", "records/trials.csv: is not a trial table"),
    # Studies.
    ("mint study --budget 5x", "--budget 5x: must be a time, such as 90s, 30m or 2h"),
    ("mint study --budget 0m", "--budget 0m: must be a time, such as 90s, 30m or 2h"),
    ("mint study --loss 0", 'Invalid value "0.0" for --loss. Must be > 0'),
    ("mint study --criterion mnt", "did you mean mint? known are"),
    ("mint study --model bad_networks:build", "--data: must be given with --model"),
    ("mint study --data imagefolder:photos", "--model: must be given with --data"),
    ("mint study --model bad_networks:build --data folder:x", "data.name 'folder:x'"),
    ("mint study --model bad_networks:build --data imagefolder:nowhere", "nowhere"),
    ("mint study --experiment digit_mlp", "did you mean digits_mlp?"),
    ("mint study --gpus-per-trial -1", 'Invalid value "-1.0" for --gpus-per-trial'),
    ("mint study --output file", "file is a file, not a folder"),
    # Reports.
    ("mint layers", "Exactly 1 of {--experiment, --trial} must be specified"),
    ("mint layers --trial nowhere", "--trial nowhere: is no folder of a finished trial"),
    ("mint layers --trial x --experiment digits_mlp", "Exactly 1 of {--experiment, --trial}"),
    ("mint export --trial nowhere --output x", "--trial nowhere: is no folder of a finished"),
    ("mint export --output x", "--trial requires an argument"),
    ("mint report", "there is no such store; run a sweep first, or give --trials FILE"),
    ("mint report --trials nowhere.csv", "nowhere.csv: cannot be read"),
    ("mint report --trials junk.csv", "junk.csv: is not a trial table"),
    ("mint report --output file/x", "file is a file, not a folder"),
    ("mint report --format html", 'Invalid value "html" for --format. Choose from'),
    ("mint compare mint", "SECOND"),
    (
        "mint compare mnt random",
        "first mnt: there is no criterion mnt; did you mean mint? known are",
    ),
    ("mint compare mint group=3", "there is no column group; did you mean groups? known are"),
    ("mint compare mint groups=3,groups=4", "second groups=3,groups=4: groups must be given once"),
    ("mint trials mnt", "selection mnt: there is no criterion mnt; did you mean mint? known are"),
    ("mint trials --sort", "--sort requires an argument"),
    ("mint trials", "my-results/trials.csv: cannot be read"),
    ("mint compare mint random", "my-results/trials.csv: cannot be read"),
    ("mint compare mint random --trials junk.csv", "junk.csv: is not a trial table"),
    ("mint report --tracking-uri http://127.0.0.1:9", "http://127.0.0.1:9: nobody answers"),
    ("mint ui", "there is no such store; run a trial or a sweep first"),
    ("mint ui --port 0", 'Invalid value "0" for --port. Must be >= 1'),
    ("mint ui --tracking-uri sqlite:///file", "cannot be used as a tracking store: it is no SQL"),
    # Cleanup.
    ("mint sync --tracking-uri nothing://x", "--tracking-uri nothing://x: allowed are sqlite"),
    ("mint cache ls", "--cache-dir .mint: there is no such folder"),
    ("mint cache ls --cache-dir file", "--cache-dir file: file is a file, not a folder"),
    ("mint cache prune --cache-dir nowhere", "--cache-dir nowhere: there is no such folder"),
    ("mint cache prune --unused-days -1", '"-1.0" for --unused-days. Must be >= 0'),
    ("mint cache prune --cache-dir cache score", 'for STAGES. Choose from: "baselines"'),
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
    sys.modules.pop("bad_networks", None)  # that of another test's folder
    Path("records").mkdir()
    Path("records/trials.csv").write_text("junk")
    Path("cache").mkdir()
    safetensors.numpy.save_file({"other.weight": np.zeros(3)}, "other.safetensors")
    before, folders = _content(), {path for path in Path.cwd().rglob("*") if path.is_dir()}
    program, *arguments = command.split()
    start = time.monotonic()
    code = PROGRAMS[program](arguments)
    complaint = capsys.readouterr().err.strip()
    assert time.monotonic() - start < 20  # torch's import included; servers are asked for seconds
    assert code == 2
    assert named in complaint
    assert len(complaint.splitlines()) == 1
    assert not re.search(r"[^ -~]", complaint)  # no box, no colour
    assert _content() == before
    made = {path for path in Path.cwd().rglob("*") if path.is_dir()} - folders
    assert {path.name for path in made} <= {"__pycache__"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*RUN.split()[1:], "--device", "cuda"]) == 2
    assert "--device cuda: this machine has no GPU" in capsys.readouterr().err
