"""Parts: what a plan builds: settings, data, learner (network, loss, optimizer, schedule) and OOD heads."""

import functools
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from attnlab.config.build import build, checked
from attnlab.config.optimizer import split
from attnlab.config.plan import Plan
from attnlab.config.targets import ConfigError
from attnlab.data.base import ImageData
from attnlab.network import FEATURES, Network
from attnlab.placement.places import places_of
from attnlab.training.param_groups import grouped, parameter_groups
from attnlab.training.settings import Settings

if TYPE_CHECKING:
    from attnlab.training.learner import Learner

log = logging.getLogger("attnlab")


def make_settings(plan: Plan) -> Settings:
    return build(plan.full["trainer"], allow=plan.allow, where="trainer")


def make_data(plan: Plan) -> ImageData:
    """The data set of a plan, loaded and checked."""
    data = build(plan.full["data"], allow=plan.allow, where="data")
    checked(data.prepare, where="data")()
    return data


def make_learner(plan: Plan, data: ImageData, settings: Settings | None = None, **hooks: Any) -> "Learner":
    """Network, loss, optimizer and schedule of a plan. The backbone is initialised first, so runs of one seed share it."""
    from attnlab.training.learner import Learner  # Lightning: only once the data is known to be there
    from attnlab.training.seeding import seed_all

    full, allow = plan.full, plan.allow
    seed_all(full["seed"])
    backbone = checked(build(full["model"], allow=allow, where="model"), where="model")(num_classes=data.num_classes, shape=data.shape)
    shapes = places_of(backbone, data.shape)
    placements, penalties = {}, {}
    for group in ("attention", "regularizer"):
        for name, entry in build(_with_pixels(full[group], data), allow=allow, where=group).items():
            if name in placements or name in penalties:
                raise ConfigError(f"{group}.{name}: another component has this name; rename one")
            if "penalty" in entry:
                penalties[name] = entry["penalty"]
            else:
                placements[name] = entry
    network = Network(backbone, placements, shape=data.shape, num_classes=data.num_classes, where="{attention,regularizer}")
    network.to(memory_format=torch.channels_last)
    for placement in network.placed.placements:
        log.info("%s %s %s (%s)", placement.name, placement.how, placement.place, " x ".join(map(str, placement.shape)))

    (feature_shape,) = shapes[FEATURES].outputs if FEATURES in shapes else [(data.num_classes,)]
    loss = checked(build(full["loss"], allow=allow, where="loss"), where="loss")(data.num_classes, feature_shape[0])
    if getattr(loss, "needs_fc", False) and not isinstance(network.fc, nn.Linear):
        raise ConfigError(f"loss {type(loss).__name__} needs a Linear at fc; there is a {type(network.fc).__name__}")
    copying = [key for key, component in network.placed.components() if getattr(component, "makes_copies", False)]
    if copying and not getattr(loss, "takes_copies", False):
        name = type(loss).__name__
        raise ConfigError(f"{copying[0]} makes copies of images, which loss {name} does not take; use loss=ce or drop {copying[0]}")
    node, groups = split(full["optimizer"])
    optimizer = build(node, allow=allow, where="optimizer")
    if groups:
        model = nn.ModuleDict({"network": network, "loss": loss})  # the names of the checkpoint
        optimizer = functools.partial(grouped, optimizer, parameter_groups(model, network.placed, groups, optimizer=optimizer))
    return Learner(
        network,
        loss,
        optimizer=checked(optimizer, where="optimizer"),
        schedule=checked(build(full["schedule"], allow=allow, where="schedule"), where="schedule"),
        settings=settings or make_settings(plan),
        weight_regularizers=penalties,
        seed=full["seed"],
        training=plan.training,
        **hooks,
    )


def _with_pixels(group: Mapping[str, Any], data: ImageData) -> dict[str, Any]:
    """The components of a group; a module that asks for the data's `mean` and `std` (to work in pixels) and was given none gets them."""
    found = {}
    for name, entry in group.items():
        module = entry.get("module", {})
        asked = {key: list(getattr(data, key)) for key in ("mean", "std") if key in module and module[key] is None}
        found[name] = {**entry, "module": {**module, **asked}} if asked else entry
    return found


def make_heads(plan: Plan, data: ImageData) -> dict[str, Any]:
    """The OOD heads of a plan; one that asks for the data's `std` (to perturb in pixels) and was given none gets it."""
    heads = {}
    for name, node in plan.full["ood"].items():
        std = {"std": list(data.std)} if "std" in node and node["std"] is None else {}
        heads[name] = build({**node, **std}, allow=plan.allow, where=f"ood.{name}")
    return heads
