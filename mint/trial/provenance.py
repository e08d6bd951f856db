"""Where a result comes from: the code, its libraries, and the command that asked for it."""

import os
import shlex
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Self

from pydantic import BaseModel

from mint.errors import without_secrets

PACKAGE = "mint-pruning"
_PACKAGES = (PACKAGE, "torch", "numpy", "numba", "scipy", "ray", "mlflow")


class Provenance(BaseModel, extra="forbid", frozen=True):
    """The origin of a result, kept with it and in its MLflow run."""

    sweep: str | None  # None for a single trial
    command: str  # the command line, without secrets
    git_commit: str  # of mint's code: forty hex digits, or unknown outside a repository
    git_dirty: bool | None  # whether tracked files had changes; None if unknown
    device: str  # cpu or cuda
    versions: dict[str, str]  # of Python and of the packages that results depend on

    @classmethod
    def of_this_process(
        cls, sweep: str | None, arguments: Sequence[str], device: str = "cpu"
    ) -> Self:
        """Return the provenance of trials that this process runs, program first in arguments."""
        # Installed from a wheel, mint may lie inside somebody else's repository.
        tracked = _git("ls-files", "--error-unmatch", Path(__file__).name)
        described = tracked and _git(
            "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"
        )
        # A container image holds no repository; its build passes the commit.
        described = described or os.environ.get("MINT_GIT_COMMIT") or "unknown"
        return cls(
            sweep=sweep,
            command=shlex.join(without_secrets(word) for word in arguments),
            device=device,
            git_commit=described.removesuffix("-dirty"),
            git_dirty=None if described == "unknown" else described.endswith("-dirty"),
            versions={"python": python_version()}
            | {package: installed_version(package) for package in _PACKAGES},
        )


def installed_version(package: str) -> str:
    """Return the version of an installed package, or unknown."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _git(*arguments: str) -> str | None:
    folder = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
