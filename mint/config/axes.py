"""Values of an axis that the command line lists without importing pydantic."""

from typing import Literal

Retraining = Literal["none", "light", "full"]
"""How a pruned network is retrained."""
