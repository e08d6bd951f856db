"""A real bash completes commands, options and names with the printed script."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mint.cli.app import main

pytestmark = pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("mint re", {"retrain", "report"}),
        ("mint cache ", {"ls", "prune"}),
        ("mint sweep gr", {"groups_vs_samples"}),
        ("mint run --bootst", {"--bootstraps"}),
        (
            "mint train --experiment mn",
            {"mnist_mlp", "mnist_mlp_connected", "mnist_mlp_fine", "mnist_mlp_input"},
        ),
        ("mint sweep criteria --criterion tay", {"taylor"}),
        ("mint cache prune sc", {"scores"}),
        ("mint run --device cu", {"cuda"}),
    ],
)
def test_bash(typed: str, offered: set[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    words = " ".join(f"'{word}'" for word in typed.split(" "))
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    program = (
        f"{script}\nCOMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n"
        "_mint; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    done = subprocess.run(
        ["bash", "-c", program], capture_output=True, text=True, check=True, env=environment
    )
    assert set(done.stdout.split()) == offered
