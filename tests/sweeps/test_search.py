"""hydra/sweeper=optuna: what may be chosen, what is kept, who is halted; studies with pretended work, and one that trains."""

import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

optuna = pytest.importorskip("optuna")

from attnlab.config.plan import Plan
from attnlab.config.targets import ConfigError
from attnlab.records.lookup import record_of
from attnlab.sweeps import search, space, study, sweep
from attnlab.sweeps.cli import main
from attnlab.sweeps.pruners import Median, SuccessiveHalving
from tests.commands import Forked
from tests.conftest import POINTS

WORDS = [*POINTS, "trainer.max_epochs=4", "ood=none", "evaluator=none", "data.val=0.25", "hydra/sweeper=optuna"]
LR = "optimizer.lr=tag(log,interval(1e-3,1e-1))"


@pytest.fixture(autouse=True)
def _console(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep.log, "handlers", [])
    monkeypatch.setattr(sweep.log, "propagate", True)


# ---- pretended work: the curve of a run is known from its configuration ----------------------------------------------------------------


def curve(plan: Plan) -> list[float]:
    """Best near lr = 0.01, a little better with a small batch, a little by the seed."""
    import math

    last = 0.9 - 0.2 * abs(math.log10(plan.full["optimizer"]["lr"]) + 2) - plan.full["data"]["batch_size"] / 1e4 + plan.full["seed"] / 1e3
    return [last - 0.3 / epoch for epoch in range(1, 5)]


def pretend(plan: Plan) -> float | None:
    """Leaves the record that a run would."""
    from attnlab.callbacks.halt import Halt

    record, rows, why = record_of(plan), [], ""
    for epoch, value in enumerate(curve(plan)):
        rows.append({"epoch": epoch, "val/acc": value, "val/nll": 1 - value})
        if plan.full["halt"] and (why := Halt(**plan.full["halt"]).reason(rows)):
            break
    record.write_history(rows)
    metrics = {} if why else {key: rows[-1][key] for key in ("val/acc", "val/nll")}
    about = {"run_id": plan.run_id, "config": plan.full, "metrics": metrics, "seed": 0}
    record.write({"status": "halted" if why else "finished", **about})
    return metrics.get(plan.full["objective"])


def dies_at(number: int) -> Callable[[Plan], float | None]:
    """Kills its own process, the sweep's, in the job of a number."""
    count = 0

    def job(plan: Plan) -> float | None:
        nonlocal count
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return pretend(plan)

    return job


def command(outputs: Path, *words: str) -> list[str]:
    return ["train", "-m", *WORDS, f"paths.outputs={outputs}", *words]


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[..., SimpleNamespace]:
    """`go(LR, job=pretend)` sweeps in this process: the plans that reached the job, the exit code, what was said, the trials."""

    def run(*words: str, job: Callable[[Plan], Any] = pretend, outputs: Path = tmp_path) -> SimpleNamespace:
        seen: list[Plan] = []
        monkeypatch.setattr(sys, "argv", command(outputs, *words))
        capsys.readouterr()
        code = 0
        try:
            main(lambda plan: seen.append(plan) or job(plan))
        except SystemExit as stop:
            code = stop.code
        said = capsys.readouterr()
        return SimpleNamespace(plans=seen, code=code, err=said.err, out=said.out, trials=trials(outputs))

    return run


def journal(outputs: Path) -> Path:
    (path,) = (outputs / "studies").glob("*.log")
    return path


def trials(outputs: Path) -> list[Any]:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    found = list((outputs / "studies").glob("*.log"))
    return optuna.load_study(study_name=study.NAME, storage=JournalStorage(JournalFileBackend(str(found[0])))).trials if found else []


def told(found: Sequence[Any]) -> list[tuple]:
    """All of a study but the times."""
    return [(one.number, one.state.name, one.params, one.values, one.intermediate_values, one.user_attrs) for one in found]


def test_a_study_finds_what_is_good_and_a_repeated_one_runs_nothing(go, tmp_path: Path) -> None:
    words = (LR, "data.batch_size=choice(16,32)", "hydra.sweeper.n_trials=12", "hydra.sweeper.startup=4")
    done = go(*words)
    assert done.code == 0 and len(done.plans) == len(done.trials) == 12
    best = max(done.trials, key=lambda trial: trial.value)
    assert best.value > 0.8 and best.intermediate_values.keys() == {1, 2, 3, 4} and best.user_attrs["runs"]
    lines = done.err.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("  study "))
    assert lines[at].endswith(": 12 complete, of 12; val/acc, maximized")
    assert lines[at + 1].split() == ["optimizer.lr", "data.batch_size", "val/acc", "trial"]
    assert lines[at + 2].split() == [
        str(best.params["optimizer.lr"]),
        best.params["data.batch_size"],
        f"{best.value:.4f}",
        str(best.number),
    ]
    assert any(line.startswith("  importance: optimizer.lr 0.") for line in lines)
    (command_line,) = [line for line in lines if line.startswith("  the best: python -m attnlab.train ")]
    assert (
        f"optimizer.lr={best.params['optimizer.lr']}" in command_line and "objective" not in command_line and "sweeper" not in command_line
    )
    assert done.out.splitlines()[-1] == str(tmp_path / "runs" / best.user_attrs["runs"][0] / "result.json")
    again = go(*words)
    assert again.plans == [] and again.code == 0 and told(again.trials) == told(done.trials)
    assert again.out == done.out.splitlines()[-1] + "\n" and command_line[2:] in again.err.splitlines()
    more = go(*words[:2], "hydra.sweeper.n_trials=14", "hydra.sweeper.startup=4")
    assert len(more.plans) == 2 and told(more.trials)[:12] == told(done.trials)
    journal(tmp_path).unlink()  # the records alone: every trial is free
    assert go(*words).plans == [] and told(trials(tmp_path)) == told(done.trials)


@pytest.mark.parametrize("sampler", ["tpe", "random", "gp", "grid"])
def test_a_study_that_was_killed_is_the_one_that_never_was(sampler: str, tmp_path: Path) -> None:
    key = "optimizer.lr=choice(0.001,0.003,0.01,0.03)" if sampler == "grid" else LR
    words = [key, "data.batch_size=range(16,49,16)", "hydra.sweeper.n_trials=7", "hydra.sweeper.n_jobs=2", "hydra.sweeper.startup=3"]
    words += [f"hydra.sweeper.sampler={sampler}", "hydra.sweeper.pruner=median", "hydra.sweeper.pruner_options={startup: 2, warmup: 1}"]

    def sweep_in(outputs: Path, job: Callable[[Plan], Any]) -> int:
        def work() -> None:
            sys.argv = command(outputs, *words)
            main(job)

        return Forked(work, output=tmp_path / "said").wait()

    one, two = tmp_path / "one", tmp_path / "two"
    assert sweep_in(one, pretend) == 0
    for number in (1, 2, 3):  # in the first job of a batch, in the second, and in that of the next
        assert sweep_in(two, dies_at(number)) == -signal.SIGKILL
        with open(journal(two), "ab") as file:
            file.write(b'{"op_code":4,"worker_id":"half a li')
        Path(f"{journal(two)}.lock").symlink_to("nowhere")
    assert sweep_in(two, pretend) == 0
    assert told(trials(one)) == told(trials(two)) and len(trials(one)) == 7
    assert len({json.dumps(trial.params) for trial in trials(one)}) >= 6  # not one suggestion again and again
    if sampler == "random":
        assert {trial.state.name for trial in trials(one)} == {"COMPLETE", "PRUNED"}


def test_a_halted_trial_is_no_result_and_goes_on_when_it_is_asked_for(go, tmp_path: Path) -> None:
    words = ("optimizer.lr=choice(0.01,0.012,0.9,0.8)", "hydra.sweeper.sampler=grid", "hydra.sweeper.seed=4")
    done = go(*words, "hydra.sweeper.pruner=median", "hydra.sweeper.pruner_options={startup: 1}")
    kinds = {trial.params["optimizer.lr"]: trial for trial in done.trials}
    pruned = [trial for trial in done.trials if trial.state.name == "PRUNED"]
    assert pruned and "PRUNED" in {kinds[lr].state.name for lr in ("0.9", "0.8")}
    assert all(len(trial.intermediate_values) == 1 for trial in pruned)
    assert f"{len(pruned)} halted, " in done.err and done.code == 0
    from attnlab.records.query import read_runs

    (run, *_) = [run for run in read_runs(tmp_path) if run.status == "halted"]
    assert run.metrics == {} and len(read_runs(tmp_path)) == 4
    whole = go(*words)  # another study, without a pruner, of the same runs
    assert len(whole.plans) == len(pruned) and not any(run.status == "halted" for run in read_runs(tmp_path))


def test_one_failing_trial_stops_no_other_and_is_tried_again_by_the_next_command(go) -> None:
    def job(plan: Plan) -> float | None:
        if broken and plan.full["data"]["batch_size"] == 32:
            raise RuntimeError("the disk was away")
        return pretend(plan)

    broken, words = True, ("data.batch_size=range(16,65,16)", "hydra.sweeper.sampler=grid")
    done = go(*words, job=job)
    assert done.code == 1 and sorted(trial.state.name for trial in done.trials) == ["COMPLETE"] * 3 + ["FAIL"]
    assert "3 complete, 1 failed, of 4" in done.err
    (failed,) = [trial for trial in done.trials if trial.state.name == "FAIL"]
    assert failed.user_attrs["error"] == "the disk was away" and failed.params == {"data.batch_size": 32}
    broken = False
    again = go(*words, job=job)
    assert [plan.full["data"]["batch_size"] for plan in again.plans] == [32] and again.code == 0
    assert len(again.trials) == 5 and again.trials[-1].user_attrs["retries"] == failed.number and "4 complete, of 4" in again.err


def test_a_mistake_that_all_trials_share_ends_the_study_and_leaves_none(go, tmp_path: Path) -> None:
    done = go("optimizer.lr=interval(-2,-1)", job=lambda plan: (_ for _ in ()).throw(ValueError("lr below 0")))
    assert len(done.plans) == 1 and done.code == 1 and "no trial has come through" in done.err and not done.trials
    done = go("optimizer.lrr=interval(0.1,1.0)")
    assert done.plans == [] and "unknown key optimizer.lrr" in done.err and not list((tmp_path / "studies").glob("*.log"))


@pytest.mark.parametrize(
    "words, message",
    [
        (["optimizer.lr=0.1"], "a study has nothing to choose: give a key several values"),
        (["optimizer.lr=interval(1,1)"], r"optimizer.lr: interval(1, 1) must go from a number to a larger one"),
        (["optimizer.lr=tag(log,interval(0,1))"], "both above 0"),
        (["optimizer.lr=tag(lg,interval(1,2))"], "optimizer.lr: tag lg means nothing to a study"),
        (["optimizer.lr=tag(log,choice(1,2))"], "tag(log, ...) goes with an interval"),
        ([LR, "hydra.sweeper.sampler=grid"], "an interval has no end of numbers; use range or choice"),
        (["seed=interval(0,5)"], "seed: a study does not choose a seed"),
        (["name=a,b"], "name: changes nothing that a study could choose by"),
        (["loss=choice(ce,cee)"], "loss=cee: there is no such loss; nearest: ce"),
        ([LR, "data.val=0"], "hydra.sweeper.metric=val/acc needs validation images; set data.val=0.1 to hold some out"),
        ([LR, "hydra.sweeper.metric=test/acc"], "hydra.sweeper: metric=test/acc: test images are not for tuning by; take val/acc"),
        ([LR, "hydra.sweeper.metric=ood/msp/mean/auroc"], "test images are not for tuning by"),
        ([LR, "objective=test/acc"], "objective=test/acc: a study goes by hydra.sweeper.metric=val/acc"),
        ([LR, "check=true"], "check=true tries one run"),
        ([LR, "halt={worse_than: {1: 0}}", "hydra.sweeper.pruner=median"], "halt: set by hydra.sweeper.pruner"),
        ([LR, "hydra.sweeper.sampler=cmaes"], "hydra.sweeper.sampler=cmaes: must be one of tpe, gp, random, grid"),
        ([LR, "hydra.sweeper.n_trials=0"], "hydra.sweeper: n_trials must be at least 1, got 0"),
        ([LR, "hydra.sweeper.trials=5"], "unknown key hydra.sweeper.trials; nearest: hydra.sweeper.n_trials"),
        ([LR, "hydra.sweeper.pruner=hyperband"], "hydra.sweeper.pruner=hyperband: must be one of median, successive_halving or null"),
        (
            [LR, "hydra.sweeper.pruner=median", "hydra.sweeper.pruner_options={factor: 3}"],
            "unknown key hydra.sweeper.pruner_options.factor",
        ),
        ([LR, "hydra.sweeper.pruner_options={factor: 3}"], "goes with pruner=median"),
    ],
)
def test_mistakes_are_one_line_and_train_nothing(words: list[str], message: str, go) -> None:
    done = go(*words)
    assert done.code == 1 and done.plans == [] and "Traceback" not in done.err and message in done.err and not done.trials


def test_without_optuna_a_line_says_how_to_get_it(go, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna.storages.journal", None)
    with pytest.raises(ConfigError, match=r'needs the package optuna, 4 or later: pip install "attnlab\[optuna\]"'):
        search.OptunaSweeper()


def test_a_trial_may_be_the_mean_over_seeds_and_two_that_are_one_run_train_once(go) -> None:
    words = ("data.batch_size=choice(16,32)", "hydra.sweeper.sampler=random", "hydra.sweeper.n_trials=5", "hydra.sweeper.n_jobs=2")
    done = go(*words, "seed=0,2")
    assert sorted((plan.full["data"]["batch_size"], plan.full["seed"]) for plan in done.plans) == [(16, 0), (16, 2), (32, 0), (32, 2)]
    assert len(done.trials) == 5 and {len(trial.user_attrs["runs"]) for trial in done.trials} == {2}
    means = {round(trial.value, 9) for trial in done.trials}
    assert means == {
        round(sum(curve(plan)[-1] for plan in done.plans if plan.full["data"]["batch_size"] == size) / 2, 9) for size in (16, 32)
    }
    assert "the best: python -m attnlab.train -m seed=0,2 " in done.err


def test_the_direction_is_the_metrics_and_parameters_may_stand_in_the_sweepers_part(go) -> None:
    words = ("hydra.sweeper.metric=val/nll", "hydra.sweeper.n_trials=6", "hydra.sweeper.startup=2", "hydra.sweeper.seed=3")
    done = go(*words, "hydra.sweeper.params={optimizer.lr: 'tag(log,interval(1e-3,1e-1))', data.batch_size: 'range(16,65,16)'}")
    best = min(done.trials, key=lambda trial: trial.value)
    assert "val/nll, minimized" in done.err and f"optimizer.lr={best.params['optimizer.lr']}" in done.err.split("the best: ")[1]
    assert {trial.distributions["data.batch_size"].step for trial in done.trials} == {16}


def test_what_is_said_of_a_component_goes_to_the_trials_that_choose_it(go) -> None:
    words = ("regularizer=choice(none,norm_loss,[norm_loss,attack])", "hydra.sweeper.sampler=grid", "regularizer.norm_loss.strength=0.5")
    done = (
        go(*words[:1], *words[1:2], "regularizer.norm_loss.strength=0.5")
        if False
        else go("loss=choice(ce,large_margin)", "regularizer=choice(none,norm_loss)", "hydra.sweeper.sampler=grid")
    )
    assert len(done.plans) == 4 and {tuple(plan.full["regularizer"]) for plan in done.plans} == {(), ("norm_loss",)}


def test_a_journal_that_cannot_be_trusted_is_set_aside(go, tmp_path: Path) -> None:
    words = ("data.batch_size=choice(16,32)", "hydra.sweeper.n_trials=2", "hydra.sweeper.sampler=grid")
    before = go(*words)
    path = journal(tmp_path)
    whole = path.read_text()
    for text, wrong in (
        (whole.replace('"data.batch_size":0', '"data.batch_size":7', 1), "is damaged ("),
        (whole.replace("data.batch_size", "allow_targets"), "is damaged (trial 0 has parameters of another study)"),
        ("{}\n" + whole, "is damaged (KeyError"),
        (whole.replace("{", "[", 1), "is damaged (JSONDecodeError"),
    ):
        path.write_text(text)
        done = go(*words)
        assert done.code == 1 and done.plans == [] and wrong in done.err and "was set aside as" in done.err, wrong
        assert not path.exists()
        assert told(go(*words).trials) == told(before.trials)  # from the records, at no cost


def test_force_begins_anew_and_keeps_the_old_study(go, tmp_path: Path) -> None:
    words = ("data.batch_size=choice(16,32)", "hydra.sweeper.n_trials=2", "hydra.sweeper.sampler=grid")
    go(*words)
    assert len(go(*words, "force=true").plans) == 2 and len(list((tmp_path / "studies").glob("*.old"))) == 1


# ---- the parts -----------------------------------------------------------------------------------------------------------------------


def space_from(*words: str) -> space.Space:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    assert OverridesParser
    return space.space_of(words, {}, loader=None)


def test_the_words_of_hydra_and_what_may_be_chosen() -> None:
    found = space_from(
        "++a.b=choice(x,[p,q],null)", "++i=interval(1,9)", "++f=interval(1,9.0)", "++g=range(0.1,0.5,0.1)", "++n=range(8,0,-2)", "m=3"
    )
    parameters = found.parameters
    assert found.base == ("m=3",) and parameters["a.b"].choices == ("x", "[p,q]", "null")
    assert parameters["i"].whole and not parameters["f"].whole and parameters["n"].grid() == [2, 4, 6, 8]
    assert parameters["g"].grid() == [0.1, 0.2, 0.3, 0.4] and parameters["g"].rounded(0.1 + 0.2) == 0.3
    assert parameters["f"].rounded(8.99999999) == 9.0 and parameters["f"].rounded(1.23456789) == 1.23457
    assert found.words({"a.b": "null", "i": 2, "f": 1.5, "g": 0.3, "n": 4}) == ["++a.b=null", "++i=2", "++f=1.5", "++g=0.3", "++n=4"]
    good = {"a.b": "x", "i": 1, "f": 2.0, "g": 0.4, "n": 8}
    assert found.holds(good)
    for key, value in (("a.b", "y"), ("i", 1.5), ("i", 0), ("f", "os.system"), ("g", 0.35), ("n", 3), ("i", True)):
        assert not found.holds({**good, key: value})
    assert not found.holds({**good, "more": 1}) and not found.holds({"i": 1})


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize("seed", range(4))
def test_pruners_are_optunas_one_trial_at_a_time(mode: str, seed: int) -> None:
    """Curves that only get better, so that the best so far is the present value, which successive halving looks at."""
    import numpy as np
    from optuna.pruners import MedianPruner, SuccessiveHalvingPruner

    from attnlab.callbacks.halt import Halt

    draws, sign = np.random.default_rng(seed), 1 if mode == "max" else -1
    pairs = [
        (Median(startup=3, warmup=2), MedianPruner(n_startup_trials=3, n_warmup_steps=3)),
        (SuccessiveHalving(min_epochs=2, factor=3), SuccessiveHalvingPruner(min_resource=2, reduction_factor=3)),
    ]
    for ours, theirs in pairs:
        reference = optuna.create_study(direction="maximize" if mode == "max" else "minimize", pruner=theirs)
        complete, halted, lengths = [], [], []
        for _ in range(25):
            values = sign * np.sort(draws.normal(size=12))
            trial, length = reference.ask(), 0
            for epoch, value in enumerate(values, 1):
                trial.report(value, epoch)
                length = epoch
                if trial.should_prune():
                    break
            pruned = length < 12 or trial.should_prune()
            reference.tell(trial, None if pruned else values[-1], optuna.trial.TrialState.PRUNED if pruned else None)
            bars = ours.bars(complete, halted, mode=mode)
            rows = [{"epoch": epoch, "val/acc": value} for epoch, value in enumerate(values)]
            halt = Halt(worse_than=bars, mode=mode)
            own = next((epoch for epoch in range(1, 13) if halt.reason(rows[:epoch])), 12)
            assert own == length
            lengths.append(length)
            (halted if pruned else complete).append(dict(enumerate(values[:length], 1)))
        assert min(lengths) < 12 == max(lengths)


def test_a_curve_is_the_mean_as_far_as_all_have_come() -> None:
    rows = [
        [{"epoch": 1, "a": 1.0}, {"epoch": 2, "a": 2.0}],
        [{"epoch": 1, "a": 3.0}],
    ]
    assert search.mean_curve(rows, "a") == {1: 2.0} and search.mean_curve([], "a") == {} and search.mean_curve(rows, "b") == {}


# ---- with real runs -------------------------------------------------------------------------------------------------------------------


def test_a_real_study_halts_bad_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    from attnlab.train import job

    words = ["optimizer.lr=choice(0.1,0.2,1e-6,2e-6)", "hydra.sweeper.sampler=grid", "hydra.sweeper.seed=1", "hydra.sweeper.n_trials=4"]
    words += ["hydra.sweeper.pruner=successive_halving", "hydra.sweeper.pruner_options={factor: 2}"]
    monkeypatch.setattr(sys, "argv", command(tmp_path, *words))
    main(job)
    found = trials(tmp_path)
    states = {trial.state.name for trial in found}
    assert len(found) == 4 and states == {"COMPLETE", "PRUNED"}
    assert all(set(trial.intermediate_values) == {1, 2, 3, 4} for trial in found if trial.state.name == "COMPLETE")
    best = max((trial for trial in found if trial.state.name == "COMPLETE"), key=lambda trial: trial.value)
    assert float(best.params["optimizer.lr"]) >= 0.1
