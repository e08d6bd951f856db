"""Finished stages on disk: made once, by whoever comes first, and shared by everyone after."""

import json
import shutil
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

from mint.errors import error_line, without_secrets
from mint.store.atomic import digest, flush, write_whole
from mint.store.remote import Storage

MANIFEST = "manifest.json"
PROGRESS = "progress"


class Cache:
    """A folder of stages; each stage has a folder for every content key.

    A stage's manifest tells the size and the checksum of each of its files, so that a file that
    a full disk, a power cut or a hand has damaged is never taken for a result: it is set aside,
    and the stage made again.

    Attributes:
        root: of the stages on this machine.
        storage: where the nodes of a cluster share them; None for this machine alone.
    """

    def __init__(self, root: Path, storage: Storage | None = None) -> None:
        self.root = root.absolute()
        self.storage = storage
        self._checked: set[Path] = set()
        self._published: set[Path] = set()

    @property
    def identity(self) -> str:
        """A name for this folder of stages that stays with it, whatever the machine is called."""
        path = self.root / "identity"
        with self.lock("identity"):
            if not path.exists():
                write_whole(path, uuid.uuid4().hex.encode())
        return path.read_text(encoding="utf-8")

    def lock(self, name: str, timeout: float = -1) -> FileLock:
        """Return a lock of this folder that ends with whoever holds it, however that ends.

        Args:
            name: of the lock.
            timeout: seconds to wait for it; negative to wait for ever.
        """
        path = self.root / f"{name}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(path, timeout=timeout)

    def folder(self, stage: str, key: str) -> Path:
        """Return where a stage of this key lives once it is finished."""
        return self.root / stage / key

    def find(self, stage: str, key: str) -> Path | None:
        """Return the folder of a stage that is finished and whole, here or in the storage."""
        if found := self._here(stage, key):
            return found
        if not self.storage or not self.storage.has(f"{stage}/{key}/{MANIFEST}"):
            return None
        with self.lock(f"{stage}/{key}"):
            return self._here_or_fetched(stage, key)

    def produce(self, stage: str, key: str, make: Callable[[Path], None]) -> Path:
        """Return the finished stage of this key, making it if nobody has.

        Whoever needs what another process is making waits for it. The folder appears under its
        name only when it is whole and on the disk: a process that dies while making it leaves
        nothing behind that could be taken for a result, and lets go of the lock.

        Args:
            stage: such as baselines or scores.
            key: content key of everything the stage depends on.
            make: fills the empty folder it is given.
        """
        finished = self.folder(stage, key)
        if found := self._here(stage, key):
            if self.storage:  # whoever made it may have been stopped before others could have it
                self._publish(self.storage, stage, found)
            return found
        with self.lock(f"{stage}/{key}"):
            if found := self._here_or_fetched(stage, key):
                return found
            for abandoned in finished.parent.glob(f".{key}-*"):  # by makers that were killed
                shutil.rmtree(abandoned)
            if finished.exists():
                aside = finished.parent / f".damaged-{key}-{uuid.uuid4().hex[:8]}"
                warnings.warn(
                    f"{finished}: {damage(finished)}; it is set aside as {aside.name} and made "
                    "again",
                    stacklevel=2,
                )
                finished.rename(aside)
            partial = Path(tempfile.mkdtemp(prefix=f".{key}-", dir=finished.parent))
            try:
                make(partial)
                self._finish(partial, finished)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
            if self.storage:
                self._publish(self.storage, stage, finished)
        return finished

    def checkpoint(self, stage: str, key: str) -> Path:
        """Return where a stage that is being made keeps its progress, for who takes it up again.

        What another node of the cluster has left of it in the storage is fetched first.
        """
        path = self.root / PROGRESS / f"{stage}-{key}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.storage and not path.exists() and self.storage.has(f"{PROGRESS}/{path.name}"):
            partial = path.with_name(f".{path.name}")
            self.storage.get(f"{PROGRESS}/{path.name}", partial)
            partial.replace(path)
        return path

    def keep_checkpoint(self, path: Path) -> None:
        """Have the storage, if there is one, hold a checkpoint as it is now."""
        if not self.storage:
            return
        try:
            self.storage.put([f"{PROGRESS}/{path.name}"], path.parent)
        except Exception as error:  # the training is worth more than what it may save another
            reason = error_line(error)
            warnings.warn(f"{path.name}: not kept in the storage ({reason})", stacklevel=2)

    def drop_checkpoint(self, path: Path) -> None:
        """Remove a checkpoint whose stage is finished."""
        path.unlink(missing_ok=True)
        if not self.storage:
            return
        try:
            self.storage.remove(f"{PROGRESS}/{path.name}")
        except Exception as error:  # the stage is worth more than the room that it takes
            warnings.warn(f"{path.name}: left in the storage ({error_line(error)})", stacklevel=2)

    def keys(self, stage: str) -> Iterator[str]:
        """Yield the keys of the finished stages on this machine, in order."""
        folder = self.root / stage
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.is_dir() and not path.name.startswith("."):
                yield path.name

    def _here(self, stage: str, key: str) -> Path | None:
        folder = self.folder(stage, key)
        if folder in self._checked and folder.exists():
            return folder
        if folder.exists() and damage(folder) is None:
            self._checked.add(folder)
            (folder / MANIFEST).touch()  # when it was last of use: mint cache prune asks
            return folder
        return None

    def _here_or_fetched(self, stage: str, key: str) -> Path | None:
        """Return the folder of a finished stage whose lock is held."""
        if found := self._here(stage, key):
            return found
        name = f"{stage}/{key}/{MANIFEST}"
        if not self.storage or self.folder(stage, key).exists() or not self.storage.has(name):
            return None
        return self._fetch(self.storage, stage, key)

    def _finish(self, partial: Path, finished: Path) -> None:
        files = sorted(path for path in partial.iterdir() if path.is_file())
        sums = {path.name: [path.stat().st_size, digest(path)] for path in files}
        (partial / MANIFEST).write_text(json.dumps({"files": sums}, indent=1), encoding="utf-8")
        for path in (*files, partial / MANIFEST, partial):
            flush(path)
        partial.rename(finished)
        flush(finished.parent)
        self._checked.add(finished)

    def _publish(self, storage: Storage, stage: str, finished: Path) -> None:
        if finished in self._published:
            return
        names = [f"{stage}/{finished.name}/{name}" for name in (*_files(finished), MANIFEST)]
        if not storage.has(names[-1]):  # the manifest comes last: without it there is no stage
            storage.put(names, finished)
        self._published.add(finished)

    def _fetch(self, storage: Storage, stage: str, key: str) -> Path | None:
        finished = self.folder(stage, key)
        partial = Path(tempfile.mkdtemp(prefix=f".{key}-", dir=finished.parent))
        try:
            storage.get(f"{stage}/{key}/{MANIFEST}", partial / MANIFEST)
            with suppress(ValueError):  # of a damaged manifest, told below
                for name in _files(partial):
                    storage.get(f"{stage}/{key}/{name}", partial / name)
            if wrong := damage(partial):
                place = without_secrets(storage.uri)
                warnings.warn(f"{place}/{stage}/{key}: {wrong}", stacklevel=3)
                storage.remove(f"{stage}/{key}/{MANIFEST}")
                return None
            partial.rename(finished)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        self._checked.add(finished)
        return finished


def damage(folder: Path) -> str | None:
    """Return what is wrong with the files of a finished stage; None where they are whole."""
    try:
        sums = _files(folder)
    except (OSError, ValueError) as error:
        return f"its {MANIFEST} cannot be read ({type(error).__name__})"
    for name, (size, checksum) in sums.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size or digest(path) != checksum:
            return f"{name} is not as it was written"
    return None


def _files(folder: Path) -> dict[str, tuple[int, str]]:
    content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    try:
        files = {
            str(name): (int(size), str(sum_)) for name, (size, sum_) in content["files"].items()
        }
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{MANIFEST} has another form") from error
    if any(Path(name).name != name for name in files):
        raise ValueError(f"{MANIFEST} names files elsewhere")
    return files
