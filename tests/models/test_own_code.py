"""A user's own network is found after what is installed, and its key covers all its source."""

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mint.errors import InputError
from mint.models.own_code import own_modules, source_digest

NET = "from torch import nn\n\ndef build() -> nn.Module:\n    return nn.Linear(4, 2)\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory, whose modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    _forget_modules()


def _forget_modules() -> None:
    for name in ("net", "blocks", "parts"):
        sys.modules.pop(name, None)


def _digest() -> str | None:
    """Return the digest that a new process finds."""
    _forget_modules()
    return source_digest("net:build")


def _write(folder: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def test_the_digest_is_that_of_the_file_if_it_imports_nothing_of_the_users(folder: Path) -> None:
    _write(folder, {"net.py": "import queue\nimport numpy\nfrom mint import rng\n" + NET})
    _write(folder, {"queue.py": "raise SystemExit", "numpy.py": "raise SystemExit"})
    expected = hashlib.sha256((folder / "net.py").read_bytes()).hexdigest()[:16]
    assert _digest() == expected
    assert source_digest("vgg16") is None


@pytest.mark.parametrize(
    "edited", ["net.py", "blocks.py", "parts/__init__.py", "parts/inner.py", "loose/late.py"]
)
def test_an_edit_of_what_the_network_imports_changes_the_digest(folder: Path, edited: str) -> None:
    late = "\ndef unused():\n    from loose import late\n    return late\n"
    _write(
        folder,
        {
            "net.py": "from blocks import WIDTH\n" + NET,
            "blocks.py": f"import parts.outer as outer\nWIDTH = 3\n{late}",
            "parts/__init__.py": "",
            "parts/outer.py": "from . import inner\n",
            "parts/inner.py": "",
            "loose/late.py": "",
            "other.py": "",
        },
    )
    before = _digest()
    assert _digest() == before
    file = folder / edited
    file.write_text(file.read_text() + "# edited\n")
    assert _digest() != before
    again = _digest()
    (folder / "other.py").write_text("# nothing imports it\n")
    assert _digest() == again
    found = own_modules("net:build")
    assert found == [folder / name for name in ("blocks.py", "loose", "net.py", "parts")]


def test_a_process_keeps_the_digest_of_what_it_has_imported(folder: Path) -> None:
    _write(folder, {"net.py": NET})
    before = source_digest("net:build")
    (folder / "net.py").write_text(NET.replace("4, 2", "4, 3"))
    assert source_digest("net:build") == before


def test_an_installed_module_of_the_same_name_is_an_error(folder: Path) -> None:
    _write(folder, {"queue.py": NET, "scipy/net.py": NET})
    for name in ("queue:build", "scipy.net:build"):
        with pytest.raises(InputError, match=rf"^network {name}: Python finds another"):
            source_digest(name)


def test_files_of_the_current_folder_never_replace_pythons_modules(folder: Path) -> None:
    _write(folder, {"net.py": NET, "queue.py": "raise SystemExit(3)", "pandas.py": "1 / 0"})
    program = (
        "import sys; from mint.models.own_code import imported; imported('net:build');"
        "sys.modules.pop('queue', None); import pandas, queue"
    )
    # -P: the console script mint has no current folder in sys.path either.
    subprocess.run([sys.executable, "-P", "-c", program], cwd=folder, check=True)
