"""Tables: every shipped one composes to the addresses of a plain multirun; states, formats, variants, estimates; run, kill, repeat."""

import csv
import dataclasses
import io
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from attnlab import table as command
from attnlab.config.cells import compose_cells
from attnlab.config.compose import compose
from attnlab.config.targets import ConfigError
from attnlab.records.code import code_of
from attnlab.records.index import Records
from attnlab.tables import request
from attnlab.tables.fill import ABOUT, fill, wanted
from attnlab.tables.model import Note, Table
from attnlab.tables.plan_cache import plans_of
from attnlab.tables.spec import departures, read_spec, table_names
from attnlab.tables.teachers import compose_table
from attnlab.tables.todo import estimate, plan_text, spell, todo
from attnlab.tables.views import latex as table_latex
from attnlab.tables.views import text as table_text
from tests.commands import command as run_command
from tests.commands import start

COMMON = [
    "data=two_moons", "model=mlp2d", "model.width=8", "data.num_train=64", "data.num_test=64", "data.batch_size=16", "trainer.max_epochs=2",
    "trainer.accelerator=cpu", "trainer.threads=1", "trainer.checkpoint_seconds=0", "logger=none", "ood=none",
]  # fmt: skip
TREE = {
    "title": "Two moons & 100% _noise_",
    "paper": {"arxiv": "0000.00000", "table": "table 1", "runs": 5, "mark": "text", "source": "invented"},
    "metric": {"key": "test/acc", "label": "error, %", "direction": "min", "complement": True, "margin": 0.5},
    "common": COMMON,
    "rows": {"plain": [], "low lr": ["optimizer.lr=0.01"]},
    "columns": {"noise .1": ["data.noise=0.1"], "noise .3": ["data.noise=0.3"]},
    "seeds": [0, 1, 2],
    "baseline": "plain",
    "published": {"plain": {"noise .1": 10.0}, "low lr": {"noise .1": {"value": 30, "sd": 1.5, "mark": "memory"}}},
    "notes": ["a note"],
}


@pytest.fixture(autouse=True, scope="module")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Plans are kept for these tests alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def written(tmp_path: Path, **changes: Any) -> str:
    path = tmp_path / "moons.yaml"
    path.write_text(yaml.safe_dump({**TREE, **changes}, sort_keys=False))
    return str(path)


def put(outputs: Path, plan: Any, accuracy: float | None = None, **changes: Any) -> Path:
    """A record by hand."""
    result = {
        "status": "finished", "run_id": plan.run_id, "config": plan.full, "overrides": list(plan.overrides), "seed": plan.full["seed"],
        "metrics": {} if accuracy is None else {"test/acc": accuracy}, "epochs": 2, "device": "CPU", "precision": "32",
        "images_per_second": 1000.0, "stage_seconds": {"build": 1.0, "fit": 9.0, "test": 2.0}, "versions": {"torch": "2.15.0"},
        "data": {"name": "two_moons", "shape": [2], "images": {"train": 64, "test": 64}, "digests": {"train": "ab" * 8, "test": "cd" * 8}},
        **changes,
    }  # fmt: skip
    folder = outputs / "runs" / plan.run_id
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def files(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def moons(tmp_path: Path) -> Any:
    """A table with records in every state, and where they are."""
    spec, outputs = read_spec(written(tmp_path)), tmp_path / "outputs"
    cells = [(row, column) for row in spec.rows for column in spec.columns]
    plans = {
        (row.label, column.label): found
        for (row, column), found in zip(cells, plans_of([spec.overrides(*cell) for cell in cells], spec.seeds), strict=True)
    }
    for plan, accuracy in zip(plans["plain", "noise .1"], (0.899, 0.900, 0.901)):
        put(outputs, plan, accuracy)
    one, two, three = plans["low lr", "noise .1"]
    put(outputs, one, 0.8)
    put(outputs, two, 0.79, versions={"torch": "2.11.0"}, device="GPU", epochs=3)
    put(outputs, three, status="failed", error={"stage": "fit", "kind": "ValueError", "message": "the loss is not finite"})
    one, two, three = plans["plain", "noise .3"]
    (put(outputs, one) / "result.json").write_text('{"status": "fini')
    put(outputs, two, status="running")
    put(outputs, three)  # finished without the metric
    return dataclasses.make_dataclass("Moons", ["spec", "outputs", "plans"])(spec, outputs, plans)


# ---- the tables that are shipped ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", table_names())
def test_every_table_composes(name: str, tmp_path: Path) -> None:
    spec = read_spec(name)
    cells = [(row, column) for row in spec.rows for column in spec.columns]
    plans = list(compose_table({(row.label, column.label): spec.overrides(row, column) for row, column in cells}, spec.seeds[:2]).values())
    runs = {(group[0].address, spec.key(*cell)) for cell, group in zip(cells, plans, strict=True)}
    assert len(runs) == len(cells), "two cells show one number"
    lacking = set()
    for (row, column), (first, second) in zip(cells, plans, strict=True):
        assert first.address != second.address
        part, *rest = spec.key(row, column).split("/")
        if part == "explain":  # attention's own map is no explainer of a network that has none
            assert rest[0] in first.full["explainer"] or (rest[0] == "attention" and not first.full["attention"]), "no such explainer"
        elif part == "cost":
            assert "cost" in first.full["evaluator"] and (rest[0] != "exported" or first.full["evaluator"]["cost"]["export"] != "none")
        else:
            of_head = part == "ood" and rest[0] in first.full["ood"] and rest[1] in first.full["data"]["ood"]
            if part not in ("test", *ABOUT) and not of_head:  # no such head or set
                lacking.add((row.label, column.label))
    assert lacking == ({("ssal", "AUROC, energy")} if name.startswith("catalogue_") else set())  # its logits have no energy
    assert compose([*spec.overrides(*cells[-1]), f"seed={spec.seeds[1]}"]).run_id == plans[-1][1].run_id
    if spec.tune:
        assert len(wanted(spec, (), spec.seeds[:1], outputs=tmp_path)[0][0].plans) == len(spec.tune.tried())
    assert not list(tmp_path.iterdir())


def test_an_interval_ends_where_its_metric_does(tmp_path: Path) -> None:
    """By the name that a row and a column give the metric, not by the pattern of it."""
    columns = {"shown": {"overrides": ["data.noise=0.1"], "as": "acc"}, "free": {"overrides": ["data.noise=0.1"], "as": "nll"}}
    metric = {**TREE["metric"], "key": "test/{column}", "complement": False}
    spec = read_spec(written(tmp_path, columns=columns, published={}, metric=metric))
    for n, plan in enumerate(plans_of([spec.overrides(spec.rows[0], spec.columns[0])], spec.seeds)[0]):
        put(tmp_path / "outputs", plan, metrics={"test/acc": 0.5 + 0.25 * n, "test/nll": 0.5 + 0.25 * n})
    cells = fill(spec, outputs=tmp_path / "outputs")[0].cells
    assert cells["plain", "shown"].interval[1] == 100 < cells["plain", "free"].interval[1]


def test_a_column_may_have_a_metric_of_its_own(tmp_path: Path) -> None:
    own = {"key": "train/seconds", "label": "milliseconds", "direction": "min", "complement": False, "scale": 1000, "digits": 0}
    columns = {"noise .1": ["data.noise=0.1"], "time": {"overrides": ["data.noise=0.1"], "metric": own}}
    spec = read_spec(written(tmp_path, columns=columns, published={}, metric={**TREE["metric"], "complement": False, "direction": "max"}))
    outputs = tmp_path / "outputs"
    for plan in plans_of([spec.overrides(spec.rows[0], spec.columns[0])], spec.seeds)[0]:
        put(outputs, plan, 0.9, timings={"train/seconds": 1.25})
    table, *_ = fill(spec, outputs=outputs)
    accuracy, time_of = table.cells["plain", "noise .1"], table.cells["plain", "time"]
    assert [accuracy.runs[i].folder for i in range(3)] == [time_of.runs[i].folder for i in range(3)]
    assert accuracy.mean == pytest.approx(90) and time_of.mean == 1250 and time_of.interval is None  # the seeds are equal
    assert table_text.better(table) == "noise .1: higher is better; time: lower is better"
    assert table_text.lines_of(time_of, table)[0] == ("1,250 ± 0 (3)", "value") and "90.00 ± 0.00 (3)" in table_text.to_text(table)
    assert "1,250" in table_latex.to_latex(table)
    for plan, seconds in zip(plans_of([spec.overrides(spec.rows[1], spec.columns[0])], spec.seeds)[0], (0.5, 0.6, 0.7)):
        put(outputs, plan, 0.8, timings={"train/seconds": seconds})
    latex = table_latex.to_latex(fill(spec, outputs=outputs)[0], details=["interval"])
    assert r"\textbf{90.00" in latex and r"\textbf{600" in latex  # the highest accuracy and the fewest milliseconds
    assert "352 to 848" in latex and "352.4" not in latex
    rows = list(csv.DictReader(io.StringIO(table_text.to_csv(table))))
    assert {row["column"]: row["metric"] for row in rows} == {"noise .1": "error, %", "time": "milliseconds"}
    for wrong, message in (
        ({"scale": "x"}, r"columns\.time\.metric: scale=x"),
        ({"sense": 1}, r"columns\.time\.metric: unknown key 'sense'"),
    ):
        with pytest.raises(ConfigError, match=message):
            read_spec(written(tmp_path, columns={"time": {"metric": wrong}}, published={}))
    with pytest.raises(ConfigError, match=r"rows\.plain: unknown key 'metric'"):
        read_spec(written(tmp_path, rows={"plain": {"metric": {}}}, published={}, baseline=None))


def test_the_plain_multirun_of_maxdropout_is_the_table() -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    words = "experiment=maxdropout/resnet18 regularizer=none,cutout,maxdropout,[cutout,maxdropout] data=cifar10 seed=range(5)"
    parsed = OverridesParser.create().parse_overrides(words.split())
    sweep = [
        [f"{one.get_key_element()}={value}" for value in one.sweep_string_iterator()] if one.is_sweep_override() else [one.input_line]
        for one in parsed
    ]
    seeds = [int(word.partition("=")[2]) for word in sweep.pop()]
    multirun = {plan.address for group in compose_cells(list(itertools.product(*sweep)), seeds) for plan in group}
    spec = read_spec("maxdropout")
    spec = spec.only([line.label for line in spec.rows][:4], ["CIFAR-10"])
    table = compose_cells([spec.overrides(row, column) for row in spec.rows for column in spec.columns], spec.seeds)
    assert multirun == {plan.address for group in table for plan in group} and len(multirun) == 20


def test_overrides_of_one_cell() -> None:
    spec = read_spec("maxdropout")
    cells = [(row, column) for row in spec.rows for column in spec.columns]
    for (row, column), (plan,) in zip(cells, compose_cells([spec.overrides(*cell) for cell in cells], [0]), strict=True):
        assert ("cutout" in plan.full["regularizer"]) == ("Cutout" in row.label)
        if "Cutout" in row.label:
            assert plan.full["regularizer"]["cutout"]["module"]["length"] == {"CIFAR-10": 16, "CIFAR-100": 8}[column.label]
        if "MaxDropout" in row.label:
            at_test = plan.full["regularizer"]["maxdropout"]["module"]["eval_mode"]
            assert at_test == ("paper_code" if "at test time" in row.label else "off")


def test_one_network_a_seed_fills_the_rows_of_both_lens_depth_tables(tmp_path: Path) -> None:
    one, _, _ = fill(read_spec("lens_depth").only(None, ["Fashion-MNIST → MNIST"]), outputs=tmp_path, seeds=[0])
    two, cells, _ = fill(read_spec("lens_depth_reduction"), outputs=tmp_path, seeds=[0])
    assert len({run.address for table in (one, two) for cell in table.cells.values() for run in cell.runs}) == 1
    (job,) = todo(two, cells)
    assert len(job.cells) == 9 and "nearest_1500" in job.plan.full["ood"]


# ---- reading a table ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rwos": {}}, "the table: unknown key 'rwos'; nearest: rows"),
        ({"baseline": "plane"}, "there is no row 'plane'; nearest: plain"),
        ({"sort": "noise"}, "sort: there is no column 'noise'; nearest: noise "),
        ({"published": {"plian": {}}}, "published: unknown row 'plian'; nearest: plain"),
        ({"published": {"plain": {"noise .2": 1}}}, "published.plain: unknown column 'noise .2'; nearest: noise "),
        ({"published": {"plain": {"noise .1": {"value": 1, "mark": "seen"}}}}, "mark=seen: must be one of code, page"),
        ({"metric": {"key": "test/acc"}}, "metric: label is missing"),
        ({"metric": {**TREE["metric"], "margin": 0}}, "metric.margin must be above 0"),
        ({"seeds": [0, 0]}, "seeds: one is given twice"),
        ({"seeds": "all"}, "seeds=all: must be a list"),
        ({"rows": {"a": ["seed=3"]}}, "rows.a: 'seed=3' is no override of a cell"),
        ({"rows": {}}, "at least one row"),
        ({"cells": {"plian": {}}}, "cells: unknown row 'plian'; nearest: plain"),
        ({"cells": {"plain": {"noise .2": []}}}, "cells.plain: unknown column 'noise .2'; nearest: noise "),
        ({"cells": {"plain": ["a=1"]}}, "cells.plain: must be columns with values, not ['a=1']"),
        ({"cells": {"plain": {"noise .1": "a=1"}}}, "cells.plain.noise .1: must be a list of overrides, not 'a=1'"),
        ({"cells": {"plain": {"noise .1": ["seed=3"]}}}, "cells.plain.noise .1: 'seed=3' is no override of a cell"),
    ],
)
def test_a_mistake_in_a_table_is_one_line(changes: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        read_spec(written(tmp_path, **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["action=run"], "table=NAME is required; there are "),
        (["table=maxdroput"], "there is no such table; nearest: maxdropout"),
        (["table=smoke", "formt=md"], "unknown key formt; nearest: format"),
        (["table=smoke", "format=pdf"], "format=pdf: must be one of text, md, csv, latex, html"),
        (["table=smoke", "trainer.max_epochs=3"], "overrides=[trainer.max_epochs=3] applies it to every cell"),
        (["table=smoke", "seeds=[0,a]"], "seeds=[0,a]: must be different whole numbers"),
        (["table=smoke", "sort=digit"], "sort: table smoke has no column 'digit'"),
        (["table=smoke", "rows=[rekt]"], "table smoke has no 'rekt'; nearest: rect"),
        (["table=smoke", "overrides=[seed=3]"], "'seed=3' is no override of a cell"),
        (["table=smoke", "overrides=[trainer.max_epoch=3]"], "unknown key trainer.max_epoch; nearest: trainer.max_epochs"),
        (["table=smoke", "overrides=[attention=se]"], "they make 'no attention' and 'rect' one and the same run"),
        (["table=smoke", "overrides=[a=[b]"], "a bracket or a quote is left open"),
        (["table=[smoke,ltpa,smoke]"], "table: smoke is given twice"),
        (["table=[smoke,lpta]"], "there is no such table; nearest: ltpa"),
        (["table=[smoke,ltpa]", "table.lpta.seeds=[0]"], "table.lpta.seeds=[0]: there is no 'lpta' among the tables; nearest: ltpa"),
        (
            ["table=[smoke,ltpa]", "table.ltpa.format=md"],
            "table.ltpa.format=md: of a table alone there are overrides, rows, columns, seeds, sort",
        ),
        (["table=[smoke,ltpa]", "out=a.png"], "format=plot: is of one table"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(words: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        command.main([*words, f"paths.outputs={tmp_path}"])
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_lists_on_the_command_line() -> None:
    assert request.split_list("[a=b,c=[d,e],'f=g,h']") == ["a=b", "c=[d,e]", "'f=g,h'"]
    assert request.split_list("") == [] and request.read_seeds("range(3)") == request.read_seeds("[0,1,2]") == (0, 1, 2)
    assert request.read_request(["table=x", "out=a/b.tex"]).format == "latex"
    assert request.read_request(["table=x", """columns=[accuracy,"ECE, %",'a, b']"""]).columns == ("accuracy", "ECE, %", "a, b")


def test_the_words_of_each_of_several_tables() -> None:
    words = ["table=[a,my/b.yaml]", "seeds=[0]", "overrides=[x=1]", "table.b.overrides=[y=[1,2]]", "out=all.html"]
    assert request.one_each(words) == [
        ["table=a", "seeds=[0]", "overrides=[x=1]", "out=all.html"],
        ["table=my/b.yaml", "seeds=[0]", "out=all.html", "overrides=[y=[1,2]]"],
    ]
    assert request.one_each(["table=a", "table.a.rows=[r]"]) == [["table=a", "rows=[r]"]] and request.one_each(["format=md"]) == [
        ["format=md"]
    ]


def test_several_tables_one_after_another_and_in_one_page(moons: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump({**TREE, "title": "Other"}, sort_keys=False))
    words = [
        f"table=[{tmp_path / 'moons.yaml'},{other}]",
        f"paths.outputs={moons.outputs}",
        "table.other.rows=[plain]",
        "columns=[noise .1]",
    ]
    told = {}
    for style in ("md", "csv", "text", "latex", "html"):
        assert command.main([*words, f"format={style}", f"out={tmp_path / style}"]) == 0
        told[style] = (tmp_path / style).read_text()
    assert (
        told["md"].count("### ") == 2
        and told["md"].count("**low lr**") == 1
        and "rows='[plain]'" not in told["md"].partition("### Other")[0]
    )
    rows = list(csv.DictReader(io.StringIO(told["csv"])))
    assert [(row["table"], row["row"]) for row in rows] == [("moons", "plain"), ("moons", "low lr"), ("other", "plain")]
    assert 'id="table-moons"' in told["html"] and 'id="table-other"' in told["html"] and "table.other.rows" in told["html"]
    capsys.readouterr()
    assert command.main([*words, "action=plan"]) == 0
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines() if "runs to do" in line] == ["moons", "other"]


# ---- what a table says --------------------------------------------------------------------------------------------------------------


def test_states_and_statistics(moons: Any) -> None:
    before = files(moons.outputs)
    table, cells, _ = fill(moons.spec, outputs=moons.outputs)
    assert files(moons.outputs) == before, "reading wrote something"
    plain, low, noisy = (table.cells[place] for place in (("plain", "noise .1"), ("low lr", "noise .1"), ("plain", "noise .3")))
    assert [run.value for run in plain.runs] == pytest.approx([10.1, 10.0, 9.9]) and plain.mean == pytest.approx(10.0)
    assert plain.verdict == "holds" and plain.difference == pytest.approx(0.0) and plain.paired is None
    assert [run.status for run in low.runs] == ["finished", "finished", "failed"] and low.runs[2].error == "the loss is not finite"
    assert low.n == 2 and low.verdict == "too few seeds" and low.paper.mark == "memory" and plain.paper.source == "invented"
    assert (low.paired.n, low.paired.difference) == (2, pytest.approx(10.45))
    assert [run.status for run in noisy.runs] == ["broken", "interrupted", "finished"] and noisy.n == 0 and noisy.verdict == "missing"
    assert noisy.runs[2].error == "the record has no test/acc" and "result.json is damaged" in noisy.runs[0].error
    assert {run.status for run in table.cells["low lr", "noise .3"].runs} == {"missing"}
    jobs = todo(table, cells)
    assert [job.run.status for job in jobs] == ["broken", "missing", "interrupted", "missing", "failed", "missing"]


def test_rows_in_the_order_of_a_column(tmp_path: Path) -> None:
    rows = {name: [f"optimizer.lr={lr}"] for name, lr in {"none there": 0.01, "worse": 0.02, "better": 0.03}.items()}
    tree = {"rows": {"plain": [], **rows}, "published": {}}
    spec, outputs = read_spec(written(tmp_path, **tree)), tmp_path / "outputs"
    for row, accuracy in (("plain", 0.8), ("worse", 0.7), ("better", 0.9)):
        line = next(line for line in spec.rows if line.label == row)
        put(outputs, plans_of([spec.overrides(line, spec.columns[0])], spec.seeds)[0][0], accuracy)
    as_written, *_ = fill(spec, outputs=outputs)
    assert as_written.rows == ("plain", "none there", "worse", "better")
    best_first = ("better", "plain", "worse", "none there")  # an error: the lowest is the best
    assert fill(spec.sorted_by("noise .1"), outputs=outputs)[0].rows == best_first
    itself = read_spec(written(tmp_path, **tree, sort="noise .1"))
    table, *_ = fill(itself, outputs=outputs)
    assert table.rows == best_first and table.cells == as_written.cells
    more = [{**TREE["metric"], "complement": False, "direction": "max"}, {**TREE["metric"], "direction": "max"}]
    for metric, order in zip(more, (best_first, ("worse", "plain", "better", "none there"))):
        assert fill(read_spec(written(tmp_path, **tree, metric=metric, sort="noise .1")), outputs=outputs)[0].rows == order
    assert itself.only(None, ["noise .3"]).sort is None


def test_a_run_at_work_is_running(moons: Any) -> None:
    from attnlab.records.record import Record

    plan = moons.plans["plain", "noise .3"][1]
    with Record.find(moons.outputs, plan.address, plan.label).lock():
        table, cells, _ = fill(moons.spec, outputs=moons.outputs)
    assert table.cells["plain", "noise .3"].runs[1].status == "running"
    assert plan.address not in [job.run.address for job in todo(table, cells)]


def test_footnotes_state_what_differs(moons: Any) -> None:
    notes = "\n".join(note.text for note in fill(moons.spec, outputs=moons.outputs)[0].notes)
    assert "data: two_moons (train 64 abababab, test 64 cdcdcdcd)" in notes
    assert "epochs: 2 (5 runs); 3 (1 runs)" in notes and "torch: 2.15.0 (5 runs); 2.11.0 (1 runs)" in notes
    assert "device: CPU, precision 32 (5 runs); GPU, precision 32 (1 runs)" in notes
    assert "seeds: 3 asked; cells have 0 to 3" in notes and "1 broken" in notes and "a note" in notes
    assert "within 0.5" in notes and "1 [memory], 1 [text]" in notes


def test_a_footnote_says_whose_ood_splits(moons: Any) -> None:
    path = next(path for path in moons.outputs.glob("runs/*/result.json") if '"finished"' in path.read_text())
    result = json.loads(path.read_text())
    path.write_text(json.dumps({**result, "data": {**result["data"], "ood_splits": "splits not OpenOOD's: none"}}))
    assert "OOD: splits not OpenOOD's: none" in [note.text for note in fill(moons.spec, outputs=moons.outputs)[0].notes]


def test_another_default_of_a_component_is_told(moons: Any) -> None:
    plan = moons.plans["low lr", "noise .3"][0]
    config = json.loads(json.dumps(plan.full))
    config["model"]["depth"] = 77
    key = next(key for key in plan.full["data"] if key not in plan.short["data"] and f"data.{key}" not in plan.ignored)
    config["data"][key] = "another"
    put(moons.outputs, plan, 0.5, config=config)
    notes = fill(moons.spec, outputs=moons.outputs)[0].notes
    assert any(note.kind == "defaults" and f"in 1 runs: data.{key} was another" in note.text for note in notes)


def test_other_code_of_a_component_is_told(moons: Any) -> None:
    plans = moons.plans["plain", "noise .1"]
    for plan, digest in zip(plans, ("0" * 16, code_of(plans[1])["attnlab.backbones.mlp2d"], "1" * 16)):
        shutil.rmtree(moons.outputs / "runs" / plan.run_id)
        put(moons.outputs, plan, 0.9, code={"attnlab.backbones.mlp2d": digest, "attnlab.gone": "2" * 16})
    notes = [note.text for note in fill(moons.spec, outputs=moons.outputs)[0].notes if note.kind == "code"]
    assert notes == ["made by other code of attnlab.backbones.mlp2d than the present: 2 runs"]


def test_overrides_make_a_variant_and_other_data(moons: Any) -> None:
    spec, outputs = moons.spec, moons.outputs
    for overrides, verdict in (
        (["trainer.max_epochs=3"], "other data"),
        (["data.noise=0.2", "data.num_train=128"], "other data"),
        (["trainer.precision=bf16-mixed"], "holds"),  # another run, the same experiment
        (["ood=msp"], "holds"),  # has no bearing on the accuracy
    ):
        one = spec.only(["plain"], ["noise .1"])
        for plan, accuracy in zip(
            compose_cells([[*one.overrides(one.rows[0], one.columns[0]), *overrides]], spec.seeds)[0], (0.9, 0.901, 0.899)
        ):
            put(outputs, plan, accuracy)
        table, _, _ = fill(one, outputs=outputs, overrides=overrides)
        assert table.variant == " ".join(overrides) and table.notes[0] == Note("variant", f"not the paper's table: {table.variant}")
        assert table.cells["plain", "noise .1"].verdict == verdict, overrides
    table, _, _ = fill(spec, outputs=outputs, overrides=["trainer.progress=false"])
    assert table.variant is None and table.cells["plain", "noise .1"].verdict == "holds"


def test_the_papers_own_images_in_other_files_are_the_same_data(tmp_path: Path) -> None:
    recipe = [word for word in COMMON if not word.startswith("data")] + ["data.batch_size=16"]
    own, verdicts = ["data=parquet", "data.path=elsewhere"], []
    for digest in ("ab" * 8, "ef" * 8):
        column = {"overrides": ["data=mnist"], "digests": {"train": digest}}
        spec = read_spec(
            written(tmp_path, common=recipe, columns={"noise .1": column}, rows={"plain": []}, published={"plain": {"noise .1": 10}})
        )
        cell = spec.overrides(spec.rows[0], spec.columns[0])
        (plans,), ((base, *_),) = compose_cells([[*cell, *own]], spec.seeds), compose_cells([cell], spec.seeds)
        assert set(departures(plans[0], base)) == {"data._target_", "data.path"}
        for plan, accuracy in zip(plans, (0.9, 0.901, 0.899)):
            if not verdicts:
                put(tmp_path / "outputs", plan, accuracy)
        verdicts.append(fill(spec, outputs=tmp_path / "outputs", overrides=own)[0].cells["plain", "noise .1"].verdict)
    assert verdicts == ["holds", "other data"]


# ---- the formats --------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def shown(moons: Any) -> Table:
    return fill(moons.spec, outputs=moons.outputs)[0]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_text_fits_and_says_everything(shown: Table, width: int) -> None:
    text = table_text.to_text(shown, width=width)
    lines = text.splitlines()
    assert all(len(line) <= width for line in lines if not line.startswith(("failed:", "broken:")))
    for part in ("10.00 ± 0.10 (3)", "95% 9.75 to 10.25", "paper 10.00 [text]", "+0.00 = holds", "20.50 ± 0.71 (2 of 3)", "1 failed"):
        assert part in text, part
    for part in ("too few seeds", "to base +10.45, p", "1 broken", "1 interrupted", "3 missing", "(baseline)", "lower is better"):
        assert part in text, part
    assert "failed: low lr, noise .1, seed 2: the loss is not finite" in text


def test_the_same_failure_of_many_runs_is_one_line(shown: Table) -> None:
    place = ("low lr", "noise .1")
    cell = shown.cells[place]
    failed = cell.runs[2]
    more = [dataclasses.replace(failed, seed=seed, run_id=f"other-{seed}", error=f"{failed.error}\na second line") for seed in range(3, 40)]
    cells = {**shown.cells, place: dataclasses.replace(cell, runs=(*cell.runs, *more, failed))}
    lines = table_text.failures(dataclasses.replace(shown, cells=cells))
    assert len(lines) == 2 and lines[1].startswith("failed: low lr, noise .1, seed 2 and 37 more: the loss is not finite; ")
    assert lines[1].endswith(f"{failed.run_id}/train.log") and lines[0].endswith("/result.json") and lines[0].startswith("broken: plain")


def test_columns_stand_below_each_other_and_states_break_after_a_comma(shown: Table) -> None:
    labels = [f"column {number}{'x' * number}" for number in range(5)]
    cell = shown.cells["plain", "noise .3"]
    states = ("failed", "broken", "interrupted", "missing", "running", "failed")
    runs = tuple(dataclasses.replace(cell.runs[0], status=status, run_id=status) for status in states)
    one, other = dataclasses.replace(cell, runs=runs), shown.cells["plain", "noise .1"]
    cells = {("plain", label): one if number % 2 else other for number, label in enumerate(labels)}
    wide = dataclasses.replace(shown, rows=("plain",), columns=tuple(labels), cells=cells)
    assert table_text.states(one) == "1 running, 1 interrupted, 2 failed, 1 broken, 1 missing"
    lines = table_text.to_text(wide, width=80).splitlines()
    heads = [line for line in lines if line.lstrip().startswith("column ")]
    starts = [[match.start() for match in re.finditer("column", line)] for line in heads]
    assert len(heads) == 3 and starts[0] == starts[1] and starts[2] == starts[0][:1]
    assert not any(re.search(r"\d$", line) for line in lines if "running" in line or "failed," in line)


def test_colour_changes_nothing_but_colour(shown: Table) -> None:
    assert re.sub(r"\x1b\[[\d;]*m", "", table_text.to_text(shown, color=True)).split() == table_text.to_text(shown).split()


def test_markdown_has_one_row_a_row_and_escapes(shown: Table) -> None:
    text = table_text.to_markdown(dataclasses.replace(shown, variant="a=b|c"))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 4 and all(len(re.findall(r"(?<!\\)\|", row)) == 4 for row in rows)
    assert r"100% \_noise\_" in text and "**10.00 ± 0.10 (3)**<br>" in text and "Variant: `a=b|c`" in text


def test_csv_keeps_full_precision(shown: Table) -> None:
    rows = list(csv.DictReader(io.StringIO(table_text.to_csv(shown))))
    assert [(row["row"], row["column"]) for row in rows] == list(itertools.product(shown.rows, shown.columns))
    for row in rows:
        cell = shown.cells[row["row"], row["column"]]
        assert (row["mean"] or None, row["verdict"], int(row["n"])) == (
            None if cell.mean is None else repr(cell.mean),
            cell.verdict,
            cell.n,
        )
    assert float(rows[0]["values"].split()[0].partition(":")[2]) == shown.cells["plain", "noise .1"].runs[0].value
    assert ":failed" in rows[2]["runs"] and rows[2]["baseline"] == "plain" and float(rows[2]["paired_difference"]) == pytest.approx(10.45)


def nasty(table: Table) -> Table:
    """Every character that could break a format, in every place that a yaml can put it."""
    word = r"""a\b & 5% $x_{1}^2$ #1 ~ <i>|"'[x]* é ± → α 漢"""
    rename = {row: f"{row} {word}" for row in table.rows}
    cells = {(rename[row], column): dataclasses.replace(cell, row=rename[row]) for (row, column), cell in table.cells.items()}
    return dataclasses.replace(
        table, title=word, rows=tuple(rename.values()), cells=cells, variant=word, notes=(Note("own", word + "\nx"),), baseline=None
    )


def test_latex_is_balanced(shown: Table) -> None:
    for table in (shown, nasty(shown)):
        text = table_latex.to_latex(table)
        body = [line for line in text.splitlines() if not line.startswith("%")]
        assert [line for line in body if line in (r"\toprule", r"\midrule", r"\bottomrule")] == [r"\toprule", r"\midrule", r"\bottomrule"]
        rows = body[body.index(r"\midrule") + 1 : body.index(r"\bottomrule")]
        assert len(rows) == 2 and all(len(re.findall(r"(?<!\\)&", row)) == 4 and row.endswith(r" \\") for row in rows)
        plain = re.sub(r"\\[{}%$&#_]", "", "\n".join(body))
        assert plain.count("{") == plain.count("}") and plain.count("$") % 2 == 0 and "%" not in plain
        assert r"\begin{tabular}{lrrrr}" in text and "$+0.00^{=}$" in text and body.count(r"\centering") == 1
        told = table_latex.to_latex(table, details=("interval", "p"))
        assert told.count(r"\scriptsize") == 2 * len(table.columns) and r"\textbf{" in told


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
def test_latex_compiles(shown: Table, tmp_path: Path) -> None:
    tables = [table_latex.to_latex(table, details=details) for table in (shown, nasty(shown)) for details in ((), ("interval", "p"))]
    packages = "\\usepackage[utf8]{inputenc}\n\\usepackage[T1]{fontenc}\n\\usepackage{booktabs,graphicx}\n"
    source = f"\\documentclass{{article}}\n{packages}\\begin{{document}}\n"
    (tmp_path / "t.tex").write_text(source + "\n".join(tables) + "\\end{document}\n")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"], cwd=tmp_path, capture_output=True, text=True, errors="replace"
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout.replace("Overfull \\hbox (0", "")


# ---- what is to do, and doing it ----------------------------------------------------------------------------------------------------


def test_an_estimate_comes_from_the_runs_most_like_it(moons: Any) -> None:
    table, cells, records = fill(moons.spec, outputs=moons.outputs)
    plan = moons.plans["low lr", "noise .3"][0]
    seconds, basis = estimate(plan, records)  # 2 epochs of 64 images at 1,000 a second, and 3 s of other stages
    assert seconds == pytest.approx(2 * 64 / 1000 + 3) and "of mlp2d on the same data" in basis
    assert estimate(compose(["data=cifar10"]), records) == (None, "no run of resnet18 with these settings is recorded")
    assert estimate(compose(["data=digits", "model=mlp2d", "model.width=8"]), records) == (None, "no run on Digits is recorded")
    assert estimate(plan, Records(moons.outputs / "nowhere"))[0] is None
    text = plan_text(table, todo(table, cells), records)
    assert text.startswith("moons: 6 of 12 runs to do") and "low lr, noise .3: missing 0, 1, 2; about 3 s each (1,000 images/s" in text
    assert "python -m attnlab.train -m data=two_moons" in text and "seed=0,1,2" in text and "in all about 19 s one after another" in text
    assert [spell(value) for value in (40, 600, 7200, 10**6)] == ["40 s", "10 min", "2.0 h", "11.6 days"]


def test_run_kill_repeat_repeat(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    changes = {"seeds": [0, 1], "common": [*COMMON, "trainer.max_epochs=15"], "columns": {"noise .1": []}}
    outputs, table = tmp_path / "outputs", written(tmp_path, **changes)
    words = [f"table={table}", f"paths.outputs={outputs}"]
    started = start("attnlab.table", *words, "action=run", session=True)
    done: list[Path] = []
    try:
        for _ in range(12000):
            done = [path for path in outputs.glob("runs/*/result.json") if json.loads(path.read_text())["status"] == "finished"]
            if done or started.poll() is not None:
                break
            time.sleep(0.05)
    finally:
        os.killpg(started.pid, signal.SIGKILL)
        started.communicate()
    assert 1 <= len(done) < 4
    finished = {path: path.stat().st_mtime_ns for path in done}

    assert command.main([*words, "action=run", "format=csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))  # nothing but the table is on standard output
    assert [row["n"] for row in rows] == ["2"] * 2
    assert all(path.stat().st_mtime_ns == moment for path, moment in finished.items()), "a finished run was touched"

    before = files(outputs)
    assert command.main([*words, "action=run", "format=csv"]) == 0
    assert files(outputs) == before and list(csv.DictReader(io.StringIO(capsys.readouterr().out))) == rows
    spec = read_spec(table)
    assert compose([*spec.overrides(spec.rows[1], spec.columns[0]), "seed=1", f"paths.outputs={outputs}"]).run_id in rows[1]["runs"]


def test_one_failing_job_stops_no_other(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    changes = {"rows": {"too large": ["data.batch_size=100"], "plain": []}, "columns": {"noise .1": []}, "seeds": [0], "published": {}}
    words = [f"table={written(tmp_path, **changes)}", f"paths.outputs={tmp_path / 'outputs'}"]
    assert command.main([*words, "action=run"]) == 1
    text = capsys.readouterr().out
    assert "1 failed" in text and "failed: too large, noise .1, seed 0: data: data.batch_size=100 is more than" in text.replace("\n", " ")
    assert "(1)" in text and "train.log" in text


def test_help_and_errors_of_the_command(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "attnlab.table", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "maxdropout_wrn" in done.stdout and "action=plan" in done.stdout and not done.stderr
    done = run_command("attnlab.table", "table=smok")
    assert (done.returncode, done.stdout) == (1, "") and done.stderr == "attnlab: table=smok: there is no such table; nearest: smoke\n"
