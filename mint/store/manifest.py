"""Manifests of finished stages: what their files must be, and who made them."""

import hashlib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field

MANIFEST = "manifest.json"


class Manifest(BaseModel):
    """What a stage consists of.

    Attributes:
        files: size (bytes) and SHA-256 of every file.
        maker: identity of the cache that the stage was made in.
        folder: of the files, beside the manifest, in a storage; empty if it is the manifest's own.
    """

    files: dict[Annotated[str, Field(pattern=r"^[^/\\]+$")], tuple[int, str]]
    maker: str = "unknown"  # to earlier versions
    folder: Annotated[str, Field(pattern=r"^[0-9a-f]*$")] = ""

    @classmethod
    def of(cls, folder: Path, maker: str) -> "Manifest":
        """Return the manifest of the files in a folder."""
        files = sorted(path for path in folder.iterdir() if path.is_file())
        return cls(files={path.name: _checksum(path) for path in files}, maker=maker)

    @classmethod
    def load(cls, folder: Path) -> "Manifest":
        """Read the manifest of a finished stage; ValueError if it is damaged."""
        return cls.model_validate_json((folder / MANIFEST).read_bytes())

    def digest(self, file: str) -> str:
        """Return the SHA-256 of a file."""
        return self.files[file][1]

    def save(self, folder: Path) -> None:
        """Write the manifest beside its files."""
        (folder / MANIFEST).write_text(self.model_dump_json(indent=1), encoding="utf-8")


def damage(folder: Path) -> str | None:
    """Return what is wrong with the files of a finished stage; None if they are intact.

    OSError if they cannot be read: that proves no damage.
    """
    try:
        manifest = Manifest.load(folder)
    except (FileNotFoundError, ValueError) as error:
        return f"its {MANIFEST} cannot be read ({type(error).__name__})"
    for name, checksum in manifest.files.items():
        try:
            if _checksum(folder / name) != checksum:
                return f"{name} has changed since it was written"
        except FileNotFoundError:
            return f"{name} is missing"
    return None


def _checksum(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        return path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()
