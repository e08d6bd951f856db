"""Finished stages where all nodes of a cluster find them: any path that fsspec opens."""

import uuid
from collections.abc import Sequence
from pathlib import Path

import fsspec.core

from mint.errors import InputError, error_line, without_secrets


class RemoteStore:
    """A folder of files with names such as scores/KEY/scores.npz.

    Attributes:
        uri: of the folder.
        files: its fsspec file system.
    """

    def __init__(self, uri: str) -> None:
        """Open the folder, and create it if it is missing.

        Args:
            uri: a folder, or a URI that fsspec knows: s3://BUCKET/FOLDER, gs://..., file:///...

        Raises:
            InputError: the file system is unknown or does not answer.
        """
        self.uri = uri if "://" in uri else str(Path(uri).absolute())
        try:
            self.files, self._root = fsspec.core.url_to_fs(self.uri)
            self.files.makedirs(self._root, exist_ok=True)
        except Exception as error:  # each file system has errors of its own
            raise InputError(
                f"cannot be used: {error_line(error)}; allowed are a folder that all nodes share, "
                "and the URI of a file system that fsspec knows",
                parameter="storage",
                value=without_secrets(uri),
            ) from error

    def has(self, name: str) -> bool:
        """Return whether a file of this name exists."""
        return bool(self.files.exists(self._path(name)))

    def put(self, names: Sequence[str], folder: Path) -> None:
        """Upload the files of a folder; the last name appears when all files are complete.

        Args:
            names: names in this store, such as scores/KEY/scores.npz, in the order of the upload.
            folder: holds each file under the last part of its name.
        """
        for name in names:
            path = self._path(name)
            parent, file = path.rsplit("/", 1)
            self.files.makedirs(parent, exist_ok=True)
            partial = f"{path}.{uuid.uuid4().hex}" if name == names[-1] else path
            self.files.put_file(str(folder / file), partial)
            if partial != path:
                self.files.mv(partial, path)

    def get(self, name: str, path: Path) -> None:
        """Download a file; raise OSError if it cannot be read."""
        self.files.get_file(self._path(name), str(path))

    def remove(self, name: str) -> None:
        """Remove a file or a folder if it exists."""
        if self.has(name):
            self.files.rm(self._path(name), recursive=True)

    def scratch(self, name: str) -> str:
        """Create an empty folder for temporary files, and return its path in the file system."""
        self.remove(name)
        self.files.makedirs(self._path(name), exist_ok=True)
        return self._path(name)

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"
