"""Finished stages on disk: computed once, and reused by every process that needs them."""

import hashlib
import shutil
import uuid
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

from filelock import FileLock
from pydantic import BaseModel, Field

from mint.errors import error_line, without_secrets
from mint.store.atomic import sync_to_disk, write_atomic
from mint.store.remote import RemoteStore

MANIFEST = "manifest.json"
PROGRESS = "progress"


class _Manifest(BaseModel):
    """Size and SHA-256 of every file of a stage."""

    files: dict[Annotated[str, Field(pattern=r"^[^/\\]+$")], tuple[int, str]]


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
        """Return the folder of a finished, undamaged stage, here or in the storage."""
        found = self._find_here(stage, key)
        if found or not self.storage or not self.storage.root.exists(f"{stage}/{key}/{MANIFEST}"):
            return found
        with self.lock(f"{stage}/{key}"):
            return self._find_here(stage, key) or self._fetch(stage, key)

    def produce(self, stage: str, key: str, make: Callable[[Path], None]) -> Path:
        """Return the folder of a stage, which make fills unless it is finished already.

        The key stands for everything that the stage depends on. A second process waits for the
        first. The folder gets its name only when it is complete and on the disk, so that a crash
        leaves nothing that looks like a result.
        """
        finished = self.folder(stage, key)
        if self._find_here(stage, key):
            self._publish(stage, finished)  # the process that computed it may have died before this
            return finished
        with self.lock(f"{stage}/{key}"):
            if self._find_here(stage, key) or self._fetch(stage, key):
                return finished
            for abandoned in finished.parent.glob(f".{key}-*"):  # by killed processes
                shutil.rmtree(abandoned)
            if finished.exists():
                aside = finished.parent / f".damaged-{key}-{uuid.uuid4().hex[:8]}"
                problem = f"{finished}: {_damage(finished)}"
                warnings.warn(f"{problem}; moved to {aside.name} and computed again", stacklevel=2)
                finished.rename(aside)
            with TemporaryDirectory(prefix=f".{key}-", dir=finished.parent) as folder:
                partial = Path(folder)
                make(partial)
                files = sorted(path for path in partial.iterdir() if path.is_file())
                manifest = _Manifest(files={path.name: _checksum(path) for path in files})
                content = manifest.model_dump_json(indent=1)
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
        if (
            self.storage
            and not path.exists()
            and self.storage.root.exists(f"{PROGRESS}/{path.name}")
        ):
            partial = path.with_name(f".{path.name}")
            self.storage.root.get_file(f"{PROGRESS}/{path.name}", str(partial))
            partial.replace(path)
        return path

    def keep_checkpoint(self, path: Path) -> None:
        """Copy a checkpoint to the storage, or remove it there if it is gone here."""
        if not self.storage:
            return
        try:
            if path.exists():
                self.storage.put(PROGRESS, path.parent, [path.name])
            else:
                self.storage.remove(f"{PROGRESS}/{path.name}")
        except Exception as error:  # of any file system: it must not fail the stage
            warnings.warn(f"{path.name}: storage not updated ({error_line(error)})", stacklevel=2)

    def drop_checkpoint(self, path: Path) -> None:
        """Remove the checkpoint of a finished stage."""
        path.unlink(missing_ok=True)
        self.keep_checkpoint(path)

    def _find_here(self, stage: str, key: str) -> Path | None:
        folder = self.folder(stage, key)
        if not folder.exists() or (folder not in self._verified and _damage(folder)):
            return None
        if folder not in self._verified:
            (folder / MANIFEST).touch()  # the time of last use, for mint.store.cleanup
            self._verified.add(folder)
        return folder

    def _fetch(self, stage: str, key: str) -> Path | None:
        """Copy a stage from the storage; the caller holds its lock."""
        finished, remote = self.folder(stage, key), f"{stage}/{key}"
        if (
            not self.storage
            or finished.exists()
            or not self.storage.root.exists(f"{remote}/{MANIFEST}")
        ):
            return None
        with TemporaryDirectory(prefix=f".{key}-", dir=finished.parent) as folder:
            partial = Path(folder)
            self.storage.root.get_file(f"{remote}/{MANIFEST}", str(partial / MANIFEST))
            with suppress(ValueError):  # a damaged manifest, reported below
                for name in _load_manifest(partial):
                    self.storage.root.get_file(f"{remote}/{name}", str(partial / name))
            if problem := _damage(partial):
                warnings.warn(
                    f"{without_secrets(self.storage.uri)}/{remote}: {problem}", stacklevel=3
                )
                self.storage.remove(f"{remote}/{MANIFEST}")
                return None
            partial.rename(finished)
        self._verified.add(finished)
        return finished

    def _publish(self, stage: str, finished: Path) -> None:
        """Copy a stage to the storage, if there is one, with the manifest last."""
        name = f"{stage}/{finished.name}"
        if self.storage and not self.storage.root.exists(f"{name}/{MANIFEST}"):
            self.storage.put(name, finished, [*_load_manifest(finished), MANIFEST])


def _load_manifest(folder: Path) -> dict[str, tuple[int, str]]:
    return _Manifest.model_validate_json((folder / MANIFEST).read_bytes()).files


def _checksum(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        return path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()


def _damage(folder: Path) -> str | None:
    """Return what is wrong with the files of a finished stage; None if they are intact."""
    try:
        checksums = _load_manifest(folder)
    except (OSError, ValueError) as error:
        return f"its {MANIFEST} cannot be read ({type(error).__name__})"
    for name, checksum in checksums.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        if _checksum(folder / name) != checksum:
            return f"{name} has changed since it was written"
    return None
