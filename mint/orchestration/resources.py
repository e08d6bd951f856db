"""Whether a machine or a cluster can run the trials of a sweep, and how many at a time."""

import os
import socket
import sys
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from mint.errors import InputError
from mint.orchestration.sweep_settings import SweepSettings

_TIMEOUT_SECONDS = 4.0
# The longest path that Ray gives a socket, below its temporary folder and with its driver's number.
_SOCKET = "/ray/session_2026-01-01_00-00-00_000000_{}/sockets/plasma_store"
_LONGEST_SOCKET = 103 if sys.platform == "darwin" else 107  # bytes


def check_resources(gpus_per_trial: float, ray_address: str | None) -> None:
    """Raise InputError if a cluster does not answer, or this machine cannot run Ray or the GPUs."""
    if ray_address:
        _reach_ray(ray_address)
        return
    _check_temporary_folder()
    if gpus_per_trial:
        import torch

        _check_gpus(gpus_per_trial, torch.cuda.device_count(), "this machine")


def count_concurrent_trials(nodes: Sequence[Mapping[str, float]], settings: SweepSettings) -> int:
    """Return how many trials nodes with these numbers of CPU and GPU can run at a time.

    Raises:
        InputError: they can run none, or several nodes share no storage.
    """
    if len(nodes) > 1 and settings.storage is None:
        raise InputError(
            f"must be given on a cluster of {len(nodes)} nodes: a folder that all of them share, "
            "or the URI of a file system that fsspec knows, such as s3://BUCKET/FOLDER",
            parameter="storage",
        )
    if settings.gpus_per_trial:
        gpus = max(int(node.get("GPU", 0)) for node in nodes)
        where = "the node with most" if settings.ray_address else "this machine"
        _check_gpus(settings.gpus_per_trial, gpus, where)
    count = sum(_count_on(node, settings) for node in nodes)
    if count < 1:
        most = max(node.get("CPU", 0) for node in nodes)
        problem = f"no node can run a trial; the largest has {most:g} CPUs"
        raise InputError(problem, parameter="threads", value=settings.threads)
    return count


def _count_on(node: Mapping[str, float], settings: SweepSettings) -> int:
    count = int(node.get("CPU", 0)) // settings.threads
    share, gpus = settings.gpus_per_trial, int(node.get("GPU", 0))
    if share == 0:
        return count
    return min(count, gpus * int(1 / share) if share <= 1 else gpus // int(share))


def _check_gpus(gpus_per_trial: float, available: int, where: str) -> None:
    whole = gpus_per_trial <= 1 or gpus_per_trial == int(gpus_per_trial)
    if gpus_per_trial > available or not whole:
        raise InputError(
            f"{where} has {available} GPUs; allowed are 0 for the CPU, a share of a GPU up to 1, "
            "and whole numbers of GPUs",
            parameter="gpus_per_trial",
            value=f"{gpus_per_trial:g}",
        )


def _check_temporary_folder() -> None:
    """Raise InputError if paths of Ray's sockets would be too long; Ray would try for a minute."""
    variable = "RAY_TMPDIR" if "RAY_TMPDIR" in os.environ else "TMPDIR"  # as Ray does
    folder, longest = (
        os.environ.get(variable, ""),
        _LONGEST_SOCKET - len(_SOCKET.format(os.getpid())),
    )
    if len(os.fsencode(folder)) > longest:
        problem = (
            f"is too long for Ray's sockets; set RAY_TMPDIR to a folder of 1 to {longest} bytes"
        )
        raise InputError(f"{problem}, such as /tmp", parameter=variable, value=folder)


def _reach_ray(address: str) -> None:
    """Connect to the head of a Ray cluster; Ray itself would try for a minute."""
    if address == "auto":
        return
    try:
        where = urlsplit(f"//{address}")
        if not where.hostname or not where.port:
            raise ValueError("it names no host and port")
        socket.create_connection((where.hostname, where.port), _TIMEOUT_SECONDS).close()
    except (OSError, ValueError) as error:
        raise InputError(
            f"nobody answers there ({error}); allowed are HOST:PORT, auto for the cluster of "
            "this machine, and local for this machine alone",
            parameter="ray_address",
            value=address,
        ) from error
