"""Records in, RESULTS.md, records.csv and plots out: same records, same bytes."""

import io
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from mint.markdown import table
from mint.plots import draw_tradeoff
from mint.records import parse_records, records_bytes, write_whole

_CELL = ["upper_limit", "groups", "samples_per_class"]
_Cell = tuple[str, int, int]
_NOT_RUN = ["not run", "not run", "not run", "0", "not run", "not run"]


def write_report(output: Path, records: pd.DataFrame) -> None:
    """Write records.csv, and from it RESULTS.md and a plot for every experiment.

    Args:
        output: the folder; other files in it are left alone.
        records: with the columns of mint.records.
    """
    content = records_bytes(records)
    # From the content, so that what is written does not depend on where the records came from.
    records = parse_records(content)
    made = {"records.csv": content}
    published = yaml.safe_load(files("mint").joinpath("published.yaml").read_text("utf-8"))
    text = [
        "# Results",
        "",
        "Made by `mint report` from [records.csv](records.csv); do not edit. Params pruned are "
        "percent of the counted weights, performance is test accuracy in percent of the network "
        "after the last epoch of retraining; mean ± standard deviation over seeds. Drop is the "
        "baseline's test accuracy less that of the pruned network, in percentage points. "
        "Reliability is the rank correlation to expect between the scores and those of as many "
        "other bootstraps.",
    ]
    for (experiment, protocol), own in records.groupby(["experiment", "protocol"]):
        plot = f"{experiment}-{protocol}.png"
        quoted = published.get(experiment, {})
        buffer = io.BytesIO()
        draw_tradeoff(buffer, own, quoted.get("methods", []))
        made[plot] = buffer.getvalue()
        text += _section(str(experiment), str(protocol), own, quoted, plot)
    made["RESULTS.md"] = ("\n".join(text) + "\n").encode()
    for name, written in made.items():
        write_whole(output / name, written)


def _section(
    experiment: str, protocol: str, records: pd.DataFrame, quoted: dict[str, Any], plot: str
) -> list[str]:
    baselines = records.drop_duplicates("seed")["baseline_accuracy"]
    text = [
        "",
        f"## {experiment}",
        "",
        f"{records['setting'].iloc[0]} Protocol {protocol}.",
        "",
        f"Baseline: {_spread(baselines)} ({_count(len(baselines), 'seed')}"
        + (f"; published {quoted['baseline_accuracy']:.2f}" if quoted else "")
        + f"). {int(records['counted_weights'].iloc[0])} weights counted.",
        "",
        f"![accuracy against params pruned]({plot})",
    ]
    cells: dict[_Cell, list[pd.DataFrame]] = {}
    for key, cell in records.groupby([*_CELL, "bootstraps"]):
        cells.setdefault(key[:3], []).append(cell)  # type: ignore[arg-type]
    if quoted:
        shown: set[_Cell] = set()
        for title, rows in (
            ("Group variations", quoted.get("groups", [])),
            ("Sample variations", quoted.get("samples", [])),
        ):
            if not rows:
                continue
            keys = [tuple(row[name] for name in _CELL) for row in rows]
            text += _table(title, keys, cells, rows)
            shown.update(keys)
        others = sorted(set(cells) - shown, key=_by_groups)
        if others:
            text += _table("Others" if shown else "Trials", others, cells)
        text += ["", f"Published figures: {quoted['source']}."]
    elif len(cells) == 1:
        text += _table("Trials", list(cells), cells)
    else:
        text += _table("Group variations", sorted(cells, key=_by_groups), cells)
        text += _table("Sample variations", sorted(cells, key=_by_samples), cells)
    return text


def _table(
    title: str,
    keys: Sequence[_Cell],
    cells: Mapping[_Cell, Sequence[pd.DataFrame]],
    quoted: Sequence[Mapping[str, Any]] = (),
) -> list[str]:
    header = ["Upper limit", "Groups", "Samples per class", "Params pruned", "Performance"]
    header += ["Drop", "Seeds", "Bootstraps", "Reliability"]
    if quoted:
        header += ["Published params pruned", "Published performance"]
    rows = []
    for index, key in enumerate(keys):
        limit, groups, samples = key
        for measured in [_measured(cell) for cell in cells.get(key, ())] or [_NOT_RUN]:
            row = ["N/A" if limit == "none" else limit, str(groups), str(samples), *measured]
            if quoted:
                row += [_quote(quoted[index][name]) for name in ("params_pruned", "accuracy")]
            rows.append(row)
    return ["", f"### {title}", "", *table(header, rows)]


def _measured(cell: pd.DataFrame) -> list[str]:
    return [
        *(_spread(cell[name]) for name in ("params_pruned", "accuracy", "accuracy_drop")),
        str(len(cell)),
        _range(cell["bootstraps_drawn"]),
        "N/A" if cell["reliability"].isna().all() else _spread(cell["reliability"].dropna()),
    ]


def _spread(values: "pd.Series[float]") -> str:
    if len(values) == 1:
        return f"{values.iloc[0]:z.2f}"
    return f"{values.mean():z.2f} ± {values.std():.2f}"


def _range(counts: "pd.Series[int]") -> str:
    least, most = counts.min(), counts.max()
    return str(least) if least == most else f"{least} to {most}"


def _quote(value: float | None) -> str:
    return "open" if value is None else f"{value:.2f}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"


def _limit(text: str) -> float:
    return float("-inf") if text == "none" else -float(text)


def _by_groups(key: _Cell) -> tuple[float, int, int]:
    limit, groups, samples = key
    return _limit(limit), samples, groups


def _by_samples(key: _Cell) -> tuple[float, int, int]:
    limit, groups, samples = key
    return _limit(limit), groups, samples
