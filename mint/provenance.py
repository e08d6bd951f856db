"""Where a result comes from: the commit of the code that made it."""

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Provenance:
    """The commit of mint's own code, and whether its files differed from it.

    Attributes:
        git_commit: forty hex digits, or unknown where the code is in no repository.
        git_dirty: whether tracked files were changed.
    """

    git_commit: str
    git_dirty: bool

    @classmethod
    def of_this_code(cls) -> "Provenance":
        commit = _git("rev-parse", "HEAD")
        changes = _git("status", "--porcelain", "--untracked-files=no")
        return cls(commit or "unknown", bool(changes))


def _git(*arguments: str) -> str | None:
    folder = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
