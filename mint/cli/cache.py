"""The text of `mint cache ls`."""

import time
from collections import defaultdict

from mint.reporting.markdown import table
from mint.store.cleanup import LEFTOVERS, STAGES, entries
from mint.store.stage_cache import StageCache


def listing(cache: StageCache) -> list[str]:
    """Return a table of the stages: how many there are, their size and when they were used."""
    found = defaultdict(list)
    for entry in entries(cache):
        found[entry.stage].append(entry)
    rows = []
    for stage in (*STAGES, LEFTOVERS):
        if of_stage := found[stage]:
            used = [entry.last_used for entry in of_stage]
            times = [
                time.strftime("%Y-%m-%d %H:%M", time.localtime(moment))
                for moment in (min(used), max(used))
            ]
            size = sum(entry.size for entry in of_stage) / 1e6
            rows.append([stage, str(len(of_stage)), f"{size:.1f}", *times])
    return table(["Stage", "Number", "MB", "Longest unused since", "Last used"], rows, left=(0,))
