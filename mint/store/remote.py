"""Finished stages where all nodes of a cluster find them: any path that fsspec opens."""

import uuid
from collections.abc import Sequence
from pathlib import Path

import fsspec.core
from fsspec.implementations.dirfs import DirFileSystem

from mint.errors import InputError, error_line, without_secrets


class RemoteStore:
    """A folder of files with names such as scores/KEY/scores.npz, at the path or URI `uri`.

    Its fsspec file system is `files`; `root` is the same with paths below the folder.
    """

    def __init__(self, uri: str) -> None:
        """Open the folder, and create it if it is missing; InputError if it cannot be used."""
        self.uri = uri if "://" in uri else str(Path(uri).absolute())
        try:
            self.files, self._path = fsspec.core.url_to_fs(self.uri)
            self.files.makedirs(self._path, exist_ok=True)
        except Exception as error:  # each file system has errors of its own
            raise InputError(
                f"cannot be used: {error_line(error)}; allowed are a folder that all nodes share, "
                "and the URI of a file system that fsspec knows",
                parameter="storage",
                value=without_secrets(uri),
            ) from error
        self.root = DirFileSystem(self._path, self.files)

    def put(self, name: str, folder: Path, files: Sequence[str]) -> None:
        """Copy files of a folder to NAME/FILE; the last one appears when all are complete."""
        self.root.makedirs(name, exist_ok=True)
        *others, last = files
        for file in others:
            self.root.put_file(str(folder / file), f"{name}/{file}")
        partial = f"{name}/{last}.{uuid.uuid4().hex}"
        self.root.put_file(str(folder / last), partial)
        self.root.mv(partial, f"{name}/{last}")

    def remove(self, name: str) -> None:
        """Remove a file or a folder if it exists."""
        if self.root.exists(name):
            self.root.rm(name, recursive=True)

    def scratch(self, name: str) -> str:
        """Create an empty folder for temporary files, and return its path in `files`."""
        self.remove(name)
        self.root.makedirs(name)
        return f"{self._path.rstrip('/')}/{name}"
