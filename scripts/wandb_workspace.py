"""python scripts/wandb_workspace.py table=NAME entity=TEAM [project=attnlab] [--dry-run]

Creates a saved W&B workspace and a report for a table of configs/table that was logged with `python -m attnlab.table table=NAME
wandb=true`: the table itself, its cells as bars, learning curves grouped by row and column, attention overlays and score histograms.
--dry-run prints what would be created, needs neither the network nor the package `wandb-workspaces`, and creates nothing.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from attnlab.loggers.wandb import has_credentials
from attnlab.tables.model import Metric
from attnlab.tables.views.wandb import CELLS, MATRIX, TABLE_ROW, VALUE, slug

NAMED = ("table", "entity", "project")
MINE = "the default entity of your login"
CURVES = (("Accuracy", ["val/acc", "train/acc"]), ("Loss", ["train/loss", "val/nll"]))


def describe(
    *,
    name: str,
    title: str,
    paper: str,
    rows: Sequence[str],
    columns: Sequence[str],
    metric: Metric,
    baseline: str | None,
    project: str,
    entity: str | None,
) -> dict[str, Any]:
    """What is to be created, as plain data: the text of --dry-run, and what `create` builds from."""
    where = {"entity": entity or MINE, "project": project}
    seeds = {"table_name": name, "not": {"table_row": TABLE_ROW}}
    better = "higher" if metric.direction == "max" else "lower"
    bars = {"panel": "bars", "title": f"{metric.label}, {better} is better, mean and sd over seeds", "metrics": [VALUE], "band": "stddev"}
    curves = [{"panel": "lines", "title": label, "x": "epoch", "y": keys, "band": "stddev"} for label, keys in CURVES]
    media = {kind: [f"{kind}/{slug(row)}/{slug(column)}" for row in rows for column in columns] for kind in ("attention", "scores")}
    pictures = [
        {"panel": "pictures", "title": title, "keys": media[kind], "columns": len(columns)}
        for kind, title in (("attention", "Attention, a row of pictures a row of the table"), ("scores", "Scores of the OOD heads"))
    ]
    tables = [{"panel": "table", "key": MATRIX}, {"panel": "table", "key": CELLS}]
    workspace = {
        "name": f"attnlab {name}",
        **where,
        "runs": {"table_name": name},
        "group_by": ["table_row", "table_column"],
        "columns": [f"summary:{VALUE}", "config:table_row.value", "config:table_column.value"],
        "sections": [
            {"name": "Table", "panels": tables},
            {"name": "Rows against columns", "panels": [{**bars, "group_by": "table_row"}, {**bars, "group_by": "table_column"}]},
            {"name": "Learning", "panels": curves},
            {"name": "Attention and scores", "panels": pictures},
        ],
    }
    by_column = [
        {
            "heading": column,
            "runs": {**seeds, "table_column": column},
            "group_by": ["table_row"],
            "panels": [{**bars, "group_by": "table_row"}, *curves],
        }
        for column in columns
    ]
    lead = ". ".join(filter(None, [paper, f"{metric.label}, {better} is better", f"Baseline: {baseline}" if baseline else ""])) + "."
    report = {
        "title": (title or name)[:128],
        **where,
        "description": lead,
        "table": MATRIX,
        "sections": [
            *by_column,
            {"heading": "Attention and scores", "runs": {"table_name": name, "table_row": TABLE_ROW}, "group_by": [], "panels": pictures},
        ],
    }
    return {"workspace": workspace, "report": report}


def create(plan: Mapping[str, Any]) -> tuple[Any, Any]:
    """The workspace and the report of a plan as objects of wandb-workspaces, not yet saved."""
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws
    from wandb_workspaces import expr

    def panel(told: Mapping[str, Any], at: int) -> Any:
        layout = wr.Layout(x=12 * (at % 2), y=8 * (at // 2), w=12, h=8)
        if told["panel"] == "table":
            return wr.WeavePanelSummaryTable(table_name=told["key"], layout=wr.Layout(x=0, y=10 * at, w=24, h=10))
        if told["panel"] == "bars":
            return wr.BarPlot(
                title=told["title"], metrics=told["metrics"], groupby=wr.Config(told["group_by"]), groupby_aggfunc="mean",
                groupby_rangefunc=told["band"], layout=layout,
            )  # fmt: skip
        if told["panel"] == "lines":
            return wr.LinePlot(
                title=told["title"], x=told["x"], y=told["y"], groupby_aggfunc="mean", groupby_rangefunc=told["band"], layout=layout
            )
        return wr.MediaBrowser(
            title=told["title"], media_keys=told["keys"], num_columns=told["columns"], layout=wr.Layout(x=0, y=16 * at, w=24, h=16)
        )

    def panels(told: Sequence[Mapping[str, Any]]) -> list[Any]:
        return [panel(one, at) for at, one in enumerate(told)]

    def filters(runs: Mapping[str, Any]) -> list[Any]:
        wanted = [expr.Config(key) == value for key, value in runs.items() if key != "not"]
        return wanted + [expr.Config(key) != value for key, value in runs.get("not", {}).items()]

    told = plan["workspace"]
    workspace = ws.Workspace(
        name=told["name"], entity=told["entity"], project=told["project"],
        sections=[ws.Section(name=one["name"], panels=panels(one["panels"]), is_open=True) for one in told["sections"]],
        runset_settings=ws.RunsetSettings(
            filters=filters(told["runs"]), groupby=[expr.Config(key) for key in told["group_by"]], pinned_columns=told["columns"]
        ),
    )  # fmt: skip
    told = plan["report"]
    place = {"entity": told["entity"], "project": told["project"]}
    blocks = [wr.P(told["description"]), wr.WeaveBlockSummaryTable(table_name=told["table"], **place)]
    for one in told["sections"]:
        runs = wr.Runset(name=one["heading"], filters=filters(one["runs"]), groupby=[f"config.{key}" for key in one["group_by"]], **place)
        blocks += [wr.H2(one["heading"]), wr.PanelGrid(runsets=[runs], panels=panels(one["panels"]))]
    report = wr.Report(title=told["title"], description=told["description"], blocks=blocks, width="fluid", **place)
    return workspace, report


def main(words: Sequence[str]) -> str:
    """What is to be printed. ValueError in one line for what cannot be done."""
    from attnlab.tables.spec import read_spec

    given = {"project": "attnlab", "entity": None}
    for word in words:
        key, sign, value = word.partition("=")
        if word == "--dry-run":
            continue
        if not sign or key not in NAMED or not value:
            raise ValueError(f"{word}: not understood; {__doc__.splitlines()[0]}")
        given[key] = value
    if "table" not in given:
        raise ValueError(f"table=NAME is missing; {__doc__.splitlines()[0]}")
    spec = read_spec(given["table"])
    rows, columns = ([line.label for line in lines] for lines in (spec.rows, spec.columns))
    about = {"name": spec.name, "title": spec.title, "paper": spec.paper, "metric": spec.metric, "baseline": spec.baseline}
    if "--dry-run" in words:
        plan = describe(**about, rows=rows, columns=columns, project=given["project"], entity=given["entity"])
        return json.dumps(plan, indent=2, ensure_ascii=False)
    try:
        import wandb_workspaces  # noqa: F401
    except ImportError:
        raise ValueError("wandb-workspaces is not installed: pip install wandb-workspaces (or --dry-run)") from None
    if not has_credentials():
        raise ValueError("W&B: no credentials (`wandb login` stores them); --dry-run needs none")
    import wandb

    entity = given["entity"] or wandb.Api().default_entity
    made = create(describe(**about, rows=rows, columns=columns, project=given["project"], entity=entity))
    return "\n".join(one.save().url for one in made)


if __name__ == "__main__":
    try:
        print(main(sys.argv[1:]))
    except ValueError as error:
        sys.exit(f"error: {error}")
