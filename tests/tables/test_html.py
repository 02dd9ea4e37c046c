"""The page of a table: one well-formed file that asks for nothing, escapes everything, stays small, and works in a real browser."""

import dataclasses
import functools
import io
import json
import math
import os
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from attnlab.tables.model import Cell, Metric, Note, Paired, Paper, RunOfCell, Table
from attnlab.tables.views.html import pictures as html_pictures
from attnlab.tables.views.html import svg
from attnlab.tables.views.html.files import last_lines
from attnlab.tables.views.html.labels import number
from attnlab.tables.views.html.page import write_html
from attnlab.tables.views.html.several import write_several

EVIL = "<script>alert('x')</script> & \"q\""
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
VOID = {"meta", "link", "img", "br", "hr", "input"}


@pytest.fixture(autouse=True, scope="module")
def _cache(tmp_path_factory):
    """Pictures are kept for these tests alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


PICTURES = {"ood_scores": "ood_scores", "attention_rect_at_layer3": "attention", "curves": "curves", "reliability": "reliability"}


@functools.cache
def picture() -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.effect_noise((120, 70), 60).convert("RGB").resize((1200, 700)).save(buffer, "PNG")
    return buffer.getvalue()


def make_run(outputs: Path, run_id: str, *, seed: int, status: str, value: float = 0.9, epochs: int = 3, pictures: bool = True) -> Path:
    """A run's folder as attnlab.train leaves it."""
    folder = outputs / "runs" / run_id
    (folder / "figures").mkdir(parents=True)
    metrics = {"test/acc": value, "test/nll": 0.4, "train/loss": 0.2} if status == "finished" else {}
    error = {"stage": "fit", "kind": "ValueError", "message": f"the loss is not finite {EVIL}"} if status == "failed" else None
    result = {"status": status, "run_id": run_id, "seed": seed, "metrics": metrics, "epochs": epochs, "seconds": 90.0, "parameters": 12345}
    result |= {"device": f"CPU {EVIL}", "config": {"trainer": {"max_epochs": 9}}, "error": error}
    result["pictures"] = {f"figures/{name}.png": kind for name, kind in PICTURES.items()} if pictures else {}
    (folder / "result.json").write_text(json.dumps(result))
    rows = [f"{e},{2 / (e + 1)},{0.1 * e},{0.09 * e},{2.2 / (e + 1)}" for e in range(epochs)]
    (folder / "metrics.csv").write_text("\n".join(["epoch,train/loss,train/acc,val/acc,val/nll", *rows]) + "\n")
    (folder / "train.log").write_text("\n".join([f"line {n}" for n in range(3000)] + [f"ValueError: not finite {EVIL}"]) + "\n")
    if pictures:
        for name in PICTURES:
            (folder / "figures" / f"{name}.png").write_bytes(picture())
    return folder


def make_cell(
    outputs: Path, row: str, column: str, states: dict[int, str], *, at: float, paper: Paper | None, verdict: str, **other
) -> Cell:
    runs = []
    for seed, status in states.items():
        run_id = f"{re.sub(r'[^a-z0-9]', '', (row + column).lower())[:20]}-s{seed}-{len(row):04x}{len(column):04x}"
        folder = None if status == "missing" else make_run(outputs, run_id, seed=seed, status=status, value=(at + seed) / 100)
        value = at + seed if status == "finished" else None
        error = f"the loss is not finite {EVIL}" if status == "failed" else None
        runs.append(RunOfCell(seed, run_id, run_id[-8:], ("data=digits", f"model='{row}'", f"seed={seed}"), status, value, folder, error))
    values = [run.value for run in runs if run.value is not None]
    mean = sum(values) / len(values) if values else None
    interval = (mean - 3, mean + 3) if len(values) > 1 else None
    difference = mean - paper.value if paper and values else None
    paired = Paired(2, 0.5, (-1.0, 2.0), 0.0004) if row != "plain" and values else None
    sd = 0.7071 if len(values) > 1 else None
    base = {"paper": paper, "difference": difference, "verdict": verdict, "paired": paired}
    return Cell(row, column, tuple(runs), len(values), mean, sd, interval, **{**base, **other})


@pytest.fixture
def outputs(tmp_path):
    return tmp_path / "out puts"


@pytest.fixture
def table(outputs):
    """Three rows, two columns: whole, failed, running, missing; and names that would be markup."""
    rows, columns = ("plain", f"rect {EVIL}", "planned"), ("digits", f"svhn {EVIL}")
    page = Paper(91.0, 0.3, f"Table 2 {EVIL}", "page")
    cells = [
        make_cell(outputs, rows[0], columns[0], {0: "finished", 1: "finished"}, at=90, paper=page, verdict="holds"),
        make_cell(outputs, rows[0], columns[1], {0: "finished", 1: "failed"}, at=80, paper=None, verdict="not published"),
        make_cell(outputs, rows[1], columns[0], {0: "finished", 1: "finished", 2: "missing"}, at=93, paper=page, verdict="differs"),
        make_cell(outputs, rows[1], columns[1], {0: "running", 1: "interrupted"}, at=0, paper=None, verdict="missing"),
        make_cell(outputs, rows[2], columns[0], {0: "missing", 1: "missing"}, at=0, paper=page, verdict="missing"),
        make_cell(outputs, rows[2], columns[1], {0: "failed"}, at=0, paper=None, verdict="missing"),
    ]
    return Table(
        "smoke", f"Attention {EVIL}", f"arXiv:1 {EVIL}", rows, columns, Metric("test/acc", f"accuracy {EVIL}, %", "max"),
        {(cell.row, cell.column): cell for cell in cells}, "plain", (Note("device", f"device: CPU {EVIL}"),),
        f"python -m attnlab.table {EVIL}", f"a=b {EVIL}",
    )  # fmt: skip


class Page(HTMLParser):
    """Every start tag and the stack of what is open; a wrong nesting is an error."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.text = [], [], []
        self.feed(text)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), f"<{tag}> has an attribute twice: {names}"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]} at {self.getpos()}"
        self.open.pop()

    def handle_data(self, data):
        self.text.append((tuple(self.open[-1:]), data))

    def having(self, name: str) -> list[str]:
        return [attrs[name] for _, attrs in self.tags if name in attrs]

    def words(self) -> str:
        return " ".join(" ".join(data for where, data in self.text if where not in (("script",), ("style",))).split())


def test_one_well_formed_file_that_asks_for_nothing(table, outputs, tmp_path):
    path = write_html(table, tmp_path / "pages" / "table.html", outputs=outputs)
    assert list(path.parent.iterdir()) == [path]
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    ids = page.having("id")
    assert len(set(ids)) == len(ids)
    assert set(page.having("aria-controls")) <= set(ids)
    for address in page.having("src"):
        assert address.startswith("data:image/")
    for address in page.having("href"):
        assert re.match(r"#[\w-]+$|\.\./", address), address
        assert address[1:] in ids if address.startswith("#") else (path.parent / address.replace("%20", " ")).exists(), address
    assert not re.search(r"url\(|@import|https?://", text)
    assert not {"link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in page.tags}
    assert [attrs for tag, attrs in page.tags if tag == "script"] == [{}, {}]
    (policy,) = [attrs["content"] for tag, attrs in page.tags if tag == "meta" and attrs.get("http-equiv")]
    assert "default-src 'none'" in policy and "unsafe-inline" not in policy.split("script-src")[1]


def test_everything_is_escaped(table, outputs, tmp_path):
    text = write_html(table, tmp_path / "table.html", outputs=outputs).read_text()
    page = Page(text)
    assert text.count("<script") == 2 and "alert('x')" not in text
    assert page.words().count("<script>alert('x')</script>") > 12
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]


def test_what_the_page_says(table, outputs, tmp_path):
    words = Page(write_html(table, tmp_path / "table.html", outputs=outputs).read_text()).words()
    for told in (
        "5 of 12 runs finished; 1 running, 1 interrupted, 2 failed, 3 missing.",
        "Against 3 published values: holds 1 , differs 1 , missing 1",
        "90.50 ± 0.71", "n = 2 [87.50, 93.50]", "paper 91.00 −0.50 holds", "+2.50 differs", "baseline +0.50 , p < 0.001",
        "1 failed", "running",
        "epoch 3 of 9", "plain baseline", "read in the paper", "12,345", "1.5 min a run", "Not the paper’s own table.", "Made with a=b",
        "To finish this cell:", "seed=2", "-m data=digits", "seed=0,1", "line 2999", "Failures", "and 1 more",
        "paired over 2 shared seeds", "= 100 × test/acc, as in result.json", "3 read in the paper; sources under details",
        "The rule is in docs/tables.md",
    ):  # fmt: skip
        assert told in words, told
    assert "line 2000" not in words


def test_curves_are_drawn_over_finished_seeds(table, outputs, tmp_path):
    page = Page(write_html(table, tmp_path / "table.html", outputs=outputs).read_text())
    labels = [attrs["aria-label"] for tag, attrs in page.tags if tag == "svg" and "curves" in attrs.get("class", "")]
    assert len(labels) == 10  # two for each of the five cells that have a history
    assert "train 20.0 at epoch 3, val 18.0 at epoch 3, test 90.5 at epoch 3" in labels[0]
    assert "log scale" not in labels[0] and "lower is better" in labels[1]


def test_pictures_are_few_and_the_rest_is_counted(table, outputs, tmp_path, monkeypatch):
    page = Page(write_html(table, tmp_path / "table.html", outputs=outputs).read_text())
    images = [attrs for tag, attrs in page.tags if tag == "img"]
    # two seeds: scores, attention, the other seed's attention; one seed: scores, attention, reliability
    assert [image["alt"].split(",")[0] for image in images[:6]] == [
        "Scores of the OOD heads", "Attention of rect at layer3", "Attention of rect at layer3",
        "Scores of the OOD heads", "Attention of rect at layer3", "Reliability",
    ]  # fmt: skip
    assert all(int(image["width"]) <= html_pictures.PICTURE_WIDTH for image in images) and len(images) == 9
    assert "6 more are in the runs’ folders" in page.words()
    monkeypatch.setattr(html_pictures, "PICTURE_BUDGET", 1)
    path = write_html(table, tmp_path / "small.html", outputs=outputs)
    assert path.read_text().count("<img") == 1 and "14 more are in" in Page(path.read_text()).words()
    assert path.stat().st_size < 300_000


def test_a_picture_that_cells_share_is_shown_once(outputs, tmp_path):
    make_run(outputs, "shared-s0-0000aaaa", seed=0, status="finished", pictures=False)
    folder = outputs / "runs" / "shared-s0-0000aaaa"
    names = {
        "explanations": "explanation",
        "explanations_of_one": "explanation",
        "faithfulness": "faithfulness",
        "reliability": "reliability",
    }
    for name in names:
        (folder / "figures" / f"{name}.png").write_bytes(picture() + name.encode())
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps({**result, "pictures": {f"figures/{name}.png": kind for name, kind in names.items()}}))
    run = RunOfCell(0, folder.name, "0000aaaa", (), "finished", 1.0, folder, None)
    rows, columns = ("ig", "gradcam"), ("deletion", "seconds")
    cells = {(r, c): Cell(r, c, (run,), 1, 1.0, None, None, None, None, "not published", None) for r in rows for c in columns}
    metric, own = (
        Metric("explain/{row}/deletion", "deletion", "min", 1.0),
        {"seconds": Metric("explain/{row}/seconds", "ms", "max", 1e3, digits=1)},
    )
    table = Table("explain", "Explain", "", rows, columns, metric, cells, None, (), "", None, own)
    page = Page(write_html(table, tmp_path / "table.html", outputs=outputs).read_text())
    captions = re.findall(r"(Explanations|Deletion and insertion|Reliability), seed 0", page.words())
    assert captions == ["Reliability"] * 4 + ["Explanations", "Explanations", "Deletion and insertion"]
    assert "The same images, all rows" in page.words() and "deletion: lower is better" in page.words()
    assert "1 of 1 run finished" in page.words()  # which four cells read
    better = [attrs.get("data-better") for tag, attrs in page.tags if tag == "button" and "data-column" in attrs]
    assert better == ["min", "min", "max"]


def test_a_picture_is_made_once(table, outputs, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shrunk = []
    real = html_pictures._shrunk
    monkeypatch.setattr(html_pictures, "_shrunk", lambda path, width: shrunk.append(path) or real(path, width))
    first = write_html(table, tmp_path / "a.html", outputs=outputs).read_bytes()
    assert len(shrunk) == len(set(shrunk)) == 9
    assert write_html(table, tmp_path / "a.html", outputs=outputs).read_bytes() == first and len(shrunk) == 9
    shrunk[0].write_bytes(picture() + b"0")  # the file has changed
    for kept in list((tmp_path / "cache" / "attnlab" / "pictures").glob("*.json"))[:2]:
        kept.write_text('["data:"]')
    assert write_html(table, tmp_path / "a.html", outputs=outputs).read_bytes() == first and 10 < len(shrunk) <= 12


def test_many_runs_stay_small(outputs, tmp_path, monkeypatch):
    monkeypatch.setattr(html_pictures, "PICTURE_BUDGET", 200_000)
    folder = make_run(outputs, "one-s0-00000000", seed=0, status="finished", epochs=200)
    rows, columns = tuple(f"row {n}" for n in range(10)), tuple(f"column {n}" for n in range(5))
    runs = tuple(RunOfCell(s, "one-s0-00000000", "00000000", (f"seed={s}",), "finished", 90.0 + s, folder, None) for s in range(10))
    cells = {(r, c): Cell(r, c, runs, 10, 94.5, 3.03, (92.3, 96.7), None, None, "not published", None) for r in rows for c in columns}
    table = Table("many", "Many", "", rows, columns, Metric("test/acc", "accuracy, %", "max"), cells, None, (), "", None)
    path = write_html(table, tmp_path / "many.html", outputs=outputs)
    assert path.stat().st_size < 3_000_000
    Page(path.read_text())


def read(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


def test_several_tables_are_one_page_with_contents(table, outputs, tmp_path):
    other = dataclasses.replace(table, name="other one", title="Another", variant=None)
    path = write_several([table, other], tmp_path / "all.html", outputs=outputs, read=read, command="python -m attnlab.table table=[..]")
    text = path.read_text()
    page, words = Page(text), Page(text).words()
    ids = page.having("id")
    assert sorted(ids) == ["table-other-one", "table-smoke", "theme"] and not page.having("aria-controls")
    assert [href for href in page.having("href") if href.startswith("#")] == ["#table-smoke", "#table-other-one"]
    assert text.count("<style>") == 1 and [attrs for tag, attrs in page.tags if tag == "script"] == [{}, {}]
    assert (
        words.count("90.50 ± 0.71") == 2
        and "2 tables." in words
        and "$" not in words
        and "smoke: 5 of 12 runs finished; 1 running" in words
    )
    assert words.count("Not the paper’s own table.") == 1 and words.count("and 1 more the loss is not finite") == 2
    # as many as a table may have; the other table shares the files, which are shown once
    captions = [attrs["alt"] for tag, attrs in page.tags if tag == "img"]
    assert len(captions) == 4 and captions[0] == "plain, digits: Scores of the OOD heads, seed 0" and len(set(captions)) == 4
    assert all(int(attrs["width"]) <= 640 for tag, attrs in page.tags if tag == "img")
    assert [attrs for tag, attrs in page.tags if attrs.get("class") == "strip"]


def test_a_page_of_several_tables_keeps_its_size_and_says_what_is_left_out(table, outputs, tmp_path, caplog):
    whole = write_several([table, table], tmp_path / "all.html", outputs=outputs, read=read).stat().st_size
    path = write_several([table], tmp_path / "small.html", outputs=outputs, read=read, limit=60_000)
    page = Page(path.read_text())
    assert path.stat().st_size <= 60_000 < whole and not [attrs for tag, attrs in page.tags if attrs.get("class") == "strip"]
    told = re.search(r"Left out here for the size of the page: every seed as a dot, (\d+) pictures? \((.*?)\)\.", page.words())
    assert told and int(told[1]) + page.words().count("file") >= 4 and "Attention of rect at layer3" in told[2]
    write_several([table], tmp_path / "tiny.html", outputs=outputs, read=read, limit=1000)
    assert "bytes without any picture; leave a table out" in caplog.text


def test_records_are_only_read_and_the_page_is_the_same_again(table, outputs, tmp_path):
    def state():
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(outputs.rglob("*"))}

    before = state()
    first = write_html(table, tmp_path / "a.html", outputs=outputs).read_bytes()
    assert write_html(table, tmp_path / "a.html", outputs=outputs).read_bytes() == first
    assert state() == before


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe\x00\x01", b"[1, 2]", b'{"metrics": 3, "config": [], "seconds": "x"}', b"epoch\nx\n"])
def test_damaged_files_do_not_stop_the_page(table, outputs, tmp_path, damage):
    for path in outputs.rglob("*"):
        if path.is_file():
            path.write_bytes(damage)
    page = Page(write_html(table, tmp_path / "table.html", outputs=outputs).read_text())
    assert "90.50 ± 0.71" in page.words() and not [tag for tag, _ in page.tags if tag == "img"]
    shutil.rmtree(outputs)
    page = Page(write_html(table, tmp_path / "table.html", outputs=outputs).read_text())
    assert "90.50 ± 0.71" in page.words() and not [href for href in page.having("href") if not href.startswith("#")]


def test_a_table_with_nothing_in_it(outputs, tmp_path):
    cell = Cell("a", "b", (), 0, None, None, None, None, None, "missing", None)
    table = Table("empty", "", "", ("a",), ("b", "c"), Metric("test/acc", "error, %", "min"), {("a", "b"): cell}, None, (), "", None)
    words = Page(write_html(table, tmp_path / "empty.html", outputs=outputs).read_text()).words()
    assert "0 of 0 runs finished" in words and "lower is better" in words


def test_a_folder_is_found_by_the_runs_name(table, outputs, tmp_path):
    key = ("plain", "digits")
    runs = tuple(dataclasses.replace(run, folder=None) for run in table.cells[key].runs)
    other = dataclasses.replace(table, cells={**table.cells, key: dataclasses.replace(table.cells[key], runs=runs)})
    one, two = (write_html(t, tmp_path / "t.html", outputs=outputs).read_text() for t in (table, other))
    assert one == two


def test_the_command_that_finishes_a_cell_names_the_outputs(table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("out puts").rename("outputs")
    assert "paths.outputs" not in write_html(table, tmp_path / "t.html", outputs=Path("outputs")).read_text()
    Path("outputs").rename("o")
    words = Page(write_html(table, tmp_path / "t.html", outputs=Path("o")).read_text()).words()
    assert "seed=0,1 paths.outputs=o" in words


def test_columns_are_equally_wide_and_states_in_words(table, outputs, tmp_path):
    key = ("plain", "digits")
    runs = tuple(dataclasses.replace(run, status="broken") for run in table.cells[key].runs)
    other = dataclasses.replace(table, cells={**table.cells, key: dataclasses.replace(table.cells[key], runs=runs)})
    text = write_html(other, tmp_path / "t.html", outputs=outputs).read_text()
    assert 'style="--columns: 2"' in text and "table-layout: fixed" in text
    words = Page(text).words()
    assert "2 damaged records" in words and "damaged record, epoch 3 of 9" in words


def test_numbers():
    assert [number(v, 2) for v in (None, 1, -0.001, 94.567)] == ["–", "1.00", "0.00", "94.57"]
    assert [number(v, 1, sign=True) for v in (0.04, -0.04, 0.06, -1.0)] == ["0.0", "0.0", "+0.1", "−1.0"]


def test_last_lines(tmp_path):
    path = tmp_path / "train.log"
    assert last_lines(path) == ""
    path.write_bytes(b"\xff\n" + b"x" * 100_000 + b"\nlast\n")
    assert last_lines(path) == "last"
    path.write_text("a\nb\n")
    assert last_lines(path, 1) == "b" and last_lines(path) == "a\nb"


def test_drawings():
    assert svg.band("val", [{}, {1: math.nan}]) is None
    one = svg.band("val", [{1: 1.0, 2: 3.0}, {1: 2.0, 2: math.inf}])
    assert one.means == (1.5, 3.0) and one.deviations == (pytest.approx(math.sqrt(0.5)), 0.0) and one.seeds == 2
    long = svg.band("val", [{n: float(n) for n in range(1, 1001)}])
    assert len(long.epochs) == svg.MAX_POINTS and (long.epochs[0], long.epochs[-1]) == (1, 1000)
    assert svg.ticks(0, 100) == [0, 25, 50, 75, 100] and svg.ticks(3, 3) == [3]
    assert svg.log_ticks(0.09, 11) == [0.1, 0.3, 1.0, 3.0, 10.0]
    assert svg.curves([], title="x", digits=1, best="max") == ""
    for bands in ([one], [long], [svg.band("test", [{1: 5.0}])], [svg.band("a", [{1: 0.0, 2: 0.0}])], [one] * 3):
        for log in (False, bands[0].means[0] > 0):
            drawing = svg.curves(bands, title="<x>", digits=1, best="min", log=log)
            Page(drawing)
            assert "nan" not in drawing and "<x>" not in drawing
            for value in re.findall(r'[ "ML]y="(-?[\d.]+)"', drawing):
                assert -1 <= float(value) <= svg.HEIGHT
    assert svg.spans_decades([svg.band("a", [{1: 9.0, 2: 0.1}])]) and not svg.spans_decades([svg.band("a", [{1: 9.0, 2: 0.0}])])
    drawing = svg.strip([1.0, 2.0], mean=1.5, interval=(-50, 50), paper=1.2, low=1, high=2)
    Page(drawing)
    assert all(0 <= float(x) <= 132 for x in re.findall(r"[MH](-?[\d.]+)", drawing))


def test_label_places_keep_apart():
    places = svg._apart([50.0, 51.0, 50.5], 13.0, 12, 164)
    assert sorted(b - a for a, b in zip(sorted(places), sorted(places)[1:], strict=False)) == [13.0, 13.0]
    assert max(svg._apart([163.0, 164.0, 164.0], 13.0, 12, 164)) <= 164


# -- in a browser -----------------------------------------------------------------------------------------------------------------

browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")


def visit(address: str, folder: Path) -> tuple[str, list[str]]:
    """The page's document after its scripts ran, and what its console said."""
    flags = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--enable-logging=stderr", "--virtual-time-budget=4000", "--dump-dom",
    ]  # fmt: skip
    command = [CHROMIUM, *flags, "--window-size=1400,900", f"--user-data-dir={folder / 'profile'}", address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, "HOME": str(folder)})
    assert "<html" in done.stdout, done.stderr[-2000:]
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def visit_with(script: str, path: Path, folder: Path, *, width: int = 1280) -> dict:
    """What `script` returns as JSON, run in a copy of the page without its policy.

    In a frame: a window is never narrower than 500 pixels.
    """
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", path.read_text())
    copy, frame = path.with_name("copy.html"), path.with_name("frame.html")
    copy.write_text(text.replace("</body>", f"<script>parent.postMessage(JSON.stringify((() => {{ {script} }})()), '*');</script></body>"))
    frame.write_text(
        f'<title>-</title><script>addEventListener("message", (e) => {{ document.title = e.data; }});</script>'
        f'<iframe src="copy.html" style="width:{width}px;height:900px;border:0"></iframe>'
    )
    dom, console = visit(frame.as_uri(), folder)
    assert not console
    return json.loads(unescape(re.search(r"<title>(.*?)</title>", dom, re.S)[1]))


@browser
def test_the_script_runs_under_its_policy_and_the_console_is_silent(table, outputs, tmp_path):
    path = write_html(table, tmp_path / "table.html", outputs=outputs)
    dom, console = visit(f"{path.as_uri()}#cell-1-0", tmp_path)
    assert not console
    assert re.search(r'<section class="panel shown" id="cell-1-0"', dom) and dom.count('class="panel shown"') == 1
    assert re.search(r'<html lang="en" class="js"', dom)


@browser
def test_sorting_opening_and_the_theme(table, outputs, tmp_path):
    path = write_html(table, tmp_path / "table.html", outputs=outputs)
    told = visit_with(
        """
        const rows = () => [...document.querySelectorAll("tbody[data-order]")].map((body) => body.dataset.order).join("");
        const heads = () => [...document.querySelectorAll("th[aria-sort]")].map((th) => th.getAttribute("aria-sort").slice(0, 4)).join();
        const [name, first, second] = document.querySelectorAll(".sort");
        const found = [];
        for (const button of [first, first, first, second, name, name]) { button.click(); found.push([rows(), heads()]); }
        const cell = document.querySelector("td[data-label]");
        const open = cell.querySelector(".open"), panel = document.getElementById(open.getAttribute("aria-controls"));
        const seen = () => [panel.checkVisibility(), open.getAttribute("aria-expanded")];
        const states = [seen()];
        cell.click(); states.push(seen());
        open.click(); states.push(seen());
        document.querySelector(".everything").click(); states.push(seen());
        panel.querySelector(".close").click(); states.push([...seen(), document.activeElement === open]);
        const colour = () => getComputedStyle(document.body).backgroundColor;
        const before = colour(); document.getElementById("theme").click(); const after = colour();
        const [status, label] = ["[role=status]", "#theme"].map((one) => document.querySelector(one).textContent);
        return { found, states, status, themes: [before, after], label };
        """,
        path,
        tmp_path,
    )
    assert told["found"] == [
        ["102", "none,desc,none"], ["012", "none,asce,none"], ["012", "none,none,none"],
        ["012", "none,none,desc"], ["021", "asce,none,none"], ["120", "desc,none,none"],
    ]  # fmt: skip
    assert told["states"] == [[False, "false"], [True, "true"], [False, "false"], [True, "true"], [False, "false", True]]
    assert told["status"] == "Sorted by Row, descending" and told["label"] == "Light"
    assert told["themes"] == ["rgb(255, 255, 255)", "rgb(20, 23, 26)"]


@browser
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_runs_over_the_edge(table, outputs, tmp_path, width):
    path = write_html(table, tmp_path / "table.html", outputs=outputs)
    script = """
        document.querySelectorAll(".everything").forEach((one) => one.click());
        const edge = document.documentElement.clientWidth;
        const inside = (e) => e.closest("pre, svg, .unseen, .scroll") && !(edge < 760 && !e.closest("pre, svg, .unseen"));
        const over = [...document.querySelectorAll("main *")].filter((e) => !inside(e) && e.getBoundingClientRect().right > edge + 0.5);
        return { edge, scroll: document.documentElement.scrollWidth, over: over.map((e) => e.outerHTML.slice(0, 120)) };
    """
    told = visit_with(script, path, tmp_path, width=width)
    assert width - 16 <= told["edge"] <= width and told["scroll"] <= told["edge"] and told["over"] == []
