"""Where a result comes from: the code, its libraries, and the command that asked for it."""

import os
import re
import shlex
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Self

from pydantic import BaseModel, ConfigDict

PACKAGE = "mint-pruning"
_PACKAGES = (PACKAGE, "torch", "numpy", "numba", "scipy", "ray", "mlflow")
_TELLING = "pass|pwd|secret|token|key|sig|credential|connect"
_SECRETS = (
    (re.compile(r"://.*@"), "://***@"),  # user:password@host, whatever the password holds
    (re.compile(rf"(?i)([?&][^=&\s]*(?:{_TELLING})[^=&\s]*=)[^&\s'\"]+"), r"\1***"),
)


class Provenance(BaseModel):
    """What made a result, as it is kept in its record and in its run.

    Attributes:
        sweep: that the trial was run for; None for a trial by itself.
        command: the command line, without secrets.
        git_commit: of mint's own code: forty hex digits, or unknown where it is in no repository.
        git_dirty: whether tracked files were changed; None where nobody can tell.
        device: that was asked for: cpu or cuda.
        versions: of Python and of the packages that figures depend on.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    sweep: str | None
    command: str
    git_commit: str
    git_dirty: bool | None
    device: str
    versions: dict[str, str]

    @classmethod
    def of_this_process(
        cls, sweep: str | None, arguments: Sequence[str], device: str = "cpu"
    ) -> Self:
        """Look everything up.

        Args:
            sweep: that trials are run for.
            arguments: the words of the command line, the program first.
            device: that trials are run on.
        """
        # Installed from a wheel, mint may lie inside somebody else's repository.
        tracked = _git("ls-files", "--error-unmatch", Path(__file__).name)
        described = tracked and _git(
            "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"
        )
        # An image has no repository in it: it is told what it was built from.
        described = described or os.environ.get("MINT_GIT_COMMIT") or "unknown"
        return cls(
            sweep=sweep,
            command=shlex.join(without_secrets(word) for word in arguments),
            device=device,
            git_commit=described.removesuffix("-dirty"),
            git_dirty=None if described == "unknown" else described.endswith("-dirty"),
            versions={"python": python_version()}
            | {package: installed(package) for package in _PACKAGES},
        )


def installed(package: str) -> str:
    """Return the version of a package; unknown where it is run from a folder."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def without_secrets(text: str) -> str:
    """Return the text with what URIs hold of users, passwords and tokens replaced by stars."""
    for pattern, stars in _SECRETS:
        text = pattern.sub(stars, text)
    return text


def error_line(error: BaseException) -> str:
    """Return an error and its kind as one line without secrets, such as a reason of a failure."""
    return without_secrets(" ".join(f"{type(error).__name__}: {error}".split()))


def _git(*arguments: str) -> str | None:
    folder = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
