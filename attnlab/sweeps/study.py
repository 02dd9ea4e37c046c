"""Study: the trials of a sweep by Optuna, in a journal on disk that any later command goes on with.

A trial is written whole, with its parameters, before it is run, and its number decides the random numbers that chose it: so a study that
was killed at any moment chooses what it would have chosen. Optuna's own samplers draw on from wherever a process began.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from attnlab.config.signatures import conforms
from attnlab.config.targets import ConfigError
from attnlab.records.atomic import set_aside
from attnlab.records.lock import hold
from attnlab.sweeps.space import Space

log = logging.getLogger("attnlab")

NAME = "study"  # of the one study in a journal
RETRIED, BATCH, RUNS = "retries", "batch", "runs"  # of a trial: the failed one that it tries again; when it was chosen; its runs


def samplers(space: Space, *, startup: int) -> dict[str, Callable[[int], Any]]:
    """Optuna's samplers by their names here, each from a seed.

    CMA-ES is not among them: its state is a pickle in the study's file, which in a file of somebody else could run anything.
    """
    from optuna.samplers import GPSampler, GridSampler, RandomSampler, TPESampler

    return {
        "tpe": lambda seed: TPESampler(seed=seed, n_startup_trials=startup),
        "random": lambda seed: RandomSampler(seed=seed),
        "gp": lambda seed: GPSampler(seed=seed, n_startup_trials=startup),
        "grid": lambda seed: GridSampler({name: one.grid() for name, one in space.parameters.items()}, seed=seed),
    }


class Study:
    """The trials of one definition. `path`: its journal; `open` holds it for this process."""

    def __init__(self, path: Path, space: Space, *, direction: str, sampler: Callable[[int], Any]) -> None:
        """sampler: of a trial's number."""
        self.path, self.space, self.direction, self.sampler = path, space, direction, sampler
        self.distributions = {name: parameter.distribution() for name, parameter in space.parameters.items()}

    @contextlib.contextmanager
    def open(self) -> Iterator["Study"]:
        def waiting(who: str) -> None:
            log.info("%s: %s works on this study; waiting for it (Ctrl-C to stop waiting)", self.path, who)

        with hold(self.path.parent / ".locks" / f"{self.path.stem}.lock", waiting=waiting):
            self._mend()
            self._load()
            yield self

    def _mend(self) -> None:
        """What a killed process leaves: half a line, and Optuna's lock, which is ours to take while we hold the study's own."""
        for left in self.path.parent.glob(f"{self.path.name}.lock*"):
            left.unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError), open(self.path, "rb+") as file:
            whole = file.read().rfind(b"\n") + 1
            file.truncate(whole)

    def _load(self) -> None:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            self.storage = JournalStorage(JournalFileBackend(str(self.path)))
            self.study = optuna.create_study(
                storage=self.storage,
                study_name=NAME,
                direction=self.direction,
                load_if_exists=True,
                sampler=optuna.samplers.RandomSampler(),
            )
            foreign = [trial.number for trial in self.trials if not (self.space.holds(trial.params) and _is_ours(trial.user_attrs))]
        except OSError:
            raise
        except Exception as error:  # whatever Optuna makes of a line that is none
            raise set_aside(self.path, f"is damaged ({type(error).__name__}: {' '.join(str(error).split())})") from error
        if foreign:
            raise set_aside(self.path, f"is damaged (trial {foreign[0]} is none of this study)")

    # ---- what is there ------------------------------------------------------------------------------------------------------------

    @property
    def trials(self) -> list[Any]:
        """In order; a failed one that was tried again stands there by its last try alone."""
        found = self.study.get_trials(deepcopy=False)
        again = {trial.user_attrs.get(RETRIED) for trial in found}
        return [trial for trial in found if trial.number not in again]

    def having(self, *states: str) -> list[Any]:
        return [trial for trial in self.trials if trial.state.name in states]

    @property
    def best(self) -> list[Any]:
        """The complete trials, the best first."""
        sign = -1 if self.direction == "maximize" else 1
        return sorted(self.having("COMPLETE"), key=lambda trial: (sign * trial.value, trial.number))

    # ---- what comes ---------------------------------------------------------------------------------------------------------------

    def batch(self, size: int, left: int) -> list[Any]:
        """The next trials to run, at most `size`: those that were begun, each with its own values, or else `left` new ones at most."""
        begun = self.having("RUNNING")[:size]
        number = begun[0].user_attrs[BATCH] if begun else 1 + max((trial.user_attrs[BATCH] for trial in self.trials), default=-1)
        if begun and any(trial.user_attrs[BATCH] == number for trial in self.trials if trial.state.is_finished()):
            return begun  # the batch was chosen in full
        for _ in range(min(size - len(begun), left)):
            self._add(self._chosen(), **{BATCH: number})
        return self.having("RUNNING")[:size]

    def _chosen(self) -> Any:
        """What the sampler chooses for the next trial. It is asked of a copy, so that the trial enters the journal whole."""
        import optuna

        trials = self.study.get_trials(deepcopy=False)
        copy = optuna.create_study(direction=self.direction, sampler=self.sampler(len(trials)))
        copy.add_trials(trials)
        copy.ask(self.distributions)
        return copy.trials[-1]

    def _add(self, chosen: Any, **attributes: Any) -> None:
        from optuna.trial import TrialState, create_trial

        params = {name: self.space.parameters[name].rounded(value) for name, value in chosen.params.items()}
        self.study.add_trial(
            create_trial(
                state=TrialState.RUNNING,
                params=params,
                distributions=self.distributions,
                system_attrs=chosen.system_attrs,
                user_attrs=attributes,
            )
        )

    def try_again(self) -> None:
        """Trials that failed in an earlier command, once more with their values."""
        number = 1 + max((trial.user_attrs[BATCH] for trial in self.trials), default=-1)
        for trial in self.having("FAIL"):
            self._add(trial, **{BATCH: number, RETRIED: trial.number})

    def tell(self, trial: Any, state: str, *, value: float | None = None, curve: Mapping[int, float], **about: Any) -> None:
        """How a trial ended, with its values by epoch. about: for people who look into the study."""
        from optuna.trial import TrialState

        for epoch, reached in curve.items():
            self.storage.set_trial_intermediate_value(trial._trial_id, epoch, reached)
        for name, text in about.items():
            self.storage.set_trial_user_attr(trial._trial_id, name, text)
        self.study.tell(trial.number, value, state=TrialState[state])

    # ---- what is said of it -------------------------------------------------------------------------------------------------------

    def importance(self) -> dict[str, float]:
        """The share of the spread of the complete trials' values that each parameter explains (fANOVA, Hutter et al., ICML 2014); empty
        where there are too few trials, or no spread."""
        from optuna.importance import FanovaImportanceEvaluator, get_param_importances

        if len(self.space.parameters) < 2 or len({trial.value for trial in self.best}) < 2 or len(self.best) < 8:
            return {}
        return get_param_importances(self.study, evaluator=FanovaImportanceEvaluator(seed=0))


def _is_ours(attributes: Mapping[str, Any]) -> bool:
    """Whether a trial says of itself what we write; a file may say anything."""
    return conforms(attributes.get(BATCH), int) and conforms(attributes.get(RUNS, []), list[str])


def check_optuna() -> None:
    """ConfigError where Optuna is not installed, or is one that this was not written for."""
    try:
        from optuna.storages.journal import JournalFileBackend  # noqa: F401
    except ImportError:
        raise ConfigError('hydra/sweeper=optuna needs the package optuna, 4 or later: pip install "attnlab[optuna]"') from None


def seed_of(seed: int, number: int) -> int:
    """The seed of the trial of a number in a study of a seed."""
    import numpy as np

    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
