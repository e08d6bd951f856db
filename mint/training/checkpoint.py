"""The state of a training between two epochs, in a file."""

import time
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mint.errors import first_line

CHECKPOINT_SECONDS = 30.0  # between two writes: short trainings write none


@dataclass
class Checkpoint:
    """A file of a training's state; without a path, nothing is written or restored."""

    path: Path | None
    identity: str  # what the training depends on; the state of another one is not restored
    parts: Mapping[str, Any]  # model, optimizer and schedule
    device: torch.device
    _written: float = field(default_factory=time.monotonic, init=False)

    def write_if_due(self, history: Sequence[Mapping[str, Any]]) -> bool:
        """Write the state, whole or not at all, if the last write is long ago; return whether."""
        if self.path is None or time.monotonic() - self._written < CHECKPOINT_SECONDS:
            return False
        cuda = [torch.cuda.get_rng_state(self.device)] if self.device.type == "cuda" else []
        content = {
            "identity": self.identity,
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
            "history": list(history),
            "generators": [torch.get_rng_state(), *cuda],
        }
        partial = self.path.with_name(f".{self.path.name}.partial")
        torch.save(content, partial)
        partial.replace(self.path)
        self._written = time.monotonic()
        return True

    def restore(self) -> list[dict[str, Any]]:
        """Restore the state and return its history, or warn if the file is unusable."""
        if self.path is None or not self.path.exists():
            return []
        try:
            with zipfile.ZipFile(self.path) as archive:  # torch does not verify the checksums
                if damaged := archive.testzip():
                    raise ValueError(f"{damaged} is damaged")
            content: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
            if content["identity"] != self.identity:
                raise ValueError("it belongs to another training")
        except Exception as error:  # torch raises errors of many types for a truncated file
            warnings.warn(f"{self.path}: training restarts ({first_line(error)})", stacklevel=3)
            return []
        for name, part in self.parts.items():
            part.load_state_dict(content["parts"][name])
        torch.set_rng_state(content["generators"][0])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(content["generators"][1], self.device)
        return list(content["history"])
