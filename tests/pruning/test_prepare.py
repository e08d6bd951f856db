"""The code of an export prepares images exactly as mint did."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from mint.config.schema import DataConfig
from mint.data.datasets import Source, load_source
from mint.data.loading import Dataset, split_source
from mint.data.preparation import Preparation
from mint.pruning.export.prepare import PREPARE_IMPORTS, prepare_code


def _folder(path: Path, modes: tuple[str, ...], sides: tuple[int, ...]) -> list[Path]:
    """Write random images of two classes; return the test files in mint's order."""
    generator = np.random.default_rng(0)
    for part in ("train", "test"):
        for number in range(12):
            side = sides[number % len(sides)]
            pixels = generator.integers(256, size=(side, side + len(sides) - 1, 3), dtype=np.uint8)
            file = path / part / ("cat", "a 'dog'")[number % 2] / f"{number:02}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            mode = modes[number % len(modes)]
            if mode == "I;16":
                Image.fromarray(pixels[..., 0] * np.uint16(200)).save(file)
            else:
                Image.fromarray(pixels).convert(mode).save(file)
    return sorted((path / "test").glob("*/*.png"))


def _dataset(data: DataConfig, folder: Path) -> Dataset:
    return split_source(load_source(data, folder), data, seed=0, device=torch.device("cpu"))


def _prepare_of(preparation: Preparation) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec("\n".join(sorted(PREPARE_IMPORTS)) + prepare_code(preparation), names)
    return names


def _inputs(dataset: Dataset) -> Tensor:
    return torch.cat([inputs for inputs, _ in dataset.test.batches(5)])


@pytest.mark.parametrize(
    ("modes", "sides", "settings"),
    [
        (("L",), (9,), {}),
        (("L",), (9,), {"channels": 3, "crop": 6}),
        (("RGB", "L", "RGBA", "P"), (11, 8, 20), {"size": 9, "crop": 6}),
        (("L", "I;16"), (11, 8), {"size": 9}),
    ],
    ids=["grey", "grey to colour", "colours", "16 bits"],
)
def test_prepared_images_are_the_inputs_of_the_trial(
    modes: tuple[str, ...], sides: tuple[int, ...], settings: dict[str, Any], tmp_path: Path
) -> None:
    files = _folder(tmp_path / "images", modes, sides)
    data = DataConfig(name="imagefolder:images", validation_size=4, **settings)
    dataset = _dataset(data, tmp_path)
    code = _prepare_of(dataset.preparation)
    assert code["CLASSES"] == ("a 'dog'", "cat")
    prepared = torch.cat([code["prepare"](Image.open(file)) for file in files])
    assert prepared.shape == (12, *dataset.image_shape)
    assert torch.equal(prepared, _inputs(dataset))


def test_uint8_tensors_are_prepared_as_images_are(digits: Source, digits_dataset: Dataset) -> None:
    prepare = _prepare_of(digits_dataset.preparation)["prepare"]
    assert isinstance(digits.test, Tensor)
    assert torch.equal(prepare(digits.test), _inputs(digits_dataset))
    assert torch.equal(prepare(digits.test[3]), _inputs(digits_dataset)[3:4])
    with pytest.raises(TypeError, match=r"uint8, from 0 to 255, not torch\.float32"):
        prepare(digits.test[0] / 255)
    with pytest.raises(ValueError, match=r"8 x 8 pixels, not \(9, 8\)"):
        prepare(Image.new("L", (9, 8)))
    with pytest.raises(ValueError, match="8 bits a channel, or 16-bit grey, not F"):
        prepare(Image.new("F", (8, 8)))
