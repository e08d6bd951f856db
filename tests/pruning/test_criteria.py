"""Criteria score what their papers say, on blocks of their own, under everyone's budget."""

from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor, nn

from mint.cli.app import main
from mint.config.schema import CRITERIA, EstimateConfig, Experiment, NetworkConfig, TrialConfig
from mint.data.datasets import Source
from mint.errors import InputError
from mint.gmi.estimator import gmi_scores
from mint.models import LayerPair, Traced, mlp, trace
from mint.models.activations import collect, nodes_of
from mint.pruning.criteria import FUNCTIONS, Evidence
from mint.pruning.gradients import loss_gradients
from mint.pruning.masks import BlockScores, Masks, PruningOrder
from mint.pruning.scores import estimate_layer, load_scores
from mint.store.stage_cache import StageCache
from mint.trial.pipeline import TrialPipeline, run_trial
from mint.trial.preflight import check_trials
from mint.trial.provenance import Provenance
from mint.trial.result import MASKS_FILE, TrialResult

PROVENANCE = Provenance.of_this_process(None, ["mint", "run"])
CPU = torch.device("cpu")
WITHOUT_BATCH_NORM = [name for name in CRITERIA if name != "bn-scale"]


def convolutional() -> nn.Module:
    """As VGG, but tiny, with a grouped convolution, and a head that reads flattened filters."""
    network = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 8, 3, padding=1),
            bn1=nn.BatchNorm2d(8),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(8, 12, 3, padding=1, groups=2),
            bn2=nn.BatchNorm2d(12),
            relu2=nn.ReLU(),
            pool=nn.AdaptiveAvgPool2d(2),
            flatten=nn.Flatten(),
            linear1=nn.Linear(48, 6),
            bn3=nn.BatchNorm1d(6),
            relu3=nn.ReLU(),
            linear2=nn.Linear(6, 10),
        )
    )
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return network


@pytest.fixture(scope="module")
def batch(digits: Source) -> tuple[Tensor, Tensor]:
    pixels = digits.train.take(np.arange(100))
    return (pixels.float() - 5) / 6, torch.from_numpy(digits.train_labels[:100])


@pytest.fixture(scope="module")
def traced() -> Traced:
    return trace(convolutional(), torch.zeros(1, 1, 8, 8))


def _trial(quick_trial: TrialConfig, criterion: str, **update: object) -> TrialConfig:
    content = {name: getattr(quick_trial, name) for name in type(quick_trial).model_fields}
    return TrialConfig.model_validate(content | {"criterion": criterion} | update)


def _evidence(config: TrialConfig, traced: Traced, batch: tuple[Tensor, Tensor]) -> Evidence:
    weights = [f"{pair.child}.weight" for pair in traced.pairs]
    return Evidence(
        traced=traced,
        groups_of=config.groups_of,
        estimate=config.estimate,
        seed=config.seed,
        activations=lambda: collect(traced, [batch[0]], nodes_of(traced.pairs)),
        gradients=lambda: loss_gradients(traced, [batch], weights),
    )


def _scores(folder: Path, criterion: str, evidence: Evidence, pair: LayerPair) -> BlockScores:
    estimate_layer(folder, pair, criterion, evidence)
    return load_scores(folder, pair, evidence.traced.graph)


def _by_entry(scores: BlockScores) -> NDArray[np.float64]:
    """Return the score of the block that every entry of the weight is in."""
    values = scores.value[scores.rows, scores.parent_labels]
    shape = (*values.shape[:2], *scores.kernel)
    return np.broadcast_to(values.reshape(*values.shape, *[1] * (len(shape) - values.ndim)), shape)


def _mean_of_blocks(scores: BlockScores, entries: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of entries over the blocks of the scores, block by block."""
    expected = np.full(scores.value.shape, np.nan)
    for block in np.ndindex(expected.shape):
        kept = np.ones(expected.shape, bool)
        kept[block] = False
        inside = ~scores.expand(kept)
        if inside.any():
            expected[block] = entries[inside].mean()
    return expected


def test_every_criterion_that_can_be_named_has_a_function() -> None:
    assert list(FUNCTIONS) == list(CRITERIA)


def test_trials_that_differ_in_what_a_criterion_does_not_use_are_one(
    quick_trial: TrialConfig,
) -> None:
    for name, used in CRITERIA.items():
        trial = _trial(quick_trial, name)
        for axis in ("groups", "samples_per_class", "bootstraps"):
            other = _trial(quick_trial, name, **{axis: 7})
            assert (other.key == trial.key) == (other.name == trial.name) == (axis not in used)
            same_scores = other.scores_key("fc2") == trial.scores_key("fc2")
            assert same_scores == (axis not in used)
        assert trial.protocol == quick_trial.protocol
        assert TrialConfig.model_validate_json(trial.model_dump_json()) == trial
    keys = {_trial(quick_trial, name).key for name in CRITERIA}
    assert len(keys) == len(CRITERIA)
    assert _trial(quick_trial, "magnitude").name == "magnitude-unone-seed0"
    assert _trial(quick_trial, "random", fraction=0.9).name == "random-g6-unone-f0.9-seed0"
    assert _trial(quick_trial, "mint").name == quick_trial.name
    with pytest.raises(ValueError, match="did you mean taylor"):
        _trial(quick_trial, "tailor")
    with pytest.raises(ValueError, match="groups 0: must be at least 1 for mint"):
        _trial(quick_trial, "mint", groups=0)


def test_random_blocks_are_uniform_and_follow_the_seed_alone(
    quick_trial: TrialConfig, batch: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    network = nn.Sequential(OrderedDict(a=nn.Linear(64, 90), b=nn.Linear(90, 80)))
    flat = (batch[0].flatten(1), batch[1])

    def drawn(seed: int) -> NDArray[np.float64]:
        own = trace(network, torch.zeros(1, 64))
        config = _trial(quick_trial, "random", seed=seed, groups=80)
        return _scores(tmp_path, config.criterion, _evidence(config, own, flat), own.pairs[0]).value

    first = drawn(0)
    assert first.shape == (80, 80)
    assert stats.kstest(first.ravel(), "uniform").pvalue > 0.01
    assert np.array_equal(first, drawn(0))
    assert abs(np.corrcoef(first.ravel(), drawn(1).ravel())[0, 1]) < 0.05
    with torch.no_grad():
        network.get_parameter("b.weight").mul_(100)
    assert np.array_equal(first, drawn(0))


def test_magnitude_prunes_exactly_the_smallest_weights(
    quick_trial: TrialConfig, traced: Traced, batch: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    evidence = _evidence(_trial(quick_trial, "magnitude"), traced, batch)
    scores = {
        f"{p.child}.weight": _scores(tmp_path, "magnitude", evidence, p) for p in traced.pairs
    }
    absolute = {
        name: traced.graph.get_parameter(name).detach().abs().double().numpy() for name in scores
    }
    for name, layer in scores.items():
        assert np.array_equal(_by_entry(layer), absolute[name])
        assert (layer.sizes == 1).all()
    generator = np.random.default_rng(0)
    order = PruningOrder(scores, limits=dict.fromkeys(scores), generator=generator)
    total = sum(weight.size for weight in absolute.values())
    masks = order.masks(order.blocks_within(0.7, total))
    assert masks.pruned == int(0.7 * total)
    pruned = np.concatenate([absolute[name][~mask] for name, mask in masks.items()])
    kept = np.concatenate([absolute[name][mask] for name, mask in masks.items()])
    assert pruned.max() <= kept.min()


@pytest.mark.parametrize("criterion", ["l1-filters", "bn-scale"])
def test_filters_go_as_a_whole_by_the_published_measure(
    quick_trial: TrialConfig,
    batch: tuple[Tensor, Tensor],
    tmp_path: Path,
    criterion: str,
) -> None:
    network = convolutional()
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    traced = trace(network, torch.zeros(1, 1, 8, 8))
    norms = {"conv2": "bn2", "linear1": "bn3"}
    evidence = _evidence(_trial(quick_trial, criterion), traced, batch)
    for pair in traced.pairs[:2]:
        weight = network.get_parameter(f"{pair.child}.weight").detach()
        gamma = network.get_parameter(f"{norms[pair.child]}.weight").detach()
        expected = weight.abs().flatten(1).sum(1) if criterion == "l1-filters" else gamma.abs()
        scores = _scores(tmp_path, criterion, evidence, pair)
        assert scores.value[:, 0] == pytest.approx(expected.numpy(), rel=1e-6)
        order = PruningOrder({"w": scores}, limits={"w": None}, generator=np.random.default_rng(0))
        mask = order.masks(order.blocks_within(0.5, weight.numel()))["w"]
        rows = mask.reshape(len(mask), -1)
        assert np.array_equal(rows.any(1), rows.all(1))
        lowest = np.argsort(expected.numpy())[: len(mask) // 2]
        assert np.array_equal(np.sort(lowest), np.flatnonzero(~rows.any(1)))
    after = network.state_dict()
    assert network.training
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_bn_scale_takes_the_batch_norm_right_behind_the_layer(traced: Traced) -> None:
    behind = [traced.batch_norm_behind(layer.name) for layer in traced.layers]
    assert behind == ["bn1", "bn2", "bn3", None]
    plain = nn.Sequential(
        nn.Linear(4, 4),
        nn.Identity(),
        nn.BatchNorm1d(4),
        nn.Linear(4, 4),
        nn.ReLU(),
        nn.BatchNorm1d(4),
        nn.Linear(4, 4),
        nn.BatchNorm1d(4, affine=False),
    )
    followed = trace(plain, torch.zeros(2, 4))
    assert [followed.batch_norm_behind(layer.name) for layer in followed.layers] == [
        *("2", None, None)
    ]


def test_layer_may_be_called_as_a_node_of_the_graph_is() -> None:
    named = nn.Sequential(
        OrderedDict(input=nn.Linear(4, 4), norm=nn.BatchNorm1d(4), output=nn.Linear(4, 4))
    )
    traced = trace(named, torch.zeros(2, 4))
    assert [traced.batch_norm_behind(layer.name) for layer in traced.layers] == ["norm", None]


def test_a_limit_of_all_layers_allows_itself(quick_trial: TrialConfig, digits: Source) -> None:
    content = quick_trial.experiment.model_dump() | {
        "network": {"name": "mlp", "arguments": {"widths": [64, 24, 20, 16, 12, 10]}},
        "prune": "all",
    }
    experiment = Experiment.model_validate(content)
    for hundredths in range(1, 100):
        share = {"upper_limit": hundredths / 100, "fraction": hundredths / 100, "groups": 4}
        trial = quick_trial.model_copy(update={"experiment": experiment, **share})
        check_trials([trial], digits)


def test_bn_scale_is_refused_where_a_layer_has_no_batch_norm(
    quick_trial: TrialConfig, digits: Source
) -> None:
    with pytest.raises(InputError, match=r"--criterion bn-scale: digits_mlp prunes fc2, which"):
        check_trials([_trial(quick_trial, "bn-scale")], digits)
    network = NetworkConfig(name=f"{__name__}:convolutional")
    update = {"network": network, "prune": "all", "leave_out": (("linear1", "linear2"),)}
    experiment = quick_trial.experiment.model_copy(update=update)
    check_trials([_trial(quick_trial, "bn-scale", experiment=experiment)], digits)
    whole = experiment.model_copy(update={"leave_out": ()})
    with pytest.raises(InputError, match="prunes linear2"):
        check_trials([_trial(quick_trial, "bn-scale", experiment=whole)], digits)


def test_block_magnitude_is_the_mean_over_the_block(
    quick_trial: TrialConfig, traced: Traced, batch: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    for groups in (3, 5):
        evidence = _evidence(_trial(quick_trial, "block-magnitude", groups=groups), traced, batch)
        for pair in traced.pairs:
            scores = _scores(tmp_path, "block-magnitude", evidence, pair)
            expected = _mean_of_blocks(scores, np.abs(evidence.weight(pair)))
            there = ~np.isnan(expected)
            assert np.array_equal(there, scores.sizes > 0)
            assert scores.value[there] == pytest.approx(expected[there])


def test_activation_magnitude_weighs_by_the_parent_filter(
    quick_trial: TrialConfig, traced: Traced, batch: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    network = convolutional().eval()
    with torch.no_grad():
        inside = network[:3](batch[0])  # type: ignore[index]
        read = {"conv2": inside, "linear1": network[3:6](inside)}  # type: ignore[index]
    evidence = _evidence(_trial(quick_trial, "activation-magnitude", groups=3), traced, batch)
    for pair in traced.pairs[:2]:
        means = read[pair.child].mean((2, 3)).abs().mean(0).double().numpy()
        parents = np.broadcast_to(means[pair.columns()], evidence.weight(pair).shape[:2])
        weight = np.abs(evidence.weight(pair))
        weighed = weight * parents.reshape(*parents.shape, *[1] * (weight.ndim - 2))
        scores = _scores(tmp_path, "activation-magnitude", evidence, pair)
        expected = _mean_of_blocks(scores, weighed)
        there = ~np.isnan(expected)
        assert scores.value[there] == pytest.approx(expected[there], rel=1e-5)


def test_taylor_is_the_squared_sum_of_gradient_times_weight(
    quick_trial: TrialConfig, batch: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    torch.manual_seed(1)
    network = nn.Sequential(
        OrderedDict(a=nn.Linear(64, 6), relu=nn.ReLU(), drop=nn.Dropout(0.5), b=nn.Linear(6, 10))
    )
    traced = trace(network, torch.zeros(1, 64))
    config = _trial(quick_trial, "taylor", groups=2)
    evidence = _evidence(config, traced, (batch[0].flatten(1), batch[1]))
    scores = _scores(tmp_path, "taylor", evidence, traced.pairs[0])
    # The gradient of softmax cross-entropy by hand: (p - y) h, averaged over the rows.
    weights = {name: value.detach().double().numpy() for name, value in network.named_parameters()}
    inputs = batch[0].flatten(1).double().numpy()
    hidden = np.maximum(inputs @ weights["a.weight"].T + weights["a.bias"], 0)
    logits = hidden @ weights["b.weight"].T + weights["b.bias"]
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    gradient = (shares - np.eye(10)[batch[1].numpy()]).T @ hidden / len(inputs)
    product = (gradient * weights["b.weight"]).reshape(2, 5, 2, 3)
    assert scores.value == pytest.approx(product.sum((1, 3)) ** 2, rel=1e-4)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_gradients_do_not_depend_on_the_batches(
    traced: Traced, batch: tuple[Tensor, Tensor]
) -> None:
    names = [f"{pair.child}.weight" for pair in traced.pairs]
    whole = loss_gradients(traced, [batch], names)
    parts = list(zip(batch[0].split(33), batch[1].split(33), strict=True))
    for name, gradient in loss_gradients(traced, parts, names).items():
        assert gradient.shape == traced.graph.get_parameter(name).shape
        assert torch.allclose(gradient, whole[name], rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def _run(config: TrialConfig, digits: Source, root: Path) -> Path:
    return run_trial(
        TrialPipeline(config, digits, cache=StageCache(root), device=CPU, provenance=PROVENANCE)
    )


@pytest.mark.parametrize("criterion", WITHOUT_BATCH_NORM)
def test_trial_of_every_criterion_has_the_same_baseline_budget_and_limit(
    quick_trial: TrialConfig,
    digits: Source,
    shared_cache: Path,
    tmp_path: Path,
    criterion: str,
) -> None:
    config = _trial(quick_trial, criterion, fraction=0.8, bootstraps=2)
    folder = _run(config, digits, shared_cache)
    result = TrialResult.load(folder)
    block = {"l1-filters": 500, "magnitude": 1}.get(criterion, 50 * 84)
    assert 0.8 * 150000 - block < result.pruned_weights <= 0.8 * 150000
    assert (result.bootstraps > 0) == config.uses("bootstraps")
    limited = _trial(quick_trial, criterion, fraction=0.3, upper_limit=0.3, bootstraps=2)
    limited_masks = Masks.load(_run(limited, digits, shared_cache) / MASKS_FILE)
    assert 0.3 * 150000 - block < limited_masks.pruned <= 0.3 * 150000
    # The more is pruned, the less is kept of the same.
    masks = Masks.load(folder / MASKS_FILE)
    assert not np.any(masks["fc2.weight"] & ~limited_masks["fc2.weight"])
    assert sum(path.is_dir() for path in (shared_cache / "baselines").iterdir()) == 1
    again = _run(config, digits, tmp_path)
    assert (again / MASKS_FILE).read_bytes() == (folder / MASKS_FILE).read_bytes()


def test_all_weights_may_go_and_the_picture_is_still_drawn(
    quick_trial: TrialConfig, digits: Source, shared_cache: Path
) -> None:
    folder = _run(_trial(quick_trial, "magnitude", fraction=1.0), digits, shared_cache)
    assert TrialResult.load(folder).params_pruned == 100
    assert (folder / "scores.png").stat().st_size > 1000


@pytest.mark.usefixtures("empty_folder")
def test_stage_after_stage_of_a_criterion(capsys: pytest.CaptureFixture[str]) -> None:
    options = "--experiment digits_mlp --smoke --criterion taylor --fraction 0.9 --groups 6"
    for stage in ("train", "estimate", "prune", "retrain"):
        assert main(f"{stage} {options}".split()) == 0
    printed = capsys.readouterr().out
    assert "digits_mlp taylor-g6-s100-unone-f0.9-seed0 on" in printed
    assert "scores fc1 -> fc2: 36 blocks, 0." in printed
    (page,) = Path("results/trials").iterdir()
    figures = {line.split("|")[1].strip(): line for line in page.read_text().splitlines()[4:26]}
    assert "| 6 " in figures["Groups"]
    assert "| N/A " in figures["Bootstraps"]
    assert ",taylor,none,6,100,0.9,0,0," in Path("results/records.csv").read_text()


def test_the_papers_way_of_estimating(quick_trial: TrialConfig, digits: Source) -> None:
    """One bootstrap of activations as they are, with nearest neighbours for partners."""
    estimate = EstimateConfig(bootstraps=1, paper=True)
    experiment = quick_trial.experiment.model_copy(update={"estimate": estimate})
    config = quick_trial.model_copy(update={"experiment": experiment})
    traced = trace(mlp((64, 12, 10, 10), 0.0), torch.zeros(1, 1, 8, 8))
    pair = traced.pairs[0]
    pixels = digits.train.take(np.arange(90)).float()
    nodes = {pair.parent_node: 12, pair.child_node: 10}
    activations = collect(traced, [pixels], nodes)
    evidence = Evidence(
        traced, config.groups_of, config.estimate, config.seed, lambda: activations, dict
    )
    groups = (config.groups_of(pair.child, 10), config.groups_of(pair.parent, 12))
    arrays = activations[pair.child_node], activations[pair.parent_node]
    expected = gmi_scores(*arrays, *groups, scaled=False, one_to_one=False)
    found = FUNCTIONS["mint"](pair, evidence)
    np.testing.assert_array_equal(found.value, expected.value)
    assert not np.array_equal(found.value, gmi_scores(*arrays, *groups).value)
    assert config.key != quick_trial.key
