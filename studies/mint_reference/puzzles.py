"""Open questions of the MINT authors' results, answered from measured trials in PUZZLES.md.

Run as: python studies/mint_reference/puzzles.py [--output results] [--check]

What was not run is not answered. puzzles_sweep.py runs the trials; limits.py and masking.py write
the other two tables.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from benchmark_tables import LIMITS, MASKING, read_benchmark
from criteria_analysis import where_mint_wins
from limit_analysis import limit_of_80, limits_of_vgg16
from masking_variants import masking_changes
from search_analysis import search_questions

from mint import InputError, read_trials
from mint.reporting.protocols import protocols_of
from mint.reporting.reference import read_reference
from mint.reporting.statistics import CONFIDENCE
from mint.reporting.verify import compare_pages
from mint.store.atomic import write_atomic

PUZZLES = "PUZZLES.md"
_HERE = Path(__file__).parent
_INTRODUCTION = (
    "Made by `python studies/mint_reference/puzzles.py` from [trials.csv](trials.csv); do not "
    "edit. The questions are those that the MINT authors' results leave open. Figures are percent "
    "of fc1 -> fc2: the share at the margin, as mean ± standard deviation over seeds; differences "
    f"are paired by seed, with {CONFIDENCE:.0%} intervals of Student's t from three seeds on. \\* "
    "marks a difference after Holm's correction within its table, = an equivalence. Intervals of "
    "ratios of standard deviations are those of Pitman and Morgan, from eight seeds on. "
    "`python studies/mint_reference/puzzles_sweep.py` runs the trials."
)


def puzzles_page(
    trials: pd.DataFrame, limits: pd.DataFrame | None, masking: pd.DataFrame | None
) -> str:
    """Return PUZZLES.md.

    Args:
        trials: trial table, sorted.
        limits: table of limits.py; None if it was not run.
        masking: table of masking.py; None if it was not run.
    """
    protocols = protocols_of(trials)
    groups = [group for protocol in protocols for group in protocol.groups]
    answers = [
        *search_questions(protocols, read_reference(_HERE / "experiment1.yaml")),
        limit_of_80(limits),
        limits_of_vgg16(groups, read_reference(_HERE / "experiment2.yaml")),
        masking_changes(masking),
        where_mint_wins(protocols),
    ]
    sections = [line for answer in answers for line in answer.section]
    return "\n".join(["# Puzzles", "", _INTRODUCTION, *sections]) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write PUZZLES.md, or compare it with what it should be."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("results"), help="results folder")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 if the page differs"
    )
    options = parser.parse_args(arguments)
    try:
        page = puzzles_page(
            read_trials(options.output / "trials.csv"),
            read_benchmark(options.output, LIMITS),
            read_benchmark(options.output, MASKING),
        )
        path = options.output / PUZZLES
        if not options.check:
            write_atomic(path, page.encode())
            return 0
        cells, differences = compare_pages(PUZZLES, path.read_text(encoding="utf-8"), page)
    except (InputError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join([*differences, f"compared: {cells} cells; differences: {len(differences)}"]))
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
