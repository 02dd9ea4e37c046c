"""hydra/sweeper=optuna: what may be chosen, what is kept, who is halted; studies with pretended work, and one that trains."""

import hashlib
import json
import math
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
from omegaconf import OmegaConf
from optuna.pruners import MedianPruner, SuccessiveHalvingPruner

from attnlab.callbacks.halt import Halt
from attnlab.config.build import build
from attnlab.config.plan import Plan
from attnlab.config.signatures import complete
from attnlab.config.targets import ConfigError
from attnlab.records.query import read_runs
from attnlab.records.record import Record
from attnlab.sweeps import search, space, study, sweep
from attnlab.sweeps.cli import main
from attnlab.sweeps.journal import Job
from attnlab.sweeps.pruners import Median, SuccessiveHalving
from attnlab.train import job
from tests.commands import Forked
from tests.conftest import POINTS

WORDS = [*POINTS, "trainer.max_epochs=4", "ood=none", "evaluator=none", "data.val=0.25", "hydra/sweeper=optuna"]
LR = "++optimizer.lr=tag(log,interval(1e-3,1e-1))"
EPOCHS = 4


@pytest.fixture(autouse=True)
def _console(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep.log, "handlers", [])
    monkeypatch.setattr(sweep.log, "propagate", True)


# ---- studies of pretended runs, whose curve is a function of their overrides: no composition, no training ------------------------------


def last_of(values: dict[str, str]) -> float:
    """Best near lr = 0.01, a little better with a small batch, a little by the seed."""
    lr, batch, seed = (float(values.get(key, default)) for key, default in (("optimizer.lr", 0.01), ("data.batch_size", 16), ("seed", 0)))
    return 0.9 - 0.2 * abs(math.log10(lr) + 2) - batch / 1e4 + seed / 1e3


class Pretending:
    """What a study asks of a Guard. `ran` are the overrides of the runs that were not there; `fails(values)`: whether one fails; `dies`:
    the number of the run in which the process is killed."""

    def __init__(self, outputs: Path, *, fails: Callable[[dict], bool] = lambda values: False, dies: int = 0) -> None:
        self.outputs, self.fails, self.dies = outputs, fails, dies
        self.jobs: list[Job] = []
        self.ran: list[dict[str, str]] = []
        self.chosen: set[str] = set()

    def launch(self, words: Sequence[Sequence[str]], initial_job_idx: int) -> list[Any]:
        self.jobs += [self.run(one) for one in words]
        return []

    def run(self, words: Sequence[str]) -> Job:
        values = dict(word.lstrip("+").partition("=")[::2] for word in words)
        halt = values.pop("halt", None)
        address = hashlib.sha256(json.dumps(values).encode()).hexdigest()[:8]
        full = {"paths": {"outputs": str(self.outputs)}}
        one = Job(tuple(words), plan=SimpleNamespace(full=full, address=address, label="pretended", run_id=f"pretended-{address}"))
        folder = Record.find(self.outputs, address, "pretended")
        before = (folder.result() or {}).get("metrics", {})
        if before:
            one.outcome, one.value = "skipped", before["val/acc"]
            return one
        self.ran.append(values)
        if len(self.ran) == self.dies:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fails(values):
            one.outcome, one.error = "failed", "the disk was away"
            return one
        rows = [{"epoch": epoch, "val/acc": last_of(values) - 0.3 / (1 + epoch)} for epoch in range(EPOCHS)]
        if halt:
            asked = Halt(**OmegaConf.to_container(OmegaConf.create(halt)))
            ends = next((end for end in range(1, EPOCHS) if asked.reason(rows[:end])), EPOCHS)
            rows = rows[:ends]
        folder.write_history(rows)
        if len(rows) == EPOCHS:
            one.outcome, one.value = "done", rows[-1]["val/acc"]
        else:
            one.outcome = "halted"
        folder.write(
            {
                "status": "finished",
                "run_id": one.plan.run_id,
                "config": {},
                "seed": 0,
                "metrics": {"val/acc": one.value} if one.value else {},
            }
        )
        return one


def sweeper(outputs: Path, guard: Any, *, params: dict | None = None, force: bool = False, **options: Any) -> search.OptunaSweeper:
    """As a sweep builds it, with another guard."""
    node = {"_target_": "attnlab.sweeps.search.OptunaSweeper", **options}
    found = build(complete(node, where="hydra.sweeper")[0], where="hydra.sweeper")
    found.config = OmegaConf.create({"paths": {"outputs": str(outputs)}, "force": force, "fail_fast": False})
    found.guard, found.loader, found.params = guard, None, params or {}
    return found


@pytest.fixture
def go(tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture) -> Callable[..., SimpleNamespace]:
    """`go(LR, n_trials=5)` is one command: the runs it made, its summary, what it printed, the trials there are after it."""

    def command(*words: str, fails: Callable[[dict], bool] = lambda values: False, **options: Any) -> SimpleNamespace:
        guard = Pretending(tmp_path, fails=fails)
        found = sweeper(tmp_path, guard, **options)
        capsys.readouterr()
        found.sweep(list(words))
        return SimpleNamespace(ran=guard.ran, said=list(found.summary()), out=capsys.readouterr().out, trials=trials(tmp_path))

    return command


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
    words, options = (LR, "++data.batch_size=choice(16,32)", "model=mlp2d"), {"startup": 6}
    done = go(*words, n_trials=20, **options)
    assert len(done.ran) == len(done.trials) == 20
    best = max(done.trials, key=lambda trial: trial.value)
    assert best.value > 0.8 and best.intermediate_values.keys() == {1, 2, 3, 4}
    assert done.said[0].endswith(": 20 complete, of 20; val/acc, maximized")
    assert done.said[1].split() == ["optimizer.lr", "data.batch_size", "val/acc", "trial"]
    assert done.said[2].split() == [str(best.params["optimizer.lr"]), best.params["data.batch_size"], f"{best.value:.4f}", str(best.number)]
    assert done.said[-2].startswith("importance: optimizer.lr 0.")
    words_of_best = f"optimizer.lr={best.params['optimizer.lr']} data.batch_size={best.params['data.batch_size']}"
    assert done.said[-1] == f"the best: python -m attnlab.train model=mlp2d {words_of_best}"
    assert done.out == f"{tmp_path}/runs/{best.user_attrs['runs'][0]}/result.json\n"
    again = go(*words, n_trials=20, **options)
    assert again.ran == [] and told(again.trials) == told(done.trials) and (again.out, again.said) == (done.out, done.said)
    more = go(*words, n_trials=22, **options)
    assert len(more.ran) == 2 and told(more.trials)[:20] == told(done.trials)
    journal(tmp_path).unlink()  # from the records alone
    again = go(*reversed(words[2:]), *words[:2], n_trials=20, **options)
    assert again.ran == [] and told(again.trials) == told(done.trials)


@pytest.mark.parametrize("sampler", ["tpe", "random", "gp", "grid"])
def test_a_study_that_was_killed_is_the_one_that_never_was(sampler: str, tmp_path: Path) -> None:
    key = "++optimizer.lr=choice(0.001,0.003,0.01,0.03)" if sampler == "grid" else LR
    options = {"n_trials": 9, "n_jobs": 2, "startup": 3, "sampler": sampler, "pruner": "median", "pruner_options": {"startup": 2}}

    def sweep_in(outputs: Path, dies: int = 0) -> int:
        guard = Pretending(outputs, dies=dies)
        return Forked(
            lambda: sweeper(outputs, guard, **options).sweep([key, "++data.batch_size=range(16,49,16)"]), output=tmp_path / "said"
        ).wait()

    one, two = tmp_path / "one", tmp_path / "two"
    assert sweep_in(one) == 0
    for number in (1, 2, 3, 1):  # in the first run of a batch, in its second, in that of the next
        assert sweep_in(two, number) == -signal.SIGKILL
        with open(journal(two), "ab") as file:
            file.write(b'{"op_code":4,"worker_id":"half a li')
        Path(f"{journal(two)}.lock").symlink_to("nowhere")
    assert sweep_in(two) == 0
    assert told(trials(one)) == told(trials(two)) and len(trials(one)) == 9
    assert len({json.dumps(trial.params) for trial in trials(one)}) >= 7  # not one suggestion again and again
    assert {trial.state.name for trial in trials(one)} == {"COMPLETE", "PRUNED"}


def test_a_failing_trial_stops_no_other_and_is_tried_again_by_the_next_command(go) -> None:
    words, broken = ("++data.batch_size=range(16,65,16)",), {"data.batch_size": "32", "objective": "val/acc"}
    done = go(*words, sampler="grid", fails=lambda values: values == broken)
    assert [trial.state.name for trial in done.trials].count("FAIL") == 1 and "3 complete, 1 failed, of 4" in done.said[0]
    (failed,) = [trial for trial in done.trials if trial.state.name == "FAIL"]
    assert failed.user_attrs["error"] == "the disk was away" and failed.params == {"data.batch_size": 32}
    again = go(*words, sampler="grid")
    assert again.ran == [broken] and "4 complete, of 4" in again.said[0]
    assert len(again.trials) == 5 and again.trials[-1].user_attrs["retries"] == failed.number
    assert go(*words, sampler="grid").ran == []


def test_a_mistake_that_all_trials_share_ends_the_study_and_leaves_none(go) -> None:
    done = go(LR, n_jobs=2, fails=lambda values: True)
    assert len(done.ran) == 2 and done.trials == [] and done.said == []


def test_a_trial_may_be_the_mean_over_seeds_and_two_that_are_one_run_train_once(go) -> None:
    done = go("++data.batch_size=choice(16,32)", "seed=0,2", sampler="random", n_trials=6, n_jobs=2)
    assert sorted((one["data.batch_size"], one["seed"]) for one in done.ran) == [("16", "0"), ("16", "2"), ("32", "0"), ("32", "2")]
    assert len(done.trials) == 6 and {len(trial.user_attrs["runs"]) for trial in done.trials} == {2}
    for trial in done.trials:
        wanted = [last_of({"seed": seed, **trial.params}) - 0.3 / EPOCHS for seed in ("0", "2")]
        assert trial.value == pytest.approx(sum(wanted) / 2, abs=1e-12)
    assert done.said[-1] == "the best: python -m attnlab.train -m seed=0,2 data.batch_size=16"


def test_parameters_may_stand_in_the_sweepers_part_and_the_direction_is_the_metrics(go, tmp_path: Path) -> None:
    params = {"optimizer.lr": "tag(log,interval(1e-3,1e-1))", "data": {"batch_size": "range(16,65,16)"}}
    done = go("++data.batch_size=range(16,33,16)", params=params, n_trials=3)
    assert all(trial.distributions["data.batch_size"].high == 32 and "optimizer.lr" in trial.params for trial in done.trials)
    for metric, direction in {"val/acc": "maximize", "val/nll": "minimize", "train/loss": "minimize"}.items():
        assert sweeper(tmp_path, None, metric=metric).direction == direction
    assert sweeper(tmp_path, None, metric="val/nll", direction="maximize").mode == "max"


def test_a_journal_that_cannot_be_trusted_is_set_aside(go, tmp_path: Path) -> None:
    words, options = ("++data.batch_size=choice(16,32)",), {"n_trials": 2, "sampler": "grid"}
    before = go(*words, **options)
    path = journal(tmp_path)
    whole = path.read_text()
    for text, wrong in (
        (whole.replace("data.batch_size", "allow_targets"), r"is damaged \(trial 0 is none of this study\)"),
        (whole.replace('\\"16\\"', '\\"66\\"'), r"is damaged \(trial . is none of this study\)"),
        (whole.replace('"batch":', '"patch":'), r"is damaged \(trial . is none of this study\)"),
        ("{}\n" + whole, r"is damaged \(KeyError"),
        (whole.replace("{", "[", 1), r"is damaged \(JSONDecodeError"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=rf"{wrong}.*was set aside as .*the same command again does what is missing"):
            go(*words, **options)
        assert not path.exists()
        again = go(*words, **options)
        assert told(again.trials) == told(before.trials) and again.ran == []


def test_force_begins_anew_and_keeps_the_old_study(go, tmp_path: Path) -> None:
    go("++data.batch_size=choice(16,32)", n_trials=2, sampler="grid")
    assert len(go("++data.batch_size=choice(16,32)", n_trials=2, sampler="grid", force=True).trials) == 2
    assert len(list((tmp_path / "studies").glob("*.old"))) == 1


# ---- the parts -----------------------------------------------------------------------------------------------------------------------


def space_from(*words: str) -> space.Space:
    return space.space_of(words, {}, loader=None)


def test_the_words_of_hydra_and_what_may_be_chosen() -> None:
    words = ["++a.b=x,[p,q],null", "++i=int(interval(1,9))", "++f=interval(1,9)", "++g=range(0.1,0.5,0.1)", "++n=range(8,0,-2)", "m=3"]
    found = space_from(*words)
    parameters = found.parameters
    assert found.base == ("m=3",) and parameters["a.b"].choices == ("x", "[p,q]", "null")
    assert parameters["i"].whole and not parameters["f"].whole and parameters["n"].grid() == [2, 4, 6, 8]
    assert parameters["g"].grid() == [0.1, 0.2, 0.1 + 0.2, 0.4] and parameters["g"].rounded(0.3) == 0.1 + 0.2  # as a plain sweep
    assert parameters["f"].rounded(8.99999999) == 9.0 and parameters["f"].rounded(1.23456789) == 1.23457
    assert found.words({"a.b": "null", "i": 2, "f": 1.5, "g": 0.2, "n": 4}) == ["++a.b=null", "++i=2", "++f=1.5", "++g=0.2", "++n=4"]
    good = {"a.b": "x", "i": 1, "f": 2.0, "g": 0.4, "n": 8}
    assert found.holds(good)
    for key, value in (("a.b", "y"), ("i", 1.5), ("i", 0), ("f", "os.system"), ("g", 0.35), ("n", 3), ("i", True)):
        assert not found.holds({**good, key: value})
    assert not found.holds({**good, "more": 1}) and not found.holds({"i": 1})


@pytest.mark.parametrize(
    "words, message",
    [
        (["++optimizer.lr=0.1"], "a study has nothing to choose: give a key several values"),
        (["++optimizer.lr=interval(1,1)"], "optimizer.lr: interval(1.0, 1.0) must go from a number to a larger one"),
        (["++optimizer.lr=tag(log,interval(0,1))"], "both above 0"),
        (["++optimizer.lr=tag(lg,interval(1,2))"], "optimizer.lr: tag lg means nothing to a study"),
        (["++optimizer.lr=tag(log,choice(1,2))"], "tag(log, ...) goes with an interval"),
        (["++n=range(3,3)"], "n: its range is empty"),
        (["seed=interval(0,5)"], "seed: a study does not choose a seed"),
        (["name=a,b"], "name: changes nothing that a study could choose by"),
    ],
)
def test_what_cannot_be_chosen(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        space_from(*words)
    assert message in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "options, words, message",
    [
        ({"metric": "test/acc"}, [], "hydra.sweeper: metric=test/acc: test images are not for tuning by; take val/acc"),
        ({"metric": "ood/msp/mean/auroc"}, [], "test images are not for tuning by"),
        ({"sampler": "cmaes"}, [], "hydra.sweeper.sampler=cmaes: must be one of tpe, gp, random, grid"),
        ({"n_trials": 0}, [], "hydra.sweeper: n_trials must be at least 1, got 0"),
        ({"trials": 5}, [], "unknown key hydra.sweeper.trials; nearest: hydra.sweeper.n_trials"),
        ({"pruner": "hyperband"}, [], "hydra.sweeper.pruner=hyperband: must be one of median, successive_halving or null"),
        ({"pruner": "median", "pruner_options": {"factor": 3}}, [], "unknown key hydra.sweeper.pruner_options.factor"),
        ({"pruner": "median", "pruner_options": {"startup": 0}}, [], "hydra.sweeper.pruner_options: startup must be at least 1"),
        ({"pruner_options": {"factor": 3}}, [], "goes with pruner=median"),
        ({"sampler": "grid"}, [], "optimizer.lr: sampler=grid tries everything, and an interval has no end of numbers"),
        ({}, ["objective=test/acc"], "objective=test/acc: a study goes by hydra.sweeper.metric=val/acc"),
        ({}, ["check=true"], "check=true tries one run"),
        ({"pruner": "median"}, ["halt={worse_than: {1: 0}}"], "halt: set by hydra.sweeper.pruner"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_and_leave_nothing(options: dict, words: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        sweeper(tmp_path, Pretending(tmp_path), **options).sweep([LR, *words])
    assert message in str(raised.value) and "\n" not in str(raised.value) and not list(tmp_path.rglob("*.log"))


def test_without_optuna_a_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna.storages.journal", None)
    with pytest.raises(ConfigError, match=r'needs the package optuna, 4 or later: pip install "attnlab\[optuna\]"'):
        search.OptunaSweeper()


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize("seed", range(4))
def test_pruners_are_optunas_one_trial_at_a_time(mode: str, seed: int) -> None:
    """Curves that only get better, so that the best so far is the present value, which successive halving looks at."""
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
            trial, length, pruned = reference.ask(), 0, False
            while length < 12 and not pruned:
                length += 1
                trial.report(values[length - 1], length)
                pruned = trial.should_prune()
            reference.tell(trial, None if pruned else values[-1], optuna.trial.TrialState.PRUNED if pruned else None)
            halt = Halt(worse_than=ours.bars(complete, halted, mode=mode), mode=mode)
            rows = [{"epoch": epoch, "val/acc": value} for epoch, value in enumerate(values)]
            assert next((epoch for epoch in range(1, 13) if halt.reason(rows[:epoch])), 12) == length
            lengths.append(length)
            (halted if pruned else complete).append(dict(enumerate(values[:length], 1)))
        assert min(lengths) < 12 == max(lengths)


def test_a_curve_is_the_mean_as_far_as_all_have_come() -> None:
    rows = [[{"epoch": 1, "a": 1.0}, {"epoch": 2, "a": 2.0}], [{"epoch": 1, "a": 3.0}]]
    assert search.mean_curve(rows, "a") == {1: 2.0} and search.mean_curve([], "a") == {} and search.mean_curve(rows, "b") == {}


# ---- the command ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[..., SimpleNamespace]:
    """`python -m attnlab.train -m hydra/sweeper=optuna WORDS` in this process."""

    def command(*words: str, work: Callable[[Plan], Any] = job) -> SimpleNamespace:
        seen: list[Plan] = []
        monkeypatch.setattr(sys, "argv", ["train", "-m", *WORDS, f"paths.outputs={tmp_path}", *words])
        capsys.readouterr()
        code = 0
        try:
            main(lambda plan: seen.append(plan) or work(plan))
        except SystemExit as stop:
            code = stop.code
        said = capsys.readouterr()
        return SimpleNamespace(plans=seen, code=code, err=said.err, out=said.out)

    return command


def test_a_real_study_halts_bad_runs_and_a_later_command_takes_them_to_their_end(train, tmp_path: Path) -> None:
    words = ["optimizer.lr=choice(0.1,1e-6)", "hydra.sweeper.sampler=grid", "hydra.sweeper.pruner=successive_halving"]
    done = train(*words, "hydra.sweeper.seed=1", "hydra.sweeper.pruner_options={factor: 2}")
    good, bad = trials(tmp_path)
    assert done.code == 0 and (good.params, bad.params) == ({"optimizer.lr": "0.1"}, {"optimizer.lr": "1e-06"})
    assert (good.state.name, bad.state.name) == ("COMPLETE", "PRUNED")
    assert set(good.intermediate_values) == {1, 2, 3, 4} and set(bad.intermediate_values) == {1}
    assert (
        "sweep of 2 jobs" in done.err and "1 done, 0 skipped, 1 halted, 0 failed" in done.err and "1 complete, 1 halted, of 2" in done.err
    )
    (halted,) = [run for run in read_runs(tmp_path) if run.status == "halted"]
    assert halted.metrics == {} and "worse than" in halted.error
    whole = train("optimizer.lr=1e-6", "hydra/sweeper=basic")
    assert whole.code == 0 and {run.status for run in read_runs(tmp_path)} == {"finished"}
    assert len([run for run in read_runs(tmp_path)]) == 2 and "going on after epoch 1 of 4" in (halted.folder / "train.log").read_text()


def test_a_study_through_hydra(train, tmp_path: Path) -> None:
    """What is said of a component goes to the trials that choose it; what no choice has, or no validation images, is told at once."""
    words = ("regularizer=none,norm_loss", "hydra.sweeper.params={regularizer.norm_loss.weight: '0.1,0.2'}", "hydra.sweeper.sampler=grid")
    done = train(*words, "hydra.sweeper.n_jobs=4", work=lambda plan: 0.5)
    assert len(done.plans) == 3 and done.code == 0 and "4 complete, of 4" in done.err  # the weight is nothing to a run without it
    weights = [plan.full["regularizer"].get("norm_loss", {}).get("penalty", {}).get("weight") for plan in done.plans]
    assert set(weights) == {None, 0.1, 0.2} and all(plan.full["objective"] == "val/acc" for plan in done.plans)
    done = train("loss=choice(ce,cee)")
    assert done.code == 1 and "loss=cee: there is no such loss; nearest: ce" in done.err and done.plans == []
    done = train("optimizer.lr=interval(0.1,1.0)", "data.val=0")
    assert done.code == 1 and done.plans == [] and "no trial has come through; the study ends here" in done.err
    assert "hydra.sweeper.metric=val/acc needs validation images; set data.val=0.1 to hold some out" in done.err
    assert len(list((tmp_path / "studies").glob("*.log"))) == 1
