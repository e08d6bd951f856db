"""The estimator against closed forms: its null distribution, invariances and errors."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import pdist, squareform
from scipy.stats import spearmanr

from mint.gmi.bootstrap import EdgeCounts, estimate
from mint.gmi.estimator import GmiEstimate, conditional_gmi, gmi_bootstraps, gmi_scores
from mint.gmi.reliability import reliability, summarize

Floats = NDArray[np.float64]
ROWS = 2000


def gaussian_truth(rho: float, dimensions: int) -> float:
    """Return E_p[tanh(i / 2)] of the information density i, for pairs of correlation rho."""
    generator = np.random.default_rng(0)
    density = np.zeros(400_000)
    for _ in range(dimensions):
        x, noise = generator.normal(size=(2, len(density)))
        y = rho * x + math.sqrt(1 - rho**2) * noise
        quadratic = rho**2 * (x**2 + y**2) - 2 * rho * x * y
        density += -0.5 * math.log(1 - rho**2) - quadratic / (2 * (1 - rho**2))
    return float(np.tanh(density / 2).mean())


def _pairs(rho: float, rows: int, dimensions: int, seed: int) -> tuple[Floats, Floats, Floats]:
    """Return correlated X and Y, and an independent Z, with `dimensions` columns each."""
    generator = np.random.default_rng(seed)
    x, noise, z = generator.normal(size=(3, rows, dimensions))
    return x, rho * x + math.sqrt(1 - rho**2) * noise, z


def _estimate(x: Floats, y: Floats, z: Floats | None) -> float:
    return conditional_gmi(x, y, z, bootstraps=12).value


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_gaussians_of_two_and_three_dimensions(rho: float) -> None:
    x, y, z = _pairs(rho, ROWS, 1, seed=int(10 * rho))
    truth = gaussian_truth(rho, 1)
    assert _estimate(x, y, None) == pytest.approx(truth, abs=0.03)
    assert _estimate(x, y, z) == pytest.approx(truth, abs=0.03)
    # Z confounds X and Y.
    assert _estimate(x - 2 * z, y + z, z) == pytest.approx(truth, abs=0.03)


@pytest.mark.parametrize("rho", [0.3, 0.9])
def test_gaussians_of_up_to_six_dimensions(rho: float) -> None:
    x, y, z = _pairs(rho, ROWS, 2, seed=int(10 * rho))
    assert _estimate(x, y, None) == pytest.approx(gaussian_truth(rho, 2), abs=0.06)
    assert _estimate(x + z, y + z, z) == pytest.approx(gaussian_truth(rho, 2), abs=0.06)
    x, y, z = _pairs(rho, ROWS, 3, seed=int(10 * rho))
    assert _estimate(x, y, None) == pytest.approx(gaussian_truth(rho, 3), abs=0.06)
    # Blocks of unequal size: one pair, one unrelated column in Y, three in Z.
    unequal = _estimate(x[:, :1], np.hstack([y[:, :1], x[:, 1:]])[:, :2], z)
    assert unequal == pytest.approx(gaussian_truth(rho, 1), abs=0.06)


@pytest.mark.parametrize("rho", [0.3, 0.9])
def test_one_to_one_maps_do_not_change_the_estimate(rho: float) -> None:
    x, y, _ = _pairs(rho, ROWS, 1, seed=5)
    truth = gaussian_truth(rho, 1)
    assert _estimate(np.exp(x), y, None) == pytest.approx(truth, abs=0.03)
    assert _estimate(np.tanh(x), y**3, None) == pytest.approx(truth, abs=0.03)


@pytest.mark.parametrize("dimensions", [1, 5, 25])
def test_stronger_dependence_scores_higher(dimensions: int) -> None:
    values = []
    for rho in (0.1, 0.5, 0.9):
        x, y, _ = _pairs(rho, 1500, dimensions, seed=7)
        values.append(conditional_gmi(x, y, bootstraps=12).value)
    assert values == sorted(values)


@pytest.mark.parametrize(("coordinates", "rank"), [(1, 1), (20, 20), (475, 8)])
@pytest.mark.parametrize("refined", [True, False])
def test_false_positive_rate(coordinates: int, rank: int, refined: bool) -> None:
    alarms = 0
    for seed in range(50):
        generator = np.random.default_rng(seed)
        factors = generator.normal(size=(240, rank))
        z = factors @ generator.normal(size=(rank, coordinates))
        read = factors @ generator.normal(size=(rank, 2)) / math.sqrt(rank)
        noise = generator.normal(size=(240, 2))
        # Independent on even seeds, independent given Z alone on odd ones.
        x, y = np.split(noise + (seed % 2) * 0.5 * read, 2, axis=1)
        alarms += conditional_gmi(x, y, z, seed=seed, refined=refined).p_value < 0.05
    assert alarms <= 9  # 2.5 expected; more than 9 of 50 once in ten thousand


def test_p_values_are_not_all_large_under_the_null() -> None:
    z_scores = [
        conditional_gmi(*_pairs(0.0, 240, 1, seed=seed), seed=seed).z_score for seed in range(100)
    ]
    assert abs(np.mean(z_scores)) < 0.4
    assert 0.7 < np.std(z_scores) < 1.3


def test_copy_of_x_is_detected_given_hundreds_of_filters() -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(900, 1))
    z = generator.normal(size=(900, 475))
    assert conditional_gmi(x, x.copy(), z).z_score > 8
    assert conditional_gmi(x, x.copy(), z, refined=False).z_score > 5


def test_shared_coordinate_among_hundreds_is_no_dependence() -> None:
    generator = np.random.default_rng(0)
    z = generator.normal(size=(900, 475))
    x, y = (z[:, :1] + 0.5 * generator.normal(size=(900, 1)) for _ in range(2))
    assert conditional_gmi(x, y, z).z_score < 3
    # Without the regression on Z this is a documented false positive.
    assert conditional_gmi(x, y, z, refined=False).z_score > 2


def test_null_of_the_count_given_the_tree() -> None:
    generator = np.random.default_rng(0)
    points = generator.normal(size=(60, 3))
    tree = minimum_spanning_tree(squareform(pdist(points))).tocoo()
    degrees = np.bincount(np.concatenate([tree.row, tree.col]), minlength=60)
    adjacent = np.array([int((degrees * (degrees - 1) // 2).sum())])
    z_scores = []
    for _ in range(4000):
        in_first = generator.permutation(60) < 24
        crossing = np.array([int((in_first[tree.row] != in_first[tree.col]).sum())])
        z_scores.append(estimate(EdgeCounts(crossing, adjacent), 24, 36).z_score[0])
    assert np.mean(z_scores) == pytest.approx(0, abs=0.06)
    assert np.std(z_scores) == pytest.approx(1, abs=0.04)


def _activations(rows: int, filters: int, seed: int) -> NDArray[np.float32]:
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(rows, 4)) @ generator.normal(size=(4, filters))
    relu = np.maximum(values + generator.normal(size=values.shape), 0)
    return relu.astype(np.float32)


def test_scores_are_the_estimates_of_their_blocks() -> None:
    # Not behind a ReLU: its many zeros give equal distances, for which trees may differ.
    child, parent = (np.random.default_rng(s).normal(size=(120, c)) for s, c in ((0, 6), (1, 8)))
    child_labels, parent_labels = np.array([0, 1, 0, 1, 1, 0]), np.array([2, 0, 0, 1, 1, 2, 2, 0])
    scores = gmi_scores(child, parent, child_labels, parent_labels, bootstraps=3, seed=4)
    for (i, j), value in np.ndenumerate(scores.value):
        single = conditional_gmi(
            child[:, child_labels == i],
            parent[:, parent_labels == j],
            parent[:, parent_labels != j],
            bootstraps=3,
            seed=4,
            refined=False,
        )
        assert single.value == pytest.approx(value)
        assert single.z_score == pytest.approx(scores.z_score[i, j])
        assert single.standard_error == pytest.approx(scores.standard_error[i, j])


def test_bootstraps_do_not_depend_on_their_number() -> None:
    child, parent = _activations(90, 4, 0), _activations(90, 6, 1)
    endless = gmi_bootstraps(child, parent, 2, 3, seed=5)
    drawn = [next(endless) for _ in range(3)]
    assert np.array_equal(
        summarize(drawn).value, gmi_scores(child, parent, 2, 3, bootstraps=3, seed=5).value
    )
    assert not np.array_equal(drawn[0].value, drawn[1].value)


def test_constant_groups_score_zero() -> None:
    child, parent = _activations(200, 6, 0), _activations(200, 9, 1)
    child[:, :3], parent[:, :3] = 0.7, 0
    scores = gmi_scores(child, parent, 2, 3, bootstraps=8)
    for field in (scores.value, scores.z_score, scores.standard_error):
        assert np.isfinite(field).all()
        assert not field[0].any()
        assert not field[:, 0].any()
        assert field[1, 1:].all()
    for refined in (True, False):
        constant = conditional_gmi(np.ones((90, 2)), parent[:90, 3:], refined=refined, bootstraps=8)
        assert constant == GmiEstimate(0, 0, 0, 0.5)


def test_options_change_the_estimate() -> None:
    child, parent = _activations(300, 4, 0), _activations(300, 6, 0)
    ours = gmi_scores(child, parent, 2, 2, bootstraps=2)
    paper = gmi_scores(child, parent, 2, 2, bootstraps=2, scaled=False, one_to_one=False)
    unconditional = gmi_scores(child, parent, 2, 2, bootstraps=2, conditional=False)
    assert not np.array_equal(ours.value, paper.value)
    assert unconditional.value.mean() > ours.value.mean()
    x, y, _ = _pairs(0.9, 600, 1, seed=0)
    assert conditional_gmi(x, y, scaled=False, one_to_one=False, refined=False).value > 0.2


def test_one_bootstrap_has_no_error_bar() -> None:
    estimate = conditional_gmi(*_pairs(0.5, 60, 1, seed=0))
    assert isinstance(estimate, GmiEstimate)
    assert math.isnan(estimate.standard_error)
    scores = gmi_scores(_activations(60, 4, 0), _activations(60, 4, 1), 2, 2)
    assert np.isnan(scores.standard_error).all()
    assert math.isnan(scores.reliability)
    assert scores.bootstraps == 1


def test_standard_error_equals_the_spread_over_seeds() -> None:
    child, parent = _activations(90, 6, 0), _activations(90, 6, 1)
    means, errors = [], []
    for seed in range(60):
        scores = gmi_scores(child, parent, 1, 2, bootstraps=8, seed=seed)
        means.append(scores.value)
        errors.append(scores.standard_error)
    spread = np.std(means, axis=0, ddof=1)
    assert np.sqrt(np.mean(np.square(errors), axis=0)) == pytest.approx(spread, rel=0.3)


def test_reliability_predicts_the_rank_correlation_of_new_bootstraps() -> None:
    generator = np.random.default_rng(0)
    truth = generator.normal(size=400)
    predicted, found = [], []
    for _ in range(40):
        first, second = truth + 3 * generator.normal(size=(2, 9, 400))
        predicted.append(reliability(first))
        found.append(spearmanr(first.mean(0), second.mean(0)).statistic)
    assert np.mean(predicted) == pytest.approx(np.mean(found), abs=0.03)
    assert reliability(np.repeat(truth[None], 4, 0)) == pytest.approx(1)
    noise = [reliability(generator.normal(size=(4, 400))) for _ in range(40)]
    assert abs(np.mean(noise)) < 0.05
    assert math.isnan(reliability(truth[None]))
    assert math.isnan(reliability(generator.normal(size=(4, 1))))
    assert math.isnan(reliability(np.zeros((4, 5))))


GOOD = np.random.default_rng(0).normal(size=(12, 4))


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((np.where(GOOD > 1, np.nan, GOOD), GOOD, 2, 2), {}, "child: contains values that are nan"),
        (
            (GOOD, np.where(GOOD > 1, np.inf, GOOD), 2, 2),
            {},
            "parent: contains values that are nan",
        ),
        ((GOOD, GOOD[:9], 2, 2), {}, "child and parent: must have the same rows, but child has 12"),
        ((GOOD[:5], GOOD[:5], 2, 2), {}, "child: must have at least 6 rows, not 5"),
        ((GOOD[:, 0], GOOD, 1, 1), {}, r"child: must be \(rows, columns\)"),
        ((GOOD, GOOD[:, :0], 1, 1), {}, "parent: must be .* with columns"),
        ((GOOD, GOOD, 0, 2), {}, "child_groups: must be from 1 to the 4 filters, not 0"),
        ((GOOD, GOOD, 2, 5), {}, "parent_groups: must be from 1 to the 4 filters, not 5"),
        ((GOOD, GOOD, [0, 1], 2), {}, "child_groups: must be a number, or an integer label"),
        ((GOOD, GOOD, [0, 1, 0, 9], 2), {}, "child_groups: labels must be from 0 to 3"),
        ((GOOD, GOOD, [0, 1, 0, -1], 2), {}, "child_groups: labels must be from 0 to 3"),
        ((GOOD, GOOD, 2, [0, 2, 0, 2]), {}, "parent_groups: no filter has the label 1"),
        ((GOOD, GOOD, 2, [0.5, 2, 0, 2]), {}, "parent_groups: must be a number, or an integer"),
        (
            (GOOD, GOOD, 2, 2),
            {"bootstraps": 0},
            "bootstraps: must be an integer of at least 1, not 0",
        ),
        ((GOOD, GOOD, 2, 2), {"bootstraps": 1.5}, "bootstraps: must be an integer"),
        ((GOOD, GOOD, 2, 2), {"seed": -1}, "seed: must be an integer of at least 0, not -1"),
        ((GOOD, GOOD, None, 2), {}, "child_groups: must be a number, or an integer label"),
        ((GOOD, GOOD, 2.0, 2), {}, "child_groups: must be a number, or an integer label"),
        ((GOOD * 1j, GOOD, 2, 2), {}, "child: must be real numbers"),
        (([["a"]], GOOD, 1, 1), {}, "child: must be a table of numbers"),
        ((GOOD, GOOD, 2, 2), {"memory_limit": None}, "memory_limit: must be an integer"),
        ((GOOD, GOOD, 2, 2), {"memory_limit": 1000}, "memory_limit"),
        ((GOOD, GOOD, 2, 2), {"device": "tpu"}, "device: must be cpu or cuda, not 'tpu'"),
    ],
)
def test_errors_name_the_argument(
    arguments: tuple[object, ...], options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        gmi_scores(*arguments, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("rows", [6, 7, 8, 9, 11, 12, 13])
@pytest.mark.parametrize("refined", [True, False])
def test_fewest_rows(rows: int, refined: bool) -> None:
    generator = np.random.default_rng(rows)
    x, y, z = (generator.normal(size=(rows, columns)) for columns in (1, 2, 20))
    for others in (None, z):
        estimate = conditional_gmi(x, y, others, bootstraps=4, refined=refined)
        assert math.isfinite(estimate.value)
        assert math.isfinite(estimate.standard_error)


@pytest.mark.parametrize("exponent", [-300, -126, -20, 20, 128, 300])
def test_common_scale_does_not_matter(exponent: int) -> None:
    x, y, z = _pairs(0.8, 300, 2, seed=0)
    scale = 2.0**exponent
    for options in ({}, {"refined": False}, {"refined": False, "scaled": False}):
        plain = conditional_gmi(x, y, z, **options)
        scaled = conditional_gmi(scale * x, scale * y, scale * z, **options)
        assert scaled.value == plain.value
        assert scaled.z_score == plain.z_score


def test_functions_of_z_are_independent_given_z() -> None:
    z = np.random.default_rng(0).normal(size=(600, 2))
    assert abs(conditional_gmi(z[:, :1], 2 * z[:, :1] + z[:, 1:], z, bootstraps=4).value) < 0.1


def test_integers_and_lists_are_accepted() -> None:
    x = np.random.default_rng(0).integers(0, 3, size=(30, 2))
    estimate = conditional_gmi(x.tolist(), x.astype(np.uint8), bootstraps=4)
    assert estimate.value > 0.2


def test_errors_of_one_estimate() -> None:
    with pytest.raises(ValueError, match="x and y and z: must have the same rows"):
        conditional_gmi(GOOD, GOOD, GOOD[:9])
    with pytest.raises(ValueError, match="z: contains values that are nan"):
        conditional_gmi(GOOD, GOOD, GOOD * np.nan)
