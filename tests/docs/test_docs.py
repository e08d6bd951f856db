"""The tutorial runs as written and prints what it shows, except for the numbers."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

TUTORIAL = Path(__file__).resolve().parents[2] / "docs" / "tutorial.md"
_BLOCKS = re.compile(r"```(python|text)\n(.+?)```", re.DOTALL)
_NUMBERS = re.compile(r"-?\d+(\.\d+)?")  # they differ between machines


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Run torch on one thread: more gain nothing here, and are slow on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("empty_folder", "one_thread")
def test_tutorial_prints_what_it_shows(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    printed = ""
    kinds = []
    for kind, content in _BLOCKS.findall(TUTORIAL.read_text(encoding="utf-8")):
        kinds.append(kind)
        if kind == "python":
            exec(content, names)
            printed += capsys.readouterr().out
        else:
            assert _NUMBERS.sub("#", printed) == _NUMBERS.sub("#", content), printed
            printed = ""
    assert kinds.count("text") >= 5
    assert printed == ""
    assert names["result"].accuracy > 90
    assert names["masks"].pruned <= 0.7 * names["masks"].prunable
