"""Finished stages where every node of a cluster finds them: any path that fsspec can open."""

import uuid
from collections.abc import Sequence
from pathlib import Path

import fsspec.core

from mint.errors import InputError, without_secrets


class Storage:
    """A folder of files under names such as scores/KEY/scores.npz.

    Attributes:
        uri: of the folder.
        files: its file system, as fsspec has it.
    """

    def __init__(self, uri: str) -> None:
        """Open the folder, making it where it is missing.

        Args:
            uri: a folder, or what fsspec takes: s3://BUCKET/FOLDER, gs://..., file:///...

        Raises:
            InputError: no such file system is known, or it does not answer.
        """
        self.uri = uri if "://" in uri else str(Path(uri).absolute())
        try:
            self.files, self._root = fsspec.core.url_to_fs(self.uri)
            self.files.makedirs(self._root, exist_ok=True)
        except Exception as error:  # of every kind, by file system
            raise InputError(
                f"--storage {without_secrets(uri)}: cannot be used: {type(error).__name__}: "
                f"{without_secrets(str(error))}; allowed are a folder that all nodes share, and "
                "the URI of a file system that fsspec knows"
            ) from error

    def has(self, name: str) -> bool:
        """Tell whether there is a file of this name."""
        return bool(self.files.exists(self._path(name)))

    def put(self, names: Sequence[str], folder: Path) -> None:
        """Store files of a folder under their names below the name of the folder's stage.

        Args:
            names: such as scores/KEY/scores.npz, in the order in which they are to appear; the
                last, which tells that all are there, appears whole or not at all.
            folder: that holds a file of the last part of every name.
        """
        *_, last = names
        for name in names:
            path = self._path(name)
            self.files.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
            partial = f"{path}.{uuid.uuid4().hex}" if name == last else path
            self.files.put_file(str(folder / name.rsplit("/", 1)[1]), partial)
            if partial != path:
                self.files.mv(partial, path)

    def get(self, name: str, path: Path) -> None:
        """Fetch a file.

        Raises:
            OSError: it is not there, or cannot be read.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self.files.get_file(self._path(name), str(path))

    def remove(self, name: str) -> None:
        """Remove a file or a folder, if it is there."""
        if self.has(name):
            self.files.rm(self._path(name), recursive=True)

    def scratch(self, name: str) -> str:
        """Make an empty folder for what need not stay, and return its path in the file system."""
        self.remove(name)
        self.files.makedirs(self._path(name), exist_ok=True)
        return self._path(name)

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"
