"""Finished stages on disk: made once, by whoever comes first, and shared by everyone after."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock


class Cache:
    """A folder of stages; each stage has a folder for every content key."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    def folder(self, stage: str, key: str) -> Path:
        """Return where a stage of this key lives once it is finished."""
        return self.root / stage / key

    def checkpoint(self, stage: str, key: str) -> Path:
        """Return where a stage that is being made keeps its progress, for who takes it up again."""
        folder = self.root / "progress"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{stage}-{key}.pt"

    def produce(self, stage: str, key: str, make: Callable[[Path], None]) -> Path:
        """Return the finished stage of this key, making it if nobody has.

        Whoever needs what another process is making waits for it. The folder appears under its
        name only when it is whole: a process that dies while making it leaves nothing behind
        that could be taken for a result, and lets go of the lock.

        Args:
            stage: such as baselines or scores.
            key: content key of everything the stage depends on.
            make: fills the empty folder it is given.
        """
        finished = self.folder(stage, key)
        if finished.exists():
            return finished
        finished.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(finished.with_suffix(".lock")):
            if finished.exists():
                return finished
            partial = Path(tempfile.mkdtemp(prefix=f".{key}-", dir=finished.parent))
            try:
                make(partial)
                partial.rename(finished)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
        return finished
