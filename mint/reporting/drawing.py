"""Drawing the figures of a report, on all cores if there are many."""

import io
import os
import pickle
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from mint.errors import error_line
from mint.reporting.figure_style import save

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Plots = dict[str, "partial[Figure]"]
"""By file name, a function that draws the figure."""

# Below that, a second process would start for longer than it draws.
_FEWEST_A_PROCESS = 5


def draw_all(plots: Mapping[str, "partial[Figure]"]) -> dict[str, bytes | str]:
    """Return the content of every figure; a text says why one could not be drawn."""
    processes = max(1, min(os.cpu_count() or 1, len(plots) // _FEWEST_A_PROCESS))
    own, *others = (dict(list(plots.items())[first::processes]) for first in range(processes))
    with ThreadPoolExecutor(processes) as pool:
        elsewhere = pool.map(_drawn_elsewhere, others)
        made = _drawn(own)
        for share, drawn in zip(others, elsewhere, strict=True):
            made |= drawn or _drawn(share)
    return {name: made[name] for name in plots}


def _drawn_elsewhere(plots: Mapping[str, "partial[Figure]"]) -> dict[str, bytes | str]:
    """Draw figures in another process; return an empty dict if the process fails."""
    # -P: a matplotlib.py in the current folder would be found first.
    command = [sys.executable, "-P", "-m", __name__]
    done = subprocess.run(command, input=pickle.dumps(plots), stdout=subprocess.PIPE, check=False)
    made: dict[str, bytes | str] = pickle.loads(done.stdout) if done.returncode == 0 else {}
    return made


def _drawn(plots: Mapping[str, "partial[Figure]"]) -> dict[str, bytes | str]:
    made: dict[str, bytes | str] = {}
    for name, draw in plots.items():
        buffer = io.BytesIO()
        try:
            save(draw(), buffer)
            made[name] = buffer.getvalue()
        except Exception as error:  # it costs this figure alone
            made[name] = error_line(error)
    return made


if __name__ == "__main__":
    sys.stdout.buffer.write(pickle.dumps(_drawn(pickle.loads(sys.stdin.buffer.read()))))
