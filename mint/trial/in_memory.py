"""A network that lives in memory: the scores of its weight blocks, and the masks of a share."""

from collections.abc import Collection, Mapping
from functools import cache
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, Field
from torch import Tensor, nn

from mint.config.loading import validated
from mint.config.schema import DEFAULT_CRITERION, EstimateConfig, check_criterion
from mint.errors import InputError, allowed
from mint.models import LayerPair, Traced, trace
from mint.models.activations import ROWS_AT_ONCE, collect, nodes_of
from mint.pruning.criteria import FUNCTIONS, Evidence
from mint.pruning.gradients import ROWS_AT_ONCE_BACKWARD, loss_gradients
from mint.pruning.masks import BlockScores, Masks, PruningOrder
from mint.pruning.scores import block_scores
from mint.rng import stream
from mint.training.determinism import reproducible

_DEVICES = ("cpu", "cuda")


class _Settings(BaseModel):
    criterion: Annotated[str, AfterValidator(check_criterion)]
    groups: Annotated[int, Field(ge=1, strict=True)]
    bootstraps: Annotated[int, Field(ge=1, strict=True)]
    seed: Annotated[int, Field(ge=0, strict=True)]


def score_network(
    network: nn.Module,
    inputs: Tensor,
    labels: Tensor | None = None,
    *,
    criterion: str = DEFAULT_CRITERION,
    groups: int = 20,
    bootstraps: int = 50,
    layers: Collection[str] | None = None,
    seed: int = 0,
) -> dict[str, BlockScores]:
    """Score the weight blocks of a trained network by what it makes of some images.

    The same network, inputs, seed and number of torch's threads give the same scores.

    Example:
        ```python
        from mint import held_at_zero, prune, score_network

        scores = score_network(network, images, bootstraps=100)
        masks = prune(scores, fraction=0.9)
        with held_at_zero(network, masks):
            retrain(network)
        ```

    Args:
        network: that torch.fx can trace, on the CPU or a GPU; it is left as it is.
        inputs: (n, ...) images as the network takes them, on any device: 6 at least for MINT, and
            better some hundred of every class.
        labels: (n,) classes as whole numbers; for the criterion taylor alone.
        criterion: what scores the blocks: mint (the default), mint-unconditional, random,
            block-magnitude, magnitude, l1-filters, bn-scale, taylor or activation-magnitude.
        groups: of filters in each layer; one with fewer filters has a group each.
        bootstraps: estimates that the scores of MINT are the mean of.
        layers: names of the modules whose weights are scored, those that read the input among
            them; None for every convolution and linear layer that reads the filters of another.
        seed: of everything that is drawn.

    Returns:
        For the name of every weight, such as fc2.weight, the scores of its blocks, layers in the
        order of the forward pass.

    Raises:
        InputError: an argument is not allowed, the network cannot be traced, it has no weights to
            prune, or its activations are not finite.
    """
    settings = validated(
        _Settings,
        {"criterion": criterion, "groups": groups, "bootstraps": bootstraps, "seed": seed},
        "score_network",
    )
    device = next((weight.device for weight in network.parameters()), torch.device("cpu"))
    if device.type not in _DEVICES:
        raise InputError(f"network: is on {device.type}; allowed are {' and '.join(_DEVICES)}")
    traced = trace(network, inputs[:1].to(device))
    pairs = _chosen_pairs(traced, layers)

    @cache
    def activations() -> dict[str, NDArray[np.float32]]:
        batches = (batch.to(device) for batch in inputs.split(ROWS_AT_ONCE))
        return collect(traced, batches, nodes_of(pairs))

    @cache
    def gradients() -> dict[str, Tensor]:
        if labels is None or labels.shape != inputs.shape[:1] or labels.is_floating_point():
            raise InputError(f"labels: {criterion} needs {len(inputs)} whole numbers")
        rows = ROWS_AT_ONCE_BACKWARD
        batches = zip(inputs.split(rows), labels.split(rows), strict=True)
        on_device = ((some.to(device), of_some.to(device)) for some, of_some in batches)
        return loss_gradients(traced, on_device, [f"{pair.child}.weight" for pair in pairs])

    evidence = Evidence(
        traced=traced,
        groups_of=lambda _, filters: min(settings.groups, filters),
        estimate=EstimateConfig(bootstraps=settings.bootstraps),
        seed=settings.seed,
        activations=activations,
        gradients=gradients,
    )
    scores = {}
    with reproducible(torch.get_num_threads(), device):
        for pair in pairs:
            try:
                scored = FUNCTIONS[criterion](pair, evidence)
            except ValueError as error:  # too few rows, or activations that are not finite
                raise InputError(f"{pair.parent} -> {pair.child}: {error}") from error
            scores[f"{pair.child}.weight"] = block_scores(scored.arrays, pair, traced.graph)
    return scores


def prune(
    scores: Mapping[str, BlockScores],
    fraction: float,
    *,
    upper_limit: float | None = None,
    floor: bool = False,
    seed: int = 0,
) -> Masks:
    """Return the masks that prune the blocks of the lowest scores, over all layers together.

    The network stays as it is: see held_at_zero.

    Example:
        ```python
        masks = prune(scores, fraction=0.9, upper_limit=0.95)
        print(masks.pruned, "of", masks.prunable)
        ```

    Args:
        scores: for the name of every weight, as score_network and FinishedTrial.scores have them,
            or of your own making; leave a weight out to keep it whole.
        fraction: share of these weights that is pruned, 0 to 1, exact to the block.
        upper_limit: largest share of one layer's weights that may go, 0 to 1; None for no limit.
        floor: every group of filters keeps a block as long as the fraction allows.
        seed: settles the order of equal scores.

    Raises:
        InputError: a share is not allowed, the limit leaves less than the fraction, or there are no
            scores.
    """
    if not scores:
        raise InputError("scores: are of no weight")
    for name, share in (("fraction", fraction), ("upper_limit", upper_limit)):
        if share is not None and not 0 <= share <= 1:
            raise InputError(f"{name} {share:g}: allowed are numbers from 0 to 1")
    if upper_limit is not None and fraction > upper_limit:
        raise InputError(f"fraction {fraction:g}: upper_limit allows at most {upper_limit:g}")
    limit = None if upper_limit is None else float(upper_limit)
    order = PruningOrder(
        scores,
        limits=dict.fromkeys(scores, limit),
        floor=floor,
        generator=stream(seed, "order of equal scores"),
    )
    return order.masks(order.blocks_within(float(fraction), order.prunable))


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
