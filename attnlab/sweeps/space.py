"""Space: what a study may choose, from Hydra's words for sweeps: choice, range, interval, tag(log, ...)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from attnlab.config.compose import loosen, typed
from attnlab.config.targets import ConfigError

NOT_TUNED = ("objective", "paths.outputs", "force", "check", "name", "retries", "fail_fast", "same_code", "halt", "allow_targets")


@dataclass(frozen=True)
class Parameter:
    """One key that a study chooses values of. key: as Hydra takes it (`++optimizer.lr`). choices: texts. values: evenly spaced
    numbers in order, where there are finitely many; low and high: the ends of an interval. whole: of whole numbers; log: by logarithm."""

    key: str
    choices: tuple[str, ...] = ()
    values: tuple[int | float, ...] = ()
    low: float = 0.0
    high: float = 0.0
    whole: bool = False
    log: bool = False

    @property
    def name(self) -> str:
        return typed(self.key)

    def distribution(self) -> Any:
        """As Optuna sees it."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.choices:
            return CategoricalDistribution(self.choices)
        if self.values:
            step = self.values[1] - self.values[0] if len(self.values) > 1 else 1
            return (IntDistribution if self.whole else FloatDistribution)(self.values[0], self.values[-1], step=step)
        return (IntDistribution if self.whole else FloatDistribution)(self.low, self.high, log=self.log)

    def grid(self) -> list[Any]:
        """Everything that may be chosen."""
        if not (self.choices or self.values or self.whole):
            raise ConfigError(f"{self.name}: sampler=grid tries everything, and an interval has no end of numbers; use range or choice")
        return list(self.choices or self.values or range(int(self.low), int(self.high) + 1))

    def rounded(self, value: Any) -> Any:
        """The value of a plain sweep's range that is meant; six digits of a number on an interval: what a command says is what was run."""
        if self.values:
            return min(self.values, key=lambda one: abs(one - value))
        return min(max(float(f"{value:.6g}"), self.low), self.high) if isinstance(value, float) else value

    def word(self, value: Any) -> str:
        """The override of a choice."""
        return f"{self.key}={value}"


@dataclass(frozen=True)
class Space:
    """base: the overrides of every trial. parameters: by name. seeds: a trial is its mean over them."""

    base: tuple[str, ...]
    parameters: Mapping[str, Parameter]
    seeds: tuple[str, ...] = field(default=())

    def words(self, params: Mapping[str, Any]) -> list[str]:
        """The overrides that a trial's parameters are."""
        return [parameter.word(params[name]) for name, parameter in self.parameters.items()]

    def holds(self, params: Mapping[str, Any]) -> bool:
        """Whether these are values of this space; a file may say anything."""
        if set(params) != set(self.parameters):
            return False
        return all(_contains(parameter, params[name]) for name, parameter in self.parameters.items())


def _contains(parameter: Parameter, value: Any) -> bool:
    if parameter.choices:
        return value in parameter.choices
    if not isinstance(value, int if parameter.whole else int | float) or isinstance(value, bool):
        return False
    return value in parameter.values if parameter.values else parameter.low <= value <= parameter.high


def space_of(words: Sequence[str], params: Mapping[str, Any], *, loader: Any) -> Space:
    """The space of a command's overrides and of `hydra.sweeper.params`; the command goes first. ConfigError: nothing to choose, or what
    cannot be chosen."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    given = loosen([f"{key}={value}" for key, value in flat(params).items()])
    overrides = {one.get_key_element(): one for one in OverridesParser.create(config_loader=loader).parse_overrides([*given, *words])}
    base, parameters, seeds = [], {}, ()
    for key, override in overrides.items():
        if not override.is_sweep_override():
            base.append(override.input_line)
        elif key == "seed":
            if not override.is_discrete_sweep():
                raise ConfigError("seed: a study does not choose a seed; seed=0,1,2 makes the mean over them a trial's value")
            seeds = tuple(override.sweep_string_iterator())
        elif typed(key) in NOT_TUNED:
            raise ConfigError(f"{typed(key)}: changes nothing that a study could choose by; give it one value")
        else:
            parameter = parameter_of(key, override)
            parameters[parameter.name] = parameter
    if not parameters:
        raise ConfigError("a study has nothing to choose: give a key several values, such as 'optimizer.lr=tag(log,interval(1e-3,1e-1))'")
    return Space(tuple(base), parameters, seeds)


def parameter_of(key: str, override: Any) -> Parameter:
    """What an override with several values may choose."""
    from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, RangeSweep

    sweep, name = override.value(), typed(key)
    if unknown := sorted(sweep.tags - {"log"}):
        raise ConfigError(f"{name}: tag {unknown[0]} means nothing to a study; tag(log, interval(...)) is by its logarithm")
    log = "log" in sweep.tags
    if log and not isinstance(sweep, IntervalSweep):
        raise ConfigError(f"{name}: tag(log, ...) goes with an interval, such as tag(log,interval(1e-3,1e-1))")
    if isinstance(sweep, ChoiceSweep):
        return Parameter(key, choices=tuple(dict.fromkeys(override.sweep_string_iterator())))
    if isinstance(sweep, RangeSweep):
        values = tuple(sorted(sweep.range()))
        if not values:
            raise ConfigError(f"{name}: its range is empty")
        return Parameter(key, values=values, whole=all(isinstance(value, int) for value in values))
    low, high = sweep.start, sweep.end
    if not (math.isfinite(low) and math.isfinite(high) and low < high) or (log and low <= 0):
        raise ConfigError(f"{name}: interval({low}, {high}) must go from a number to a larger one{', both above 0' if log else ''}")
    return Parameter(key, low=low, high=high, whole=isinstance(low, int) and isinstance(high, int), log=log)


def flat(params: Mapping[str, Any], where: str = "") -> dict[str, str]:
    """`{optimizer: {lr: ...}}` and `{optimizer.lr: ...}` are one."""
    found: dict[str, str] = {}
    for key, value in params.items():
        path = f"{where}.{key}" if where else str(key)
        found |= flat(value, path) if isinstance(value, Mapping) else {path: str(value)}
    return found
