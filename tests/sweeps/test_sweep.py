"""Sweeps in this process: what is skipped, tried again and reported; the local launcher's parts, and its processes with pretended work."""

import io
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from attnlab.config.compose import compose
from attnlab.config.plan import Plan
from attnlab.config.targets import ConfigError
from attnlab.records.record import Record, read_history
from attnlab.sweeps import board, commands, devices, sweep
from attnlab.sweeps import local as launcher
from attnlab.sweeps.cli import main
from attnlab.train import job
from tests.commands import Forked
from tests.conftest import POINTS, write_result
from tests.sweeps.test_launcher import processes_of

WORDS = [*POINTS, "trainer.max_epochs=1", "ood=none"]


@pytest.fixture(autouse=True)
def _console(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test's messages go to its own stderr."""
    monkeypatch.setattr(sweep.log, "handlers", [])
    monkeypatch.setattr(sweep.log, "propagate", True)


# ---- in this process, with a job that does no work -----------------------------------------------------------------------------------


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[..., SimpleNamespace]:
    """`go(job, "seed=0,1")` sweeps in this process: the plans that reached the job, the exit code, what was said."""

    def command(job: Callable[[Plan], float], *words: str) -> SimpleNamespace:
        seen: list[int] = []

        def counted(plan: Plan) -> float:
            seen.append(plan.full["seed"])
            return job(plan)

        monkeypatch.setattr(sys, "argv", ["train", "-m", *WORDS, f"paths.outputs={tmp_path}", *words])
        capsys.readouterr()
        code = 0
        try:
            main(counted)
        except SystemExit as stop:
            code = stop.code
        said = capsys.readouterr()
        return SimpleNamespace(seeds=seen, code=code, err=said.err, out=said.out)

    return command


def state(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def fails(*seeds: int, error: type[Exception] = KeyError) -> Callable[[Plan], float]:
    def job(plan: Plan) -> float:
        if plan.full["seed"] in seeds:
            raise error(f"seed {plan.full['seed']}\nand a second line")
        return 0.5

    return job


def test_one_failing_job_of_five_stops_no_other_and_is_reported(go, tmp_path: Path) -> None:
    done = go(fails(2), "seed=0,1,2,3,4")
    assert done.seeds == [0, 1, 2, 3, 4] and done.code == 1
    lines = done.err.splitlines()
    assert lines[-1] == "attnlab: 1 of the sweep's jobs failed; repeat the command to retry them"
    (summed,) = [line for line in lines if line.startswith("sweep of 5 jobs, 0:")]
    assert summed.endswith(": 4 done, 0 skipped, 1 failed")
    assert lines[lines.index(summed) + 1].split() == ["test/acc", "sd", "n"] and lines[lines.index(summed) + 2].split()[-1] == "4"
    assert lines[-4] == "  failed  seed=2" and "Traceback" not in done.err
    assert lines[-3].strip().startswith("KeyError:")
    log = Path(lines[-2].partition("log: ")[2])
    assert "Traceback" in log.read_text() and "in job" in log.read_text()
    assert [path.name for path in (tmp_path / ".hydra").iterdir()] == ["failed"]  # no journal, no multirun.yaml
    again = go(fails(), "seed=0,1,2,3,4")
    assert again.code == 0 and not list(tmp_path.rglob("*"))  # its log is gone with the failure


def test_a_mistake_in_one_cell_reaches_no_launcher_and_is_not_tried_again(go) -> None:
    done = go(fails(), "seed=0,-1,1", "retries=3")
    assert done.seeds == [0, 1] and done.code == 1
    assert "          seed=-1: must be 0 or more\n" in done.err
    assert go(fails(0, error=ConfigError), "seed=0", "retries=3").seeds == [0]
    assert "retries=-1: must be 0 or more" in go(fails(), "retries=-1").err


def test_retries(go) -> None:
    left = {1: 2, 2: 5}

    def job(plan: Plan) -> float:
        seed = plan.full["seed"]
        left[seed] = left.get(seed, 0) - 1
        if left[seed] >= 0:
            raise RuntimeError("the disk was away")
        return 0.5

    done = go(job, "seed=0,1,2,3", "retries=2")
    assert done.seeds == [0, 1, 1, 1, 2, 2, 2, 3] and done.code == 1
    assert done.err.count("the disk was away; trying it again") == 4
    assert "3 done, 0 skipped, 1 failed" in done.err


def test_fail_fast(go) -> None:
    done = go(fails(1), "seed=0,1,2,3", "fail_fast=true")
    assert done.seeds == [0, 1] and done.code == 1 and "1 done, 0 skipped, 1 failed, 2 not started" in done.err
    assert go(fails(1), "seed=0,-1,2,3", "fail_fast=true").seeds == []


def test_ctrl_c_ends_in_a_summary(go, tmp_path: Path) -> None:
    done = go(fails(1, error=KeyboardInterrupt), "seed=0,1,2")
    assert done.code == 130 and "1 done, 0 skipped, 0 failed, 1 interrupted, 1 not started" in done.err
    assert done.err.endswith("attnlab: interrupted; the same command goes on from the last checkpoint\n") and not state(tmp_path)


def finish(plan: Plan, **more) -> float:
    record = Record.find(Path(plan.full["paths"]["outputs"]), plan.address, plan.label)
    record.write({"status": "finished", "run_id": plan.run_id, "config": plan.full, "metrics": {"test/acc": 0.75}, "seed": 0, **more})
    return 0.75


def test_finished_runs_are_skipped_and_nothing_changes(go, tmp_path: Path) -> None:
    assert go(finish, "seed=0,1").seeds == [0, 1]
    before = state(tmp_path)
    again = go(finish, "seed=0,1", "retries=1", "fail_fast=true")
    assert again.seeds == [] and again.code == 0 and "0 done, 2 skipped, 0 failed" in again.err and state(tmp_path) == before
    assert again.out.count("result.json") == 2
    assert go(finish, "seed=0,1,2").seeds == [2]
    assert go(finish, "seed=0", "force=true").seeds == [0]


def test_a_record_with_other_defaults_or_damage_is_not_skipped(go, tmp_path: Path) -> None:
    go(finish, "seed=0,1")
    one, two = sorted(tmp_path.glob("runs/*/result.json"))
    result = json.loads(one.read_text())
    result["config"]["model"]["width"] = 64
    write_result(one, result)
    two.write_text("{")
    done = go(finish, "seed=0,1")
    assert done.seeds == [1] and "was made with other defaults (model.width was 64, is 128); force=true runs afresh" in done.err


def test_a_sweep_over_nothing_says_so(go) -> None:
    done = go(finish, "seed=range(0)")
    assert done.code == 1 and done.err.endswith("the sweep has no job: a key is swept over no value, as in seed=range(0)\n")


def test_launch_takes_a_list_of_jobs(tmp_path: Path) -> None:
    where = f"paths.outputs={tmp_path}"
    jobs = sweep.launch([[*WORDS, where, f"seed={seed}"] for seed in (5, 7)], options=[where], job=lambda plan: plan.full["seed"] / 10)
    assert [(job.outcome, job.value) for job in jobs] == [("done", 0.5), ("done", 0.7)]
    with pytest.raises(ConfigError, match=r"hydra\.launcher: jobs_per_device must be at least 1, got 0"):
        sweep.launch([WORDS], job=job, options=[where, "hydra/launcher=local", "hydra.launcher.jobs_per_device=0"])
    with pytest.raises(ConfigError, match=r"hydra\.launcher: devices must be numbers from 0 on, or names of GPUs, got -1"):
        sweep.launch([WORDS], job=job, options=[where, "hydra/launcher=local", "hydra.launcher.devices=[0,-1]"])
    assert not state(tmp_path)


def test_a_sweeper_gets_the_objective(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Optuna reads: a JobReturn with a value a job, in order, None for a failed one."""
    told: list = []
    real = sweep.Guard.launch
    monkeypatch.setattr(sweep.Guard, "launch", lambda *given, **named: told.extend(real(*given, **named)))
    where = f"paths.outputs={tmp_path}"
    sweep.launch([[*WORDS, where, f"seed={seed}"] for seed in (0, 1)], options=[where], job=fails(0))
    assert [job.return_value for job in told] == [None, 0.5]
    assert told[1].overrides[-1] == "seed=1" and told[1].cfg.seed == 1


# ---- the local launcher's parts ------------------------------------------------------------------------------------------------------

LISTED = """GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-aaaa)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-bbbb)
  MIG 3g.20gb     Device  0: (UUID: MIG-cccc)
  MIG 3g.20gb     Device  1: (UUID: MIG-dddd)
"""


def test_devices_are_found_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    assert devices.parse_devices(LISTED) == ["0", "MIG-cccc", "MIG-dddd"]
    for given, found in {"2,5": ["2", "5"], "": [], "-1": [], "GPU-aaaa": ["GPU-aaaa"]}.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
        assert devices.find_devices() == found
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setenv("PATH", "/nowhere")
    assert isinstance(devices.find_devices(), list)


def job_of(*words: str, number: int = 0) -> sweep.Job:
    return sweep.Job(tuple(words), plan=compose([*WORDS, *words]), number=number)


def test_slots_and_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    local = launcher.LocalLauncher(devices=[0, 1, 2], jobs_per_device=2)
    local.free, local.cpus = ["0", "1", "2", "0"], 6
    one, two, many = job_of(), job_of("trainer=ddp"), job_of("trainer=ddp", "trainer.devices=8")
    assert local.slots_for(one) == ["0"] and local.slots_for(two) == ["0", "1"] and local.slots_for(many) == ["0", "1", "2"]
    local.free = ["1", "1"]
    assert local.slots_for(one) == ["1"] and local.slots_for(two) is None
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert local.environment(one, ["1"])["OMP_NUM_THREADS"] == "6" and local.environment(two, ["1", "2"])["OMP_NUM_THREADS"] == "3"
    assert local.environment(two, ["1", "2"])["CUDA_VISIBLE_DEVICES"] == "1,2"
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert local.environment(one, ["1"])["OMP_NUM_THREADS"] == "4"
    cpu = launcher.LocalLauncher(devices="cpu")
    cpu.free, cpu.cpus = ["cpu"], 4
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert cpu.slots_for(two) == ["cpu"] and "CUDA_VISIBLE_DEVICES" not in cpu.environment(one, ["cpu"])
    assert devices.count_cpus() >= 1


def test_the_board_reads_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_of("trainer.max_epochs=10", f"paths.outputs={tmp_path}")
    folder = tmp_path / "runs" / job.plan.run_id
    watch = board.Watch(job, ["0"])
    assert watch.look()["epoch"] == "0/10" and watch.left is None
    row = {"train/acc": 0.5, "seconds": 60.0, "images_per_second": 1234.5}
    Record(folder).write_history([{"epoch": epoch, "val/acc": 0.25 * epoch, **row} for epoch in range(1, 4)])
    looked = watch.look()
    assert [looked[key] for key in ("epoch", "acc", "images/s", "on")] == ["3/10", "0.7500", "1,234", "0"]
    assert 410 < watch.left <= 420 and looked["left"] in ("7:00", "6:59")
    shown = board.Board(4)
    shown.running[0] = watch
    assert shown.footer(3).startswith("1 running, 3 waiting; about 28:")
    from rich.console import Console

    console = Console(width=120, file=io.StringIO())
    console.print(shown.table(3))
    assert job.plan.run_id in console.file.getvalue() and "3/10" in console.file.getvalue()
    (folder / "metrics.csv").write_text("epoch,seconds\n1,a\n\x00")
    assert read_history(folder / "metrics.csv")[0] == {"epoch": 1.0}


def test_last_words(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    assert commands.last_words(path, -9) == "its process was ended by SIGKILL (out of memory?)"
    assert commands.last_words(path, 3) == "its process ended with code 3"
    path.write_text("much\nattnlab: data: no such file\n\n")
    assert commands.last_words(path, 1) == "data: no such file"


# ---- the local launcher with processes that only pretend to train ----------------------------------------------------------------------

PRETEND = """
import json, os, signal, sys, time
from pathlib import Path
folder, seed, act = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
if act == "deaf":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
with open(folder / "told", "a") as file:
    file.write(json.dumps({"seed": seed, "at": time.time(), "gpu": os.environ.get("CUDA_VISIBLE_DEVICES"), "pid": os.getpid()}) + "\\n")
if act == "die":
    os.kill(os.getpid(), signal.SIGKILL)
if act == "fail":
    sys.exit("attnlab: no luck today")
time.sleep(0.15 if act == "work" else 60)
with open(folder / "told", "a") as file:
    file.write(json.dumps({"seed": seed, "ended": time.time()}) + "\\n")
"""


@pytest.fixture
def pretend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[list[sweep.Job], list[dict]]]:
    """`pretend({0: "work", 1: "fail"}, "retries=1")` sweeps over seeds whose processes do as told."""
    monkeypatch.setattr(
        launcher.LocalLauncher,
        "command",
        lambda self, job: [sys.executable, "-S", "-c", PRETEND, str(tmp_path), str(job.plan.full["seed"]), acts[job.plan.full["seed"]]],
    )
    acts: dict[int, str] = {}

    def command(given: dict[int, str], *words: str, options: tuple[str, ...] = ()) -> tuple[list[sweep.Job], list[dict]]:
        acts.clear()
        acts.update(given)
        where = f"paths.outputs={tmp_path}/outputs"
        words_of = [[*WORDS, where, f"seed={seed}", *words] for seed in given]
        jobs = sweep.launch(words_of, job=job, options=["hydra/launcher=local", where, *options])
        return jobs, [json.loads(line) for line in (tmp_path / "told").read_text().splitlines()]

    return command


def test_each_device_has_its_jobs_and_no_more(pretend) -> None:
    jobs, told = pretend({seed: "work" for seed in range(6)}, options=("hydra.launcher.devices=[3,5]",))
    assert [job.outcome for job in jobs] == ["done"] * 6
    ended = {entry["seed"]: entry["ended"] for entry in told if "ended" in entry}
    spans = [(entry["gpu"], entry["at"], ended[entry["seed"]]) for entry in told if "at" in entry]
    for gpu in ("3", "5"):
        own = sorted(span[1:] for span in spans if span[0] == gpu)
        assert len(own) >= 2 and all(one[1] <= two[0] for one, two in itertools.pairwise(own))
    assert {span[0] for span in spans} == {"3", "5"}


def test_failing_and_dying_processes_are_reported_and_tried_again(pretend, capfd: pytest.CaptureFixture) -> None:
    jobs, told = pretend({0: "fail", 1: "die", 2: "work"}, "retries=1", options=("hydra.launcher.jobs_per_device=3",))
    assert [job.outcome for job in jobs] == ["failed", "failed", "done"]
    assert sorted(entry["seed"] for entry in told if "at" in entry) == [0, 0, 1, 1, 2]
    assert [job.error for job in jobs[:2]] == ["no luck today", "its process was ended by SIGKILL (out of memory?)"]
    assert Path(jobs[0].log).read_text().splitlines().count("attnlab: no luck today") == 2
    assert "1 done, 0 skipped, 2 failed" in capfd.readouterr().err


def test_fail_fast_stops_the_others(pretend) -> None:
    start = time.monotonic()
    jobs, _ = pretend({0: "wait", 1: "fail", 2: "wait"}, "fail_fast=true", options=("hydra.launcher.jobs_per_device=2",))
    assert [job.outcome for job in jobs] == ["interrupted", "failed", ""] and time.monotonic() - start < 40


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_even_deaf_processes(number: int, pretend, tmp_path: Path) -> None:
    import threading

    def interrupt() -> None:
        while not (tmp_path / "told").exists() or (tmp_path / "told").read_text().count("\n") < 2:
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=interrupt)
    thread.start()
    options = ("hydra.launcher.jobs_per_device=2", "hydra.launcher.patience=0.2")
    with pytest.raises(KeyboardInterrupt):
        pretend({0: "wait", 1: "deaf", 2: "wait"}, options=options)
    thread.join()
    for line in (tmp_path / "told").read_text().splitlines():
        with pytest.raises(ProcessLookupError):
            os.kill(json.loads(line)["pid"], 0)


CHILD = """
import sys, time
from attnlab.sweeps.processes import die_with_parent
die_with_parent()
open(sys.argv[1], "a").write("started\\n")
time.sleep(100)
"""


def test_kill_9_of_a_sweep_ends_all_its_jobs(tmp_path: Path) -> None:
    path = tmp_path / "started"

    def launch() -> None:
        launcher.LocalLauncher.command = lambda self, job: [sys.executable, "-c", CHILD, str(path)]
        options = ["hydra/launcher=local", "hydra.launcher.jobs_per_device=2", f"paths.outputs={path}.outputs"]
        sweep.launch([[*WORDS, f"seed={seed}", options[-1]] for seed in range(2)], job=None, options=options)

    process = Forked(launch, session=True)
    try:
        end = time.monotonic() + 100
        while not path.exists() or path.read_text().count("started") < 2:
            assert process.poll() is None and time.monotonic() < end, process.read()[1]
            time.sleep(0.05)
        assert len(processes_of(path)) >= 2 and process.poll() is None
    finally:
        process.kill()  # this one process; its jobs are in groups of their own
        process.communicate()
    end = time.monotonic() + 20
    while processes_of(path) and time.monotonic() < end:
        time.sleep(0.05)
    assert processes_of(path) == []


# ---- overrides of components that a job does not choose ------------------------------------------------------------------------------

UNCHOSEN = ["attention=none,rect", "attention.rect.at=layer1,layer2"]


@pytest.fixture
def images(go: Callable[..., SimpleNamespace], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[SimpleNamespace, list[str]]]:
    """A sweep over an image network: what it reports, and where each job that ran had its attention."""
    monkeypatch.setitem(globals(), "WORDS", ["data=digits", "model=resnet18", "logger=none", "ood=none"])

    def command(*words: str, job: Callable[[Plan], float] = lambda plan: 0.5) -> tuple[SimpleNamespace, list[str]]:
        at: list[str] = []

        def noted(plan: Plan) -> float:
            at.append(plan.full["attention"]["rect"]["at"] if plan.full["attention"] else "")
            return job(plan)

        return go(noted, *words), at

    return command


def test_an_override_is_dropped_where_its_component_is_not_chosen(images) -> None:
    done, at = images(*UNCHOSEN)
    assert done.code == 0 and at == ["", "layer1", "layer2"], done.err
    assert done.err.count("dropped where the component is not chosen: attention.rect.at (in 2)\n") == 1
    assert "sweep of 4 jobs" in done.err and "3 done, 1 skipped, 0 failed" in done.err


def test_what_no_job_chooses_is_an_error_of_each(images) -> None:
    done, at = images("attention=none,se", "attention.rect.at=layer1")
    assert done.code == 1 and at == [] and "dropped" not in done.err
    assert "attention.rect.at: rect is not chosen" in done.err and "2 failed" in done.err


def test_a_single_run_refuses_an_override_of_what_is_not_chosen() -> None:
    with pytest.raises(ConfigError, match=r"attention\.rect\.at: rect is not chosen \(attention=none\); attention=rect chooses it"):
        compose(["attention=none", "attention.rect.at=layer1"])


def test_of_two_jobs_that_are_one_run_both_fail(images) -> None:
    def fail(plan: Plan) -> float:
        if not plan.full["attention"]:
            raise ValueError("no luck")
        return 0.5

    done, at = images(*UNCHOSEN, job=fail)
    assert done.code == 1 and at == ["", "layer1", "layer2"]
    assert "2 done, 0 skipped, 2 failed" in done.err and "attention=none and 1 more\n          no luck" in done.err


def test_dropped_overrides_reach_no_other_process(tmp_path: Path) -> None:
    jobs = [["data=digits", "model=resnet18", *rest] for rest in (["attention=none", "attention.rect.at=layer1"], ["attention=rect"])]
    done = sweep.launch(jobs, job=lambda plan: float(len(plan.overrides)), options=[f"paths.outputs={tmp_path}"])
    assert [job.value for job in done] == [3.0, 3.0] and done[0].words == "data=digits model=resnet18 attention=none"
