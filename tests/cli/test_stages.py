"""A trial stage by stage on the command line, with networks and data of one's own."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from PIL import Image
from sklearn.datasets import load_digits

from mint.cli.app import main
from mint.config.locations import bundled
from mint.config.schema import TrialConfig
from mint.data.datasets import Source
from mint.pruning.masks import Masks
from mint.reporting.trials_csv import read_trials
from mint.store.stage_cache import StageCache
from mint.training.determinism import reproducible
from mint.trial.pipeline import TrialPipeline
from mint.trial.provenance import Provenance
from mint.trial.result import TrialResult

pytestmark = pytest.mark.usefixtures("empty_folder")
PROVENANCE = Provenance.of_this_process(None, ["mint", "run"])
QUICK = "--experiment digits_mlp --smoke --groups 6 --samples-per-class 30"
NETWORK = """
from torch import nn
from torch.nn import functional


class Small(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 12, 3, padding=1, groups=2)
        self.head = nn.Linear(12 * 4 * 4, classes)

    def forward(self, images):
        values = functional.relu(self.norm(self.first(images)))
        values = functional.max_pool2d(functional.relu(self.second(values)), 2)
        return self.head(values.flatten(1))


def build(classes=10) -> nn.Module:
    return Small(classes)

"""


def _mint(command: str) -> int:
    return main(command.split())


def _trial_folder() -> Path:
    (folder,) = (path for path in Path(".mint/trials").iterdir() if path.is_dir())
    return folder


def _folder_of_digits(folder: Path) -> None:
    """Write real digits as a tree of coloured images of several sizes."""
    digits = load_digits()
    for index in range(400):
        part = "train" if index < 300 else "test"
        side = 10 + index % 3
        path = folder / part / str(digits.target[index]) / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        grey = Image.fromarray((digits.images[index] * 15).astype(np.uint8))
        grey.resize((side, side)).convert("RGB").save(path)


def test_stage_after_stage_is_the_trial_in_one_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = f"{QUICK} --fraction 0.9"
    for early, needed in (("estimate", "train"), ("prune", "train"), ("retrain", "train")):
        assert _mint(f"{early} {options}") == 2
        assert f"no result of mint {needed} yet" in capsys.readouterr().err
    assert _mint(f"train {options}") == 0
    assert "baseline: validation accuracy" in capsys.readouterr().out
    assert _mint(f"prune {options}") == 2
    assert "no result of mint estimate yet" in capsys.readouterr().err
    assert _mint(f"estimate {options}") == 0
    assert "scores fc1 -> fc2: 36 blocks, 2 bootstraps," in capsys.readouterr().out
    assert _mint(f"retrain {options}") == 2
    assert "no result of mint prune yet" in capsys.readouterr().err
    assert _mint(f"prune {options}") == 0
    printed = capsys.readouterr().out
    assert "| *fc1 - fc2*" in printed
    assert "of 150000 counted weights" in printed
    assert _mint(f"retrain {options}") == 0
    printed = capsys.readouterr().out
    assert "baseline epoch" not in printed
    assert "retraining epoch 2/2" in printed
    stagewise = _trial_folder()
    result = TrialResult.load(stagewise)
    assert 85 < result.params_pruned <= 90
    assert result.search_steps[0].passed is None
    masks = Masks.load(stagewise / "masks.safetensors")
    weights = safetensors.numpy.load_file(stagewise / "weights.safetensors")
    assert np.all(weights["fc2.weight"][~masks["fc2.weight"]] == 0)
    (row,) = read_trials(Path("my-results/trials.csv")).to_dict("records")
    assert row["params_pruned"] == result.params_pruned
    assert row["fraction"] == "0.9"
    (page,) = Path("my-results/trials").iterdir()
    assert f"{result.accuracy:.2f}%" in page.read_text()

    assert _mint(f"layers --trial {stagewise}") == 0
    assert str(150000 - result.pruned_weights) in capsys.readouterr().out

    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.chdir(other)
    assert _mint(f"run {options}") == 0
    assert "finished already" not in capsys.readouterr().out
    assert _mint(f"run {options}") == 0
    assert "the trial was finished already; nothing runs again" in capsys.readouterr().out
    again = TrialResult.load(_trial_folder())
    assert again.config.key == result.config.key
    assert again.accuracy == result.accuracy
    assert (_trial_folder() / "weights.safetensors").read_bytes() == (
        tmp_path / "work" / stagewise / "weights.safetensors"
    ).read_bytes()


def test_own_network_on_own_images_from_trial_to_export(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("own_network.py").write_text(NETWORK)
    _folder_of_digits(tmp_path / "images")
    experiment = tmp_path / "own.yaml"
    experiment.write_text(
        """
name: own
title: Small on a folder of digits
data: {name: "imagefolder:images", size: 9, crop: 8, validation_size: 60, augmentation: crop_flip}
network: {name: "own_network:build", arguments: {classes: 10}}
training:
  {epochs: 2, batch_size: 32, lr: 0.05, momentum: 0.9, nesterov: true, weight_decay: 0.0001,
   schedule: cosine, label_smoothing: 0.1}
prune: all
count: all
limits: {second: 0.5}
estimate: {bootstraps: 2}
search: {fraction: 0.4}
trial: {groups: 4, samples_per_class: 10}
"""
    )
    assert _mint(f"layers --experiment {experiment} --data-dir {tmp_path}") == 0
    printed = capsys.readouterr().out
    assert "| *first - second*" in printed
    assert "| *second - head*" in printed
    assert _mint(f"run --experiment {experiment} --data-dir {tmp_path}") == 0
    folder = _trial_folder()
    result = TrialResult.load(folder)
    assert result.counted_weights == 8 * 3 * 9 + 12 * 4 * 9 + 12 * 16 * 10
    assert result.prunable_weights == 12 * 4 * 9 + 12 * 16 * 10
    masks = Masks.load(folder / "masks.safetensors")
    assert masks["second.weight"].mean() >= 0.5
    # A filter of the convolution owns 4 x 4 columns of the linear layer.
    by_filter = masks["head.weight"].reshape(10, 12, 16)
    assert np.all(by_filter == by_filter[:, :, :1])

    # The folder may be somebody else's: it does not run code of its own accord.
    assert _mint(f"export --trial {folder} --output exported") == 2
    printed = capsys.readouterr().err
    assert "--model: .mint/trials/" in printed
    assert "has the network own_network:build; name it to run its code" in printed
    named = "--model own_network:build"
    assert _mint(f"export --trial {folder} --output exported --onnx {named}") == 0
    facts = json.loads(Path("exported/export.json").read_text())
    assert facts["kept_weights"] == result.counted_weights - result.pruned_weights
    program = (
        "import sys; sys.modules['mint'] = None\n"
        "from pathlib import Path\n"
        "from PIL import Image\n"
        "from network import CLASSES, build, prepare\n"
        "network, files = build(), list(Path(sys.argv[1]).glob('*/*'))\n"
        "named = [CLASSES[network(prepare(Image.open(file))).argmax()] for file in files]\n"
        "right = sum(name == file.parent.name for name, file in zip(named, files))\n"
        "print(100 * right / len(files))"
    )
    arguments = [sys.executable, "-c", program, str(tmp_path / "images" / "test")]
    done = subprocess.run(arguments, cwd="exported", capture_output=True, text=True, check=True)
    assert float(done.stdout) == result.accuracy
    assert facts["preparation"]["classes"] == [str(number) for number in range(10)]

    # An edited network is another one: nothing kept answers for it.
    Path("own_network.py").write_text(NETWORK.replace("relu(self.norm", "silu(self.norm"))
    del sys.modules["own_network"]  # as in a new process
    assert _mint(f"export --trial {folder} --output again {named}") == 2
    assert "the source of own_network:build has changed" in capsys.readouterr().err
    assert _mint(f"estimate --experiment {experiment} --data-dir {tmp_path}") == 2
    assert "no result of mint train yet" in capsys.readouterr().err


def test_initial_weights_are_kept_without_training(capsys: pytest.CaptureFixture[str]) -> None:
    assert _mint(f"train {QUICK}") == 0
    (trained,) = Path(".mint/baselines").glob("*/weights.safetensors")
    content = bundled("experiments") / "digits_mlp.yaml"
    untrained = content.read_text().replace("epochs: 20", "epochs: 0")
    Path("untrained.yaml").write_text(untrained)
    options = "--experiment untrained.yaml"
    assert _mint(f"train {options}") == 2
    assert "--init: digits_mlp does not train its baseline" in capsys.readouterr().err
    assert _mint(f"train {options} --init {trained}") == 0
    states = [
        safetensors.numpy.load_file(path)
        for path in Path(".mint/baselines").glob("*/weights.safetensors")
    ]
    assert len(states) == 2
    assert all(np.array_equal(states[0][name], states[1][name]) for name in states[0])


def test_training_resumes_after_a_kill(
    quick_trial: TrialConfig, digits: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mint.training import checkpoint
    from mint.training.epoch import Epoch
    from mint.trial.callbacks import TrialCallbacks

    monkeypatch.setattr(checkpoint, "CHECKPOINT_SECONDS", 0.0)
    cpu = torch.device("cpu")
    trained: list[int] = []

    def stop_at(last: int) -> TrialCallbacks:
        def on_epoch(_: str, epoch: Epoch, __: int) -> None:
            trained.append(epoch.epoch)
            if epoch.epoch == last:
                raise KeyboardInterrupt

        return TrialCallbacks(on_epoch=on_epoch)

    def baseline(root: Path, last: int) -> bytes:
        stages = TrialPipeline(
            quick_trial,
            digits,
            cache=StageCache(root),
            provenance=PROVENANCE,
            callbacks=stop_at(last),
        )
        with reproducible(1, cpu):
            return (stages.baseline / "weights.safetensors").read_bytes()

    with pytest.raises(KeyboardInterrupt):
        baseline(tmp_path / "a", 2)
    resumed = baseline(tmp_path / "a", 0)
    assert trained == [1, 2, 3]
    assert not list((tmp_path / "a" / "progress").iterdir())
    assert resumed == baseline(tmp_path / "b", 0)


def test_estimating_scores_keeps_the_number_of_threads() -> None:
    program = (
        "import numpy as np, torch\n"
        "from mint.gmi.estimator import gmi_scores\n"
        "from mint.training.determinism import reproducible\n"
        "with reproducible(1, torch.device('cpu')):\n"
        "    values = np.random.default_rng(0).normal(size=(60, 4))\n"
        "    gmi_scores(values, values, 2, 2)\n"
        "    print(torch.get_num_threads())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "1"


def test_same_weights_under_another_name_are_the_same_trial(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _mint(f"train {QUICK}") == 0
    (trained,) = Path(".mint/baselines").glob("*/weights.safetensors")
    options = f"{QUICK} --fraction 0.5 --init"
    for name in ("one.safetensors", "other.safetensors"):
        Path(name).write_bytes(trained.read_bytes())
        assert _mint(f"run {options} {name}") == 0
    assert len(read_trials(Path("my-results/trials.csv"))) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vgg16_cifar10", "resnet56_cifar10", "resnet50_imagenet"])
def test_smoke(name: str) -> None:
    assert _mint(f"run --experiment {name} --smoke") == 0
    result = TrialResult.load(_trial_folder())
    wanted = result.config.experiment.search.fraction
    assert wanted is not None
    assert 0.97 * wanted < result.params_pruned / 100 <= wanted
