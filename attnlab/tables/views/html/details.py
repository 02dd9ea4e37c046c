"""What opens under a cell: curves over its seeds, facts, the runs with their files, the ends of failed logs, pictures."""

import shlex
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from attnlab.tables.model import Cell, Metric, RunOfCell
from attnlab.tables.views.html.files import RunFolder, last_lines
from attnlab.tables.views.html.labels import MARKS, called, command_box, duration, number, p_value, plural, span, verdict_tag, why
from attnlab.tables.views.html.svg import Band, band, curves, spans_decades

LOGS_PER_CELL = 3
LOSSES = "train: what is minimised; val, test: negative log-likelihood"
CURVES = (
    ("Accuracy", "%", 100.0, 1, "max", {"train": "train/acc", "val": "val/acc", "test": "test/acc"}),
    ("Loss", LOSSES, 1.0, 3, "min", {"train": "train/loss", "val": "val/nll", "test": "test/nll"}),
)


def panel(
    metric: Metric,
    cell: Cell,
    folders: Sequence[RunFolder],
    pictures: Sequence[tuple],
    left_out: int,
    link: Callable[[Path], str],
    outputs: Path,
) -> str:
    """One cell's details. left_out: how many pictures there are besides; link: from a file to its address, escaped."""
    drawn = "".join(f"<figure><figcaption>{caption}</figcaption>{drawing}</figure>" for caption, drawing in _drawings(folders))
    shown = "".join(figure(*one, link) for one in pictures)
    finished = [one for one in folders if one.run.status == "finished"]
    whose = "finished seeds" if finished else "seeds so far"
    band_hint = f'<p class="hint">Lines are means over the {whose}, bands one sample standard deviation.</p>' if drawn else ""
    more = f'<p class="hint">{plural(left_out, "further picture")} in the runs’ folders.</p>' if left_out > 0 else ""
    return "".join(
        [
            f'<div class="title"><h2>{escape(cell.row)} <span>on</span> {escape(cell.column)}</h2>',
            '<button type="button" class="plain close">Close</button></div>',
            _facts(metric, cell, finished),
            f'<div class="drawings">{drawn}</div>{band_hint}' if drawn else "",
            _seeds(metric, folders, link, outputs),
            _logs(folders),
            f'<div class="pictures">{shown}</div>' if shown else "",
            more,
        ]
    )


def figure(caption: str, path: Path, uri: str, width: int, height: int, link: Callable[[Path], str]) -> str:
    """A picture that opens to its full size."""
    return (
        f'<figure><button type="button" class="zoom" aria-expanded="false" aria-label="Enlarge: {escape(caption)}">'
        f'<img{_is_photograph(path)} src="{uri}" width="{width}" height="{height}" alt="{escape(caption)}"></button>'
        f'<figcaption>{escape(caption)} <a href="{link(path)}">file</a></figcaption></figure>'
    )


def _is_photograph(path: Path) -> str:
    return ' class="photograph"' if path.stem.startswith(("attention", "explanations")) else ""


def _drawings(folders: Sequence[RunFolder]) -> list[tuple[str, str]]:
    """Curves as (caption, drawing): of the finished seeds, or of what there is while none is."""
    folders = [one for one in folders if one.run.status == "finished"] or folders
    found = []
    for title, about, scale, digits, best, keys in CURVES:
        bands: list[Band] = []
        for name, key in keys.items():
            runs = [{int(row["epoch"]): scale * row[key] for row in one.history if key in row} for one in folders]
            if not any(runs):  # measured once, at the end
                ends = [(int(one.history[-1]["epoch"]), _metric(one, key)) for one in folders if one.history]
                runs = [{epoch: scale * value} for epoch, value in ends if value is not None]
            if drawn := band(name, runs):
                bands.append(drawn)
        if bands:
            log = best == "min" and spans_decades(bands)
            about = f"{about}; log scale" if log else about
            found.append((f"<b>{escape(title)}</b> {escape(about)}", curves(bands, title=title, digits=digits, best=best, log=log)))
    return found


def _metric(one: RunFolder, key: str) -> float | None:
    metrics = one.result.get("metrics")
    value = metrics.get(key) if isinstance(metrics, dict) else None
    return float(value) if isinstance(value, int | float) else None


def _facts(metric: Metric, cell: Cell, finished: Sequence[RunFolder]) -> str:
    digits = metric.digits
    facts = []
    if cell.mean is not None:
        sd = f" ± {number(cell.sd, digits)}" if cell.sd is not None else ""
        facts.append(("Ours", f"{number(cell.mean, digits)}{sd}, n = {cell.n}"))
    if cell.interval:
        facts.append(("95% interval", span(cell.interval, digits)))
    if cell.chosen:
        facts.append(("Tuned to", escape(" ".join(cell.chosen))))
    if cell.paper:
        sd = f" ± {number(cell.paper.sd, digits)}" if cell.paper.sd is not None else ""
        source = ", ".join(filter(None, [cell.paper.source, MARKS.get(cell.paper.mark, cell.paper.mark)]))
        facts.append(("Paper", f"{number(cell.paper.value, digits)}{sd} <small>{escape(source)}</small>"))
    if cell.difference is not None:
        facts.append(("Ours − paper", f"{number(cell.difference, digits, sign=True)} {verdict_tag(cell.verdict)}"))
    if cell.paired:
        pair = cell.paired
        shown = [number(pair.difference, digits, sign=True), span(pair.interval, digits), p_value(pair.p) if pair.p is not None else ""]
        facts.append(("Against baseline", f"{' '.join(filter(None, shown))} <small>paired over {plural(pair.n, 'shared seed')}</small>"))
    results = [one.result for one in finished]
    if epochs := _several(result.get("epochs") for result in results):
        facts.append(("Epochs", epochs))
    if parameters := _several(f"{n:,}" for result in results if isinstance(n := result.get("parameters"), int)):
        facts.append(("Parameters", parameters))
    seconds = [s for result in results if isinstance(s := result.get("seconds"), int | float)]
    if seconds:
        facts.append(("Training", f"{duration(sum(seconds) / len(seconds))} a run"))
    if device := _several(result.get("device") for result in results):
        facts.append(("Device", device))
    # values that are escaped already carry markup; those from files were escaped by _several
    return f'<dl class="facts">{"".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)}</dl>' if facts else ""


def _several(values: Iterable[Any]) -> str:
    """The different values, escaped, in the order they come."""
    return " or ".join(dict.fromkeys(escape(str(value)) for value in values if value not in (None, "")))


def _seeds(metric: Metric, folders: Sequence[RunFolder], link: Callable[[Path], str], outputs: Path) -> str:
    rows = []
    for one in folders:
        run = one.run
        links = []
        for name, label in (("result.json", "result"), ("metrics.csv", "metrics"), ("train.log", "log")):
            if name in one.names:
                links.append(f'<a href="{link(one.folder / name)}">{label}</a>')
        name = escape(run.run_id or run.address)
        where = f'<a href="{link(one.folder)}/">{name}</a>' if one.folder else name
        status = f"{escape(called(run.status))}{_progress(one)}"
        rows.append(
            f'<tr><th scope="row">{run.seed}</th><td class="st-{escape(run.status)}">{status}</td>'
            f'<td class="figure">{number(run.value, metric.digits + 1)}</td><td class="run">{where}</td>'
            f'<td class="links">{" ".join(links)}</td></tr>'
        )
    todo = [one.run for one in folders if one.run.status not in ("finished", "running") and one.run.overrides]
    command = f"<p class=hint>To finish this cell:</p>{command_box(_sweep(todo, outputs))}" if todo else ""
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


def _progress(one: RunFolder) -> str:
    if one.run.status == "finished" or not one.history:
        return ""
    config = one.result.get("config")
    trainer = config.get("trainer") if isinstance(config, dict) else None
    whole = trainer.get("max_epochs") if isinstance(trainer, dict) else None
    done = int(one.history[-1]["epoch"])
    return f", epoch {done} of {whole}" if isinstance(whole, int) else f", epoch {done}"


def _logs(folders: Sequence[RunFolder]) -> str:
    failed = [one for one in folders if one.run.status in ("failed", "broken")]
    parts = []
    for one in failed[:LOGS_PER_CELL]:
        text = last_lines(one.folder / "train.log") if one.folder else ""
        log = f"<pre>{escape(text)}</pre>" if text else "<p class=hint>There is no train.log.</p>"
        parts.append(f'<div class="failure"><p><strong>Seed {one.run.seed}</strong> {escape(why(one.run))}</p>{log}</div>')
    if len(failed) > LOGS_PER_CELL:
        parts.append(f'<p class="hint">{plural(len(failed) - LOGS_PER_CELL, "further failure")} in the runs’ own train.log.</p>')
    return "".join(parts)
