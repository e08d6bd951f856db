"""Finished stages on disk: computed once, and reused by every process that needs them."""

import shutil
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Self

from filelock import FileLock
from pydantic import BaseModel, Field

from mint.errors import error_line, without_secrets
from mint.store.atomic import sha256, sync_to_disk, write_atomic
from mint.store.remote import RemoteStore

MANIFEST = "manifest.json"
PROGRESS = "progress"


class _Manifest(BaseModel):
    """Size and SHA-256 of every file of a stage."""

    files: dict[Annotated[str, Field(pattern=r"^[^/\\]+$")], tuple[int, str]]

    @classmethod
    def load(cls, folder: Path) -> Self:
        return cls.model_validate_json((folder / MANIFEST).read_bytes())


class StageCache:
    """A folder of stages; each stage has a folder for every content key.

    A stage's manifest lists the size and checksum of each of its files. A stage with a damaged
    file is moved aside and computed again.

    Attributes:
        root: the folder on this machine.
        storage: shared by the nodes of a cluster; None for this machine alone.
    """

    def __init__(self, root: Path, storage: RemoteStore | None = None) -> None:
        self.root = root.absolute()
        self.storage = storage
        self._verified: set[Path] = set()
        self._published: set[Path] = set()

    @property
    def identity(self) -> str:
        """A random name of this folder that never changes."""
        path = self.root / "identity"
        with self.lock("identity"):
            if not path.exists():
                write_atomic(path, uuid.uuid4().hex.encode())
        return path.read_text(encoding="utf-8")

    def lock(self, name: str, timeout: float = -1) -> FileLock:
        """Return a lock of this folder that the end of the process releases.

        Args:
            name: of the lock.
            timeout: seconds to wait for it; negative to wait without limit.
        """
        path = self.root / f"{name}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(path, timeout=timeout)

    def folder(self, stage: str, key: str) -> Path:
        """Return the path of a finished stage."""
        return self.root / stage / key

    def keys(self, stage: str) -> Iterator[str]:
        """Yield the keys of a stage that are finished on this machine, in order."""
        folder = self.root / stage
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.is_dir() and not path.name.startswith("."):
                yield path.name

    def find(self, stage: str, key: str) -> Path | None:
        """Return the folder of a finished, undamaged stage, here or in the storage."""
        found = self._find_here(stage, key)
        if found or not self.storage or not self.storage.has(f"{stage}/{key}/{MANIFEST}"):
            return found
        with self.lock(f"{stage}/{key}"):
            return self._find_or_fetch(stage, key)

    def produce(self, stage: str, key: str, make: Callable[[Path], None]) -> Path:
        """Return the folder of a stage; compute the stage if no process has.

        A second process waits for the first. The folder gets its name only when it is complete
        and on the disk, so that a crash leaves nothing that looks like a result.

        Args:
            stage: such as baselines or scores.
            key: content key of everything that the stage depends on.
            make: fills an empty folder.
        """
        finished = self.folder(stage, key)
        if found := self._find_here(stage, key):
            self._publish(stage, found)  # the process that computed it may have died before this
            return found
        with self.lock(f"{stage}/{key}"):
            if found := self._find_or_fetch(stage, key):
                return found
            for abandoned in finished.parent.glob(f".{key}-*"):  # by killed processes
                shutil.rmtree(abandoned)
            if finished.exists():
                aside = finished.parent / f".damaged-{key}-{uuid.uuid4().hex[:8]}"
                warnings.warn(
                    f"{finished}: {damage(finished)}; moved to {aside.name} and computed again",
                    stacklevel=2,
                )
                finished.rename(aside)
            with self._partial(finished) as partial:
                make(partial)
                files = sorted(path for path in partial.iterdir() if path.is_file())
                sums = {path.name: (path.stat().st_size, sha256(path)) for path in files}
                content = _Manifest(files=sums).model_dump_json(indent=1)
                (partial / MANIFEST).write_text(content, encoding="utf-8")
                for path in (*files, partial / MANIFEST, partial):
                    sync_to_disk(path)
                partial.rename(finished)
                sync_to_disk(finished.parent)
            self._verified.add(finished)
            self._publish(stage, finished)
        return finished

    def checkpoint(self, stage: str, key: str) -> Path:
        """Return the path of an unfinished stage's checkpoint, fetched if another node wrote it."""
        path = self.root / PROGRESS / f"{stage}-{key}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.storage and not path.exists() and self.storage.has(f"{PROGRESS}/{path.name}"):
            partial = path.with_name(f".{path.name}")
            self.storage.get(f"{PROGRESS}/{path.name}", partial)
            partial.replace(path)
        return path

    def keep_checkpoint(self, path: Path) -> None:
        """Copy a checkpoint to the storage, if there is one."""
        if self.storage:
            with _warn_of_errors(f"{path.name}: not copied to the storage"):
                self.storage.put([f"{PROGRESS}/{path.name}"], path.parent)

    def drop_checkpoint(self, path: Path) -> None:
        """Remove the checkpoint of a finished stage."""
        path.unlink(missing_ok=True)
        if self.storage:
            with _warn_of_errors(f"{path.name}: not removed from the storage"):
                self.storage.remove(f"{PROGRESS}/{path.name}")

    @contextmanager
    def _partial(self, finished: Path) -> Iterator[Path]:
        """Make a temporary folder beside a stage's; remove it if the block does not rename it."""
        partial = Path(tempfile.mkdtemp(prefix=f".{finished.name}-", dir=finished.parent))
        try:
            yield partial
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _find_here(self, stage: str, key: str) -> Path | None:
        folder = self.folder(stage, key)
        if not folder.exists():
            return None
        if folder not in self._verified:
            if damage(folder):
                return None
            (folder / MANIFEST).touch()  # the time of last use, for mint.store.cleanup
            self._verified.add(folder)
        return folder

    def _find_or_fetch(self, stage: str, key: str) -> Path | None:
        """Return the folder of a finished stage; the caller holds its lock."""
        finished, remote = self.folder(stage, key), f"{stage}/{key}"
        if found := self._find_here(stage, key):
            return found
        if not self.storage or finished.exists() or not self.storage.has(f"{remote}/{MANIFEST}"):
            return None
        with self._partial(finished) as partial:
            self.storage.get(f"{remote}/{MANIFEST}", partial / MANIFEST)
            with suppress(ValueError):  # a damaged manifest, reported below
                for name in _Manifest.load(partial).files:
                    self.storage.get(f"{remote}/{name}", partial / name)
            if problem := damage(partial):
                place = without_secrets(self.storage.uri)
                warnings.warn(f"{place}/{remote}: {problem}", stacklevel=3)
                self.storage.remove(f"{remote}/{MANIFEST}")
                return None
            partial.rename(finished)
        self._verified.add(finished)
        return finished

    def _publish(self, stage: str, finished: Path) -> None:
        """Copy a stage to the storage, if there is one, with the manifest last."""
        if not self.storage or finished in self._published:
            return
        names = [
            f"{stage}/{finished.name}/{name}"
            for name in (*_Manifest.load(finished).files, MANIFEST)
        ]
        if not self.storage.has(names[-1]):
            self.storage.put(names, finished)
        self._published.add(finished)


@contextmanager
def _warn_of_errors(problem: str) -> Iterator[None]:
    """Warn of an error inside the block: it must not fail the stage."""
    try:
        yield
    except Exception as error:
        warnings.warn(f"{problem} ({error_line(error)})", stacklevel=4)


def damage(folder: Path) -> str | None:
    """Return what is wrong with the files of a finished stage; None if they are intact."""
    try:
        sums = _Manifest.load(folder).files
    except (OSError, ValueError) as error:
        return f"its {MANIFEST} cannot be read ({type(error).__name__})"
    for name, (size, checksum) in sums.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size or sha256(path) != checksum:
            return f"{name} has changed since it was written"
    return None
