"""scripts/gpu_day.py: parts that are not repeated, an end without loss, what travels. Its pieces are rehearsed by .ci/run."""

import io
import json
import signal
import subprocess
import sys
import tarfile
import time
import types
from pathlib import Path

import pytest

from tests import ROOT

FOREVER = float("inf")


@pytest.fixture
def day(monkeypatch: pytest.MonkeyPatch):
    """The package of pieces, importable as it is for the script."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from gpu_day import bring, child, maxdropout, queue

    return types.SimpleNamespace(bring=bring, child=child, queue=queue, maxdropout=maxdropout)


def piece_of(day: types.SimpleNamespace, monkeypatch: pytest.MonkeyPatch, **work) -> list[str]:
    """A piece `smoke` of these parts; the list says which were begun."""
    begun: list[str] = []

    def part(name: str):
        def do(one) -> dict:
            begun.append(name)
            return work[name](one)

        return day.child.Part(name, do, seconds=100, needs_gpu=name == "gpu")

    module = types.ModuleType("gpu_day.smoke")
    module.parts = lambda toy: [part(name) for name in work]
    monkeypatch.setitem(sys.modules, "gpu_day.smoke", module)
    return begun


def test_a_failed_part_alone_is_tried_again(day, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = [True]

    def second(one) -> dict:
        if broken:
            raise ValueError("no luck")
        return {"b": one.found("smoke", "first")["a"] + 1}

    begun = piece_of(day, monkeypatch, first=lambda one: {"a": 1}, second=second, third=lambda one: {"c": 3}, gpu=lambda one: {})
    one = day.child.Day(tmp_path, toy=True)
    since = time.time()
    day.child.run("smoke", one, since=since, until=FOREVER)
    day.child.run("smoke", one, since=since, until=FOREVER)  # the same call: not again
    state = day.queue.State(tmp_path, "smoke")
    assert begun == ["first", "second", "third"] and not state.whole
    assert state.failed() == {"second": "ValueError: no luck"} and "no luck" in (tmp_path / "log.txt").read_text()
    assert state.parts["gpu"]["left_out"] == ["smoke: gpu"] and state.parts["first"]["machine"]["torch"]
    broken.clear()
    day.child.run("smoke", one, since=time.time(), until=FOREVER)
    state = day.queue.State(tmp_path, "smoke")
    assert begun[3:] == ["second"] and state.whole and state.parts["second"]["found"] == {"b": 2}


def test_stopped_or_short_of_time_it_keeps_what_is_done(day, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(one) -> dict:
        raise day.child.Stopped

    begun = piece_of(day, monkeypatch, first=lambda one: {"a": 1}, second=stopped)
    one = day.child.Day(tmp_path, toy=True)
    with pytest.raises(day.child.Stopped):
        day.child.run("smoke", one, since=0, until=FOREVER)
    assert list(day.queue.State(tmp_path, "smoke").parts) == ["first"] and begun == ["first", "second"]
    one.toy = False
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("benches.common.machine", lambda options: {})
    monkeypatch.setattr(day.child.Day, "options", None)
    day.child.run("smoke", one, since=0, until=time.time() + 99)  # a part takes 100 s
    assert begun == ["first", "second"] and not day.queue.State(tmp_path, "smoke").whole


def test_without_a_gpu_only_a_rehearsal(day, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    piece_of(day, monkeypatch, first=lambda one: {})
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit, match="no GPU here; --rehearse"):
        day.child.run("smoke", day.child.Day(tmp_path), since=0, until=FOREVER)


def queue_of(day, out: Path, *, seconds: float = 100):
    return day.queue.Queue(out, root=ROOT, box=out, site=None, toy=True, deadline=time.time() + seconds)


def test_a_part_that_ends_its_process_has_failed(day, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    queue, codes = queue_of(day, tmp_path), [-signal.SIGSEGV, 0]
    monkeypatch.setattr(subprocess, "Popen", lambda *words, **options: None)

    def wait(left: float) -> int:
        state = day.queue.State(tmp_path, "smoke")
        if len(codes) == 2:
            state.put("first", status=day.queue.RUNNING)
        else:
            state.whole = True
            state.write()
        return codes.pop(0)

    monkeypatch.setattr(queue, "wait", wait)
    assert queue.run("smoke") and not codes
    assert day.queue.State(tmp_path, "smoke").failed() == {"first": "its process was ended by signal 11"}
    assert queue.summary(["smoke"]) == 1 and "first: FAILED" in capsys.readouterr().out


def test_the_deadline_ends_a_piece_and_begins_no_other(day, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = queue_of(day, tmp_path, seconds=day.queue.GRACE + 1)
    assert not queue.run("smoke")
    monkeypatch.setattr(day.queue, "GRACE", 5.3)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    for words in (["sleep", "60"], [sys.executable, "-c", deaf]):  # one that listens, one that does not
        queue.child, start = subprocess.Popen(words, start_new_session=True, stdout=subprocess.DEVNULL), time.time()
        assert queue.wait(0.3) == 0 and queue.child.returncode < 0 and time.time() - start < 30
    queue.stop(signal.SIGTERM, None)
    queue.deadline = time.time() + 1000
    assert not queue.run("smoke") and not list(tmp_path.glob("*.json"))


def test_figures_and_finished_records_travel(day, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there, bag = tmp_path / "here", tmp_path / "there", tmp_path / "bag"
    for name, status in (("a", "finished"), ("b", "interrupted")):
        folder = here / "outputs" / "runs" / name
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps({"status": status}))
        (folder / "metrics.csv").write_text("epoch\n0\n")
        (folder / "last.ckpt").write_bytes(b"large")
    day.queue.State(here, "ood").put("heads", status="done", found={"seconds": 1.0})
    monkeypatch.setattr(day.bring, "PART", 100)
    (here / "log.txt").write_text("what was said")
    day.bring.pack(here, bag)
    assert (bag / "log.txt").read_text() == "what was said"
    assert len(list(bag.iterdir())) > 3 and all(path.stat().st_size <= 100 for path in bag.glob("records*"))
    there.mkdir()
    day.queue.State(there, "smoke").put("main job", status="done", found={})
    day.bring.unpack(bag, there)
    assert day.queue.State(there, "ood").parts["heads"]["found"] == {"seconds": 1.0}
    assert {path.name for path in (there / "outputs" / "runs").iterdir()} == {"a"}
    assert {path.name for path in (there / "outputs" / "runs" / "a").iterdir()} == {"result.json", "metrics.csv"}
    day.bring.unpack(tmp_path / "nothing", there)


@pytest.mark.parametrize("name", ["../away/result.json", "/away/result.json", "runs/a/result.json"])
def test_nothing_is_unpacked_outside(day, name: str, tmp_path: Path) -> None:
    bag, out = tmp_path / "bag", tmp_path / "out"
    bag.mkdir()
    out.mkdir()
    (bag / "figures.json").write_text("{}")
    with tarfile.open(bag / "records.tar.gz.0", "w:gz") as archive:
        member = tarfile.TarInfo(name)
        content = b'{"status": "finished"}'
        if name.startswith("runs"):  # a link to elsewhere
            member.type, member.linkname, content = tarfile.SYMTYPE, "/etc/hostname", b""
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    with pytest.raises(tarfile.ReadError, match="would lie outside"):
        day.bring.unpack(bag, out)
    assert not (tmp_path / "away").exists() and not list(out.rglob("*"))


def test_what_is_missing_is_said(day, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match=r"there is no train\.parquet; give a Parquet folder"):
        day.bring.fill(tmp_path / "box", tmp_path, root=ROOT)
    assert day.bring.equip(tmp_path, tmp_path / "site") is None  # all is installed here
    monkeypatch.setattr(day.bring.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="has no wheels; fill it by --bring"):
        day.bring.equip(tmp_path, tmp_path / "site")


def test_jobs_of_a_sweep_are_told_from_others(day) -> None:
    line = ["experiment=e", "data.flip=true", "regularizer=none,cutout,[a,b]", "reads=[x,y]", "seed=0"]
    job = ["experiment=e", "data.flip=True", "regularizer=[a,b]", "reads=[x,y]", "seed=0", "logger=none", "paths.outputs=o"]
    assert day.maxdropout.is_of(line, job)
    assert not day.maxdropout.is_of(line, [*job, "regularizer.b.eval_mode=paper_code"])
    assert not day.maxdropout.is_of(line, [word.replace("seed=0", "seed=1") for word in job])
