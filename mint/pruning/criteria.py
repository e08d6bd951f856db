"""What scores the weight blocks of a layer pair: MINT, and the controls to hold it against.

A criterion is a function of a pair and of what there is to judge it by. Its scores are ranked over
all layers together and the lowest go first, whatever their unit. The blocks are those of (child
group, parent group), but for magnitude, whose blocks are single weights, and for the criteria that
score whole filters, whose blocks are the rows of the weight.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from types import MappingProxyType

import numpy as np
import torch
import torch_pruning
from numpy.typing import NDArray
from torch import Tensor, nn

from mint.config.schema import EstimateConfig
from mint.errors import InputError
from mint.gmi.estimator import Bootstrap, contiguous_groups, gmi_bootstraps, summarize
from mint.models import LayerPair, Traced
from mint.models.tracing import evaluating
from mint.rng import stream

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Evidence:
    """What a criterion may judge by. What takes time is a function, for those who ask for it.

    Attributes:
        traced: the trained network.
        groups_of: for a layer's name and its number of filters, the number of their groups.
        estimate: bootstraps, and how they are made.
        seed: of everything that is drawn.
        activations: for the name of a pair's node, (n, filters) over the estimation rows.
        gradients: for the name of a pruned weight, that of the loss over the same rows.
    """

    traced: Traced
    groups_of: Callable[[str, int], int]
    estimate: EstimateConfig
    seed: int
    activations: Callable[[], Mapping[str, NDArray[np.float32]]]
    gradients: Callable[[], Mapping[str, Tensor]]

    def weight(self, pair: LayerPair) -> Floats:
        """Return (child filters, columns, ...): the weight that the pair prunes."""
        weight = self.traced.graph.get_parameter(f"{pair.child}.weight")
        values: Floats = weight.detach().cpu().double().numpy()
        return values


@dataclass(frozen=True)
class Scored:
    """The scores of a pair's blocks.

    Attributes:
        value: (child blocks, parent blocks); the lowest go first.
        child_labels: (child filters,) the block of each.
        parent_labels: (parent filters,) the block of each; or (1, columns, *kernel), the block of
            every entry in a row of the weight.
        bootstraps: how many each score is the mean of; 0 where none are drawn.
        reliability: of the ranking; nan where there is none.
        details: further arrays that are kept with the scores: of MINT's standard_error and z_score
            (each child groups x parent groups), and bootstraps (one such matrix each).
    """

    value: Floats
    child_labels: Labels
    parent_labels: Labels
    bootstraps: int = 0
    reliability: float = math.nan
    details: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)

    @property
    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """All of these by their names, but for the number of bootstraps."""
        return {
            "value": self.value,
            "reliability": np.array(self.reliability),
            "child_labels": self.child_labels,
            "parent_labels": self.parent_labels,
            **self.details,
        }


Criterion = Callable[[LayerPair, Evidence], Scored]


def mint(pair: LayerPair, evidence: Evidence, *, conditional: bool) -> Scored:
    """Score by geometric mutual information, given all other parent groups or without them.

    Ganesh, Corso and Yasaei Sekeh, MINT, ICPR 2020; mint.gmi.estimator has the estimator.
    """
    estimate = evidence.estimate
    child_labels, parent_labels = _groups(pair, evidence)
    activations = evidence.activations()
    bootstraps = gmi_bootstraps(
        activations[pair.child_node],
        activations[pair.parent_node],
        child_labels,
        parent_labels,
        seed=evidence.seed,
        device=next(evidence.traced.graph.parameters()).device.type,
        scaled=not estimate.paper,
        one_to_one=not estimate.paper,
        conditional=conditional,
    )
    drawn: list[Bootstrap] = []
    for wanted in _bootstraps_to_try(estimate):
        drawn += islice(bootstraps, wanted - len(drawn))
        scores = summarize(drawn)
        if estimate.reliability and scores.reliability >= estimate.reliability:
            break
    details = {
        "standard_error": scores.standard_error,
        "z_score": scores.z_score,
        "bootstraps": np.stack([bootstrap.value for bootstrap in drawn]),
    }
    return Scored(
        value=scores.value,
        child_labels=child_labels,
        parent_labels=parent_labels,
        bootstraps=scores.bootstraps,
        reliability=scores.reliability,
        details=details,
    )


def random_blocks(pair: LayerPair, evidence: Evidence) -> Scored:
    """Score by numbers drawn evenly from 0 to 1: what any claim of a criterion has to beat."""
    child_labels, parent_labels = _groups(pair, evidence)
    generator = stream(evidence.seed, f"random scores of {pair.child}")
    value = generator.random((child_labels[-1] + 1, parent_labels[-1] + 1))
    return Scored(value, child_labels, parent_labels)


def block_magnitude(pair: LayerPair, evidence: Evidence) -> Scored:
    """Score by the mean absolute weight of the block.

    The mean and not a norm, which would call the small blocks of a small layer unimportant. Not
    torch_pruning's GroupMagnitudeImportance, whose unit is a filter with all it is coupled to.
    """
    return _block_means(pair, evidence, np.abs(evidence.weight(pair)))


def magnitude(pair: LayerPair, evidence: Evidence) -> Scored:
    """Score every weight by its absolute value: unstructured, as Han et al., NeurIPS 2015.

    It has the finest blocks of all, and so the most freedom; torch_pruning has only filters.
    """
    weight = np.abs(evidence.weight(pair))
    of_a_row = np.arange(weight[0].size)
    return Scored(
        weight.reshape(len(weight), -1),
        np.arange(len(weight)),
        of_a_row.reshape(1, *weight.shape[1:]),
    )


def l1_filters(pair: LayerPair, evidence: Evidence) -> Scored:
    """Score whole child filters by the sum of their absolute weights.

    Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017: Pruned-A of the MINT record.
    They choose the share of every layer by hand; here filters compete over all layers, as the
    blocks of every criterion do.
    """
    l1 = torch_pruning.importance.GroupMagnitudeImportance(
        p=1, group_reduction="first", normalizer=None
    )
    layer = evidence.traced.graph.get_submodule(pair.child)
    return _filters(pair, _importance(l1, layer))


def bn_scale(pair: LayerPair, evidence: Evidence) -> Scored:
    """Score whole child filters by the absolute scale of the batch norm behind them.

    Liu et al., Learning Efficient Convolutional Networks through Network Slimming, ICCV 2017;
    without the penalty on the scales that they train with, for all criteria share a baseline.
    """
    norm = evidence.traced.batch_norm_behind(pair.child)
    if norm is None:
        raise InputError(f"bn-scale: {pair.child} has no batch norm of its own right behind it")
    layers = [evidence.traced.graph.get_submodule(name) for name in (pair.child, norm)]
    scale = torch_pruning.importance.BNScaleImportance(group_reduction="first", normalizer=None)
    return _filters(pair, _importance(scale, *layers))


def taylor(pair: LayerPair, evidence: Evidence) -> Scored:
    """Score by how much the loss changes without the block, to first order, squared.

    Molchanov et al., Importance Estimation for Neural Network Pruning, CVPR 2019, as of a gate
    that multiplies the block: (sum of gradient times weight)^2, with the gradient of the mean loss
    over the estimation rows. Not torch_pruning's GroupTaylorImportance, which has absolute values
    in place of squares, and whole filters for its units.
    """
    gradient = evidence.gradients()[f"{pair.child}.weight"].numpy()
    sums = _block_sums(pair, evidence, gradient * evidence.weight(pair))
    return replace(sums, value=sums.value**2)


def activation_magnitude(pair: LayerPair, evidence: Evidence) -> Scored:
    """Score by the mean over the block of |weight| times the parent filter's mean |activation|.

    After Wanda, Sun et al., ICLR 2024, which takes the norm of the activation and single weights.
    """
    parents = np.abs(evidence.activations()[pair.parent_node], dtype=np.float64).mean(0)
    weight = np.abs(evidence.weight(pair))
    read = parents[pair.columns()]
    scaled = weight * read.reshape(*read.shape, *(1 for _ in weight.shape[2:]))
    return _block_means(pair, evidence, scaled)


# For the names of mint.config.schema.CRITERIA.
FUNCTIONS: Mapping[str, Criterion] = MappingProxyType(
    {
        "mint": partial(mint, conditional=True),
        "mint-unconditional": partial(mint, conditional=False),
        "random": random_blocks,
        "block-magnitude": block_magnitude,
        "magnitude": magnitude,
        "l1-filters": l1_filters,
        "bn-scale": bn_scale,
        "taylor": taylor,
        "activation-magnitude": activation_magnitude,
    }
)


def _bootstraps_to_try(estimate: EstimateConfig) -> Iterator[int]:
    """Yield after how many bootstraps to look at the reliability: each time half as many again."""
    wanted = 4
    while estimate.reliability and wanted < estimate.bootstraps:
        yield wanted
        wanted += wanted // 2
    yield estimate.bootstraps


def _groups(pair: LayerPair, evidence: Evidence) -> tuple[Labels, Labels]:
    """Label the child's and the parent's filters with their groups."""
    child, parent = pair.child_filters, pair.parent_filters
    return (
        contiguous_groups(child, evidence.groups_of(pair.child, child)),
        contiguous_groups(parent, evidence.groups_of(pair.parent, parent)),
    )


def _block_means(pair: LayerPair, evidence: Evidence, entries: Floats) -> Scored:
    sums = _block_sums(pair, evidence, entries)
    sizes = _block_sums(pair, evidence, np.ones_like(entries)).value
    # A grouped convolution has blocks without a weight, which are never pruned.
    return replace(sums, value=sums.value / np.maximum(sizes, 1))


def _block_sums(pair: LayerPair, evidence: Evidence, entries: Floats) -> Scored:
    """Score blocks by the sum of what stands in place of their weights, (rows, columns, ...)."""
    child_labels, parent_labels = _groups(pair, evidence)
    children, parents = int(child_labels[-1]) + 1, int(parent_labels[-1]) + 1
    by_kernel = entries.reshape(*entries.shape[:2], -1).sum(2)
    block = child_labels[:, None] * parents + parent_labels[pair.columns()]
    sums = np.zeros(children * parents)
    np.add.at(sums, block.ravel(), by_kernel.ravel())
    return Scored(sums.reshape(children, parents), child_labels, parent_labels)


def _filters(pair: LayerPair, value: Floats) -> Scored:
    """Return scores of whole child filters: each is a block with all that it reads."""
    return Scored(value[:, None], np.arange(len(value)), np.zeros(pair.parent_filters, np.int64))


def _importance(
    importance: torch_pruning.importance.Importance, layer: nn.Module, *behind: nn.Module
) -> Floats:
    """Return torch-pruning's importance of a layer's filters, with what is behind it in the group.

    The group is that of these modules alone: in the network's own, layers that share a residual
    sum would share their importance, and their masks need not be the same here.
    """
    assert isinstance(layer, nn.Linear | nn.modules.conv._ConvNd)
    shape: tuple[int, ...]
    if isinstance(layer, nn.Linear):
        remove, shape = torch_pruning.prune_linear_out_channels, (layer.in_features,)
    else:
        extents = zip(layer.kernel_size, layer.dilation, strict=True)
        covered = (1 + (size - 1) * dilation for size, dilation in extents)
        remove, shape = torch_pruning.prune_conv_out_channels, (layer.in_channels, *covered)
    chain = nn.Sequential(layer, *behind)
    with evaluating(chain), torch.enable_grad():
        group = (
            torch_pruning.DependencyGraph()
            .build_dependency(chain, torch.zeros(1, *shape, device=layer.weight.device))
            .get_pruning_group(layer, remove, list(range(len(layer.weight))))
        )
    value: Floats = importance(group).cpu().double().numpy()
    return value
