"""A filled table as one HTML file that needs nothing else: numbers, verdicts, curves, score histograms, attention pictures and failures.

    write_html(table, Path("maxdropout.html"), outputs=Path("outputs"))

The page asks for nothing from outside (its Content-Security-Policy forbids it), reads without JavaScript, and links to the runs' folders by
relative paths. The runs' files are only read; what cannot be read is left out and said so. Style and script: page.css, page.js.
"""

import base64
import csv
import hashlib
import io
import json
import os
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from attnlab.record import write_atomic
from attnlab.report.svg import Band, band, curves, spans_decades, strip
from attnlab.table_model import Cell, Metric, RunOfCell, Table

PICTURES_PER_CELL = 3
PICTURE_BUDGET = 6 << 20  # bytes of all pictures before base64
PICTURE_PIXELS = 40_000_000  # a file with more is not opened
PICTURE_WIDTH = 880
LOGS_PER_CELL, LOG_LINES, LOG_BYTES = 3, 14, 16384
FAILURES_LISTED = 30
STATUSES = ("finished", "running", "interrupted", "failed", "broken", "missing")
SAID = {"broken": "damaged record"}  # how a status is called where its own name says too little
VERDICTS = {
    "holds": "the paper’s figure and ours agree by the stated rule",
    "differs": "the paper’s figure and ours differ by the stated rule",
    "too few seeds": "not enough finished seeds to say",
    "other data": "measured on other data than the paper’s, so not to be compared",
    "no figure": "the paper gives no figure here",
    "missing": "no finished seed yet",
}
MARKS = {
    "code": "read in the authors’ code or its output",
    "page": "read in the paper",
    "memory": "recalled, not read again",
    "text": "said in the paper’s text",
    "fig": "read off a figure",
}
LOSSES = "train: what is minimised; val, test: negative log-likelihood"
CURVES = (
    ("Accuracy", "%", 100.0, 1, "max", {"train": "train/acc", "val": "val/acc", "test": "test/acc"}),
    ("Loss", LOSSES, 1.0, 3, "min", {"train": "train/loss", "val": "val/nll", "test": "test/nll"}),
)


@dataclass(frozen=True)
class Files:
    """What a run's folder holds, as far as it can be read."""

    run: RunOfCell
    folder: Path | None
    result: Mapping[str, Any]
    history: tuple[Mapping[str, float], ...]
    pictures: tuple[Path, ...]


def write_html(table: Table, path: Path, *, outputs: Path, read: Callable[[Path], Mapping[str, Any]] | None = None) -> Path:
    """Write the page of `table` to `path`, whole or not at all, and return it.

    outputs: where runs without a named folder would be. read: the result.json of a folder, where somebody has read it already.
    """
    path, read = Path(path), read or (lambda folder: read_result(folder / "result.json"))
    files = {key: tuple(_files(run, Path(outputs), read) for run in cell.runs) for key, cell in table.cells.items()}
    chosen, left_out = _choose_pictures(table, files)
    link = _linker(path)
    panels = {key: _panel(table, cell, files[key], chosen[key], left_out[key], link, Path(outputs)) for key, cell in table.cells.items()}
    style, script = (Path(__file__).with_name(f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    early = 'document.documentElement.classList.add("js")'
    parts = [
        _head(table, style, early, script),
        _top(table),
        _matrix(table, panels),
        _failures(table, files),
        _print(table, sum(left_out.values())),
        f"</main>\n<script>{script}</script>\n</body>\n</html>\n",
    ]
    return write_atomic(path, "\n".join(part for part in parts if part))


# -- reading ----------------------------------------------------------------------------------------------------------------------


def _files(run: RunOfCell, outputs: Path, read: Callable[[Path], Mapping[str, Any]]) -> Files:
    folder = run.folder or (outputs / "runs" / run.run_id if run.run_id else None)
    if folder is None or not folder.is_dir():
        return Files(run, None, {}, (), ())
    figures = folder / "figures"
    # The learning curves are drawn anew over all seeds; the reliability diagram comes after what the page is for.
    pictures = [figures / "ood_scores.png", *sorted(figures.glob("attention_*.png")), figures / "reliability.png"]
    history = tuple(read_history(folder / "metrics.csv"))
    return Files(run, folder, read(folder), history, tuple(path for path in pictures if path.is_file()))


def read_result(path: Path) -> dict[str, Any]:
    """result.json, or {} where there is none that can be read. Nothing is set aside."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return result if isinstance(result, dict) else {}


def read_history(path: Path) -> list[dict[str, float]]:
    """The rows of metrics.csv that have an epoch; what is no number is left out."""
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    except (OSError, ValueError, csv.Error):
        return []
    found = []
    for row in rows:
        numbers = {}
        for key, value in row.items():
            try:
                numbers[key] = float(value)
            except (TypeError, ValueError):
                continue
        if "epoch" in numbers:
            found.append(numbers)
    return found


def last_lines(path: Path, count: int = LOG_LINES, size: int = LOG_BYTES) -> str:
    """The end of a log, without reading the rest of it."""
    try:
        with open(path, "rb") as file:
            file.seek(0, os.SEEK_END)
            start = max(file.tell() - size, 0)
            file.seek(start)
            text = file.read(size).decode("utf-8", "replace")
    except OSError:
        return ""
    lines = text.splitlines()[1 if start else 0 :]
    return "\n".join(line[:400] for line in lines[-count:]).strip("\n")


def _linker(path: Path) -> Callable[[Path], str]:
    """From a file to its address relative to the page, escaped for an attribute."""
    here = path.resolve().parent

    def link(target: Path) -> str:
        try:
            relative = os.path.relpath(Path(target).resolve(), here)
        except ValueError:  # another drive
            return ""
        return escape(quote(relative.replace(os.sep, "/"), safe="/._-~+=,@"))

    return link


# -- pictures ---------------------------------------------------------------------------------------------------------------------


def _choose_pictures(table: Table, files: Mapping[tuple[str, str], Sequence[Files]]) -> tuple[dict, dict[tuple[str, str], int]]:
    """A few pictures a cell as (caption, file, data URI, width, height), first every cell's first, while the budget lasts.

    And how many each cell has besides.
    """
    wanted, there = {}, {}
    for key in table.cells:
        whole = [one for one in files[key] if one.run.status == "finished" and one.pictures]
        # one seed's scores and attention say the most; another seed's attention comes next
        first = [(one, path) for one in whole[:1] for path in one.pictures]
        rest = [(one, path) for one in whole[1:] for path in one.pictures if path.stem.startswith("attention")]
        wanted[key] = [*[p for p in first if p[1].stem != "reliability"], *rest[:1], *[p for p in first if p[1].stem == "reliability"]]
        there[key] = sum(len(one.pictures) for one in whole)
    chosen: dict[tuple[str, str], list] = {key: [] for key in table.cells}
    cache: dict[Path, tuple[str, int, int] | None] = {}
    spent = 0
    for turn in range(PICTURES_PER_CELL):
        for key, pictures in wanted.items():
            if turn >= len(pictures) or spent >= PICTURE_BUDGET:
                continue
            one, path = pictures[turn]
            if path not in cache:
                cache[path] = embed(path)
            if cache[path]:
                chosen[key].append((_caption(path, one.run.seed), path, *cache[path]))
                spent += len(cache[path][0]) * 3 // 4
    return chosen, {key: there[key] - len(chosen[key]) for key in table.cells}


def embed(path: Path, width: int = PICTURE_WIDTH) -> tuple[str, int, int] | None:
    """A picture as (data URI, width, height), no wider than `width`; None for a file that is no picture, or too large a one."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as opened:
            if opened.width * opened.height > PICTURE_PIXELS:
                return None
            picture = opened.convert("RGB")
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError):
        return None
    picture.thumbnail((width, 2 * width), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    try:
        picture.save(buffer, "WEBP", quality=80, method=2)
        kind = "webp"
    except (OSError, KeyError):  # a Pillow built without it
        buffer = io.BytesIO()
        picture.quantize(128).save(buffer, "PNG", optimize=True)
        kind = "png"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}", *picture.size


def _caption(path: Path, seed: int) -> str:
    if path.stem == "ood_scores":
        return f"Scores of the OOD heads, seed {seed}"
    if path.stem == "reliability":
        return f"Reliability, seed {seed}"
    return f"Attention of {path.stem.removeprefix('attention_').replace('_at_', ' at ')}, seed {seed}"


# -- numbers ----------------------------------------------------------------------------------------------------------------------


def number(value: float | None, digits: int, *, sign: bool = False) -> str:
    """With a real minus; a dash where there is none. A difference that rounds to zero has no sign."""
    if value is None:
        return "–"
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    if not any(digit in text for digit in "123456789"):
        text = text.lstrip("+-")
    return text.replace("-", "−")


def _interval(interval: tuple[float, float] | None, digits: int) -> str:
    return f"[{number(interval[0], digits)}, {number(interval[1], digits)}]" if interval else ""


def _p(value: float) -> str:
    return "p &lt; 0.001" if value < 0.001 else f"p = {value:.3f}" if value < 0.1 else f"p = {value:.2f}"


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def _plural(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"


# -- the page ---------------------------------------------------------------------------------------------------------------------


def _head(table: Table, style: str, *scripts: str) -> str:
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in scripts)
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {hashes}; base-uri 'none'; form-action 'none'"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="attnlab">
<title>{escape(table.title or table.name)}</title>
<script>{scripts[0]}</script>
<style>
{style}</style>
</head>
<body>
<main{f' style="--width: {320 + 200 * len(table.columns)}px"' if len(table.columns) > 4 else ""}>"""


def _top(table: Table) -> str:
    variant = f"<strong>Not the paper’s own table.</strong> Made with {_code(table.variant)}." if table.variant else ""
    return f"""<header>
<div class="bar"><p class="eyebrow">attnlab <span>/</span> table <span>/</span> {escape(table.name)}</p>
<button type="button" id="theme" class="plain" aria-label="Switch between light and dark">Dark</button></div>
<h1>{escape(table.title or table.name)}</h1>
{f'<p class="source">{escape(table.paper)}</p>' if table.paper else ""}
{f'<p class="variant">{variant}</p>' if variant else ""}
<p class="lead">{_summary(table)}</p>
{_command(table.command)}
</header>"""


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"


def _command(text: str) -> str:
    return f'<div class="command">{_code(text)}<button type="button" class="plain copy">Copy</button></div>' if text else ""


def _summary(table: Table) -> str:
    """The state of the table in two sentences."""
    runs = Counter(run.status for cell in table.cells.values() for run in cell.runs)
    total = sum(runs.values())
    rest = [f"{runs[status]:,} {SAID.get(status, status)}" for status in STATUSES[1:] if runs[status]]
    first = f"{runs['finished']:,} of {_plural(total, 'run')} finished" + (f"; {', '.join(rest)}" if rest else "") + "."
    compared = Counter(cell.verdict for cell in table.cells.values() if cell.paper)
    said = [f'<span class="count">{_verdict(v)} {compared[v]}</span>' for v in VERDICTS if compared[v]]
    figures = sum(compared.values())
    if not said:
        return f"{first} There are no published figures to compare with."
    return f"{first} Against {_plural(figures, 'published figure')}: {', '.join(said)}."


def _verdict(verdict: str) -> str:
    kind = verdict.replace(" ", "-") if verdict in VERDICTS else "other"
    return f'<span class="verdict v-{kind}" title="{escape(VERDICTS.get(verdict, ""))}">{escape(verdict)}</span>'


def _matrix(table: Table, panels: Mapping[tuple[str, str], str]) -> str:
    better = "higher is better" if table.metric.direction == "max" else "lower is better"
    scales = {column: _scale(table, column) for column in table.columns}
    head = "".join(
        f'<th scope="col" role="columnheader" aria-sort="none"><button type="button" class="sort" data-column="{n}">{label}</button></th>\n'
        for n, label in enumerate(["Row", *map(escape, table.columns)], start=-1)
    )
    bodies = []
    for r, row in enumerate(table.rows):
        cells = "".join(_cell(table, row, column, f"cell-{r}-{c}", scales[column]) for c, column in enumerate(table.columns))
        details = "".join(
            f'<section class="panel" id="cell-{r}-{c}" aria-label="{escape(f"{row}, {column}")}">{panels[row, column]}</section>'
            for c, column in enumerate(table.columns)
            if (row, column) in panels
        )
        base = row == table.baseline
        tag = ' <span class="tag">baseline</span>' if base else ""
        bodies.append(
            f'<tbody role="rowgroup" data-order="{r}" data-name="{escape(row.lower())}"{" class=baseline" if base else ""}>'
            f'<tr role="row"><th scope="row" role="rowheader"><span class="name">{escape(row)}</span>{tag}</th>{cells}</tr>'
            f'<tr role="row" class="detail"><td role="cell" colspan="{len(table.columns) + 1}">{details}</td></tr></tbody>'
        )
    return f"""<section class="results" aria-label="Results">
<div class="legend"><p><strong>{escape(table.metric.label)}</strong>, {better}</p>
<p class="key">{_key(any(cell.paper for cell in table.cells.values()))}</p>
<button type="button" id="all" class="plain">Open all</button></div>
<div class="scroll" role="region" aria-label="The table" tabindex="0">
<table role="table" data-better="{table.metric.direction}">
<thead role="rowgroup"><tr role="row">{head}</tr></thead>
{"".join(bodies)}
</table>
</div>
<p id="said" class="unseen" role="status"></p>
</section>"""


def _key(papers: bool) -> str:
    """What the marks of a strip mean."""
    drawings = {
        "one seed": strip([1.0], low=0, high=2, width=40),
        "mean, 95% interval": strip(mean=1.0, interval=(0.2, 1.8), low=0, high=2, width=40),
    } | ({"paper": strip(paper=1.0, low=0, high=2, width=40)} if papers else {})
    return "".join(f"<span>{drawing} {word}</span>" for word, drawing in drawings.items())


def _scale(table: Table, column: str) -> tuple[float, float]:
    """One scale for a column: its seeds' values and the paper's figures."""
    values = []
    for (_, name), cell in table.cells.items():
        if name == column:
            values += [run.value for run in cell.runs if run.value is not None]
            values += [cell.paper.value] if cell.paper else []
    if not values:
        return 0.0, 0.0
    pad = 0.06 * (max(values) - min(values))
    return min(values) - pad, max(values) + pad


def _cell(table: Table, row: str, column: str, name: str, scale: tuple[float, float]) -> str:
    cell, digits = table.cells.get((row, column)), table.metric.digits
    label = f'data-label="{escape(column)}"'
    if cell is None:
        return f'<td role="cell" class="none" {label}>–</td>'
    seeds = Counter(run.status for run in cell.runs)
    lines = []
    if cell.mean is not None:
        sd = f' <span class="sd">± {number(cell.sd, digits)}</span>' if cell.sd is not None else ""
        lines.append(f'<div class="value"><span class="mean">{number(cell.mean, digits)}</span>{sd}</div>')
        values = [run.value for run in cell.runs if run.value is not None and run.status == "finished"]
        paper = cell.paper.value if cell.paper else None
        lines.append(strip(values, mean=cell.mean, interval=cell.interval, paper=paper, low=scale[0], high=scale[1]))
        interval = _interval(cell.interval, digits)
        lines.append(f'<div class="small"><span class="p">n = {cell.n}</span> <span class="p">{interval}</span></div>')
    else:
        status = next((status for status in ("running", "failed", "broken", "interrupted", "missing") if seeds[status]), "missing")
        lines.append(f'<div class="value none st-{status}">{SAID.get(status, status)}</div>')
    if rest := [f'<span class="st-{status}">{seeds[status]} {SAID.get(status, status)}</span>' for status in STATUSES[1:] if seeds[status]]:
        alone = cell.mean is None and len(rest) == 1
        lines.append(f'<div class="small seeds">{_plural(len(cell.runs), "seed") if alone else ", ".join(rest)}</div>')
    said = _verdict(cell.verdict) if cell.verdict not in ("missing", "no figure") else ""
    if cell.paper:
        difference = f"<b>{number(cell.difference, digits, sign=True)}</b>" if cell.difference is not None else ""
        lines.append(f'<div class="small">paper {number(cell.paper.value, digits)} {difference} {said}</div>')
    elif said:
        lines.append(f'<div class="small">{said}</div>')
    if cell.paired:
        p = f', <span class="p">{_p(cell.paired.p)}</span>' if cell.paired.p is not None else ""
        lines.append(f'<div class="small">baseline <b>{number(cell.paired.difference, digits, sign=True)}</b>{p}</div>')
    lines.append(
        f'<button type="button" class="open" aria-expanded="false" aria-controls="{name}" '
        f'aria-label="Details of {escape(f"{row}, {column}")}">details</button>'
    )
    value = f' data-value="{cell.mean!r}"' if cell.mean is not None else ""
    return f'<td role="cell" {label}{value}>{"".join(lines)}</td>'


# -- what opens under a cell ------------------------------------------------------------------------------------------------------


def _panel(
    table: Table, cell: Cell, files: Sequence[Files], pictures: Sequence[tuple], left_out: int, link: Callable[[Path], str], outputs: Path
) -> str:
    drawn = "".join(f"<figure><figcaption>{caption}</figcaption>{drawing}</figure>" for caption, drawing in _drawings(files))
    shown = "".join(
        f'<figure><button type="button" class="zoom" aria-expanded="false" aria-label="Enlarge: {escape(caption)}">'
        f'<img src="{uri}" width="{width}" height="{height}" alt="{escape(caption)}"></button>'
        f'<figcaption>{escape(caption)} <a href="{link(path)}">file</a></figcaption></figure>'
        for caption, path, uri, width, height in pictures
    )
    finished = [one for one in files if one.run.status == "finished"]
    whose = "finished seeds" if finished else "seeds so far"
    band_said = f'<p class="hint">Lines are means over the {whose}, bands one sample standard deviation.</p>' if drawn else ""
    more = f'<p class="hint">{_plural(left_out, "further picture")} in the runs’ folders.</p>' if left_out > 0 else ""
    return "".join(
        [
            f'<div class="title"><h2>{escape(cell.row)} <span>on</span> {escape(cell.column)}</h2>',
            '<button type="button" class="plain close">Close</button></div>',
            _facts(table.metric, cell, finished),
            f'<div class="drawings">{drawn}</div>{band_said}' if drawn else "",
            _seeds(table.metric, files, link, outputs),
            _logs(files),
            f'<div class="pictures">{shown}</div>' if shown else "",
            more,
        ]
    )


def _drawings(files: Sequence[Files]) -> list[tuple[str, str]]:
    """Curves as (caption, drawing): of the finished seeds, or of what there is while none is."""
    files = [one for one in files if one.run.status == "finished"] or files
    found = []
    for title, about, scale, digits, best, keys in CURVES:
        bands: list[Band] = []
        for name, key in keys.items():
            runs = [{int(row["epoch"]) + 1: scale * row[key] for row in one.history if key in row} for one in files]
            if not any(runs):  # measured once, at the end
                ends = [(int(one.history[-1]["epoch"]) + 1, _metric(one, key)) for one in files if one.history]
                runs = [{epoch: scale * value} for epoch, value in ends if value is not None]
            if drawn := band(name, runs):
                bands.append(drawn)
        if bands:
            log = best == "min" and spans_decades(bands)
            about = f"{about}; log scale" if log else about
            found.append((f"<b>{escape(title)}</b> {escape(about)}", curves(bands, title=title, digits=digits, best=best, log=log)))
    return found


def _metric(one: Files, key: str) -> float | None:
    metrics = one.result.get("metrics")
    value = metrics.get(key) if isinstance(metrics, dict) else None
    return float(value) if isinstance(value, int | float) else None


def _facts(metric: Metric, cell: Cell, finished: Sequence[Files]) -> str:
    digits = metric.digits
    facts = []
    if cell.mean is not None:
        sd = f" ± {number(cell.sd, digits)}" if cell.sd is not None else ""
        facts.append(("Ours", f"{number(cell.mean, digits)}{sd}, n = {cell.n}"))
    if cell.interval:
        facts.append(("95% interval", _interval(cell.interval, digits)))
    if cell.paper:
        sd = f" ± {number(cell.paper.sd, digits)}" if cell.paper.sd is not None else ""
        source = ", ".join(filter(None, [cell.paper.source, MARKS.get(cell.paper.mark, cell.paper.mark)]))
        facts.append(("Paper", f"{number(cell.paper.value, digits)}{sd} <small>{escape(source)}</small>"))
    if cell.difference is not None:
        facts.append(("Ours − paper", f"{number(cell.difference, digits, sign=True)} {_verdict(cell.verdict)}"))
    if cell.paired:
        pair = cell.paired
        told = [number(pair.difference, digits, sign=True), _interval(pair.interval, digits), _p(pair.p) if pair.p is not None else ""]
        facts.append(("Against baseline", f"{' '.join(filter(None, told))} <small>paired over {_plural(pair.n, 'shared seed')}</small>"))
    results = [one.result for one in finished]
    if epochs := _several(result.get("epochs") for result in results):
        facts.append(("Epochs", epochs))
    if parameters := _several(f"{n:,}" for result in results if isinstance(n := result.get("parameters"), int)):
        facts.append(("Parameters", parameters))
    seconds = [s for result in results if isinstance(s := result.get("seconds"), int | float)]
    if seconds:
        facts.append(("Training", f"{_duration(sum(seconds) / len(seconds))} a run"))
    if device := _several(result.get("device") for result in results):
        facts.append(("Device", device))
    # values that are escaped already carry markup; those from files were escaped by _several
    return f'<dl class="facts">{"".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)}</dl>' if facts else ""


def _several(values: Iterable[Any]) -> str:
    """The different values, escaped, in the order they come."""
    return " or ".join(dict.fromkeys(escape(str(value)) for value in values if value not in (None, "")))


def _seeds(metric: Metric, files: Sequence[Files], link: Callable[[Path], str], outputs: Path) -> str:
    rows = []
    for one in files:
        run = one.run
        links = []
        for name, label in (("result.json", "result"), ("metrics.csv", "metrics"), ("train.log", "log")):
            if one.folder and (one.folder / name).is_file():
                links.append(f'<a href="{link(one.folder / name)}">{label}</a>')
        name = escape(run.run_id or run.address)
        where = f'<a href="{link(one.folder)}/">{name}</a>' if one.folder else name
        status = f"{escape(SAID.get(run.status, run.status))}{_progress(one)}"
        rows.append(
            f'<tr><th scope="row">{run.seed}</th><td class="st-{escape(run.status)}">{status}</td>'
            f'<td class="figure">{number(run.value, metric.digits + 1)}</td><td class="run">{where}</td>'
            f'<td class="links">{" ".join(links)}</td></tr>'
        )
    todo = [one.run for one in files if one.run.status not in ("finished", "running") and one.run.overrides]
    command = f"<p class=hint>To finish this cell:</p>{_command(_sweep(todo, outputs))}" if todo else ""
    heads = (("", "Seed"), ("", "Status"), (' class="figure"', escape(metric.label)), ("", "Run"), ("", "Files"))
    head = "".join(f'<th scope="col"{kind}>{word}</th>' for kind, word in heads)
    return f'<table class="runs"><thead><tr>{head}</tr></thead>\n<tbody>{"".join(rows)}</tbody></table>{command}'


def _sweep(runs: Sequence[RunOfCell], outputs: Path) -> str:
    """One command for all of them, which may differ in the seed alone; else the first's."""
    without = [[text for text in run.overrides if not text.startswith("seed=")] for run in runs]
    if len(runs) > 1 and all(rest == without[0] for rest in without):
        words = ["-m", *without[0], f"seed={','.join(str(run.seed) for run in runs)}"]
    else:
        words = [*without[0], f"seed={runs[0].seed}"]
    if outputs != Path("outputs") and not any(word.startswith("paths.outputs=") for word in words):
        words.append(f"paths.outputs={outputs}")
    return " ".join(["python -m attnlab.train", *map(shlex.quote, words)])


def _progress(one: Files) -> str:
    if one.run.status == "finished" or not one.history:
        return ""
    config = one.result.get("config")
    trainer = config.get("trainer") if isinstance(config, dict) else None
    whole = trainer.get("max_epochs") if isinstance(trainer, dict) else None
    done = int(one.history[-1]["epoch"]) + 1
    return f", epoch {done} of {whole}" if isinstance(whole, int) else f", epoch {done}"


def _why(run: RunOfCell) -> str:
    return (run.error or "").strip().partition("\n")[0] or "no error was recorded"


def _logs(files: Sequence[Files]) -> str:
    failed = [one for one in files if one.run.status in ("failed", "broken")]
    parts = []
    for one in failed[:LOGS_PER_CELL]:
        text = last_lines(one.folder / "train.log") if one.folder else ""
        log = f"<pre>{escape(text)}</pre>" if text else "<p class=hint>There is no train.log.</p>"
        parts.append(f'<div class="failure"><p><strong>Seed {one.run.seed}</strong> {escape(_why(one.run))}</p>{log}</div>')
    if len(failed) > LOGS_PER_CELL:
        parts.append(f'<p class="hint">{_plural(len(failed) - LOGS_PER_CELL, "further failure")} in the runs’ own train.log.</p>')
    return "".join(parts)


def _failures(table: Table, files: Mapping[tuple[str, str], Sequence[Files]]) -> str:
    """Every failure in one place, the same error once."""
    found: dict[str, list[tuple[str, str, int]]] = {}
    for (row, column), runs in files.items():
        for one in runs:
            if one.run.status in ("failed", "broken"):
                found.setdefault(_why(one.run), []).append((row, column, one.run.seed))
    if not found:
        return ""
    items = []
    for error, where in list(found.items())[:FAILURES_LISTED]:
        row, column, seed = where[0]
        name = f"cell-{table.rows.index(row)}-{table.columns.index(column)}"
        more = f" and {len(where) - 1:,} more" if len(where) > 1 else ""
        items.append(f'<li><a href="#{name}">{escape(row)}, {escape(column)}, seed {seed}</a>{more}<br>{_code(error[:400])}</li>')
    rest = f"<p class=hint>{_plural(len(found) - FAILURES_LISTED, 'further error')}.</p>" if len(found) > FAILURES_LISTED else ""
    return f'<section class="failures"><h2>Failures</h2><ul>{"".join(items)}</ul>{rest}</section>'


def _print(table: Table, left_out: int) -> str:
    """The smallest print."""
    metric = table.metric
    marks = Counter(cell.paper.mark for cell in table.cells.values() if cell.paper)
    meanings = "; ".join(f"{verdict}: {meaning}" for verdict, meaning in VERDICTS.items())
    said = any(note.startswith("verdict") for note in table.notes)
    factor = f"{metric.scale:g} × " if metric.scale != 1 else ""
    notes = [
        *table.notes,
        f"{metric.label} = {factor}{f'(1 − {metric.key})' if metric.complement else metric.key}, as in result.json.",
        "Mean ± sample standard deviation over finished seeds; 95% t-interval of the mean; differences are ours minus the other’s.",
        f"Against the baseline row ({table.baseline}): a paired t-test over shared seeds." if table.baseline else "",
        f"Published figures: {', '.join(f'{count} {MARKS.get(mark, mark)}' for mark, count in marks.items())}; sources under details."
        if marks
        else "",
        f"Verdicts: {meanings}. The rule is in docs/tables.md." if marks and not said else "",
        f"Pictures shown are a selection, made smaller; {left_out:,} more are in the runs’ folders." if left_out > 0 else "",
        "Links lead from this file’s place to the runs’ folders and hold while neither is moved.",
    ]
    return f"<footer><h2>Small print</h2><ul>{''.join(f'<li>{escape(note)}</li>' for note in notes if note)}</ul></footer>"
