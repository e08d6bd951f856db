"""Values of an axis that the command line lists without importing pydantic."""

from typing import Literal

Compensate = Literal["no", "yes"]
"""Whether the kept weights of a pruned network are refitted before retraining."""

Grouping = Literal["contiguous", "random", "clustered"]
"""Which filters of a layer are in which of its groups."""

Retraining = Literal["none", "light", "full"]
"""How a pruned network is retrained."""
