"""Footnotes of a table: what a reader must know of the runs behind it before comparing two of its cells."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attnlab.config.result import warnings_in
from attnlab.records import code
from attnlab.records.index import Records, digests
from attnlab.records.record import FINISHED, changed_defaults
from attnlab.tables import statistics
from attnlab.tables.model import STATUSES, Cell, Note
from attnlab.tables.spec import Spec

if TYPE_CHECKING:
    from attnlab.tables.spec import Wanted


def footnotes(
    spec: Spec, cells: Sequence["Wanted"], filled: Mapping[tuple[str, str], Cell], records: Records, variant: str | None, *, asked: int
) -> list[Note]:
    """One note a fact: variant, data, epochs, device, versions where they differ, seeds (of which so many were asked), what is missing, the
    rule of the verdict."""
    notes = [Note("variant", f"not the paper's table: {variant}")] if variant else []
    results = {plan.address: found for cell in cells for plan in cell.plans if (found := records.find(plan.address)).status == FINISHED}
    if results:
        everything = [found.result for found in results.values()]
        notes += _data_notes(cells, records)
        if splits := [text for result in everything if (text := result.get("data", {}).get("ood_splits"))]:
            notes.append(Note("ood", _counted("OOD", splits)))
        devices = [f"{result.get('device', '?')}, precision {result.get('precision', '?')}" for result in everything]
        notes.append(Note("epochs", _counted("epochs", [str(result.get("epochs", "?")) for result in everything])))
        notes.append(Note("device", _counted("device", devices)))
        notes += _machine_notes(everything)
        notes += _version_notes(everything)
        notes += _default_notes(cells, records)
        notes += _code_notes(cells, records)
        notes += _warning_notes(everything)
    counts = sorted({cell.n for cell in filled.values()})
    notes.append(Note("seeds", f"seeds: {asked} asked; cells have {counts[0]}" + (f" to {counts[-1]}" if counts[-1] > counts[0] else "")))
    states = Counter(run.status for cell in filled.values() for run in cell.runs if run.status != FINISHED)
    if states:
        unfinished = ", ".join(f"{states[status]} {status}" for status in STATUSES if states[status])
        notes.append(Note("unfinished", f"not finished: {unfinished}"))
    if spec.published:
        rule = (
            f"verdict: holds = within {spec.margin:g} or within the 95% noise of both means ({spec.paper_runs} of the paper's runs); "
            f"no verdict with fewer than {statistics.FEWEST} seeds or noise above {statistics.COARSE * spec.margin:g}; docs/tables.md"
        )
        marks = Counter(paper.mark for paper in spec.published.values())
        counted = ", ".join(f"{count} [{mark}]" for mark, count in sorted(marks.items()))
        notes += [Note("verdict", rule), Note("published", f"published values: {counted}")]
    return [*notes, *(Note("own", text) for text in spec.notes)]


def _code_notes(cells: Sequence["Wanted"], records: Records) -> list[Note]:
    """Records that were made by other code of a component than the present one: same address, perhaps other numbers."""
    found: Counter[str] = Counter()
    for address, plan in {plan.address: plan for cell in cells for plan in cell.plans}.items():
        run = records.find(address)
        if run.status == FINISHED:
            found.update(code.changed(run.result.get("code", {}), code.code_of(plan)))
    return [Note("code", f"made by other code of {module} than the present: {count} runs") for module, count in found.most_common()]


def _counted(what: str, values: Sequence[str]) -> str:
    """`device: CPU` where all runs agree, else each with its number of runs."""
    counts = Counter(values)
    return f"{what}: " + ("; ".join(f"{value} ({count} runs)" for value, count in counts.most_common()) if len(counts) > 1 else values[0])


def _data_notes(cells: Sequence["Wanted"], records: Records) -> list[Note]:
    """What the runs of a column saw; one note for all where they saw the same."""
    seen: dict[str, list[str]] = {}
    for cell in cells:
        for plan in cell.plans:
            found = records.find(plan.address)
            if found.status == FINISHED:
                seen.setdefault(cell.column.label, []).append(_data_of(found.result))
    everything = [text for texts in seen.values() for text in texts]
    if len(set(everything)) == 1:
        return [Note("data", _counted("data", everything))]
    return [Note("data", _counted(f"data of {column}", texts)) for column, texts in seen.items()]


def _data_of(result: Mapping[str, Any]) -> str:
    """`digits (train 1,438 3f2a91bc, test 359 77ab01de)`: name, and images and first digits of the digest of each split."""
    data = result.get("data") if isinstance(result.get("data"), dict) else {}
    images = data.get("images") if isinstance(data.get("images"), dict) else {}
    splits = ", ".join(
        f"{split} {count:,} {digests(result).get(split, '').rpartition(':')[2][:8]}".rstrip() for split, count in images.items()
    )
    return f"{data.get('name', '?')} ({splits})" if splits else str(data.get("name", "?"))


def _machine_notes(results: Sequence[Mapping]) -> list[Note]:
    """What runs of one configuration may differ in, and their numbers with it, where they do: it is in the records, not in the address."""
    notes = []
    for key, what in (("device_kind", "kind of device"), ("precision", "precision"), ("threads", "threads")):
        values = [str(result[key]) for result in results if key in result]  # none in an early record
        if len(set(values)) > 1:
            notes.append(Note("machine", f"runs of this table differ in what their address does not tell: {_counted(what, values)}"))
    return notes


def _version_notes(results: Sequence[Mapping]) -> list[Note]:
    """What differs in versions and commits; where nothing does, only torch's version."""
    recorded = [result["versions"] if isinstance(result.get("versions"), dict) else {} for result in results]
    names = dict.fromkeys(name for versions in recorded for name in versions)
    notes = [
        Note("version", _counted(name, [str(versions.get(name, "none")) for versions in recorded]))
        for name in names
        if name == "torch" or len({versions.get(name) for versions in recorded}) > 1
    ]
    commits = [
        f"{str(git.get('commit'))[:8]}{' (changed)' if git.get('dirty') else ''}" if isinstance(git := result.get("git"), dict) else "none"
        for result in results
    ]
    return [*notes, *([Note("commit", _counted("commit", commits))] if len(set(commits)) > 1 else [])]


def _warning_notes(results: Sequence[Mapping]) -> list[Note]:
    """Runs whose numbers are no result by their own record; the kind of warning, and which runs."""
    found: dict[str, list[str]] = {}
    for result in results:
        for text in warnings_in(result):
            found.setdefault(text.partition(":")[0], []).append(str(result["run_id"]))
    shown = [(kind, list(dict.fromkeys(runs))) for kind, runs in found.items()]
    return [
        Note("warning", f"warning, {kind}: {', '.join(runs[:3])}{', ...' if len(runs) > 3 else ''} ({len(runs)} runs)")
        for kind, runs in shown
    ]


def _default_notes(cells: Sequence["Wanted"], records: Records) -> list[Note]:
    """Records that were made when a component had another default: same address, other numbers."""
    found: Counter[str] = Counter()
    for address, plan in {plan.address: plan for cell in cells for plan in cell.plans}.items():
        run = records.find(address)
        if run.status == FINISHED:
            found.update(text for text in changed_defaults(run.result["config"], plan.full) if not text.startswith(plan.ignored))
    return [
        Note("defaults", f"other defaults in {count} runs: {text}; force=true runs them afresh") for text, count in found.most_common(5)
    ]
