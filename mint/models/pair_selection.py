"""The layer pairs that an experiment prunes."""

from mint.config.schema import Experiment
from mint.errors import InputError, allowed
from mint.models.layers import INPUT, LayerPair, Traced


def chosen_pairs(traced: Traced, experiment: Experiment) -> list[LayerPair]:
    """Return the pairs that an experiment prunes, in forward order.

    Raises:
        InputError: the experiment names a pair that the network does not have, or leaves none.
    """
    network = experiment.network.name
    known = {(pair.parent, pair.child): pair for pair in traced.all_pairs}
    found = {(pair.parent, pair.child) for pair in traced.pairs}
    named = () if experiment.prune == "all" else experiment.prune
    for key, names in (("prune", named), ("leave_out", experiment.leave_out)):
        for parent, child in names:
            if (parent, child) not in known:
                why = _why_no_pair(traced, parent, child)
                raise InputError(f"{key} [{parent}, {child}]: {network} has no such pair; {why}")
    wanted = set(named or found) - set(experiment.leave_out)
    if not wanted:
        raise InputError(f"prune and leave_out: no pair of {network} is left to prune")
    return [pair for names, pair in known.items() if names in wanted]


def _why_no_pair(traced: Traced, parent: str, child: str) -> str:
    layers = {layer.name: layer for layer in traced.layers}
    for name in (child,) if parent == INPUT else (child, parent):
        if name not in layers:
            return f"{name} is not one of its layers; {allowed(name, layers)}"
    layer = layers[child]
    return f"{child} {layer.reason or f'reads {layer.parent}'}"
