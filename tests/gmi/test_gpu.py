"""What only the GPU engine has: exact distances, ties, Triton. Its counts: test_engine.py."""

import ast
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mint.gmi.bootstrap import EdgeCounts, Split
from mint.gmi.cpu.engine import count_blocks
from mint.gmi.gpu.engine import count_blocks_on

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
ROOT = Path(__file__).parents[2]

Case = tuple[
    NDArray[np.float32],
    NDArray[np.float32],
    list[NDArray[np.int64]],
    list[NDArray[np.int64]],
    Split,
]


def _case(seed: int, rows: int, filters: int = 8, groups: int = 2, levels: int = 0) -> Case:
    """Return random activations, or with levels: multiples of 1/8, whose distances are exact."""
    generator = np.random.default_rng(seed)
    if levels:
        child, parent = generator.integers(0, levels, (2, rows, filters)) / 8
    else:
        child, parent = generator.normal(size=(2, rows, filters))
    columns = np.array_split(generator.permutation(filters), groups)
    order, third = generator.permutation(rows), rows // 3
    split = Split(*np.split(order, [rows - 2 * third, rows - third]))
    return child.astype(np.float32), parent.astype(np.float32), columns, columns, split


def _prim(distances: NDArray[np.float64], in_first: NDArray[np.bool_]) -> tuple[int, int]:
    """Grow the tree from node 0; of equals, take the lowest node and the oldest end."""
    keys, ends = distances[0].copy(), np.zeros(len(distances), int)
    outside = np.arange(len(distances)) > 0
    degrees = np.zeros(len(distances), int)
    crossing = 0
    while outside.any():
        newest = int(np.where(outside, keys, np.inf).argmin())
        outside[newest] = False
        degrees[[newest, ends[newest]]] += 1
        crossing += in_first[newest] != in_first[ends[newest]]
        closer = distances[newest] < keys
        keys[closer], ends[closer] = distances[newest][closer], newest
    return int(crossing), int((degrees * (degrees - 1) // 2).sum())


@pytest.mark.parametrize("seed", range(10))
def test_ties_go_to_the_lowest_row(seed: int) -> None:
    child, parent, groups, _, split = case = _case(seed, rows=60, levels=3)
    counts = count_blocks_on("cpu", *case, scaled=False, conditional=False)
    pooled = np.concatenate([split.first, split.second])
    in_first = np.arange(len(pooled)) < len(split.first)
    swapped = np.concatenate([split.first, split.reference])
    for i, columns in enumerate(groups):
        for j, parent_columns in enumerate(groups):
            points = np.hstack([child[pooled][:, columns], parent[swapped][:, parent_columns]])
            distances = ((points[:, None].astype(np.float64) - points) ** 2).sum(-1)
            assert (counts.crossing[i, j], counts.adjacent[i, j]) == _prim(distances, in_first)


def test_launches_of_every_size_agree_with_the_cpu_engine() -> None:
    case = _case(3, rows=60, filters=20, groups=5)
    for limit in (100_000, 200_000, 400_000, 2**30):
        counts = count_blocks_on("cpu", *case, memory_limit=limit)
        np.testing.assert_array_equal(counts, count_blocks(*case))


@needs_triton
def test_triton_grows_the_trees_of_torch() -> None:
    """Triton's interpreter runs in another process, because it must be chosen before the import."""
    command = [sys.executable, __file__]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": paths}
    result = subprocess.run(
        command, check=True, env=environment, timeout=300, capture_output=True, text=True
    )
    assert ast.literal_eval(result.stdout) == [_as_lists(case) for case in _triton_cases()]


def _triton_cases() -> list[Case]:
    # 105 rows have 70 in the trees: more than one tile.
    cases = [_case(seed, rows) for seed, rows in enumerate((6, 17, 40))]
    return [*cases, _case(0, rows=40, levels=3), _case(0, rows=105, groups=1)]


def _as_lists(case: Case) -> list[Any]:
    counts: EdgeCounts = count_blocks_on("cpu", *case)
    return [field.tolist() for field in counts]


@needs_triton
def test_kernels_compile_for_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Machine code of an H100 is made without a GPU, but not run."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from mint.gmi.gpu import kernels

    def compiled(kernel: Any, warps: int, dense: str, **constants: int) -> str:
        pointers = {"first", "second", "distances", "child", "parent"}
        kinds = {name: "*fp32" if name in pointers else "i32" for name in kernel.arg_names}
        kinds |= dict.fromkeys(constants, "constexpr") | (
            {"ends": "*i32"} if "ends" in kinds else {}
        )
        aligned = {
            (kernel.arg_names.index(name),): [["tt.divisibility", 16]] for name in dense.split()
        }
        source = ASTSource(kernel, kinds, constexprs=constants, attrs=aligned)
        options = {"num_warps": warps, "enable_fp_fusion": False}
        target = GPUTarget("cuda", 90, 32)
        assembly: str = triton.compile(source, target=target, options=options).asm["ptx"]
        return assembly

    distances = compiled(kernels.distance_kernel, 4, "first second stride", tile=64)
    assert "fma.rn.f32" in distances
    assert ".tf32" not in distances
    for size in (64, 2048):
        tree = compiled(kernels.tree_kernel, kernels.warps(size), "child parent stride", size=size)
        # Rows are read four floats at a time where a thread has as many.
        assert ("ld.global.v4" in tree) == (size > 64)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")
@pytest.mark.parametrize("conditional", [True, False])
def test_gpu_agrees_with_cpu(conditional: bool) -> None:
    case = _case(0, rows=800, filters=100, groups=20)
    on_cpu = count_blocks(*case, conditional=conditional)
    limit = 2**28
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    on_gpu = count_blocks_on("cuda", *case, conditional=conditional, memory_limit=limit)
    np.testing.assert_array_equal(on_gpu, on_cpu)
    # The allocator rounds every tensor up.
    assert torch.cuda.max_memory_allocated() - before <= limit + 2**20


if __name__ == "__main__":
    print([_as_lists(case) for case in _triton_cases()])
