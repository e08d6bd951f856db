"""The tutorial runs as it is written, and prints what it says, but for the figures."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

TUTORIAL = Path(__file__).resolve().parents[2] / "docs" / "tutorial.md"
_BLOCKS = re.compile(r"```(python|text)\n(.+?)```", re.DOTALL)
_FIGURES = re.compile(r"-?\d+(\.\d+)?")  # they differ between machines


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Nothing in the tutorial gains by more, and they wait for each other on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("empty_folder", "one_thread")
def test_tutorial_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    printed = ""
    kinds = []
    for kind, content in _BLOCKS.findall(TUTORIAL.read_text(encoding="utf-8")):
        kinds.append(kind)
        if kind == "python":
            exec(content, names)
            printed += capsys.readouterr().out
        else:
            assert _FIGURES.sub("#", printed) == _FIGURES.sub("#", content), printed
            printed = ""
    assert kinds.count("text") >= 5
    assert printed == ""
    assert names["result"].accuracy > 90
    assert names["masks"].pruned <= 0.7 * names["masks"].prunable
