"""Evaluation: the stages after training once more, on a finished run's network, with other heads or other data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attnlab import record as records
from attnlab.build import ConfigError
from attnlab.config import Plan
from attnlab.parts import make_data, make_heads, make_learner, make_settings
from attnlab.record import Record
from attnlab.stages import Stages, describe_device, started


class Evaluation(Stages):
    """The stages after training once more, on a finished run's network; see `attnlab.evaluate`."""

    def __init__(self, plan: Plan, folder: Path, stored: Mapping[str, Any]) -> None:
        self.plan = plan
        target = folder / "evaluations" / plan.address
        kept = {key: stored[key] for key in ("run_id", "parameters", "places", "epochs")}
        result = {**started(plan), **kept}
        record = Record(target)
        super().__init__(target, result, record.write)
        self.path, self.run, self.trained = record.result_path, Record(folder), stored

    def go(self) -> Path:
        self.settings = make_settings(self.plan)
        self.settings.apply()
        self.data = make_data(self.plan)
        was = self.trained["data"]
        if list(self.data.shape) != was["shape"] or self.data.num_classes != len(was["classes"]):
            raise ConfigError(
                f"data: the run learned {len(was['classes'])} classes of {was['shape']}, this set has {self.data.num_classes} of "
                f"{list(self.data.shape)}; choose data of the same shape and classes"
            )
        learner = make_learner(self.plan, self.data, self.settings)
        if not self.run.checkpoint_path.exists():
            raise ValueError(f"{self.run.checkpoint_path}: is missing, so there is no network to evaluate")
        address = self.run.run_id.rpartition("-")[2]
        checkpoint = records.read_checkpoint(self.run.checkpoint_path, address, learner.state_dict())
        learner.load_state_dict(checkpoint["state_dict"])
        self.network = learner.network.to(self.settings.device)
        self.heads = make_heads(self.plan, self.data)
        self.result |= {"device": describe_device(self.settings.device), "data": self.data.describe()}
        try:
            self.after_training()
        finally:
            if self.result["status"] != records.FINISHED:
                self.result["status"] = records.FAILED
            self.save(self.result)
        return self.path
