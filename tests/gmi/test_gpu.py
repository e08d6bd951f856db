"""The trees of all blocks at once against scipy's, in torch and in Triton's interpreter."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse.csgraph import minimum_spanning_tree

from mint.gmi.gpu import engine as cuda
from mint.gmi.gpu.engine import count_blocks_on

Counts = tuple[NDArray[np.int64], NDArray[np.int64]]
Groups = Sequence[NDArray[np.int64]]
Split = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


class Options(TypedDict, total=False):
    """What the method leaves open."""

    scaled: bool
    one_to_one: bool
    conditional: bool


def _squares(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    squares: NDArray[np.float64] = ((first[:, None] - second[None]) ** 2).sum(-1)
    return squares


def _unit(block: NDArray[np.float64], scaled: bool) -> NDArray[np.float64]:
    variance = block.var(0).sum()
    return block / np.sqrt(variance) if scaled and variance > 0 else block


def _scipy_tree(distances: NDArray[np.float64], in_first: NDArray[np.bool_]) -> tuple[int, int]:
    # A constant on every edge changes no tree, and keeps scipy from dropping those of length 0.
    tree = minimum_spanning_tree(distances + 1).tocoo()
    degrees = np.bincount(np.concatenate([tree.row, tree.col]), minlength=len(distances))
    crossing = (in_first[tree.row] != in_first[tree.col]).sum()
    return int(crossing), int((degrees * (degrees - 1) // 2).sum())


def _prim(distances: NDArray[np.float64], in_first: NDArray[np.bool_]) -> tuple[int, int]:
    """Grow the tree from node 0; of equals, the lowest node and the oldest end."""
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


def _expected(
    child: NDArray[np.float32],
    parent: NDArray[np.float32],
    child_groups: Groups,
    parent_groups: Groups,
    split: Split,
    *,
    scaled: bool = True,
    one_to_one: bool = True,
    conditional: bool = True,
    tree: Callable[[NDArray[np.float64], NDArray[np.bool_]], tuple[int, int]] = _scipy_tree,
) -> Counts:
    """Do as the method says, block after block, on whole points in float64."""
    first, second, reference = split
    pooled = np.concatenate([first, second])
    in_first = np.arange(len(pooled)) < len(first)
    counts = np.zeros((2, len(child_groups), len(parent_groups)), np.int64)
    for j, group in enumerate(parent_groups):
        y = _unit(parent[:, group].astype(np.float64), scaled)
        others = np.setdiff1d(np.arange(parent.shape[1]), group)
        z = _unit(parent[:, others].astype(np.float64), scaled)
        partner = reference[: len(second)]
        if not conditional or not np.ptp(z, axis=0).any():
            z = z[:, :0]
        else:
            cost = _squares(z[second], z[reference])
            chosen = linear_sum_assignment(cost)[1] if one_to_one else cost.argmin(1)
            partner = reference[chosen]
        swapped = np.concatenate([y[first], y[partner]])
        for i, columns in enumerate(child_groups):
            x = _unit(child[:, columns].astype(np.float64), scaled)
            points = np.hstack([x[pooled], swapped, z[pooled]])
            counts[:, i, j] = tree(_squares(points, points), in_first)
    return counts[0], counts[1]


class Case:
    """Random activations with groups of unequal sizes, and a split of their rows."""

    def __init__(self, seed: int, rows: int | None = None, groups: int = 3) -> None:
        generator = np.random.default_rng(seed)
        rows = rows or int(generator.integers(6, 90))
        self.child = generator.normal(size=(rows, 7)).astype(np.float32)
        mixed = generator.normal(size=(rows, 8)) + self.child[:, :1]
        self.parent = mixed.astype(np.float32)
        self.child_groups = self._groups(generator, 7, groups)
        self.parent_groups = self._groups(generator, 8, groups)
        order = generator.permutation(rows)
        third = rows // 3
        self.split: Split = (order[: rows - 2 * third], order[-2 * third : -third], order[-third:])

    @staticmethod
    def _groups(generator: np.random.Generator, columns: int, groups: int) -> Groups:
        cuts = np.sort(generator.choice(np.arange(1, columns), groups - 1, replace=False))
        return np.split(generator.permutation(columns), cuts)

    @property
    def arguments(
        self,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], Groups, Groups, Split]:
        return self.child, self.parent, self.child_groups, self.parent_groups, self.split


def _same(one: Counts, other: Counts) -> None:
    np.testing.assert_array_equal(one[0], other[0])
    np.testing.assert_array_equal(one[1], other[1])


@pytest.mark.parametrize("seed", range(50))
def test_torch_agrees_with_scipy(seed: int) -> None:
    case = Case(seed)
    scaled, one_to_one, conditional = (bool(seed >> bit & 1) for bit in range(3))
    options: Options = {"scaled": scaled, "one_to_one": one_to_one, "conditional": conditional}
    counts = count_blocks_on("cpu", *case.arguments, **options)
    assert counts[0].dtype == counts[1].dtype == np.int64
    _same(counts, _expected(*case.arguments, **options))


def _with_duplicates(seed: int, rows: int = 60) -> Case:
    """Few distinct points on a grid of eighths: distances are exact, and most are tied."""
    case = Case(seed, rows)
    generator = np.random.default_rng(seed)
    kinds = generator.integers(0, 5, rows)
    case.child = (generator.integers(0, 3, (5, 7)) / 8).astype(np.float32)[kinds]
    case.parent = (generator.integers(0, 3, (5, 8)) / 8).astype(np.float32)[kinds]
    return case


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("conditional", [True, False])
def test_ties_go_to_the_lowest_row(seed: int, conditional: bool) -> None:
    case = _with_duplicates(seed)
    # Unscaled, so that ties are ties in float64 too; nearest, as assignments of equals may differ.
    options: Options = {"scaled": False, "one_to_one": False, "conditional": conditional}
    _same(
        count_blocks_on("cpu", *case.arguments, **options),
        _expected(*case.arguments, **options, tree=_prim),
    )


def test_equal_points_are_at_distance_zero() -> None:
    points = torch.from_numpy(np.array([[1e4, 1e4, 3.1], [0.1, 0.1, -7.7]], np.float32))
    distances = torch.full((3, 3), torch.nan)
    cuda._squared_distances(points, points, distances)
    assert distances[0, 1] == distances[1, 0] == distances[0, 0] == 0
    assert (distances == distances.T).all()


def test_distances_are_fused_sums_in_the_order_of_the_columns() -> None:
    generator = np.random.default_rng(0)
    first = generator.normal(size=(9, 20)).astype(np.float32)
    second = generator.normal(size=(9, 31)).astype(np.float32)
    expected = np.zeros((20, 31), np.float32)
    for a, b in zip(first, second, strict=True):
        difference = (a[:, None] - b).astype(np.float64)
        # Exact in float64 but for the last bits of the sum: one rounding to float32.
        expected = (difference**2 + expected).astype(np.float32)
    distances = torch.empty((20, 31))
    cuda._squared_distances(torch.from_numpy(first), torch.from_numpy(second), distances)
    np.testing.assert_array_equal(distances.numpy(), expected)


def test_constant_groups_add_nothing() -> None:
    case = Case(3, 70)
    case.child[:, case.child_groups[1]] = 0.1
    case.parent[:, case.parent_groups[0]] = -3.3
    _same(count_blocks_on("cpu", *case.arguments), _expected(*case.arguments))
    for group in case.parent_groups[1:]:
        case.parent[:, group] = 5.1
    for one_to_one in (True, False):
        _same(
            count_blocks_on("cpu", *case.arguments, one_to_one=one_to_one),
            _expected(*case.arguments, one_to_one=one_to_one),
        )


def test_a_constant_rest_is_like_none() -> None:
    case = Case(4, 70)
    case.parent[:, np.concatenate(case.parent_groups[1:])] = 0.7
    arguments = case.child, case.parent, case.child_groups, case.parent_groups[:1], case.split
    _same(
        count_blocks_on("cpu", *arguments, one_to_one=False),
        count_blocks_on("cpu", *arguments, conditional=False),
    )


def test_distances_left_for_the_others_are_never_negative() -> None:
    case = Case(4, 90)
    wide = np.sort(case.parent_groups[0])
    case.parent[:, np.concatenate(case.parent_groups[1:])] *= np.float32(1e-5)
    rows = cuda._checked_rows(case.child, case.parent, case.split, one_to_one=True)
    parents = cuda._Parents(torch.device("cpu"), case.parent, rows, True, True)
    # Added up in another order than all columns were, so that some differences round below zero.
    assert parents._cost(wide[::-1].copy()).min() >= 0


def test_without_other_parents() -> None:
    case = Case(5, 50)
    whole = [np.arange(8)]
    arguments = case.child, case.parent, case.child_groups, whole, case.split
    _same(count_blocks_on("cpu", *arguments), _expected(*arguments))


def test_split_as_tensors() -> None:
    case = Case(6, 40)
    first, second, reference = (torch.from_numpy(part) for part in case.split)
    counts = count_blocks_on("cpu", *case.arguments[:4], (first, second, reference))
    _same(counts, count_blocks_on("cpu", *case.arguments))


def _least_limit(case: Case) -> int:
    with pytest.raises(ValueError, match="memory_limit is 0 bytes") as refused:
        count_blocks_on("cpu", *case.arguments, memory_limit=0)
    return int(str(refused.value).split()[-1])


def test_memory_limit_changes_no_result() -> None:
    case = Case(7, 60, groups=5)
    whole = count_blocks_on("cpu", *case.arguments)
    least = _least_limit(case)
    with pytest.raises(ValueError, match=f"memory_limit is {least - 1} bytes.*needs {least}"):
        count_blocks_on("cpu", *case.arguments, memory_limit=least - 1)
    # From one block a launch up to all of them.
    for limit in (least, least + 10_000, least + 30_000, least + 70_000, least + 200_000):
        _same(count_blocks_on("cpu", *case.arguments, memory_limit=limit), whole)


def test_launches_hold_what_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(7, 60, groups=5)
    launches: list[tuple[int, int]] = []
    grow = cuda._tree_ends

    def note(child: torch.Tensor, parent: torch.Tensor) -> torch.Tensor:
        launches.append((len(child), len(parent)))
        return grow(child, parent)

    monkeypatch.setattr(cuda, "_tree_ends", note)
    count_blocks_on("cpu", *case.arguments)
    assert launches == [(5, 5)]
    launches.clear()
    count_blocks_on("cpu", *case.arguments, memory_limit=_least_limit(case))
    assert launches == [(1, 1)] * 25


def test_progress() -> None:
    case = Case(8, 30)
    seen: list[tuple[int, int]] = []
    count_blocks_on("cpu", *case.arguments, on_column=lambda *done: seen.append(done))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_what_cannot_be_counted_is_refused() -> None:
    case = Case(9, 30)
    child, parent, child_groups, parent_groups, (first, second, reference) = case.arguments
    short = first, second, reference[:-1]
    with pytest.raises(ValueError, match="same rows"):
        count_blocks_on("cpu", child[:-1], parent, child_groups, parent_groups, case.split)
    with pytest.raises(ValueError, match="one to one"):
        count_blocks_on("cpu", child, parent, child_groups, parent_groups, short)
    with pytest.raises(ValueError, match="in order"):
        count_blocks_on(
            "cpu",
            *(child, parent, child_groups, parent_groups, short),
            one_to_one=False,
            conditional=False,
        )
    with pytest.raises(ValueError, match="a row each"):
        count_blocks_on(
            "cpu", child, parent, child_groups, parent_groups, (first, second[:0], reference)
        )
    for value in (np.nan, np.inf, 1e20):
        broken = parent.copy()
        broken[0, 0] = value
        with pytest.raises(ValueError, match="parent activations are not finite or too large"):
            count_blocks_on("cpu", child, broken, child_groups, parent_groups, case.split)
    with pytest.raises(ValueError, match="vary too little"):
        count_blocks_on(
            "cpu", child * np.float32(1e-25), parent, child_groups, parent_groups, case.split
        )


def test_no_groups_give_empty_counts() -> None:
    case = Case(10, 30)
    crossing, adjacent = count_blocks_on(
        "cpu", case.child, case.parent, [], case.parent_groups, case.split
    )
    assert crossing.shape == adjacent.shape == (0, 3)


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
def test_triton_in_its_interpreter() -> None:
    """In a process of its own: Triton reads the setting when it is imported."""
    root = Path(__file__).parents[2]
    subprocess.run(
        [sys.executable, __file__],
        check=True,
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(root)},
        timeout=300,
    )


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
def test_kernels_compile_for_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Down to machine code of an H100, which takes no card; what it does there is not seen."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from mint.gmi.gpu import kernels as triton_kernels

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

    distances = compiled(triton_kernels._squared_distances, 4, "first second stride", TILE=64)
    assert "fma.rn.f32" in distances
    assert ".tf32" not in distances
    for size in (64, 2048, 8192):
        tree = compiled(
            triton_kernels._prim, triton_kernels.warps(size), "child parent stride", BLOCK=size
        )
        # Rows are read four floats at a time where a thread has as many.
        assert ("ld.global.v4" in tree) == (size > 64)


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
def test_cpu_users_do_not_import_triton() -> None:
    program = "import sys, mint.gmi.gpu.engine; sys.exit('triton' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])


def _check_triton() -> None:
    from mint.gmi.gpu import kernels as triton_kernels

    cases = [Case(seed, rows, groups=2) for seed, rows in enumerate((6, 17, 33, 40))]
    cases.append(_with_duplicates(0, 40))
    in_torch = [count_blocks_on("cpu", *case.arguments) for case in cases]
    cuda._uses_triton = lambda device: True
    for case, counts in zip(cases, in_torch, strict=True):
        in_triton = count_blocks_on("cpu", *case.arguments)
        _same(in_triton, counts)
    for case in cases[:-1]:
        _same(count_blocks_on("cpu", *case.arguments), _expected(*case.arguments))
    constant = Case(11, 30, groups=2)
    constant.parent[:, constant.parent_groups[0]] = 1.5
    least = _least_limit(constant)
    _same(
        count_blocks_on("cpu", *constant.arguments, memory_limit=least),
        _expected(*constant.arguments),
    )

    # More rows than a tile holds, and padding that must not be read into the sums.
    generator = torch.Generator().manual_seed(0)
    first = torch.randn((5, 70), generator=generator)
    second = torch.randn((5, 65), generator=generator)
    padded = torch.full((70, 80), torch.nan)
    triton_kernels.squared_distances(first, second, padded[:, :65])
    cuda._uses_triton = lambda device: False
    expected = torch.empty((70, 65))
    cuda._squared_distances(first, second, expected)
    assert (padded[:, :65] == expected).all()
    assert padded[:, 65:].isnan().all()

    distances = torch.full((1, 20, 32), torch.nan)
    distances[0, :, :20] = 0
    ends = triton_kernels.tree_ends(distances[..., :20], distances[..., :20])
    assert (ends == 0).all(), "all nodes tied: each joins the first"


def _relu_features(seed: int, rows: int) -> Case:
    generator = np.random.default_rng(seed)
    case = Case(seed, rows)
    inputs = generator.normal(size=(rows, 30))
    parent = np.maximum(inputs @ generator.normal(size=(30, 100)) / 5, 0)
    child = np.maximum(parent @ generator.normal(size=(100, 100)) / 10, 0)
    case.child, case.parent = child.astype(np.float32), parent.astype(np.float32)
    case.child_groups = case.parent_groups = np.array_split(np.arange(100), 20)
    return case


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use")
@pytest.mark.parametrize("conditional", [True, False])
def test_gpu_agrees_with_cpu(conditional: bool) -> None:
    case = _relu_features(0, 800)
    options: Options = {"conditional": conditional}
    on_cpu = count_blocks_on("cpu", *case.arguments, **options)
    _same(count_blocks_on("cuda", *case.arguments, **options), on_cpu)
    limit = 3 * _least_limit(case)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    _same(count_blocks_on("cuda", *case.arguments, **options, memory_limit=limit), on_cpu)
    # The allocator rounds every tensor up.
    assert torch.cuda.max_memory_allocated() - before <= limit + 2**20


if __name__ == "__main__":
    _check_triton()
