"""The values a table is made of: plain frozen dataclasses, shared by the text, LaTeX and HTML views. No logic, no torch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Mark = Literal["code", "page", "memory", "text", "fig"]
# metrics that are a share of something, by the last part of their names
SHARES = ("acc", "error", "ece", "auroc", "aupr_in", "aupr_out", "fpr95", "fpr95_id", "iou", "pointing", "energy_inside")
STATUSES = (
    "finished",
    "running",
    "interrupted",
    "halted",
    "failed",
    "broken",
    "missing",
)  # of a run, in the order in which they are listed


@dataclass(frozen=True)
class Paper:
    """A published value, in the metric's unit as shown (e.g. error %)."""

    value: float
    sd: float | None = None
    source: str = ""
    mark: Mark = "page"


def bounds(key: str, *, scale: float = 1.0) -> tuple[float, float]:
    """The ends of what a metric of that name can be, times `scale`: a share of something is in [0, 1]."""
    return (0.0, scale) if key.rpartition("/")[2] in SHARES else (-math.inf, math.inf)


@dataclass(frozen=True)
class Metric:
    """One metric of result.json; shown = scale * (1 - v if complement else v). `direction`: whether more is better, of the SHOWN number."""

    key: str
    label: str
    direction: Literal["max", "min"]
    scale: float = 100.0
    complement: bool = False
    digits: int = 2


@dataclass(frozen=True)
class RunOfCell:
    """One seed of one cell. `status`: one of STATUSES; `value` in the shown unit."""

    seed: int
    run_id: str
    address: str
    overrides: tuple[str, ...]
    status: str
    value: float | None
    folder: Path | None
    error: str | None


@dataclass(frozen=True)
class Paired:
    """The paired comparison with the baseline row over shared seeds (this cell minus the baseline, shown unit)."""

    n: int
    difference: float
    interval: tuple[float, float] | None
    p: float | None


@dataclass(frozen=True)
class Cell:
    """One row x column. `verdict`: holds | differs | too few seeds | other data | not published | missing.

    In a tuned table `runs` are those under the values that were chosen, `chosen` (empty while the choice waits for runs), and `others` the
    cell's runs under the other values.
    """

    row: str
    column: str
    runs: tuple[RunOfCell, ...]
    n: int
    mean: float | None
    sd: float | None
    interval: tuple[float, float] | None
    paper: Paper | None
    difference: float | None
    verdict: str
    paired: Paired | None
    others: tuple[RunOfCell, ...] = ()
    chosen: tuple[str, ...] = ()

    @property
    def every(self) -> tuple[RunOfCell, ...]:
        return (*self.runs, *self.others)


@dataclass(frozen=True)
class Note:
    """A footnote.

    kind: variant | tuned | data | ood | epochs | device | machine | version | commit | warning | defaults | code | seeds | unfinished |
    verdict | published | own.
    """

    kind: str
    text: str


@dataclass(frozen=True)
class Table:
    """A filled table. `notes` are its footnotes; `variant` names the extra overrides of a table that is not the paper's own."""

    name: str
    title: str
    paper: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    metric: Metric
    cells: dict[tuple[str, str], Cell]
    baseline: str | None
    notes: tuple[Note, ...]
    command: str
    variant: str | None
    own_metrics: Mapping[str, Metric] = field(default_factory=dict)  # of the columns that have one of their own

    def metric_of(self, column: str) -> Metric:
        return self.own_metrics.get(column, self.metric)
