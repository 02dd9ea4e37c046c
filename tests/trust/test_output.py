"""Names, labels and errors from files of others, where they are printed: a terminal, a spreadsheet, TeX."""

import csv
import io
import json
import logging
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from attnlab.config.compose import compose
from attnlab.records.record import Record
from attnlab.sweeps.board import Board
from attnlab.sweeps.commands import last_words
from attnlab.sweeps.journal import FAILED, Job, Journal
from attnlab.sweeps.sweep import Sweep
from attnlab.table import main as table_main
from attnlab.terminal import console, leave, message, visible
from tests.commands import command
from tests.conftest import POINTS
from tests.trust.test_nothing_runs import write_table

BELL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e"


def test_what_a_terminal_would_obey_is_shown() -> None:
    assert visible("a\tb\nc ü ±") == "a\tb\nc ü ±"
    assert visible(BELL) == r"\x1b]0;owned\x07\x1b[2J\x9b31m\x202e" and visible("a\rb\x7f") == r"a\x0db\x7f"


def test_frames_of_torch_are_no_message() -> None:
    error = ValueError("data: Overflow when unpacking long long\nException raised from x.h:75 (most recent call first):\nframe #0: 0x7f")
    assert message(error) == "data: Overflow when unpacking long long"


def test_messages(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit):
        leave(f"model={BELL}: there is no such model")
    log = logging.getLogger("attnlab")
    monkeypatch.setattr(log, "handlers", [])
    monkeypatch.setattr(log, "propagate", True)
    console()
    log.info("%s failed", BELL)
    said = capsys.readouterr().err
    assert said.count("owned") == 2 and not set("\x1b\x07\x9b\u202e") & set(said)


class Lines(io.StringIO):
    """A terminal's stderr."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("live", [False, True])
def test_a_sweeps_board_and_summary(live: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What a job's process said last goes into the board's lines and the sweep's summary."""
    stderr = Lines() if live else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    log = logging.getLogger("attnlab")
    monkeypatch.setattr(log, "handlers", [])
    console()
    output = tmp_path / "job.log"
    output.write_text(f"fine\nattnlab: {BELL} [red]no such thing[/red]\n")
    plan = compose([*POINTS, f"paths.outputs={tmp_path}"])
    job = Job(("seed=0",), plan=plan, number=1, outcome=FAILED, error=last_words(output, 1), log=f"{tmp_path}/{BELL}.log")
    sweep = Sweep(lambda plan: None)
    sweep.guards = [SimpleNamespace(jobs=[job])]
    with Board(1) as board:
        board.started(job, [BELL])
        if live:
            board.update(0)
        board.ended(job)
    sweep.summarize()
    if not live:
        Journal(tmp_path / "journal").failure(job, ValueError(BELL))
    said = stderr.getvalue()
    assert said.count("owned") >= 3 and "[red]" in said
    for sequence in ("\x1b]0;", "\x07", "\x9b", "\u202e"):  # rich has escapes of its own
        assert sequence not in said, sequence


def test_a_runs_log(tmp_path: Path) -> None:
    with Record(tmp_path).logfile():
        logging.getLogger("attnlab").info("%s", BELL)
    assert "owned" in (tmp_path / "train.log").read_text() and not set("\x1b\x07\x9b\u202e") & set((tmp_path / "train.log").read_text())


def test_runs(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "a-s0-0123abcd"
    folder.mkdir(parents=True)
    about = {"status": "failed", "run_id": folder.name, "config": {BELL: BELL}, "metrics": {BELL: 1.0}, "seed": 0, "command": BELL}
    (folder / "result.json").write_text(json.dumps({**about, "error": {"message": BELL}}))
    for words in ([], ["show", "0123"], ["diff", "0123", "0123"], ["prune"]):
        done = command("attnlab.runs", *words, f"paths.outputs={tmp_path}")
        assert done.returncode == 0 and folder.name in done.stdout, done.stderr
        assert not set("\x1b\x07\x9b\u202e") & set(done.stdout + done.stderr)


FORMULAS = ['=cmd|" /C calc"!A0', "+1+1", "-2+3", "@SUM(A1)", "\t=1+1", " =1", f"= {BELL}", "\r=1"]


@pytest.fixture
def shown(tmp_path: Path):
    def show(style: str, **changed: object) -> str:
        out = tmp_path / "out"
        out.unlink(missing_ok=True)
        table = write_table(tmp_path, **changed)
        table_main([f"table={table}", f"paths.outputs={tmp_path}", f"out={out}", f"format={style}"])
        return out.read_bytes().decode()

    return show


def test_a_spreadsheet_computes_nothing(shown) -> None:
    text = shown("csv", rows={label: [] for label in [*FORMULAS, "-1.5", "plain"]}, notes=["=1"])
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    labels = [row["row"] for row in rows]
    assert {"-1.5", "plain"} <= set(labels)
    assert all(label.startswith(("'", "\\x0d")) for label in labels if label not in ("-1.5", "plain"))
    assert not any(cell.lstrip().startswith(("=", "+", "@")) for row in rows for cell in row.values())


def test_a_tex_file_holds_one_comment_a_line_and_no_command_of_others(shown) -> None:
    note = 'one\r\\input{|"touch marker"}\x0b\\write18{x}\u2028\\foo\x85\\bar'
    text = shown("latex", notes=[note], title=note, rows={note: []})
    for line in text.splitlines():  # at every character that ends a line for anybody
        assert line.startswith("%") or not any(word in line for word in (r"\input", r"\write", r"\foo", r"\bar"))


@pytest.mark.parametrize("style", ["text", "md", "csv", "latex"])
def test_a_table_obeys_no_escapes(style: str, shown) -> None:
    text = shown(style, title=BELL, notes=[BELL], rows={BELL: [], "b": []}, columns={BELL: []})
    assert "owned" in text and not set("\x1b\x07\x9b\u202e") & set(text)
