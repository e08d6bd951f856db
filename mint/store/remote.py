"""Finished stages where all nodes of a cluster find them: any path that fsspec opens."""

import uuid
import warnings
from contextlib import suppress
from pathlib import Path

import fsspec.core
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem

from mint.errors import InputError, error_line, without_secrets
from mint.store.atomic import create_atomic
from mint.store.manifest import MANIFEST, Manifest, damage
from mint.store.retry import retried


class RemoteStore:
    """A folder of stages, such as scores/KEY, at the path or URI `uri`.

    A stage appears in one step, when its manifest is created. The first node that creates it wins;
    the files of others lie in folders of their own, so that two copies never mix. Reads and writes
    are retried.

    Its fsspec file system is `files`; `root` is the same with paths below the folder.
    """

    def __init__(self, uri: str) -> None:
        """Name the folder; InputError if no file system is known for it. Nothing is read yet."""
        self.uri = uri if "://" in uri else str(Path(uri).absolute())
        try:
            self.files, self._path = fsspec.core.url_to_fs(self.uri)
        except Exception as error:  # each file system has errors of its own
            raise self._unusable(error) from error
        self.root = DirFileSystem(self._path, self.files)

    def check(self) -> None:
        """Create the folder if it is missing; InputError if it cannot be used."""
        try:
            retried(self.files.makedirs, self._path, exist_ok=True)
        except Exception as error:  # each file system has errors of its own
            raise self._unusable(error) from error

    def has(self, stage: str) -> bool:
        """Return whether a stage, such as scores/KEY, is there."""
        return self._read(f"{stage}/{MANIFEST}") is not None

    def publish(self, stage: str, folder: Path) -> bool:
        """Copy a finished stage from a folder; return False if another copy was there first."""
        if self.has(stage):
            return False
        manifest = Manifest.load(folder).model_copy(update={"folder": uuid.uuid4().hex})
        for file in manifest.files:
            self.put(f"{stage}/{manifest.folder}/{file}", folder / file)
        content = manifest.model_dump_json(indent=1).encode()
        with suppress(FileExistsError):  # which may be ours, if the answer to a first try was lost
            retried(self._create, f"{stage}/{MANIFEST}", content)
        if self._read(f"{stage}/{MANIFEST}") == content:
            return True
        self.remove(f"{stage}/{manifest.folder}")
        return False

    def fetch(self, stage: str, folder: Path) -> bool:
        """Copy a stage into an empty folder, and return whether it is there.

        A stage that is damaged whenever it is read is removed from the store, with a warning.
        """
        try:
            return retried(self._download, stage, folder)
        except _DamagedError as error:
            warnings.warn(f"{without_secrets(self.uri)}/{stage}: {error}", stacklevel=2)
            if self._read(f"{stage}/{MANIFEST}") == error.manifest:  # and no copy is there since
                self.remove(f"{stage}/{MANIFEST}")
            return False

    def put(self, name: str, path: Path) -> None:
        """Copy a file, whole or not at all, in place of one that is there."""
        retried(self._put, name, path)

    def get(self, name: str, path: Path) -> bool:
        """Copy a file to a path, and return whether it was there."""
        try:
            retried(self.root.get_file, name, str(path))
        except FileNotFoundError:
            return False
        return True

    def remove(self, name: str) -> None:
        """Remove a file or a folder if it exists."""
        with suppress(FileNotFoundError):
            retried(self.root.rm, name, recursive=True)

    def scratch(self, name: str) -> str:
        """Create an empty folder for temporary files, and return its path in `files`."""
        self.remove(name)
        retried(self.root.makedirs, name, exist_ok=True)
        return f"{self._path.rstrip('/')}/{name}"

    def _unusable(self, error: Exception) -> InputError:
        return InputError(
            f"cannot be used: {error_line(error)}; allowed are a folder that all nodes share, "
            "and the URI of a file system that fsspec knows",
            parameter="storage",
            value=without_secrets(self.uri),
        )

    def _read(self, name: str) -> bytes | None:
        try:
            content: bytes = retried(self.root.cat_file, name)
        except FileNotFoundError:
            return None
        return content

    def _put(self, name: str, path: Path) -> None:
        folder, _, file = name.rpartition("/")
        self.root.makedirs(folder, exist_ok=True)
        partial = f"{folder}/{file}.{uuid.uuid4().hex}"
        self.root.put_file(str(path), partial)
        self.root.mv(partial, name)

    def _create(self, name: str, content: bytes) -> None:
        """Create a small file in one step; FileExistsError if there is one."""
        if isinstance(self.files, LocalFileSystem):
            create_atomic(Path(self._path, name), content)
        else:
            self.root.pipe_file(name, content, mode="create")

    def _download(self, stage: str, folder: Path) -> bool:
        try:
            content = self.root.cat_file(f"{stage}/{MANIFEST}")
        except FileNotFoundError:
            return False
        try:
            manifest = Manifest.model_validate_json(content)
            for file in manifest.files:
                place = "/".join(filter(None, (stage, manifest.folder, file)))
                self.root.get_file(place, str(folder / file))
        except FileNotFoundError as error:
            raise _DamagedError(f"a file is missing ({error_line(error)})", content) from error
        except ValueError as error:
            raise _DamagedError(f"its {MANIFEST} cannot be read", content) from error
        manifest.model_copy(update={"folder": ""}).save(folder)
        if problem := damage(folder):
            raise _DamagedError(problem, content)
        return True


class _DamagedError(Exception):
    """A stage's files are not what this content of its manifest says."""

    def __init__(self, problem: str, manifest: bytes) -> None:
        super().__init__(problem)
        self.manifest = manifest
