"""What MLflow's pages show of an experiment: its columns, its charts, and the links to both.

The state of a view is what MLflow's own button Share keeps. It is documented nowhere, but MLflow's
version is pinned.
"""

import json

VIEW_TAG = "mlflow.sharedViewState.mint"
"""Of an experiment: the state that the links ask for."""

# The columns from left to right, by MLflow's names for them, with their widths in pixels.
_WIDTHS = {
    "attributes.`Run Name`": 230,
    "runDateAndNestInfo": 130,
    "params.`criterion`": 130,
    "params.`groups`": 70,
    "params.`samples_per_class`": 130,
    "params.`upper_limit`": 95,
    "params.`fraction`": 75,
    "params.`seed`": 60,
    "metrics.`params_pruned`": 115,
    "metrics.`accuracy`": 80,
    "metrics.`accuracy_drop`": 110,
    "metrics.`baseline_accuracy`": 130,
    "metrics.`reliability`": 90,
    "duration": 80,
}
_SELECTED = [name for name in _WIDTHS if name.startswith(("params.", "metrics."))]
# By their prefixes, MLflow puts charts of its own into the sections: curves where there are steps,
# else bars, which say less than the table and stay folded. It takes the first for their name.
_SECTIONS = (
    {"name": "Trials", "display": True, "columns": 1, "cardHeight": 400},
    {"name": "retrain", "display": True},
    {"name": "probe", "display": True},
    {"name": "Model metrics", "display": False},
)
_CHARTS: tuple[dict[str, object], ...] = (
    {
        "type": "PARALLEL",
        "selectedParams": ["criterion", "groups", "samples_per_class", "upper_limit_or_1"],
        "selectedMetrics": ["params_pruned", "accuracy"],
    },
    {
        "type": "SCATTER",
        "xaxis": {"key": "params_pruned", "type": "METRIC"},
        "yaxis": {"key": "accuracy", "type": "METRIC"},
    },
)


def view_state() -> str:
    """Return the value of VIEW_TAG."""
    state = {
        "selectedColumns": [*_SELECTED, "attributes.`Duration`"],
        "columnOrder": list(_WIDTHS),
        "columnWidths": _WIDTHS,
        "orderByKey": "metrics.`params_pruned`",
        "orderByAsc": False,
        "runsHiddenMode": "SHOW_ALL",
        "isAccordionReordered": True,  # as given here, not by name
        "compareRunSections": [
            {"uuid": section["name"], "isReordered": False, **section} for section in _SECTIONS
        ],
        "compareRunCharts": [
            {
                "uuid": chart["type"],
                "metricSectionId": "Trials",
                "runsCountToCompare": 1000,
                "deleted": False,
                "isGenerated": False,
                **chart,
            }
            for chart in _CHARTS
        ],
    }
    return json.dumps(state, separators=(",", ":"))


def paths(experiment_id: str) -> dict[str, str]:
    """Return, on the server's address, the paths of the table of runs and of their charts."""
    runs = (
        f"/#/experiments/{experiment_id}/runs?workflowType=machine_learning&viewStateShareKey=mint"
    )
    return {"runs": runs, "charts": f"{runs}&compareRunsMode=CHART"}


def experiment_note(experiment_id: str) -> str:
    """Return an experiment's description in Markdown: the way to the pages from MLflow's own."""
    links = [f"[{page}]({path[1:]})" for page, path in paths(experiment_id).items()]
    return f"Trials of mint: {', '.join(links)}"


def run_note(headline: str, figures: str, run_id: str, picture: str) -> str:
    """Return a finished run's description in Markdown.

    Args:
        headline: what was run.
        figures: what came of it.
        run_id: of the run.
        picture: among its artifacts.
    """
    shown = f"![{picture}](get-artifact?path={picture}&run_uuid={run_id})"
    return f"{headline}\n\n{figures}\n\n{shown}"
