"""Scores and masks of a network in memory, without a trial."""

from collections.abc import Collection, Mapping
from functools import cache, partial
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, Field
from torch import Tensor, nn

from mint.config.axes import Grouping
from mint.config.estimate import EstimateConfig
from mint.config.loading import validated
from mint.config.schema import DEFAULT_CRITERION, check_criterion
from mint.data.collecting import Images, Labels, collect_images
from mint.errors import InputError, allowed
from mint.machine import memory_bytes
from mint.models.activations import ROWS_AT_ONCE, collect_activations
from mint.models.layers import LayerPair, Traced
from mint.models.tracing import trace
from mint.pruning.criteria import CriterionInputs, score
from mint.pruning.gradients import ROWS_AT_ONCE_BACKWARD, loss_gradients
from mint.pruning.grouping import PairGroups, group_filters
from mint.pruning.masks import Masks
from mint.pruning.ranking import BlockRanking
from mint.pruning.scores import BlockScores
from mint.rng import stream
from mint.training.determinism import reproducible

_DEVICES = ("cpu", "cuda")


class _Settings(BaseModel):
    criterion: Annotated[str, AfterValidator(check_criterion)]
    groups: Annotated[int, Field(ge=1, strict=True)]
    grouping: Grouping
    bootstraps: Annotated[int, Field(ge=1, strict=True)]
    seed: Annotated[int, Field(ge=0, strict=True)]


def score_network(
    network: nn.Module,
    inputs: Images,
    labels: Labels = None,
    *,
    criterion: str = DEFAULT_CRITERION,
    groups: int = 20,
    grouping: Grouping = "contiguous",
    bootstraps: int = 50,
    layers: Collection[str] | None = None,
    seed: int = 0,
) -> dict[str, BlockScores]:
    """Score the weight blocks of a trained network from some of its training images.

    The same network, inputs, seed and number of torch threads give the same scores. The network
    stays unchanged. See apply_masks for an example.

    Args:
        network: on the CPU or a GPU; MINT estimates on the CPU.
        inputs: (n, ...) images as the network takes them, a tensor or an array; or a Dataset or
            DataLoader of images, or of (image, label). Every image is read;
            torch.utils.data.Subset takes fewer. At least 6 images for MINT, better hundreds.
        labels: (n,) whole-numbered classes, if they are not beside the images; only the criterion
            taylor needs them.
        criterion: one of mint.config.schema.CRITERIA.
        groups: of filters in each layer; a layer with fewer filters has one for each.
        grouping: contiguous, random, or clustered: groups that make few blocks heavy.
        bootstraps: estimates averaged in the scores of MINT.
        layers: names of the modules whose weights are scored, possibly those that read the input;
            None for every convolution and linear layer that reads the filters of another.
        seed: seeds every random draw.

    Returns:
        The scores by the names of the weights, such as fc2.weight, in forward order.

    Raises:
        InputError: an argument is not allowed, the network cannot be traced or has no weights to
            prune, or its activations or scores are not finite.
    """
    given = {"criterion": criterion, "groups": groups, "grouping": grouping}
    given |= {"bootstraps": bootstraps, "seed": seed}
    settings = validated(_Settings, given, "score_network")
    device = next((weight.device for weight in network.parameters()), torch.device("cpu"))
    if device.type not in _DEVICES:
        raise InputError(f"network: is on {device.type}; allowed are {' and '.join(_DEVICES)}")
    images, classes = collect_images(inputs, labels)
    traced = trace(network, images[:1].to(device))
    pairs = _chosen_pairs(traced, layers)
    criterion_inputs = _criterion_inputs(traced, pairs, images, classes, settings, device)
    scores = {}
    with reproducible(torch.get_num_threads(), device):
        for pair in pairs:
            scores[pair.weight] = score(criterion, pair, criterion_inputs)
    return scores


def prune(
    scores: Mapping[str, BlockScores],
    fraction: float,
    *,
    upper_limit: float | None = None,
    keep_connected: bool = False,
    seed: int = 0,
) -> Masks:
    """Return the masks that prune the blocks of the lowest scores, over all layers together.

    Example:
        ```python
        masks = prune(scores, fraction=0.9, upper_limit=0.95)
        print(masks.pruned, "of", masks.prunable)
        ```

    Args:
        scores: by the names of the weights, as score_network returns them; a weight without
            scores is kept whole.
        fraction: share of these weights to prune, 0 to 1, exact to the block.
        upper_limit: largest share of a layer's weights that may be pruned, 0 to 1; None for no
            limit.
        keep_connected: keep a block of every group of filters for as long as the fraction allows.
        seed: settles the order of equal scores.

    Raises:
        InputError: a share is not allowed, the limit leaves less than the fraction, a score is not
            a number, or there are no scores.
    """
    if not scores:
        raise InputError("scores: are empty")
    for name, share in (("fraction", fraction), ("upper_limit", upper_limit)):
        if share is not None and not 0 <= share <= 1:
            raise InputError(f"{name} {share:g}: allowed are numbers from 0 to 1")
    if upper_limit is not None and fraction > upper_limit:
        raise InputError(f"fraction {fraction:g}: upper_limit allows at most {upper_limit:g}")
    limit = None if upper_limit is None else float(upper_limit)
    ranking = BlockRanking(
        scores,
        limits=dict.fromkeys(scores, limit),
        keep_connected=keep_connected,
        generator=stream(seed, "order of equal scores"),
    )
    return ranking.masks(ranking.blocks_within(float(fraction), ranking.prunable))


def _criterion_inputs(
    traced: Traced,
    pairs: list[LayerPair],
    inputs: Tensor,
    labels: Tensor | None,
    settings: _Settings,
    device: torch.device,
) -> CriterionInputs:
    @cache
    def activations(*, absolute: bool = False) -> dict[str, NDArray[np.float32]]:
        batches = (batch.to(device) for batch in inputs.split(ROWS_AT_ONCE))
        return collect_activations(traced, batches, pairs, absolute=absolute)

    @cache
    def gradients() -> dict[str, Tensor]:
        if labels is None or labels.shape != inputs.shape[:1] or labels.is_floating_point():
            raise InputError(f"labels: {settings.criterion} needs {len(inputs)} whole numbers")
        rows = ROWS_AT_ONCE_BACKWARD
        batches = zip(inputs.split(rows), labels.split(rows), strict=True)
        on_device = ((images.to(device), classes.to(device)) for images, classes in batches)
        return loss_gradients(traced, on_device, [pair.weight for pair in pairs])

    @cache
    def groups() -> dict[str, PairGroups]:
        def number(_: str, filters: int) -> int:
            return min(settings.groups, filters)

        return group_filters(settings.grouping, traced, pairs, number, settings.seed)

    return CriterionInputs(
        traced=traced,
        groups=lambda pair: groups()[pair.weight],
        estimate=EstimateConfig(bootstraps=settings.bootstraps),
        device="cpu",
        memory_limit=memory_bytes() // 2,
        seed=settings.seed,
        activations=activations,
        magnitudes=partial(activations, absolute=True),
        gradients=gradients,
    )


def _chosen_pairs(traced: Traced, layers: Collection[str] | None) -> list[LayerPair]:
    known = {pair.child: pair for pair in (traced.pairs if layers is None else traced.all_pairs)}
    reasons = {layer.name: layer.reason for layer in traced.layers}
    if not known:
        why = "; ".join(f"{name} {reason}" for name, reason in reasons.items())
        raise InputError(f"network: none of its weights can be pruned: {why or 'it has no layers'}")
    for name in layers or ():
        if name not in known:
            why = f"{name} {reasons[name]}; " if name in reasons else ""
            raise InputError(f"layers {name}: {why}{allowed(name, known)}")
    return [pair for name, pair in known.items() if layers is None or name in layers]
