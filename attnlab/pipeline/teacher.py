"""Teacher: the network that `teacher=` names, built from its record and loaded for training another."""

import logging
from pathlib import Path

from torch import nn

from attnlab.config.plan import Plan, outputs
from attnlab.config.result import read_result
from attnlab.config.targets import ConfigError
from attnlab.config.teacher import TRAINING, trained
from attnlab.data.base import ImageData
from attnlab.ensemble import Renormalised
from attnlab.network import Network
from attnlab.pipeline.factory import make_learner
from attnlab.pipeline.load import network_of, plan_of_record, recorded
from attnlab.pipeline.own_weights import fill
from attnlab.placement.places import places_of, shapes_by_place
from attnlab.records.weights import read_weights
from attnlab.training.settings import Settings
from attnlab.training.teacher import Teacher

log = logging.getLogger("attnlab")


def make_teacher(plan: Plan, data: ImageData, settings: Settings) -> Teacher | None:
    """The teacher of a plan, or None; what it tested (an average of its weights, its best epoch) is what teaches.

    To be called before the student's `make_learner`, which seeds. ConfigError, one line: it is not there or not finished, its weights do
    not fit. Where its classes or images are others, it says so (`foreign`): a network may start from it, and nothing can follow it.
    """
    identity = plan.full["teacher"]
    if identity is None:
        return None
    network, who, foreign, shape = _of_run(plan, data) if identity.startswith(TRAINING) else (*_of_weights(plan, data), "", data.shape)
    inner = network.network if isinstance(network, Renormalised) else network
    if not isinstance(inner, Network):
        raise ConfigError(f"teacher={who}: is a {type(inner).__name__}, and only a single network can teach")
    shapes = shapes_by_place(places_of(inner.backbone, shape))
    inner.placed.store.values.clear()
    log.info("the teacher is %s", who)
    return Teacher(network, shapes=shapes, autocast=settings.autocast(), foreign=foreign)


def _of_run(plan: Plan, data: ImageData) -> tuple[nn.Module, str, str, tuple[int, ...]]:
    identity = plan.full["teacher"]
    address = identity.removeprefix(TRAINING)
    folder = Path(plan.teacher) if plan.teacher else trained(address, outputs(plan))
    if folder is None:
        raise ConfigError(f"teacher={identity}: no finished run in {outputs(plan) / 'runs'} has this training; train the teacher first")
    where = f"teacher={folder}"
    found = read_result(folder)
    if not found.result:
        raise ConfigError(f"{where}: its record cannot be read ({found.error or 'there is no result.json'})")
    result = dict(found.result)
    own = plan_of_record(result, paths=plan.full["paths"], allow=plan.allow, where=where)
    learned = recorded(result, where=where)
    foreign = ""
    if (learned.shape, learned.classes) != (data.shape, list(data.classes)):
        ours, theirs = _what(data.shape, list(data.classes)), _what(learned.shape, learned.classes)
        foreign = f"{where}: learned {theirs}, and this run learns {ours}; who is followed has the student's classes and shape"
    network = network_of(own, learned if foreign else data, folder, (address,), where=where)
    moments = (list(learned.mean), list(learned.std))
    given = (list(data.mean), list(data.std))
    if not foreign and given != moments:
        network = Renormalised(network, given=given, learned=moments)
    return network, folder.name, foreign, learned.shape


def _of_weights(plan: Plan, data: ImageData) -> tuple[nn.Module, str]:
    """Weights of the student's own architecture, for images normalised as the student's."""
    if plan.teacher is None:
        raise ConfigError(f"teacher={plan.full['teacher']}: give the file itself; it is known by its contents only")
    network = make_learner(plan, data, trains=False).network
    where = f"teacher={plan.teacher}"
    fill(network, read_weights(plan.teacher, where=where), where=where)
    return network, plan.teacher


def _what(shape: tuple[int, ...], classes: list[str]) -> str:
    return f"{len(classes)} classes ({', '.join(classes[:3])}{', ...' * (len(classes) > 3)}) of {list(shape)}"
