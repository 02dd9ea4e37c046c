"""Own weights: a network that was trained elsewhere, asked as a run of ours is."""

import hashlib
import logging
from pathlib import Path

from torch import Tensor, nn

from attnlab.config.groups import having
from attnlab.config.plan import Plan, outputs
from attnlab.config.targets import ConfigError
from attnlab.data.base import ImageData
from attnlab.network import Network
from attnlab.pipeline.evaluation_run import EvaluationRun
from attnlab.pipeline.factory import make_learner
from attnlab.records.checkpoint import TERMS
from attnlab.records.weights import put_weights, read_weights

log = logging.getLogger("attnlab")


class WeightsEvaluation(EvaluationRun):
    """The network of `plan` (model, and what is placed in it) with the weights of `file`, tested and asked on the plan's data.

    The record is `<outputs>/networks/<label>-<address>`; the address is that of the file's contents, the network, and what it is asked
    on: data (less the seed, which moves no test image), heads, evaluators, explainers, precision.
    ConfigError: a file that holds no weights, or others than the network's.
    """

    def __init__(self, plan: Plan, file: Path, *, command: str) -> None:
        self.where = f"weights={file}"
        self.state = read_weights(file, where=self.where)
        digest = hashlib.sha256(Path(file).read_bytes()).hexdigest()[:32]
        asked = {
            "weights": digest,
            "data": {key: value for key, value in plan.short["data"].items() if key != "seed"},
            **{group: plan.short[group] for group in ("model", *having(placed=True), *having(trains=False, counts=True))},
            "trainer": {"precision": plan.full["trainer"].get("precision")},
        }
        label = plan.label.removesuffix(f"-s{plan.full['seed']}")[:72]
        plan = plan.changed(short=asked, label=f"{label}-weights")
        about = {"run_id": plan.run_id, "command": command, "weights": {"file": Path(file).name, "digest": digest}}
        super().__init__(plan, outputs(plan) / "networks" / plan.run_id, about)

    def accept(self, data: ImageData) -> None:
        if self.plan.full["data"].get("mean") is None:
            mean, std = (", ".join(f"{value:.3g}" for value in moment) for moment in data.moments())
            words = "images are normalised by mean [%s] and std [%s], the training images' own"
            log.info(words + "; if the weights were trained with others: data.mean=[...] data.std=[...]", mean, std)

    def make_network(self) -> nn.Module:
        network = make_learner(self.plan, self.data, trains=False).network
        fill(network, self.state, where=self.where)
        self.writer.result |= {
            "places": {placement.key: placement.how for placement in network.placed.placements},
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
        }
        return network


def fill(network: Network, state: dict[str, Tensor], *, where: str) -> None:
    """Put weights into a network: a whole network's of ours (`backbone.`, `placed.`), or a backbone's, where nothing placed learns."""
    state = {key.removeprefix("network."): value for key, value in state.items() if not key.startswith(("loss.", TERMS))}
    if any(key.startswith("backbone.") for key in state):
        put_weights(network, state, where=where)
        return
    put_weights(network.backbone, state, where=where)
    if learnt := [key for key, component in network.placed.components() if any(True for _ in component.parameters())]:
        raise ConfigError(f"{where}: holds a backbone alone, and nothing of {', '.join(learnt)}")
