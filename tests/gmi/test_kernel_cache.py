"""Compiled kernels are kept between processes, and never after a change of their sources."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import mint

_PROGRAM = """
import numpy as np
from numba import config, njit
from mint.gmi.cpu.distances import gather
from mint.gmi.cpu.groups import Layer
gather(Layer.of(np.ones((4, 2), np.float32)), np.arange(4), np.arange(2), 1.0)
stats = gather.stats
print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()), repr(config.CACHE_DIR))
"""


def _run(root: Path, **environment: Path) -> list[str]:
    """Run a kernel of the copy of mint at root; return its cache hits and misses, and a setting."""
    variables = {name: str(value) for name, value in environment.items()}
    command = [sys.executable, "-c", _PROGRAM]
    result = subprocess.run(
        command,
        check=True,
        cwd=root,
        env={"PYTHONPATH": str(root), "HOME": str(root), **variables},
        capture_output=True,
        text=True,
    )
    return result.stdout.split()


def _copy_of_kernels(root: Path) -> Path:
    """Copy the package of the kernels, without the parts of mint that take long to import."""
    source = Path(mint.__file__).parent
    shutil.copytree(source / "gmi" / "cpu", root / "mint" / "gmi" / "cpu")
    (root / "mint" / "config").mkdir()
    for module in ("errors.py", "config/locations.py"):
        shutil.copy(source / module, root / "mint" / module)
    for package in (root / "mint", root / "mint" / "gmi", root / "mint" / "config"):
        (package / "__init__.py").touch()
    return root / "mint" / "gmi" / "cpu"


def test_kernels_are_compiled_once_for_each_version_of_their_sources(tmp_path: Path) -> None:
    folder = _copy_of_kernels(tmp_path)
    cache = tmp_path / "cache"
    assert _run(tmp_path, XDG_CACHE_HOME=cache) == ["0", "1", "''"]
    assert _run(tmp_path, XDG_CACHE_HOME=cache) == ["1", "0", "''"]
    first = set((cache / "mint").iterdir())
    with (folder / "simd.py").open("a") as file:  # called by kernels of other files
        file.write("# edited")
    assert _run(tmp_path, XDG_CACHE_HOME=cache)[:2] == ["0", "1"]
    assert len(set((cache / "mint").iterdir()) - first) == 1


def test_numba_cache_dir_is_used_where_it_is_set(tmp_path: Path) -> None:
    _copy_of_kernels(tmp_path)
    chosen = tmp_path / "chosen"
    _run(tmp_path, NUMBA_CACHE_DIR=chosen, XDG_CACHE_HOME=tmp_path / "unused")
    assert [folder.name[:8] for folder in chosen.iterdir()] == ["kernels-"]
    assert not (tmp_path / "unused").exists()


def test_an_unwritable_cache_folder_is_replaced(tmp_path: Path) -> None:
    _copy_of_kernels(tmp_path)
    (tmp_path / "file").touch()
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    found = [_run(tmp_path, XDG_CACHE_HOME=tmp_path / "file", TMPDIR=temporary) for _ in range(2)]
    assert [hits_and_misses[:2] for hits_and_misses in found] == [["0", "1"], ["1", "0"]]


def test_processes_that_start_together_compile_a_kernel_once(tmp_path: Path) -> None:
    (tmp_path / "kernel.py").write_text(
        "from mint.gmi.cpu.kernel_cache import compile_kernel\n"
        "\n"
        "def called(number: float) -> float:\n"
        "    return number + 1\n"
        "\n"
        "called = compile_kernel(called)\n"
        "\n"
        "def total(number: float) -> float:\n"
        "    for _ in range(10):\n"
        "        number = called(number)\n"
        "    return number\n"
        "\n"
        "total = compile_kernel(total)\n"
        "assert total(1.0) == 11\n"
        "print(sum(sum(kernel.stats.cache_misses.values()) for kernel in (called, total)))\n"
    )
    settings = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "kernel.py"]
    both = [
        subprocess.Popen(command, cwd=tmp_path, env=settings, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    compiled = [int(process.communicate()[0]) for process in both]
    assert sum(compiled) == 2  # of both kernels in both processes
