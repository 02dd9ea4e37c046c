"""Sweeper: `hydra/sweeper=optuna`, a sweep whose jobs Optuna chooses, on any launcher; repeat the command to go on with it.

    python -m attnlab.train -m hydra/sweeper=optuna 'optimizer.lr=tag(log,interval(1e-3,1e-1))' 'attention=choice(none,rect)' \\
        data.val=0.1 hydra.sweeper.n_trials=20

What is chosen is written as Hydra's words for sweeps (choice, range, interval, tag(log, ...)) on the command line or in
`hydra.sweeper.params`; what is tried is said in `space.py`, how a study is kept in `study.py`, who is halted early in `pruners.py`.
"""

import functools
import hashlib
import json
import logging
import math
import shlex
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from attnlab.config.build import build
from attnlab.config.compose import typed
from attnlab.config.groups import GROUPS, LAYERS
from attnlab.config.overrides import key_of
from attnlab.config.plan import NOT_IDENTITY, Plan
from attnlab.config.signatures import complete
from attnlab.config.targets import ConfigError
from attnlab.records.atomic import free_name
from attnlab.records.lookup import record_of
from attnlab.records.query import less_is_better
from attnlab.records.record import read_history
from attnlab.sweeps.guard import Guard
from attnlab.sweeps.journal import DONE, FAILED, HALTED, RESUMED, SKIPPED, Job
from attnlab.sweeps.space import space_of
from attnlab.sweeps.study import RUNS, Study, check_optuna, samplers, seed_of
from attnlab.terminal import aligned

log = logging.getLogger("attnlab")

MOST_ROWS = 20  # of the table at the end
PRUNERS = {"median": "attnlab.sweeps.pruners.Median", "successive_halving": "attnlab.sweeps.pruners.SuccessiveHalving"}
DEFAULTS = {
    "n_trials": 20, "n_jobs": 1, "metric": "val/acc", "direction": None, "sampler": "tpe", "seed": 0, "startup": 10, "pruner": None,
    "pruner_options": None, "params": None,  # not {}: Hydra would take no key of its own there
}  # fmt: skip


@functools.cache
def register() -> None:
    """Make `hydra/sweeper=optuna` known to Hydra. Sweeps build it: Hydra itself builds no sweeper outside hydra_plugins."""
    from hydra.core.config_store import ConfigStore

    node = {"_target_": "attnlab.sweeps.search.OptunaSweeper", **DEFAULTS}
    ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node=node, provider="attnlab")


class OptunaSweeper:
    """A study: trials that a sampler chooses by the values of those before; see the top of this file.

    n_trials: of the whole study; a later command may raise it. n_jobs: trials that are chosen and launched together.
    metric: what a trial is judged by, of validation or training images: tuning by test images is refused. direction: whether more is
    better; null: by the metric, as tables do. sampler: tpe (Bergstra et al., NeurIPS 2011), gp, random or grid, from `seed`;
    startup: trials that tpe and gp draw at random before they learn. pruner: null, median or successive_halving, with `pruner_options`.
    params: {key: "interval(0.001,0.1)"}, in place of or beside words on the command line.
    """

    def __init__(
        self,
        *,
        n_trials: int = 20,
        n_jobs: int = 1,
        metric: str = "val/acc",
        direction: Literal["maximize", "minimize"] | None = None,
        sampler: Literal["tpe", "gp", "random", "grid"] = "tpe",
        seed: int = 0,
        startup: int = 10,
        pruner: Literal["median", "successive_halving"] | None = None,
        pruner_options: dict | None = None,
    ) -> None:
        for name, value, least in (("n_trials", n_trials, 1), ("n_jobs", n_jobs, 1), ("seed", seed, 0), ("startup", startup, 1)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if not metric.startswith(("val/", "train/")):
            raise ValueError(f"metric={metric}: test images are not for tuning by; take val/acc or val/nll, and data.val=0.1")
        if pruner_options and not pruner:
            raise ValueError(f"pruner_options={pruner_options}: goes with pruner=median or pruner=successive_halving")
        check_optuna()
        self.n_trials, self.n_jobs, self.metric = n_trials, n_jobs, metric
        self.direction = direction or ("minimize" if less_is_better(metric) else "maximize")
        self.sampler, self.seed, self.startup = sampler, seed, startup
        node = {"_target_": PRUNERS[pruner], **(pruner_options or {})} if pruner else None
        self.pruner_node = complete(node, where="hydra.sweeper.pruner_options")[0]
        self.pruner = build(self.pruner_node, where="hydra.sweeper.pruner_options")
        self.study: Study | None = None

    @property
    def mode(self) -> Literal["max", "min"]:
        return "max" if self.direction == "maximize" else "min"

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        from hydra.core.plugins import Plugins
        from omegaconf import OmegaConf

        self.config, self.loader = config, hydra_context.config_loader
        self.params = OmegaConf.to_container(config.hydra.sweeper, resolve=True)["params"] or {}
        self.guard: Guard = Plugins.instance().instantiate_launcher(hydra_context=hydra_context, task_function=task_function, config=config)
        self.guard.require = self.require

    def sweep(self, arguments: list[str]) -> list[Any]:
        self.space = space_of(arguments, self.params, loader=self.loader)
        self.check_words()
        self.guard.chosen |= self.choosable()
        make = samplers(self.space, startup=self.startup)[self.sampler]
        if self.sampler == "grid":
            self.n_trials = min(self.n_trials, math.prod(len(one.grid()) for one in self.space.parameters.values()))
        path = Path(str(self.config.paths.outputs)) / "studies" / f"{self.address}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.config.force and path.exists():
            path.rename(kept := free_name(path.with_name(f"{path.name}.old")))
            log.info("force=true: the old study is kept in %s", kept)
        # a grid is in one order for all trials
        chosen_by = (lambda number: make(self.seed)) if self.sampler == "grid" else (lambda number: make(seed_of(self.seed, number)))
        study = Study(path, self.space, direction=self.direction, sampler=chosen_by)
        with study.open():
            self.study = study
            return self.run(study)

    def run(self, study: Study) -> list[Any]:
        returns = []
        study.try_again()
        if ended := study.having("COMPLETE", "PRUNED"):
            log.info("going on with study %s: %d of %d trials have ended", study.path, len(ended), self.n_trials)
        while (left := self.n_trials - len(study.trials)) > 0 or study.having("RUNNING"):
            trials = study.batch(self.n_jobs, max(0, left))
            bars = self.bars(study)
            words = [[*self.words(trial.params, bars), *(f"seed={seed}" for seed in seeds)] for trial in trials for seeds in self.repeats]
            first = len(self.guard.jobs)
            returns.append(self.guard.launch(words, initial_job_idx=0))
            jobs, count = self.guard.jobs[first:], len(self.repeats)
            for number, trial in enumerate(trials):
                self.settle(study, trial, jobs[number * count : (number + 1) * count])
            failed = [job for job in jobs if job.outcome == FAILED]
            if failed and not study.having("COMPLETE", "PRUNED", "RUNNING"):  # most likely a mistake that all share
                log.info("no trial has come through; the study ends here")
                study.path.unlink()
                return returns
            if (failed and self.config.fail_fast is True) or {one.number for one in trials} <= {
                one.number for one in study.having("RUNNING")
            }:
                break  # the second: the launcher came to none of them
        for run in study.best[0].user_attrs.get(RUNS, []) if study.best else []:
            print(study.path.parent.parent / "runs" / run / "result.json", flush=True)
        return returns

    @property
    def repeats(self) -> list[list[str]]:
        """The seeds of a trial's runs."""
        return [[seed] for seed in self.space.seeds] or [[]]

    def words(self, params: Mapping[str, Any], bars: Mapping[int, float]) -> list[str]:
        """The overrides of a trial's run; each its own value of `halt`, which is no part of its address."""
        told = ", ".join(f"{epoch}: {value!r}" for epoch, value in bars.items())
        halt = [f"halt={{metric: {self.metric}, mode: {self.mode}, worse_than: {{{told}}}}}"] if bars else []
        return [*self.space.base, *self.space.words(params), f"objective={self.metric}", *halt]

    def bars(self, study: Study) -> dict[int, float]:
        if not self.pruner:
            return {}
        curves = [[trial.intermediate_values for trial in study.having(state)] for state in ("COMPLETE", "PRUNED")]
        return self.pruner.bars(*curves, mode=self.mode)

    def settle(self, study: Study, trial: Any, jobs: Sequence[Job]) -> None:
        """Tell the study how a trial's runs ended; one that was not come to, or interrupted, stays begun."""
        outcomes = {job.outcome for job in jobs}
        if not outcomes <= {DONE, RESUMED, SKIPPED, HALTED, FAILED}:
            return
        about: dict[str, Any] = {RUNS: [job.plan.run_id for job in jobs if job.plan]}
        curve = mean_curve([read_history(record_of(job.plan).folder / "metrics.csv") for job in jobs if job.plan], self.metric)
        values = [job.value for job in jobs]
        if FAILED in outcomes:
            about["error"] = next(job.error for job in jobs if job.outcome == FAILED)
            study.tell(trial, "FAIL", curve=curve, **about)
        elif HALTED in outcomes:
            study.tell(trial, "PRUNED", curve=curve, **about)
        elif all(isinstance(value, int | float) and math.isfinite(value) for value in values):
            study.tell(trial, "COMPLETE", value=statistics.fmean(values), curve=curve, **about)
        else:
            log.error("failed: %s: %s is no number", jobs[0].plan.run_id, self.metric)
            study.tell(trial, "FAIL", curve=curve, error=f"{self.metric} is no number", **about)

    # ---- what a study may not be --------------------------------------------------------------------------------------------------

    def require(self, plan: Plan) -> None:
        """ConfigError for a run in which the metric will not be measured."""
        from attnlab.data.base import ImageData

        if self.metric.startswith("val/") and not plan.full["data"].get("val"):
            data: ImageData = build(plan.full["data"], allow=plan.allow, where="data")
            if not data.has("val"):
                raise ConfigError(f"hydra.sweeper.metric={self.metric} needs validation images; set data.val=0.1 to hold some out")

    def check_words(self) -> None:
        given = {key_of(word): word.partition("=")[2] for word in self.space.base}
        if given.get("objective", self.metric) != self.metric:
            raise ConfigError(f"objective={given['objective']}: a study goes by hydra.sweeper.metric={self.metric}; leave one of them out")
        if given.get("check") == "true":
            raise ConfigError("check=true tries one run; leave out -m and hydra/sweeper=optuna")
        if "halt" in given and self.pruner:
            raise ConfigError("halt: set by hydra.sweeper.pruner; leave one of them out")

    def choosable(self) -> set[str]:
        """The components that some trial may choose: what is said of one goes to the trials that choose it. Every choice of a group is
        composed once, so that one that there is not is told before anything is trained."""
        from attnlab.sweeps.unchosen import chosen_components, component_of

        alone = [word for word in self.space.base if not component_of(word)]
        groups = [one for name, one in self.space.parameters.items() if name in (*GROUPS, *LAYERS)]
        cases = [[*alone, one.word(choice)] for one in groups for choice in one.choices]
        return set().union(*(chosen_components(self.guard.composed_anew(words)) for words in cases))

    @property
    def address(self) -> str:
        """Eight hex digits over what makes a study: not how many trials it has, nor how they are run."""
        base = sorted(typed(word) for word in self.space.base if key_of(word).partition(".")[0] not in NOT_IDENTITY)
        asked = {"sampler": self.sampler, "seed": self.seed, "startup": self.startup, "pruner": self.pruner_node}
        space = {name: repr(parameter) for name, parameter in self.space.parameters.items()}
        content = {"base": base, "space": space, "seeds": self.space.seeds, "metric": self.metric, "direction": self.direction, **asked}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]

    # ---- the end ------------------------------------------------------------------------------------------------------------------

    def summary(self) -> Iterator[str]:
        """The study as it stands: its trials, the best first, what mattered, and the command of the best."""
        study = self.study
        if study is None or not study.path.exists():
            return
        names = {"COMPLETE": "complete", "PRUNED": "halted", "FAIL": "failed", "RUNNING": "to go on"}
        counts = [f"{len(found)} {name}" for state, name in names.items() if (found := study.having(state))]
        yield f"study {study.path}: {', '.join(counts) or 'no trial'}, of {self.n_trials}; {self.metric}, {self.direction}d"
        if not (best := study.best):
            return
        keys = [*self.space.parameters, self.metric, "trial"]
        rows = [[*(str(trial.params[name]) for name in self.space.parameters), f"{trial.value:.4f}", str(trial.number)] for trial in best]
        yield from aligned(keys, rows[:MOST_ROWS], right=(self.metric, "trial"))
        if len(rows) > MOST_ROWS:
            yield f"and {len(rows) - MOST_ROWS} more"
        if shares := study.importance():
            yield "importance: " + ", ".join(f"{name} {share:.2f}" for name, share in shares.items())
        several = ["-m", f"seed={','.join(self.space.seeds)}"] if self.space.seeds else []
        words = [typed(word) for word in (*self.space.base, *self.space.words(best[0].params))]
        yield "the best: python -m attnlab.train " + " ".join(map(shlex.quote, [*several, *words]))


def mean_curve(histories: Sequence[Sequence[Mapping[str, float]]], metric: str) -> dict[int, float]:
    """A metric by epoch, the mean over runs, as far as all have come."""
    curves = [{int(row["epoch"]): row[metric] for row in rows if math.isfinite(row.get(metric, math.nan))} for rows in histories]
    common = set.intersection(*map(set, curves)) if curves else set()
    return {epoch: statistics.fmean(curve[epoch] for curve in curves) for epoch in sorted(common)}
