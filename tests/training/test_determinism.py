"""One number of threads binds all that a trial does."""

import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image

from mint.data.images import DecodedImages, EncodedImages
from mint.gmi.estimator import gmi_scores
from mint.training.determinism import reproducible

CPU = torch.device("cpu")


@pytest.mark.parametrize("number", [1, 3])
def test_one_number_binds_estimator_and_decoding(number: int) -> None:
    alive = 0
    decoders = set()

    def open_image(row: int) -> Image.Image:
        decoders.add(threading.get_ident())
        time.sleep(0.005)
        return Image.new("L", (2, 2), row)

    encoded = EncodedImages(np.zeros(32, np.int64), open_image, str)
    images = DecodedImages(encoded, "L", (2, 2), resized=False)
    layer = np.random.default_rng(0).normal(size=(600, 16)).astype(np.float32)

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal alive
        alive = max(alive, threading.active_count())

    before = threading.active_count()
    with reproducible(number, CPU):
        decoded = images[np.arange(32)]
        threading.setprofile(count)
        try:
            gmi_scores(layer, layer[:, ::-1], 8, 8)
        finally:
            threading.setprofile(None)
    assert decoded[:, 0, 0, 0].tolist() == list(range(32))
    assert len(decoders) == number
    assert alive - before == number


def test_a_trial_starts_no_threads_of_numba() -> None:
    """A pool of numba takes a thread of every core, even where nothing runs in it."""
    code = (
        "import os, numba, torch\n"
        "from mint.training.determinism import reproducible\n"
        "from mint.gmi.estimator import gmi_scores\n"
        "before = len(os.listdir('/proc/self/task'))\n"
        "with reproducible(1, torch.device('cpu')):\n"
        "    gmi_scores(torch.rand(60, 4).numpy(), torch.rand(60, 4).numpy(), 2, 2)\n"
        "print(len(os.listdir('/proc/self/task')) - before)"
    )
    command = ["env", "NUMBA_NUM_THREADS=8", sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) <= 1


def test_an_operation_without_a_deterministic_algorithm_on_a_gpu_gives_a_warning() -> None:
    """It raised before, and networks such as torchvision's VGG16 could not be trained there."""
    with reproducible(1, torch.device("cuda")):  # torch needs no GPU to choose
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
