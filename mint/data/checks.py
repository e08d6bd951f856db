"""The check of a whole data set: every image is decoded once, before anything is trained."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mint.config.keys import content_key
from mint.errors import InputError
from mint.store.stage_cache import StageCache

if TYPE_CHECKING:  # it imports torch, which a plan does without
    from mint.data.images import EncodedImages

OnCheck = Callable[[int, int], None]
"""Gets the number of images checked so far, and of all."""

_FILE = "modes.json"
_AT_ONCE = 1000  # images between two calls of OnCheck
_NAMED = 5


def no_report(checked: int, images: int) -> None:
    """Ignore the progress of a check."""


def checked_modes(
    parts: "Sequence[EncodedImages]",
    size: tuple[int, int] | None,
    state: str,
    cache: Path | None,
    on_check: OnCheck = no_report,
) -> frozenset[str]:
    """Return Pillow's modes of all images, after each has been decoded once.

    Args:
        parts: the images.
        size: width and height that all must have; None for any.
        state: changes whenever one of their files is written.
        cache: folder that keeps the modes, so that the same files are checked once; or None.
        on_check: reports the progress.

    Raises:
        InputError: it names images that are damaged, have another size, or cannot be read.
    """
    if cache is None:
        return _check(parts, size, on_check)

    def make(folder: Path) -> None:
        modes = sorted(_check(parts, size, on_check))
        (folder / _FILE).write_text(json.dumps(modes), encoding="utf-8")

    # Without the storage of a cluster: each node has files of its own.
    folder = StageCache(cache).produce("checks", content_key("check", state, size), make)
    return frozenset(json.loads((folder / _FILE).read_text(encoding="utf-8")))


def _check(
    parts: "Sequence[EncodedImages]", size: tuple[int, int] | None, on_check: OnCheck
) -> frozenset[str]:
    from mint.data.images import for_each, opened

    modes: set[str] = set()
    problems: list[str] = []
    checked, images = 0, sum(len(part.labels) for part in parts)
    for part in parts:

        def check(row: int, part: "EncodedImages" = part) -> None:
            try:
                with opened(part, row, size) as image:
                    modes.add(image.mode)
            except InputError as error:
                problems.append(str(error))

        for first in range(0, len(part.labels), _AT_ONCE):
            rows = np.arange(first, min(first + _AT_ONCE, len(part.labels)))
            for_each(rows, check)
            checked += len(rows)
            on_check(checked, images)
    if problems:
        problems.sort()
        more = f"; and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
        raise InputError("; ".join(problems[:_NAMED]) + more)
    return frozenset(modes)
