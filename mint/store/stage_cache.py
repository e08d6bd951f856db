"""Finished stages on disk: computed once, and reused by every process that needs them."""

import shutil
import uuid
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from filelock import FileLock

from mint.errors import error_line, without_secrets
from mint.store.atomic import sync_to_disk, write_atomic
from mint.store.manifest import MANIFEST, Manifest, damage
from mint.store.remote import RemoteStore
from mint.store.retry import retried

PROGRESS = "progress"


class StageCache:
    """A folder of stages; each stage has a folder for every content key.

    A stage's manifest lists the size and checksum of each of its files. A stage with a damaged
    file is moved aside and computed again.
    """

    def __init__(self, root: Path, storage: RemoteStore | None = None) -> None:
        self.root = root.absolute()
        self.storage = storage  # shared by the nodes of a cluster; None for this machine alone
        self._verified: set[Path] = set()

    @property
    def identity(self) -> str:
        """A random name of this folder that never changes."""
        path = self.root / "identity"
        with self.lock("identity"):
            if not path.exists():
                write_atomic(path, uuid.uuid4().hex.encode())
        return path.read_text(encoding="utf-8")

    def lock(self, name: str, timeout: float = -1) -> FileLock:
        """Return a lock that ends with the process; a negative timeout (s) waits without limit."""
        path = self.root / f"{name}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(path, timeout=timeout)

    def folder(self, stage: str, key: str) -> Path:
        """Return the path of a finished stage."""
        return self.root / stage / key

    def keys(self, stage: str) -> list[str]:
        """Return the keys of a stage that are finished on this machine, in order."""
        return sorted(path.name for path in (self.root / stage).glob("[!.]*") if path.is_dir())

    def find(self, stage: str, key: str) -> Path | None:
        """Return the folder of a finished, undamaged stage, here or in the storage.

        Looking is no use of the stage. What the storage does not answer is not found: a warning
        says so. OSError if files here cannot be read.
        """
        found = self._find_here(stage, key)
        if found or not self.storage:
            return found
        try:
            if not self.storage.has(f"{stage}/{key}"):
                return None
        except Exception as error:  # of any file system
            self._warn(f"{stage}/{key}", error)
            return None
        with self.lock(f"{stage}/{key}"):
            return self._find_here(stage, key) or self._fetch(stage, key)

    def produce(self, stage: str, key: str, make: Callable[[Path], None]) -> Path:
        """Return the folder of a stage, which make fills unless it is finished already.

        The key stands for everything that the stage depends on. A second process waits for the
        first. The folder gets its name only when it is complete and on the disk, so that a crash
        leaves nothing that looks like a result. If another node has published the stage meanwhile,
        its copy is the one that counts.
        """
        finished = self.folder(stage, key)
        if self._find_here(stage, key):
            with suppress(OSError):  # such as a folder of somebody else
                (finished / MANIFEST).touch()  # the time of last use, for mint.store.cleanup
            self._publish(stage, key, finished)  # its maker may have died before this
            return finished
        with self.lock(f"{stage}/{key}"):
            if self._find_here(stage, key) or self._fetch(stage, key):
                return finished
            for abandoned in finished.parent.glob(f".{key}-*"):  # by killed processes
                shutil.rmtree(abandoned)
            if finished.exists():
                aside = finished.parent / f".damaged-{key}-{uuid.uuid4().hex[:8]}"
                problem = f"{finished}: {damage(finished)}"
                warnings.warn(f"{problem}; moved to {aside.name} and computed again", stacklevel=2)
                finished.rename(aside)
            with TemporaryDirectory(prefix=f".{key}-", dir=finished.parent) as folder:
                partial = Path(folder)
                make(partial)
                Manifest.of(partial, self.identity).save(partial)
                for path in (*partial.iterdir(), partial):
                    sync_to_disk(path)
                if self._publish(stage, key, partial) or not self._fetch(stage, key):
                    partial.rename(finished)
                    sync_to_disk(finished.parent)
            self._verified.add(finished)
        return finished

    def discard(self, stage: str, key: str) -> None:
        """Remove a stage that nobody needs any more, here and in the storage; warn on failure."""
        finished = self.folder(stage, key)
        try:
            with self.lock(f"{stage}/{key}"):
                if finished.exists():
                    aside = finished.rename(finished.parent / f".{key}-{uuid.uuid4().hex[:8]}")
                    shutil.rmtree(aside)
        except OSError as error:
            warnings.warn(f"{finished} cannot be removed ({error_line(error)})", stacklevel=2)
        self._verified.discard(finished)
        self._withdraw(f"{stage}/{key}")

    def checkpoint(self, stage: str, key: str) -> Path:
        """Return the path of an unfinished stage's checkpoint."""
        path = self.root / PROGRESS / f"{stage}-{key}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def fetch_checkpoint(self, path: Path) -> None:
        """Copy a checkpoint from the storage if another node wrote it there."""
        if not self.storage or path.exists():
            return
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            if self.storage.get(f"{PROGRESS}/{path.name}", partial):
                partial.replace(path)
        except Exception as error:  # of any file system
            self._warn(path.name, error)
        finally:
            partial.unlink(missing_ok=True)

    def keep_checkpoint(self, path: Path) -> None:
        """Copy a checkpoint to the storage."""
        try:
            if self.storage:
                self.storage.put(f"{PROGRESS}/{path.name}", path)
        except Exception as error:  # of any file system: it must not fail the stage
            self._warn(path.name, error)

    def drop_checkpoint(self, path: Path) -> None:
        """Remove the checkpoint of a finished stage, if there is one here, in the storage, too."""
        if path.exists():
            path.unlink()
            self._withdraw(f"{PROGRESS}/{path.name}")

    def _find_here(self, stage: str, key: str) -> Path | None:
        folder = self.folder(stage, key)
        if not folder.exists():
            return None
        if folder not in self._verified:
            if retried(damage, folder):
                return None
            self._verified.add(folder)
        return folder

    def _fetch(self, stage: str, key: str) -> Path | None:
        """Copy a stage from the storage; the caller holds its lock."""
        finished = self.folder(stage, key)
        if not self.storage or finished.exists():
            return None
        try:
            with TemporaryDirectory(prefix=f".{key}-", dir=finished.parent) as folder:
                if not self.storage.fetch(f"{stage}/{key}", Path(folder)):
                    return None
                Path(folder).rename(finished)
        except Exception as error:  # of any file system: the stage can be computed here
            self._warn(f"{stage}/{key}", error)
            return None
        self._verified.add(finished)
        return finished

    def _publish(self, stage: str, key: str, folder: Path) -> bool:
        """Copy a stage to the storage; return False if another node's copy was there first."""
        try:
            return not self.storage or self.storage.publish(f"{stage}/{key}", folder)
        except Exception as error:  # of any file system: the stage is finished all the same
            self._warn(f"{stage}/{key}", error)
            return True

    def _withdraw(self, name: str) -> None:
        try:
            if self.storage:
                self.storage.remove(name)
        except Exception as error:  # of any file system
            self._warn(name, error)

    def _warn(self, name: str, error: Exception) -> None:
        assert self.storage
        place = f"{without_secrets(self.storage.uri)}/{name}"
        warnings.warn(f"{place}: the storage does not answer ({error_line(error)})", stacklevel=3)
