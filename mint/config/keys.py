"""Content keys: hashes of everything that a stage or a trial depends on."""

import hashlib
import json
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_CODE = Path(__file__).resolve().parents[1]

# Raise it with a change of the code that changes results: results of two methods then never
# share a key or a table.
METHOD_VERSION = 2
# Raise it when a field of a configuration changes its meaning.
SCHEMA_VERSION = 1


def content_key(*parts: Any) -> str:
    """Return sixteen hex digits for JSON values under the method's and the schema's version."""
    versioned = [METHOD_VERSION, SCHEMA_VERSION, *parts]
    content = json.dumps(versioned, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def code_digest(patterns: Iterable[str], packages: Iterable[str]) -> str:
    """Return a digest of mint's files that match glob patterns, and of packages' versions."""
    digest = hashlib.sha256()
    for file in sorted(path for pattern in patterns for path in _CODE.glob(pattern)):
        digest.update(file.read_bytes())
    for package in packages:
        with suppress(PackageNotFoundError):
            digest.update(f"{package} {version(package)}".encode())
    return digest.hexdigest()
