"""Scale: what a command reads, imports and keeps does not grow with what it was not asked for. Counts, not clocks."""

import ast
import dataclasses
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from attnlab import runs, table
from attnlab.config.cells import compose_cells
from attnlab.records.index import Records
from attnlab.tables import cache as table_cache
from attnlab.tables import plan_cache as table_plans
from attnlab.tables import todo as table_plan
from attnlab.tables.plan_cache import plans_of
from tests import ROOT
from tests.tables.many_records import plans_of_table, write_record, write_table

POINTS = ["data=two_moons", "model=mlp2d", "trainer.max_epochs=3", "logger=none", "ood=none"]
CELLS = [[*POINTS, "data.noise=0.1"], [*POINTS, "data.noise=0.3"]]
HEAVY = ("torch", "pytorch_lightning", "lightning", "matplotlib", "hydra", "omegaconf", "PIL", "wandb")

opened: list[str] = []
listening = False


def _listen(event: str, arguments: tuple) -> None:
    if listening and event == "open" and isinstance(arguments[0], str | os.PathLike):
        opened.append(os.fspath(arguments[0]))


sys.addaudithook(_listen)  # there is no way to take one out


@pytest.fixture
def reads() -> Callable[..., Counter[str]]:
    """`reads(folder, function, ...)`: how often each file below the folder was opened while the function ran, by its path there."""

    def count(folder: Path, function: Callable, *given, **named) -> Counter[str]:
        global listening
        opened.clear()
        listening = True
        try:
            function(*given, **named)
        finally:
            listening = False
        return Counter(str(Path(path).relative_to(folder)) for path in opened if Path(path).is_relative_to(folder))

    return count


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "attnlab" / "plans"


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A table of 20 finished runs, among 60 that it has nothing to do with; and what composing it left in the cache."""
    folder = tmp_path_factory.mktemp("many")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        plans = plans_of_table(write_table(folder / "table.yaml", 20))
    for plan in plans:
        write_record(folder / "outputs", plan)
    for number in range(60):
        write_record(folder / "outputs", dataclasses.replace(plans[number % 20], label="other", address=f"{number:08x}"))
    yield folder


def words(many: Path, *more: str) -> list[str]:
    return [f"table={many / 'table.yaml'}", f"paths.outputs={many / 'outputs'}", *more]


# ---- what is read ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", ["text", "md", "csv", "latex", "html"])
def test_a_table_reads_its_own_records_once_and_no_others(style: str, many: Path, tmp_path: Path, monkeypatch, reads) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(many / "cache"))
    found = reads(many / "outputs", table.main, words(many, f"format={style}", f"out={tmp_path / 'table'}"))
    own = {f"runs/{plan.run_id}" for plan in plans_of_table(str(many / "table.yaml"))}
    assert len(own) == 20 and len(list((many / "outputs" / "runs").iterdir())) == 80
    results = {name: count for name, count in found.items() if name.endswith("result.json")}
    assert results == {f"{folder}/result.json": 1 for folder in own}
    rest = found.keys() - results.keys()
    assert rest == ({f"{folder}/metrics.csv" for folder in own} if style == "html" else set())
    assert max(found.values()) == 1


def test_a_part_of_a_table_reads_the_records_of_that_part(many: Path, tmp_path: Path, monkeypatch, reads) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(many / "cache"))
    found = reads(many / "outputs", table.main, words(many, "rows=[se]", "seeds=[3,4]", f"out={tmp_path / 'table'}"))
    assert len(found) == 2 and set(found.values()) == {1} and all("-se-" in name for name in found)


def test_a_plan_reads_every_record_once_however_many_runs_it_estimates(many: Path, tmp_path: Path, monkeypatch, reads) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(many / "cache"))
    found = reads(many / "outputs", table.main, words(many, "action=plan", "seeds=[0,1,20,21]", f"out={tmp_path / 'plan'}"))
    assert len(found) == 80 and set(found.values()) == {1}
    assert "4 of 8 runs to do" in (tmp_path / "plan").read_text()


def test_a_list_of_runs_reads_every_record_once_and_nothing_else_of_finished_ones(many: Path, capsys, reads) -> None:
    found = reads(many / "outputs", runs.run_command, ["test/acc>0", "sort=test/acc", f"paths.outputs={many / 'outputs'}"])
    assert len(found) == 80 and set(found.values()) == {1} and all(name.endswith("/result.json") for name in found)
    assert len(capsys.readouterr().out.splitlines()) == 21


# ---- what is imported -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["table", "runs"])
def test_no_heavy_import_where_the_plans_are_known(module: str, many: Path, tmp_path: Path) -> None:
    arguments = words(many) if module == "table" else words(many)[1:]
    code = (
        f"import runpy, sys\ntry: runpy.run_module('attnlab.{module}', run_name='__main__')\n"
        f"finally: print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True, text=True, cwd=ROOT, env={**os.environ, "XDG_CACHE_HOME": str(many / "cache")},
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and ast.literal_eval(lines[-1]) == [], done.stderr
    assert "(10)" in done.stdout if module == "table" else "test/acc" in lines[0]


def test_the_second_call_composes_nothing(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    first = plans_of(CELLS, [0, 1])
    assert first == compose_cells(CELLS, [0, 1]) and len(list(cache.glob("*.json"))) == 2
    composed: list = []
    monkeypatch.setattr(table_plans, "compose_cells", lambda cells, seeds: composed.append((cells, seeds)) or compose_cells(cells, seeds))
    again = plans_of(CELLS, [0, 1])
    assert again == first and not composed
    assert plans_of([CELLS[1], CELLS[0], CELLS[1]], [1])[2] == [first[1][1]] and not composed
    more = plans_of(CELLS[:1], [1, 5])
    assert composed == [([tuple(CELLS[0])], [1, 5])] and [plan.full["seed"] for plan in more[0]] == [1, 5]
    assert plans_of(CELLS[:1], [0, 1, 5])[0][:2] == first[0] and len(composed) == 1  # the seeds of before are still there


@pytest.mark.parametrize("changed", ["configs", "libraries", "config/compose.py", "data/two_moons.py"])
def test_a_plan_whose_source_has_changed_is_composed_anew(changed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plans_of(CELLS[:1], [0])
    now = table_plans._now
    monkeypatch.setattr(table_plans, "_now", lambda name: "changed" if name == changed else now(name))
    assert not table_plans._kept(tuple(CELLS[0]))


def test_a_file_that_was_edited_while_it_was_read_is_not_trusted(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    assert table_plans._edited(cache / "gone") and not table_plans._edited(Path(__file__))
    monkeypatch.setattr(table_plans, "STARTED", 0.0)
    assert plans_of(CELLS[:1], [0]) == compose_cells(CELLS[:1], [0]) and not cache.exists()


@pytest.mark.parametrize("word", ["paths.outputs=${oc.env:USER}", "allow_targets=[mine]"])
def test_what_cannot_be_watched_is_not_kept(word: str, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setenv("USER", "me")
    assert plans_of([[*POINTS, word]], [0])[0][0].address and not cache.exists()


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"made_from": {}, "plans": [{}]}', b'{"made_from": {"x": ""}}', b"\xff\xfe"])
def test_a_damaged_cache_costs_time_alone(damage: bytes, cache: Path) -> None:
    first = plans_of(CELLS[:1], [0])
    (path,) = cache.glob("*.json")
    path.write_bytes(damage)
    assert plans_of(CELLS[:1], [0]) == first and path.read_bytes() != damage


def test_no_cache_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert plans_of(CELLS[:1], [0]) == compose_cells(CELLS[:1], [0])


def test_what_nobody_asks_for_is_removed(cache: Path) -> None:
    table_cache.write(cache / "one", b"1")
    table_cache.write(cache / "two", b"2")
    for path, days in ((cache / "one", 31), (cache / "two", 29), (cache / ".swept", 2)):
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime - days * 86400))
    assert table_cache.read(cache / "two") == b"2"  # asked for: young again
    table_cache.write(cache / "three", b"3")
    assert {path.name for path in cache.iterdir()} == {".swept", "two", "three"}


# ---- a thousand -----------------------------------------------------------------------------------------------------------------------


def test_an_estimate_over_a_thousand_records_looks_at_each_a_few_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ((plan,),) = compose_cells(CELLS[:1], [0])
    write_record(tmp_path, plan)
    records = Records(tmp_path)
    records.finished = records.finished * 1000
    looks: list[str] = []
    about = table_plan._about
    monkeypatch.setattr(table_plan, "_about", lambda config, group: looks.append(group) or about(config, group))
    assert table_plan.estimate(plan, records)[1] == "700 images/s, 1000 runs of mlp2d on the same data"
    assert len(looks) <= 6 * 1000
