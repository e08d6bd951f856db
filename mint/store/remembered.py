"""What this machine computed from files and code that have not changed since: recalled, not kept.

Only plans recall. Losing it costs seconds; nothing else depends on it.
"""

from contextlib import suppress
from functools import cache
from typing import Any

from mint.config.keys import code_digest, content_key
from mint.config.locations import user_caches
from mint.store.atomic import write_atomic

_FOLDER = "facts"
_PACKAGES = ("numpy", "pillow", "torch", "torchvision")


def recall(*parts: Any) -> bytes | None:
    """Return what was remembered under these JSON values by this very code; None if nothing was."""
    for root in user_caches():
        with suppress(OSError):
            return (root / _FOLDER / f"{content_key(_code(), *parts)}.json").read_bytes()
    return None


def remember(content: bytes, *parts: Any) -> None:
    """Remember a content under JSON values that stand for everything that it depends on."""
    for root in user_caches():
        with suppress(OSError):
            write_atomic(root / _FOLDER / f"{content_key(_code(), *parts)}.json", content)
            return


@cache
def _code() -> str:
    """Return a digest of the code that reads data and networks, and of its libraries' versions."""
    return code_digest(("data/*.py", "models/*.py"), _PACKAGES)
