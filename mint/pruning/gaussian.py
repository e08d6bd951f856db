"""The Gaussian information of weight blocks, in closed form.

The pre-activations of a child group are S_i = W_i X + E, with X the activations of all parents, of
covariance Sigma, and Gaussian noise E of variance N. If X is Gaussian,

    I(S_i; X_j | X_rest) = 1/2 log det(I + W_ij C_j W_ij' / N),    C_j = ([Sigma^-1]_jj)^-1

C_j is the covariance of X_j given the other parents. To first order the information is
1/(2N) tr(W_ij C_j W_ij'): the squared error in S_i that the best update of the other weights leaves
when the block is pruned. That is the saliency of Optimal Brain Surgeon, Hassibi and Stork, NeurIPS
1992, and for a single weight that of Optimal Brain Compression, Frantar and Alistarh, NeurIPS 2022.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Members = Sequence[NDArray[np.int64]]  # the filters of every group


def gaussian_information(
    weight: Tensor,
    activations: Tensor,
    child_groups: Members,
    parent_groups: Members,
    *,
    noise: float,
    damping: float,
    conditional: bool,
) -> Tensor:
    """Return the information (nats) of every child group's pre-activations and parent group.

    The positions of a kernel read independent parents of the same covariance: each adds to the
    variance of the pre-activations, whatever the sign of its weights.

    Sigma may be singular, because parents are known up to noise of variance d, that is damping
    times their mean variance. C_j is the covariance of X_j given the other parents with that noise:
    0 for a constant parent, and at most d for one whose copy is in another group. The unconditional
    information is that between S_i and X_j with that noise.

    Args:
        weight: (positions, child filters, parent filters) float64.
        activations: (n, parent filters) float64 on the same device.
        child_groups: any disjoint sets of child filters.
        parent_groups: any disjoint sets of parent filters.
        noise: N as a share of the mean variance of the pre-activations; above 0.
        damping: above 0.
        conditional: given the parents of all other groups, or given nothing.

    Returns:
        (child groups, parent groups) float64; zeros if all pre-activations are constant.
    """
    centred = activations - activations.mean(0)
    covariance = centred.T @ centred / len(centred)
    outputs = (weight @ covariance @ weight.mT).sum(0)
    variance, known = outputs.diagonal().mean(), damping * covariance.diagonal().mean()
    if not variance > 0:
        return weight.new_zeros(len(child_groups), len(parent_groups))
    weight, outputs = weight / (noise * variance).sqrt(), outputs / (noise * variance)
    precision = torch.linalg.inv(_plus(covariance, known))
    diagonal = _DiagonalBlocks(child_groups, weight.device)
    whole = torch.logdet(_plus(diagonal.of(outputs), 1.0))
    columns = []
    for members in parent_groups:
        own = torch.from_numpy(members).to(weight.device)
        if conditional:
            left = _plus(torch.linalg.inv(precision[own][:, own]), -known)
            read = weight[:, :, own]
            signal = diagonal.of((read @ left @ read.mT).sum(0))
            columns.append(torch.logdet(_plus(signal, 1.0)) / 2)
        else:
            read = weight @ covariance[:, own]
            explained = torch.linalg.solve(_plus(covariance[own][:, own], known), read.mT)
            rest = diagonal.of(outputs - (read @ explained).sum(0))
            columns.append((whole - torch.logdet(_plus(rest, 1.0))) / 2)
    return torch.stack(columns, 1)


class _DiagonalBlocks:
    """The diagonal blocks of matrices by group, filled up with zeros to one size."""

    def __init__(self, groups: Members, device: torch.device) -> None:
        filters = np.zeros((len(groups), max(map(len, groups))), np.int64)
        real = np.zeros(filters.shape, np.bool_)
        for at, members in enumerate(groups):
            filters[at, : len(members)] = members
            real[at, : len(members)] = True
        self._filters = torch.from_numpy(filters).to(device)
        self._real = torch.from_numpy(real[:, :, None] & real[:, None, :]).to(device)

    def of(self, matrix: Tensor) -> Tensor:
        """Return (groups, largest group, largest group) of a (filters, filters) matrix."""
        return matrix[self._filters[:, :, None], self._filters[:, None, :]] * self._real


def _plus(matrices: Tensor, value: Tensor | float) -> Tensor:
    """Return matrices with a value added to their diagonals."""
    eye = torch.eye(matrices.shape[-1], dtype=matrices.dtype, device=matrices.device)
    return matrices + value * eye
