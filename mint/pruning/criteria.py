"""Pruning criteria: MINT, and the baselines to compare it with.

A criterion is a function that scores the weight blocks of a layer pair. Scores are ranked over all
layers together, without normalization, and the lowest are pruned first. A block is the weights
between a child group and a parent group. For magnitude every weight is a block, and for the
filter criteria every row of the weight is one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mint.config.estimate import EstimateConfig
from mint.errors import InputError
from mint.gmi.bootstrap import Bootstrap
from mint.gmi.estimator import gmi_bootstraps
from mint.gmi.reliability import summarize
from mint.models.layers import LayerPair, Traced
from mint.pruning.gaussian import gaussian_information
from mint.pruning.grouping import Labels, PairGroups
from mint.pruning.own_criteria import own_criterion
from mint.pruning.scores import BlockScores
from mint.rng import stream

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CriterionInputs:
    """What a criterion scores blocks from. Activations and gradients are computed on demand.

    Attributes:
        traced: the trained network.
        groups: returns the groups of a pair's filters: see mint.pruning.grouping.
        estimate: settings of MINT's bootstraps and of the Gaussian information.
        device: cpu or cuda, where the scores of MINT are estimated.
        memory_limit: bytes that the bootstraps may use on that device.
        seed: seeds every random draw.
        activations: returns for each node of a pair (rows, filters) over the estimation rows.
        magnitudes: the same of absolute activations.
        gradients: returns for each pruned weight the gradient of the loss over the same rows.
        on_bootstrap: gets the number of bootstraps drawn so far, from 0, and the largest number.
    """

    traced: Traced
    groups: Callable[[LayerPair], PairGroups]
    estimate: EstimateConfig
    device: str
    memory_limit: int
    seed: int
    activations: Callable[[], Mapping[str, NDArray[np.float32]]]
    magnitudes: Callable[[], Mapping[str, NDArray[np.float32]]]
    gradients: Callable[[], Mapping[str, Tensor]]
    on_bootstrap: Callable[[int, int], None] = lambda drawn, most: None

    def weight(self, pair: LayerPair) -> Floats:
        """Return the weight that the pair prunes: (child filters, columns, *kernel)."""
        weight = self.traced.network.get_parameter(pair.weight).detach()
        return _oriented(pair, weight).cpu().double().numpy()

    def blocks(self, pair: LayerPair) -> BlockScores:
        """Return the blocks of the weight that the pair prunes, with scores of zero."""
        child, parent = self.groups(pair)
        value = np.zeros((int(child.max()) + 1, int(parent.max()) + 1))
        parents = parent[pair.columns()]
        return BlockScores(value, child, parents, pair.kernel, transposed=pair.transposed)


Criterion = Callable[[LayerPair, CriterionInputs], BlockScores]


def mint(pair: LayerPair, inputs: CriterionInputs, *, conditional: bool) -> BlockScores:
    """Score by geometric mutual information, conditional on all other parent groups or not.

    Ganesh, Corso and Yasaei Sekeh, MINT, ICPR 2020; mint.gmi.estimator has the estimator.
    """
    estimate = inputs.estimate
    groups = inputs.groups(pair)
    activations = inputs.activations()
    bootstraps = gmi_bootstraps(
        activations[pair.child_node],
        activations[pair.parent_node],
        groups.child,
        groups.parent,
        seed=inputs.seed,
        device=inputs.device,
        memory_limit=inputs.memory_limit,
        scaled=not estimate.paper,
        one_to_one=not estimate.paper,
        conditional=conditional,
    )
    drawn: list[Bootstrap] = []
    inputs.on_bootstrap(0, estimate.bootstraps)
    next_check = 4  # of the reliability: after 4, 6, 9, ... bootstraps
    for bootstrap in islice(bootstraps, estimate.bootstraps):
        drawn.append(bootstrap)
        inputs.on_bootstrap(len(drawn), estimate.bootstraps)
        if estimate.reliability and len(drawn) == next_check:
            next_check += next_check // 2
            if summarize(drawn).reliability >= estimate.reliability:
                break
    summary = summarize(drawn)
    return replace(
        inputs.blocks(pair),
        value=summary.value,
        reliability=summary.reliability,
        standard_error=summary.standard_error,
        z_score=summary.z_score,
        bootstraps=np.stack([bootstrap.value for bootstrap in drawn]),
    )


def mint_gaussian(pair: LayerPair, inputs: CriterionInputs, *, conditional: bool) -> BlockScores:
    """Score by the closed form of Gaussian information; see mint.pruning.gaussian.

    A column of the weight reads the mean of its parent filter over space.
    """
    settings = inputs.estimate.gaussian
    weight = inputs.weight(pair)
    # Every column and kernel position of a parent filter is a position of its own.
    columns = np.broadcast_to(pair.columns(), weight.shape[:2])
    position = pair.positions()
    kernels = weight.reshape(*weight.shape[:2], -1)
    shape = (int(position.max()) + 1, pair.child_filters, pair.parent_filters, kernels.shape[2])
    spread = np.zeros(shape)
    spread[position, np.arange(len(weight))[:, None], columns] = kernels
    by_position = np.moveaxis(spread, 3, 0).reshape(-1, *shape[1:3])
    child, parent = inputs.groups(pair)
    value = gaussian_information(
        torch.from_numpy(by_position).to(inputs.device),
        torch.from_numpy(inputs.activations()[pair.parent_node]).to(inputs.device).double(),
        _members(child),
        _members(parent),
        noise=settings.noise,
        damping=settings.damping,
        conditional=conditional,
    )
    return replace(inputs.blocks(pair), value=value.cpu().numpy())


def _members(labels: Labels) -> list[Labels]:
    return [np.flatnonzero(labels == label) for label in range(labels.max() + 1)]


def random_blocks(pair: LayerPair, inputs: CriterionInputs) -> BlockScores:
    """Score by uniform random numbers from 0 to 1: the baseline that every criterion must beat."""
    blocks = inputs.blocks(pair)
    generator = stream(inputs.seed, f"random scores of {pair.child}")
    return replace(blocks, value=generator.random(blocks.value.shape))


def block_magnitude(pair: LayerPair, inputs: CriterionInputs) -> BlockScores:
    """Score by the mean absolute weight of the block.

    A mean, because a norm would favour the large blocks of large layers.
    """
    return _block_means(pair, inputs, np.abs(inputs.weight(pair)))


def magnitude(pair: LayerPair, inputs: CriterionInputs) -> BlockScores:
    """Score every weight by its absolute value: unstructured, as Han et al., NeurIPS 2015."""
    return replace(absolute_weights(inputs.weight(pair)), transposed=pair.transposed)


def absolute_weights(weight: Floats) -> BlockScores:
    """Return the scores of the criterion magnitude for a weight: (child filters, columns, ...)."""
    entries = np.arange(weight[0].size).reshape(1, *weight.shape[1:])
    value = np.abs(weight).reshape(len(weight), -1)
    return BlockScores(value, np.arange(len(weight)), entries, weight.shape[2:])


def l1_filters(pair: LayerPair, inputs: CriterionInputs) -> BlockScores:
    """Score whole child filters by the sum of their absolute weights.

    Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017, which chooses the pruned share of
    every layer by hand; here the filters of all layers are ranked together.
    """
    weight = _oriented(pair, inputs.traced.network.get_parameter(pair.weight).detach())
    return _filter_scores(pair, weight.flatten(1).abs().sum(1))


def bn_scale(pair: LayerPair, inputs: CriterionInputs) -> BlockScores:
    """Score whole child filters by the absolute scale of the batch norm that follows them.

    Liu et al., Learning Efficient Convolutional Networks through Network Slimming, ICCV 2017,
    without their penalty on the scales in training, because all criteria share a baseline.
    """
    norm = inputs.traced.batch_norms.get(pair.child)
    if norm is None:
        raise InputError(f"bn-scale: {pair.child} has no batch norm of its own right after it")
    scale = inputs.traced.network.get_parameter(f"{norm}.weight")
    return _filter_scores(pair, scale.detach().abs())


def taylor(pair: LayerPair, inputs: CriterionInputs) -> BlockScores:
    """Score by the squared first-order change of the loss when the block is removed.

    Molchanov et al., Importance Estimation for Neural Network Pruning, CVPR 2019, for a gate that
    multiplies the block: (sum of gradient times weight)^2, with the gradient of the mean loss over
    the estimation rows.
    """
    gradient = _oriented(pair, inputs.gradients()[pair.weight]).numpy()
    sums = _block_sums(pair, inputs, gradient * inputs.weight(pair))
    return replace(sums, value=sums.value**2)


def activation_magnitude(pair: LayerPair, inputs: CriterionInputs) -> BlockScores:
    """Score by the block's mean of |weight| times the parent filter's mean |activation|.

    That is a mean over the estimation rows and over space.
    After Wanda, Sun et al., ICLR 2024, which uses the norm of the activation and single weights.
    """
    parents = inputs.magnitudes()[pair.parent_node].mean(0, dtype=np.float64)
    weight = np.abs(inputs.weight(pair))
    read = parents[pair.columns()]
    return _block_means(pair, inputs, weight * read.reshape(*read.shape, *(1 for _ in pair.kernel)))


# Names as in mint.config.schema.CRITERIA.
FUNCTIONS: Mapping[str, Criterion] = {
    "mint": partial(mint, conditional=True),
    "mint-unconditional": partial(mint, conditional=False),
    "mint-gaussian": partial(mint_gaussian, conditional=True),
    "mint-gaussian-unconditional": partial(mint_gaussian, conditional=False),
    "random": random_blocks,
    "block-magnitude": block_magnitude,
    "magnitude": magnitude,
    "l1-filters": l1_filters,
    "bn-scale": bn_scale,
    "taylor": taylor,
    "activation-magnitude": activation_magnitude,
}


def score(criterion: str, pair: LayerPair, inputs: CriterionInputs) -> BlockScores:
    """Return the scores of a pair's blocks by the criterion of that name.

    Raises:
        InputError: there are too few rows, or activations or scores that are not finite; or a
            user's function is no criterion.
    """
    try:
        function = FUNCTIONS.get(criterion) or own_criterion(criterion)
        scores = function(pair, inputs)
    except ValueError as error:
        raise InputError(f"{pair.parent} -> {pair.child}: {error}") from error
    if undefined := int(np.isnan(scores.value).sum()):
        raise InputError(
            f"{pair.parent} -> {pair.child}: {undefined} of {scores.value.size} scores of "
            f"{criterion} are not a number; the network's weights or activations are not finite"
        )
    return scores


def _block_sums(pair: LayerPair, inputs: CriterionInputs, entries: Floats) -> BlockScores:
    """Score blocks by the sum of the entries (child filters, columns, *kernel) in them."""
    scores = inputs.blocks(pair)
    by_kernel = entries.reshape(*entries.shape[:2], -1).sum(2)
    np.add.at(scores.value, (scores.rows, scores.parent_labels), by_kernel)
    return scores


def _block_means(pair: LayerPair, inputs: CriterionInputs, entries: Floats) -> BlockScores:
    sums = _block_sums(pair, inputs, entries)
    # A grouped convolution has blocks without weights, which are never pruned.
    return replace(sums, value=sums.value / np.maximum(sums.sizes, 1))


def _filter_scores(pair: LayerPair, value: Tensor) -> BlockScores:
    """Return the scores of whole child filters: every filter's row of the weight is a block."""
    parents = np.zeros_like(pair.columns())
    filters = np.arange(len(value))
    values = value.cpu().double().numpy()[:, None]
    return BlockScores(values, filters, parents, pair.kernel, transposed=pair.transposed)


def _oriented(pair: LayerPair, weight: Tensor) -> Tensor:
    """Return a tensor of the parameter's shape as (child filters, columns, *kernel)."""
    return weight.transpose(0, 1) if pair.transposed else weight
