"""python scripts/wandb_workspace.py table=NAME|by=KEYS entity=TEAM [project=attnlab] [--dry-run]

Creates a saved W&B workspace of runs that were logged there.

table=NAME       a table of configs/table, logged with `python -m attnlab.table table=NAME wandb=true`: the table itself, its cells as
                 bars, learning curves grouped by row and column, attention overlays and score histograms; and a report of the same
by=KEYS          the runs of a sweep by what was swept, as `python -m attnlab.runs by=attention,data`: bars of metric=test/acc by each key,
                 learning curves, the table of predictions, pictures
entity, project  where the runs are; the default entity is that of your login, the default project attnlab
--dry-run        prints what would be created as JSON; needs neither the network nor the package `wandb-workspaces`, and creates nothing
"""

import json
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from attnlab.loggers.flat import flat_key
from attnlab.loggers.wandb import direction
from attnlab.loggers.wandb_client import has_credentials
from attnlab.tables.model import Metric
from attnlab.tables.spec import Spec
from attnlab.tables.views.wandb import CELLS, MATRIX, TABLE_ROW, VALUE, slug

NAMED = ("table", "by", "metric", "entity", "project")
JOB = "JobType"  # the name, in filters of wandb-workspaces, of what a run is for
MINE = "the default entity of your login"
PICTURES = ["figures/curves", "figures/ood_scores", "figures/reliability"]


def curves(*, validated: bool) -> list[dict[str, Any]]:
    """Panels of learning curves, those of the validation images only where there are any."""
    lines = {"Accuracy": ["train/acc", *["val/acc"] * validated], "Loss": ["train/loss", *["val/nll"] * validated]}
    return [{"panel": "lines", "title": title, "x": "epoch", "y": keys, "band": "stddev"} for title, keys in lines.items()]


def bars(metric: str, label: str, way: str | None) -> dict[str, Any]:
    better = {"max": ", higher is better", "min": ", lower is better"}.get(way or "", "")
    return {"panel": "bars", "title": f"{label}{better}, mean and sd over seeds", "metrics": [metric], "band": "stddev"}


def describe_sweep(by: Sequence[str], *, metric: str, project: str, entity: str | None) -> dict[str, Any]:
    """As `describe`, of runs by what was swept."""
    keys = [flat_key(key) for key in by]
    shown = bars(metric, metric, direction(metric))
    workspace = {
        "name": f"attnlab by {', '.join(by)}",
        "entity": entity or MINE,
        "project": project,
        "runs": {JOB: "train"},
        "group_by": keys,
        "columns": [f"summary:{metric}", *(f"config:{key}.value" for key in keys)],
        "sections": [
            {"name": "What was swept", "panels": [{**shown, "group_by": key} for key in keys]},
            {"name": "Learning", "panels": curves(validated=metric.startswith("val/"))},
            {"name": "Predictions", "panels": [{"panel": "table", "key": "predictions"}]},
            {"name": "Pictures", "panels": [{"panel": "pictures", "title": "Pictures", "keys": PICTURES, "columns": 3}]},
        ],
    }
    return {"workspace": workspace}


def describe(
    *,
    name: str,
    title: str,
    paper: str,
    rows: Sequence[str],
    columns: Sequence[str],
    metric: Metric,
    baseline: str | None,
    validated: Collection[str],
    project: str,
    entity: str | None,
) -> dict[str, Any]:
    """What is to be created, as plain data: the text of --dry-run, and what `create` builds from. validated: the columns whose data have
    validation images."""
    where = {"entity": entity or MINE, "project": project}
    seeds = {"table_name": name, "not": {"table_row": TABLE_ROW}}
    better = "higher" if metric.direction == "max" else "lower"
    shown = bars(VALUE, metric.label, metric.direction)
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
            {"name": "Rows against columns", "panels": [{**shown, "group_by": "table_row"}, {**shown, "group_by": "table_column"}]},
            {"name": "Learning", "panels": curves(validated=bool(validated))},
            {"name": "Attention and scores", "panels": pictures},
        ],
    }
    by_column = [
        {
            "heading": column,
            "runs": {**seeds, "table_column": column},
            "group_by": ["table_row"],
            "panels": [{**shown, "group_by": "table_row"}, *curves(validated=column in validated)],
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


def validated_columns(spec: Spec) -> set[str]:
    """The columns of a table whose data say that they have validation images; what data that are not here hold is not known."""
    from attnlab.config.build import build
    from attnlab.config.compose import compose

    found = set()
    for column in spec.columns:
        plan = compose(spec.overrides(spec.rows[0], column))
        try:
            if build(plan.full["data"], allow=plan.allow, where="data").has("val"):
                found.add(column.label)
        except (ValueError, OSError):
            continue
    return found


def create(plan: Mapping[str, Any]) -> list[Any]:
    """The workspace, and of a table the report, as objects of wandb-workspaces, not yet saved."""
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
        wanted = [(expr.Metric(key) if key == JOB else expr.Config(key)) == value for key, value in runs.items() if key != "not"]
        return wanted + [expr.Config(key) != value for key, value in runs.get("not", {}).items()]

    told = plan["workspace"]
    workspace = ws.Workspace(
        name=told["name"], entity=told["entity"], project=told["project"],
        sections=[ws.Section(name=one["name"], panels=panels(one["panels"]), is_open=True) for one in told["sections"]],
        runset_settings=ws.RunsetSettings(
            filters=filters(told["runs"]), groupby=[expr.Config(key) for key in told["group_by"]], pinned_columns=told["columns"]
        ),
    )  # fmt: skip
    if "report" not in plan:
        return [workspace]
    told = plan["report"]
    place = {"entity": told["entity"], "project": told["project"]}
    blocks = [wr.P(told["description"]), wr.WeaveBlockSummaryTable(table_name=told["table"], **place)]
    for one in told["sections"]:
        runs = wr.Runset(name=one["heading"], filters=filters(one["runs"]), groupby=[f"config.{key}" for key in one["group_by"]], **place)
        blocks += [wr.H2(one["heading"]), wr.PanelGrid(runsets=[runs], panels=panels(one["panels"]))]
    report = wr.Report(title=told["title"], description=told["description"], blocks=blocks, width="fluid", **place)
    return [workspace, report]


def main(words: Sequence[str]) -> str:
    """What is to be printed. ValueError in one line for what cannot be done."""
    from attnlab.tables.spec import read_spec

    if {"-h", "--help"} & set(words):
        return __doc__.strip()
    given = {"project": "attnlab", "entity": None, "metric": "test/acc"}
    for word in words:
        key, sign, value = word.partition("=")
        if word == "--dry-run":
            continue
        if not sign or key not in NAMED or not value:
            raise ValueError(f"{word}: not understood; {__doc__.splitlines()[0]}")
        given[key] = value
    if ("table" in given) == ("by" in given):
        raise ValueError(f"give one of table=NAME and by=KEYS; {__doc__.splitlines()[0]}")
    where = {"project": given["project"], "entity": given["entity"]}

    def plan() -> dict[str, Any]:
        if "by" in given:
            return describe_sweep([key for key in given["by"].split(",") if key], metric=given["metric"], **where)
        spec = read_spec(given["table"])
        rows, columns = ([line.label for line in lines] for lines in (spec.rows, spec.columns))
        about = {"name": spec.name, "title": spec.title, "paper": spec.paper, "metric": spec.metric, "baseline": spec.baseline}
        return describe(**about, rows=rows, columns=columns, validated=validated_columns(spec), **where)

    planned = plan()
    if "--dry-run" in words:
        return json.dumps(planned, indent=2, ensure_ascii=False)
    try:
        import wandb_workspaces  # noqa: F401
    except ImportError:
        raise ValueError("wandb-workspaces is not installed: pip install wandb-workspaces (or --dry-run)") from None
    if not has_credentials():
        raise ValueError("W&B: no credentials (`wandb login` stores them); --dry-run needs none")
    if where["entity"] is None:
        import wandb

        where["entity"] = wandb.Api().default_entity
        planned = plan()
    return "\n".join(one.save().url for one in create(planned))


if __name__ == "__main__":
    try:
        print(main(sys.argv[1:]))
    except ValueError as error:
        sys.exit(f"error: {error}")
