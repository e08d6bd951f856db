"""A user's own criterion: MODULE:FUNCTION, followed by the digest of its source in results."""

from pathlib import Path
from typing import TYPE_CHECKING

from mint.errors import InputError
from mint.models.own_code import Role, imported, own_modules, returns, source_digest
from mint.pruning.scores import BlockScores

if TYPE_CHECKING:  # it looks up users' criteria here
    from mint.pruning.criteria import Criterion

CRITERION = Role(
    "criterion",
    lambda value: returns(value, BlockScores),
    "a function annotated to return the scores of blocks: def FUNCTION(pair, inputs) -> "
    "BlockScores",
)


def resolved_criterion(name: str) -> str:
    """Return the name of a criterion, that of a user's function with the digest of its source.

    So an edit makes another criterion, with scores, trials and rows of its own.

    Raises:
        InputError: the function is no criterion, or has been edited since.
    """
    function, at, known = name.partition("@")
    digest = source_digest(function, CRITERION)
    if digest is None:
        return name
    if at and known != digest[: len(known)]:
        problem = "its source is not what these trials began with"
        raise InputError(f"criterion {name}: {problem}")
    return f"{function}@{digest[:8]}"


def criterion_modules(name: str) -> list[Path]:
    """Return the user's files and packages that a criterion depends on; none for mint's own."""
    return own_modules(name.partition("@")[0], CRITERION)


def own_criterion(name: str) -> "Criterion":
    """Return the user's function that scores blocks."""
    return imported(resolved_criterion(name).partition("@")[0], CRITERION)
