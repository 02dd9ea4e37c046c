"""EvaluationRun: what is asked of a network that is trained already, from a plan to a record of its own."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from attnlab.config.plan import Plan
from attnlab.data.base import ImageData
from attnlab.evaluation.runner import ResultWriter, run_evaluators
from attnlab.evaluation.scores import FILE, load_scores, origin_of
from attnlab.evaluation.trained import Trained
from attnlab.pipeline.factory import make_data, make_evaluators, make_explainers, make_heads, make_settings
from attnlab.records.lookup import log_summary
from attnlab.records.provenance import started
from attnlab.records.record import FAILED, FINISHED, Record

log = logging.getLogger("attnlab")


class EvaluationRun:
    """The test and the evaluators of `plan` on the network of `make_network`; the record is written to `folder`, begun by `about`."""

    def __init__(self, plan: Plan, folder: Path, about: Mapping[str, Any]) -> None:
        self.plan, self.record = plan, Record(folder)
        self.record.check_links()
        self.writer = ResultWriter({**started(plan), **about}, self.record.write)

    def go(self) -> Path:
        """Everything; returns the path of result.json."""
        result = self.writer.result
        settings = make_settings(self.plan)
        settings.apply()
        self.data = data = make_data(self.plan)
        self.accept(data)
        result |= {**settings.describe(), "data": data.describe()}
        self.look_at_origin()
        trained = Trained(
            network=self.make_network().to(settings.device),
            data=data,
            settings=settings,
            folder=self.record.folder,
            heads=make_heads(self.plan, data, settings),
            explainers=make_explainers(self.plan, data, settings),
            history=self.history(),
            seed=self.plan.full["seed"],
        )
        trained.stored = self.stored_logits(trained)
        evaluators = make_evaluators(self.plan, data, settings)
        try:
            run_evaluators(trained, evaluators, self.writer)
            self.writer.finish()
        finally:
            if result["status"] != FINISHED:
                result["status"] = FAILED
            self.writer.save()
        log_summary(result["metrics"], result.get("warnings", ()))
        return self.record.result_path

    def make_network(self) -> nn.Module:
        """`network(x) -> Output`, on the CPU, for `self.data`."""
        raise NotImplementedError

    def accept(self, data: ImageData) -> None:
        """ConfigError where the network cannot be asked about these data; the moments they are normalised by may be set."""

    def look_at_origin(self) -> None:
        """Warnings about the images, and about the network's code, go into the result, which describes them now."""

    def folders_of_logits(self) -> tuple[Path, ...]:
        """Where logits of this very network may be kept."""
        return (self.record.folder,)

    def history(self) -> list[dict[str, float]]:
        """Rows of its training, where they are known."""
        return []

    def stored_logits(self, trained: Trained) -> dict[str, tuple[Tensor, Tensor]]:
        """What the run or an earlier evaluation under this plan has kept of the network's logits on these very images."""
        origin, found = origin_of(trained, self.writer.result["data"]), {}
        for folder in self.folders_of_logits():
            found |= load_scores(folder / FILE).logits_for(origin)
        if found:
            log.info("logits of %s are at hand", ", ".join(found))
        return found
