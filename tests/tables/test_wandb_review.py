"""A table in W&B: what the offline files hold, so that `wandb sync` loses nothing, and what the workspace script would create."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from attnlab.tables.model import Metric
from attnlab.tables.spec import read_spec
from attnlab.tables.views import wandb as wandb_review
from attnlab.tables.views.wandb import components, group, identity, log_table, slug
from tests import ROOT
from tests.conftest import write_result
from tests.loggers.test_loggers import no_account  # noqa: F401  fixture: no credentials, no way out
from tests.loggers.wandb_file import OfflineFile
from tests.tables.test_html import outputs, table  # noqa: F401  fixtures


class File(OfflineFile):
    """With the files of the run."""

    def media(self, key: str) -> bytes:
        """The file of a picture or a table, in the offline run's folder."""
        (row,) = [row for row in self.history.values() if f"{key}/path" in row]
        return (self.path.parent / "files" / row[f"{key}/path"]).read_bytes()

    def logged(self) -> set[str]:
        return {key.removesuffix("/path") for row in self.history.values() for key in row if key.endswith("/path")}


def files(outputs: Path) -> dict[str, File]:  # noqa: F811
    sys.modules["wandb"].teardown()  # its helper process writes the last bytes a moment after finish() returns
    found = [File(path) for path in sorted(outputs.glob("tables/*/wandb/offline-run-*/*.wandb"))]
    return {file.run.run_id: file for file in found}


def enrich(table, outputs):  # noqa: F811
    """Configs as training leaves them."""
    for path in outputs.glob("runs/*/result.json"):
        result = json.loads(path.read_text())
        result["config"] |= {"attention": {"rect": {}}, "regularizer": {"cutout": {}}, "loss": {"_target_": "a.b.LargeMargin"}}
        write_result(path, result)


def test_offline_files_hold_the_table(table, outputs):  # noqa: F811
    enrich(table, outputs)
    hint = log_table(table, outputs=outputs, project="bench", mode="offline")
    assert hint == f"wandb sync '{outputs}/tables/smoke'/wandb"
    found = files(outputs)
    seeds = [file for file in found.values() if file.run.job_type == "seed"]
    (whole,) = [file for file in found.values() if file.run.job_type == "table"]
    assert len(seeds) == 5 and len(found) == 6 and all(file.run.project == "bench" and file.exit_code == 0 for file in found.values())

    assert whole.run.run_id == identity(table) and whole.run.run_group == "smoke" and {"table", "smoke", "variant"} <= set(whole.run.tags)
    assert whole.config["rows"] == list(table.rows) and whole.config["direction"] == "max" and whole.config["table_row"] == "(table)"
    cells = json.loads(whole.media("table/cells"))
    first = dict(zip(cells["columns"], cells["data"][0], strict=True))
    assert len(cells["data"]) == 6 and first["row"] == "plain" and first["column"] == "digits"
    assert (first["mean"], first["sd"], first["n"], first["low"], first["high"]) == (90.5, 0.7071, 2, 87.5, 93.5)
    assert (first["paper"], first["mark"], first["difference"], first["verdict"]) == (91.0, "page", -0.5, "holds")
    lines = json.loads(whole.media("table/seeds"))
    assert len(lines["data"]) == 12 and ["failed", None] in [line[3:5] for line in lines["data"]]
    matrix = json.loads(whole.media("table/matrix"))
    assert matrix["columns"][1:] == list(table.columns) and [line[0] for line in matrix["data"]] == list(table.rows)
    assert matrix["data"][0][1:] == ["90.50 ± 0.71 (n = 2; paper 91.00: holds)", "80.00 (n = 1, 1 failed)"]
    assert matrix["data"][1][2] == "1 running, 1 interrupted"

    place = f"{slug(table.rows[1])}/{slug(table.columns[0])}"
    assert whole.summary[f"mean/{place}"] == 93.5 and whole.metrics[f"mean/{place}"].summary.max
    assert whole.summary["verdicts/holds"] == 1 and whole.summary["runs/failed"] == 2
    overlay = table.cells[table.rows[1], table.columns[0]].runs[0].folder / "figures"
    assert whole.media(f"attention/{place}") == (overlay / "attention_rect_at_layer3.png").read_bytes()
    assert whole.media(f"scores/{place}") == (overlay / "ood_scores.png").read_bytes()
    assert sum(key.startswith("attention/") for key in whole.logged()) == 3  # the cells with a finished seed


def test_artifacts_lie_beside_the_offline_runs(table, outputs):  # noqa: F811
    before = os.environ.get("WANDB_DATA_DIR")
    log_table(table, outputs=outputs, mode="offline", seeds=False)
    assert os.environ.get("WANDB_DATA_DIR") == before
    (whole,) = files(outputs).values()
    assert {artifact.type for artifact in whole.artifacts} == {"table", "run_table"}
    (own,) = [artifact for artifact in whole.artifacts if artifact.type == "table"]
    assert own.name == identity(table) and {entry.path for entry in own.manifest.contents} == {
        f"{name}.table.json" for name in ("cells", "seeds", "matrix")
    }
    for artifact in whole.artifacts:
        for entry in artifact.manifest.contents:
            path = Path(entry.local_path)
            assert outputs / "tables" in path.parents and path.stat().st_size == entry.size and json.loads(path.read_text())["columns"]


def test_seeds_are_grouped_by_cell_and_tagged(table, outputs):  # noqa: F811
    enrich(table, outputs)
    log_table(table, outputs=outputs, mode="offline")
    seeds = [file for file in files(outputs).values() if file.run.job_type == "seed"]
    for cell in table.cells.values():
        mine = [file for file in seeds if file.run.run_group == group(table, cell)]
        assert len(mine) == cell.n
        for file, run in zip(
            sorted(mine, key=lambda file: file.run.display_name), [r for r in cell.runs if r.status == "finished"], strict=True
        ):
            assert {"smoke", "rect", "cutout", "LargeMargin"} == set(file.run.tags)
            assert (file.config["table_name"], file.config["table_row"], file.config["table_column"]) == ("smoke", cell.row, cell.column)
            assert file.config["run_id"] == run.run_id and file.config["config"]["trainer"] == {"max_epochs": 9}
            assert (file.config["attention"], file.config["regularizer"]) == ("rect", "cutout")
            assert [file.history[epoch]["val/acc"] for epoch in (1, 2, 3)] == [0.0, 0.09, 0.18]
            assert file.summary["table/value"] == run.value and file.metrics["table/value"].summary.max
            assert file.summary["test/acc"] == run.value / 100 and file.metrics["test/nll"].summary.min
            assert file.media("figures/ood_scores") == (run.folder / "figures" / "ood_scores.png").read_bytes()
            assert file.logged() == {"figures/ood_scores", "figures/attention_rect_at_layer3"}


def test_ids_stay_and_directions_follow_the_metric(table, outputs):  # noqa: F811
    log_table(table, outputs=outputs, mode="offline")
    first = set(files(outputs))
    lower = dataclasses.replace(table, metric=Metric("test/acc", "error, %", "min", complement=True), variant=None)
    log_table(table, outputs=outputs, mode="offline")
    assert set(files(outputs)) == first
    log_table(lower, outputs=outputs, mode="offline", seeds=False)
    whole = files(outputs)[identity(lower)]
    assert identity(lower) == "table-smoke" and whole.metrics["mean/plain/digits"].summary.min and "variant" not in whole.run.tags


def test_records_are_only_read(table, outputs):  # noqa: F811
    def state():
        return {path: path.stat().st_mtime_ns for path in outputs.glob("runs/**/*")}

    before = state()
    log_table(table, outputs=outputs, mode="offline")
    assert state() == before


def test_a_network_that_fails_is_waited_for_once(table, outputs, monkeypatch, caplog):  # noqa: F811
    import wandb

    works, asked = wandb.init, []

    def init(**options):
        asked.append(options["mode"])
        if options["mode"] == "online":
            raise wandb.errors.CommError("no network")
        return works(**options)

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert log_table(table, outputs=outputs).startswith("wandb sync ")
    assert asked == ["online", *["offline"] * 6] and len(files(outputs)) == 6


def test_wandb_that_is_switched_off(table, outputs, monkeypatch):  # noqa: F811
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert log_table(table, outputs=outputs) is None
    assert not list(outputs.glob("tables/*/wandb/*run*"))


def test_damaged_records_do_not_stop_it(table, outputs):  # noqa: F811
    for path in outputs.rglob("*"):
        if path.is_file():
            path.write_bytes(b"[]")
    assert log_table(table, outputs=outputs, mode="offline")
    assert len(files(outputs)) == 6


def test_names():
    assert slug("CIFAR-10 / aug: <b>") == "CIFAR-10_aug_b" and slug("///") == "_"
    assert components({"attention": {"se": {}, "rect": {}}, "regularizer": {}, "loss": {"_target_": "x.CrossEntropy"}}) == ["se", "rect"]
    assert components({"attention": None, "loss": 3}) == []


def test_a_long_group_stays_its_own(table):  # noqa: F811
    cell = next(iter(table.cells.values()))
    names = {group(table, dataclasses.replace(cell, column="x" * 200 + end)) for end in "ab"}
    assert len(names) == 2 and all(len(name) <= 128 for name in names)


# -- the workspace ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("wandb_workspace_script", ROOT / "scripts" / "wandb_workspace.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def told(script, table) -> dict:  # noqa: F811
    return script.describe(
        name=table.name, title=table.title, paper=table.paper, rows=table.rows, columns=table.columns, metric=table.metric,
        baseline=table.baseline, validated=table.columns[:1], project="bench", entity="team",
    )  # fmt: skip


def test_the_workspace_names_keys_that_are_logged(script, table, outputs):  # noqa: F811
    log_table(table, outputs=outputs, mode="offline")
    found = files(outputs).values()
    logged = {key for file in found for row in file.history.values() for key in row} | {key for file in found for key in file.summary}
    logged |= {key.removesuffix("/path") for key in logged}
    configured = {key for file in found for key in file.config}
    plan = told(script, table)
    sections = [*plan["workspace"]["sections"], *plan["report"]["sections"]]
    panels = [panel for section in sections for panel in section["panels"]]
    for panel in panels:
        wanted = {*panel.get("metrics", ()), *panel.get("y", ()), *([panel["key"]] if "key" in panel else [])}
        assert wanted <= logged, panel
        assert panel.get("group_by") is None or panel["group_by"] in configured
    pictures = {key for panel in panels for key in panel.get("keys", ())}
    assert {
        key for key in logged if key.startswith(("attention/", "scores/")) and key.count("/") == 2 and f"{key}/path" in logged
    } <= pictures
    assert set(plan["workspace"]["group_by"]) <= configured and set(plan["workspace"]["runs"]) <= configured


def test_dry_run_needs_neither_package_nor_network():
    code = "import runpy, sys; sys.modules |= {'wandb': None, 'wandb_workspaces': None}\n"
    code += "sys.argv[1:] = ['table=smoke', 'entity=team', '--dry-run']\n"
    code += "runpy.run_path('scripts/wandb_workspace.py', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert plan["workspace"]["entity"] == "team" and plan["workspace"]["runs"] == {"table_name": "smoke"}
    assert [section["name"] for section in plan["workspace"]["sections"]] == [
        "Table",
        "Rows against columns",
        "Learning",
        "Attention and scores",
    ]
    assert plan["report"]["table"] == "table/matrix"
    curves = [panel["y"] for section in plan["workspace"]["sections"] for panel in section["panels"] if panel["panel"] == "lines"]
    assert curves == [["train/acc"], ["train/loss"]]  # its runs have no validation images


def test_validation_curves_where_there_are_validation_images(script, table):  # noqa: F811
    plan = told(script, table)
    first, second, _ = plan["report"]["sections"]
    shown = [[panel["y"] for panel in one["panels"] if panel["panel"] == "lines"] for one in (first, second)]
    assert shown == [[["train/acc", "val/acc"], ["train/loss", "val/nll"]], [["train/acc"], ["train/loss"]]]
    spec = read_spec("smoke")
    held_out = dataclasses.replace(spec.columns[1], overrides=("data.val=0.2", *spec.columns[1].overrides))
    spec = dataclasses.replace(spec, columns=(spec.columns[0], held_out))
    assert script.validated_columns(spec) == {held_out.label}


def test_the_workspace_of_a_sweep(script):
    plan = json.loads(script.main(["by=attention,model.width", "metric=test/nll", "--dry-run"]))
    workspace = plan.pop("workspace")
    assert not plan and workspace["group_by"] == ["attention", "model_width"] and workspace["runs"] == {"JobType": "train"}
    first = workspace["sections"][0]["panels"]
    assert [panel["group_by"] for panel in first] == ["attention", "model_width"] and "lower is better" in first[0]["title"]
    assert "val/acc" not in json.dumps(workspace) and "val/acc" in script.main(["by=seed", "metric=val/acc", "--dry-run"])


def test_help(script):
    for word in ("--help", "-h"):
        assert script.main([word]).startswith("python scripts/wandb_workspace.py table=NAME|by=KEYS")


def test_mistakes_are_one_line(script, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    for words, said in (
        ([], "give one of table=NAME and by=KEYS"),
        (["tabel=smoke"], "tabel=smoke: not understood"), (["table=smoke"], "pip install wandb-workspaces"),
        (["table=smok"], "smoke"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said) as error:
            script.main(words)
        assert "\n" not in str(error.value)


def test_a_mistake_at_the_command_line_is_one_line():
    command = [sys.executable, str(ROOT / "scripts" / "wandb_workspace.py")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 1 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


@pytest.mark.filterwarnings("ignore")  # the package's own
def test_the_package_takes_the_plan(script, table):  # noqa: F811
    pytest.importorskip("wandb_workspaces")
    (sweep,) = script.create(script.describe_sweep(["attention", "model.width"], metric="test/acc", project="bench", entity="team"))
    assert sweep._to_model() and sweep.sections[0].name == "What was swept"
    workspace, report = script.create(told(script, table))
    assert [section.name for section in workspace.sections] == ["Table", "Rows against columns", "Learning", "Attention and scores"]
    assert workspace._to_model() and report.project == "bench" and len(report.blocks) == 2 + 2 * (len(table.columns) + 1)


def test_importing_is_cheap():
    code = "import sys; import attnlab.tables.views.wandb, attnlab.tables.views.html.page\n"
    code += "print([m for m in ('wandb', 'torch', 'numpy', 'PIL', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
    assert wandb_review.TABLE_ROW
