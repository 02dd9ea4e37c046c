"""Re-evaluation: the evaluators once more, on finished runs' networks, with other evaluators, heads, explainers or data."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from attnlab.config.groups import having
from attnlab.config.plan import Plan, outputs
from attnlab.config.targets import ConfigError, locate
from attnlab.data.base import ImageData
from attnlab.ensemble import Ensemble, Renormalised
from attnlab.ensemble.concatenation import Concatenation
from attnlab.pipeline.evaluation_run import EvaluationRun
from attnlab.pipeline.factory import make_learner
from attnlab.records import code, images
from attnlab.records.checkpoint import read_checkpoint
from attnlab.records.record import Record, read_history


@dataclass(frozen=True)
class FinishedRun:
    """A finished run: where it is, the plan that builds its network, its stored result."""

    folder: Path
    plan: Plan
    stored: Mapping[str, Any]

    @property
    def run_id(self) -> str:
        return self.stored["run_id"]

    @property
    def learned(self) -> str:
        shape, classes = self.stored["data"]["shape"], self.stored["data"]["classes"]
        names = ", ".join(classes[:3]) + ", ..." * (len(classes) > 3)
        return f"{len(classes)} classes ({names}) of {shape}"

    def network(self, data: ImageData) -> nn.Module:
        """What the run tested (its averaged weights, say), on the CPU."""
        learner = make_learner(self.plan, data, trains=False)
        record = Record(self.folder)
        if not record.checkpoint_path.exists():
            raise ValueError(f"{record.checkpoint_path}: is missing, so there is no network to evaluate")
        owners = (self.stored.get("training"), record.address)
        checkpoint = read_checkpoint(record.checkpoint_path, owners, learner.state_dict())
        learner.restore(checkpoint)
        return learner.tested()


class Reevaluation(EvaluationRun):
    """A finished run under `plan`: its own configuration, but for data, device and what is asked of it; see `attnlab.evaluate`.

    `folder` takes the record and `about` begins it; by default they are a folder of the run's and what its own record says of the network.
    """

    def __init__(self, plan: Plan, run: FinishedRun, *, folder: Path | None = None, about: Mapping[str, Any] | None = None) -> None:
        about = about or {key: run.stored[key] for key in ("run_id", "parameters", "places", "epochs")}
        super().__init__(plan, folder or run.folder / "evaluations" / plan.address, about)
        self.run = run

    def accept(self, data: ImageData) -> None:
        was = self.run.stored["data"]
        if list(data.shape) != was["shape"] or data.num_classes != len(was["classes"]):
            raise ConfigError(
                f"data: the run learned {len(was['classes'])} classes of {was['shape']}, this set has {data.num_classes} of "
                f"{list(data.shape)}; choose data of the same shape and classes"
            )
        if self.plan.full["data"]["mean"] is None:  # the network goes on seeing images as it did in training, also those of another set
            data.mean, data.std = tuple(was["mean"]), tuple(was["std"])

    def look_at_origin(self) -> None:
        """Where the data are the run's own by their configuration, but not by their digests; where its network is made by other code."""
        result, stored = self.writer.result, self.run.stored
        then, now = stored["data"].get("digests", {}), result["data"]["digests"]
        changed = images.changed(then, now)
        if changed and self.plan.full["data"] == stored["config"].get("data"):
            found = ", ".join(f"{split} ({images.difference(split, then, now)})" for split in changed)
            result["warnings"] = [f"images are not those of {self.run.run_id}: {found}"]
        if others := code.changed(stored.get("code", {}), code.code_of(self.run.plan, trained=True)):
            text = f"code is not that of {self.run.run_id}: {', '.join(others)}"
            result["warnings"] = [*result.get("warnings", ()), text]

    def folders_of_logits(self) -> tuple[Path, ...]:
        return self.run.folder, self.record.folder

    def make_network(self) -> nn.Module:
        return self.run.network(self.data)

    def history(self) -> list[dict[str, float]]:
        return read_history(self.run.folder / "metrics.csv")


class EnsembleReevaluation(Reevaluation):
    """Several finished runs as one `Ensemble`, on the first one's data as `plan` has them; join="features": as one `Concatenation`.

    The record is `<outputs>/ensembles/<label>-<address>`; the address is that of the members, in any order, and of what they are evaluated
    on: data (less the seed, which moves no test image), evaluators, precision.
    Raises ValueError: a run given twice, or two of one training; members that learned other classes or another shape.
    """

    def __init__(self, plan: Plan, runs: Sequence[FinishedRun], *, command: str, join: str = "probabilities") -> None:
        first = runs[0]
        for i, run in enumerate(runs):
            if run.run_id in [other.run_id for other in runs[:i]]:
                raise ValueError(f"run={run.folder}: is given twice; the members of an ensemble are different runs")
            training = run.stored.get("training")  # None: a record from before it was kept
            same = [other.run_id for other in runs[:i] if training and training == other.stored.get("training")]
            if same:
                raise ValueError(
                    f"run={run.folder}: has the network of {same[0]}, as they differ in what is asked after training only; give one of them"
                )
            if any(run.stored["data"][key] != first.stored["data"][key] for key in ("shape", "classes")):
                raise ValueError(
                    f"run={run.folder}: learned {run.learned}, and {first.run_id} {first.learned}; members of an ensemble share both"
                )
        self.runs = sorted(runs, key=lambda run: run.run_id)
        members = [run.run_id for run in self.runs]
        evaluated = {
            "members": members,
            "data": {key: value for key, value in plan.short["data"].items() if key != "seed"},
            **{group: plan.short[group] for group in having(trains=False, counts=True)},
            "trainer": {"precision": plan.full["trainer"].get("precision")},
            "join": None if join == "probabilities" else join,
        }
        data = locate(plan.full["data"]["_target_"], allow=plan.allow)
        if getattr(data, "several_labels", False):
            raise ConfigError("data: has several classes an image, and an ensemble is the mean of softmaxes; give one run")
        self.kind = Concatenation if join == "features" else Ensemble
        plan = plan.changed(short=evaluated, label=label_of(members) + ("-cat" if join == "features" else ""))
        about = {"run_id": plan.run_id, "members": members, "command": command, "parameters": sum(run.stored["parameters"] for run in runs)}
        super().__init__(plan, first, folder=outputs(plan) / "ensembles" / plan.run_id, about=about)

    def make_network(self) -> nn.Module:
        return self.kind([self.member(run) for run in self.runs])

    def history(self) -> list[dict[str, float]]:
        return []

    def member(self, run: FinishedRun) -> nn.Module:
        """The run's network, fed as it was in training: with a channel's mean and spread of its own training images."""
        given = list(self.data.mean), list(self.data.std)
        learned = run.stored["data"]["mean"], run.stored["data"]["std"]
        network = run.network(self.data)
        return network if given == learned else Renormalised(network, given=given, learned=learned)


def label_of(members: Sequence[str]) -> str:
    """`digits-resnet18-x3` of three seeds; `digits-resnet18+digits-resnet18-rect-x2` of two kinds."""
    stems = sorted({re.sub(r"-s\d+$", "", member.rpartition("-")[0]) for member in members})
    text = "+".join(stems)
    if len(text) > 60:
        text = stems[0][:56] + f"+{len(stems) - 1}" * (len(stems) > 1)
    return f"{text}-x{len(members)}"
