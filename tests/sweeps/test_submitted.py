"""Jobs that submitit queues, without a cluster: what Slurm says of them, which are lost, and how a job that is queued again ends."""

import os
import pickle
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from attnlab.config.compose import compose
from attnlab.sweeps import submitted
from attnlab.sweeps.board import Board
from attnlab.sweeps.journal import Job, Journal
from attnlab.sweeps.task import Task
from attnlab.training.settings import Settings
from tests.conftest import POINTS

SQUEUE = """#!/bin/sh
echo "$@" >> "$(dirname "$0")/asked"
cat "$(dirname "$0")/said" >&${TO:-1}
exit ${CODE:-0}
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A squeue that says what the file `said` holds."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("squeue", "scancel"):
        (folder / name).write_text(SQUEUE)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def queue_of(folder: Path, names: list[str]) -> submitted.Queue:
    def job(name: str) -> SimpleNamespace:
        path = folder / name
        path.mkdir(exist_ok=True)
        return SimpleNamespace(job_id=name, paths=SimpleNamespace(folder=path, result_pickle=path / "result.pkl"))

    return submitted.Queue("slurm", {number: job(name) for number, name in enumerate(names)})


def test_what_squeue_says(slurm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (slurm / "said").write_text("7_0|RUNNING\n7_1|CANCELLED\n")
    assert submitted.squeue(["7"], ["7_0", "7_1", "7_2"]) == {"7_0": "RUNNING", "7_1": "CANCELLED", "7_2": submitted.GONE}
    assert "--jobs=7" in (slurm / "asked").read_text()
    monkeypatch.setenv("CODE", "1")
    monkeypatch.setenv("TO", "2")
    (slurm / "said").write_text("slurm_load_jobs error: Invalid job id specified\n")
    assert submitted.squeue(["7"], ["7_0"]) == {"7_0": submitted.GONE}
    (slurm / "said").write_text("slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n")
    assert submitted.squeue(["7"], ["7_0"]) == {}, "no answer is no news"


def test_a_job_is_lost_when_it_has_ended_for_a_while_without_a_result(slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submitted, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(submitted, "GRACE_SECONDS", 0.05)
    queue = queue_of(tmp_path, ["7_0", "7_1", "7_2"])
    (slurm / "said").write_text("7_0|RUNNING\n7_1|CANCELLED\n")
    queue.look()
    assert [queue.lost(number) for number in range(3)] == ["", "", ""]
    time.sleep(0.06)
    assert [queue.lost(number) for number in range(3)] == [
        "",
        "ended without a result (CANCELLED)",
        "ended without a result (no longer known to Slurm)",
    ]
    (slurm / "said").write_text("7_0|PREEMPTED\n7_1|PENDING\n7_2|COMPLETING\n")  # queued again, or about to end
    queue.look()
    assert [queue.lost(number) for number in range(3)] == ["", "", ""]
    (slurm / "said").write_text("7_1|CANCELLED\n")
    queue.look()
    assert queue.lost(1) == "", "it is given its time anew"
    queue.cancel([0, 2])
    assert (slurm / "asked").read_text().splitlines()[-1] == "7_0 7_2"


def test_one_lost_job_is_one_lost_job(slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three, one has a result and its entry, one was cancelled, and one failed before it could write an entry."""
    monkeypatch.setattr(submitted, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(submitted, "GRACE_SECONDS", 0.0)
    (slurm / "said").write_text("7_0|COMPLETED\n7_1|CANCELLED\n7_2|FAILED\n")
    queue = queue_of(tmp_path, ["7_0", "7_1", "7_2"])
    plan = compose([*POINTS, f"paths.outputs={tmp_path}"])
    jobs = [Job((), plan=plan, number=number) for number in range(3)]
    task = Task(lambda plan: None, Journal(tmp_path / "journal"))
    task.journal.folder.mkdir()
    task.journal.write(Job((), number=0, outcome="done", value=0.5), seconds=1)
    for number in (0, 2):
        queue.jobs[number].paths.result_pickle.touch()
    launcher = submitted.SubmittedJobs(SimpleNamespace(_EXECUTOR="slurm"), task=task)
    with Board(3) as board:
        launcher.wait(jobs, queue, board)
    assert [job.outcome for job in jobs] == ["done", "failed", "failed"] and jobs[0].value == 0.5
    assert jobs[1].error.startswith("slurm job 7_1 ended without a result (CANCELLED); what it said is in ")
    assert jobs[2].error.startswith("slurm job 7_2 failed before it began; what it said is in ")
    assert [job.log for job in jobs] == ["", "", ""], "a job that its launcher lost is tried again by the guard"
    assert [task.journal.read(number)["outcome"] for number in range(3)] == ["done", "failed", "failed"]


def test_a_job_that_is_queued_again_leaves_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """submitit's handler asks for the call of the next time, and then exits: neither a failure nor an occasion to try again."""
    pytest.importorskip("submitit")
    from hydra.core.hydra_config import HydraConfig

    from attnlab.sweeps import task as tasks

    call = submitted.Call(SimpleNamespace(task_function=Task(exit_as_submitit_does, Journal(tmp_path / "journal"))))
    task = call.launcher.task_function
    monkeypatch.setattr(exit_as_submitit_does, "call", call, raising=False)
    plan = compose([*POINTS, "retries=2", f"paths.outputs={tmp_path}"])
    monkeypatch.setattr(tasks, "check", lambda *_, **__: plan)
    context = SimpleNamespace(
        overrides=SimpleNamespace(task=OmegaConf.create([])), job=SimpleNamespace(num=4), runtime=SimpleNamespace(choices={})
    )
    monkeypatch.setattr(HydraConfig, "get", staticmethod(lambda: context))
    with pytest.raises(SystemExit):
        task({})
    assert task.journal.read(4)["outcome"] == "interrupted" and not task.journal.failed
    assert not pickle.loads(pickle.dumps(task)).queued_again, "the next time is another"


def exit_as_submitit_does(plan: object) -> None:
    exit_as_submitit_does.call.checkpoint([], 4, {})
    sys.exit(-1)


def test_a_slurm_job_starts_the_processes_of_ddp_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    from pytorch_lightning.plugins.environments import LightningEnvironment

    for name, value in {"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "attnlab", "SLURM_JOB_ID": "7", "SLURM_PROCID": "0"}.items():
        monkeypatch.setenv(name, value)
    trainer = Settings(accelerator="cpu", strategy="ddp", devices=2).trainer()
    assert isinstance(trainer.strategy.cluster_environment, LightningEnvironment)


@pytest.mark.parametrize("name", ["submitit.core._submit", "attnlab.table", None])
def test_the_processes_of_ddp_are_started_by_the_command_of_the_run(name: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a job of a cluster and in a table the command of this process is another; a single run's own stays as it is."""
    from attnlab.pipeline import fit

    plan = compose([*POINTS, "trainer=ddp", "trainer.accelerator=cpu"])
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "__spec__", name and SimpleNamespace(name=name))
    monkeypatch.setattr(sys, "argv", ["somewhere", "else"])
    before = main.__spec__
    with fit._children(plan, 2):
        assert main.__spec__.name == "attnlab.train" and {"trainer=ddp", "++trainer.accelerator=cpu"} <= set(sys.argv[1:])
    assert main.__spec__ is before and sys.argv == ["somewhere", "else"]
    monkeypatch.setattr(main, "__spec__", SimpleNamespace(name="attnlab.train"))
    with fit._children(plan, 2):
        assert sys.argv == ["somewhere", "else"]
