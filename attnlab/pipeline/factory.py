"""Parts: what a plan builds: settings, data, learner (network, loss, optimizer, schedule) and OOD heads."""

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from attnlab.config.asking import asked, given
from attnlab.config.build import build, checked
from attnlab.config.groups import GROUPS, having
from attnlab.config.optimizer import split
from attnlab.config.plan import Plan
from attnlab.config.targets import ConfigError
from attnlab.data.base import ImageData
from attnlab.network import FEATURES, Network
from attnlab.placement.places import Place, places_of, shapes_by_place
from attnlab.training.param_groups import grouped, parameter_groups
from attnlab.training.settings import Settings

if TYPE_CHECKING:
    from attnlab.training.learner import Learner
    from attnlab.training.teacher import Teacher

log = logging.getLogger("attnlab")


def make_settings(plan: Plan) -> Settings:
    return build(plan.full["trainer"], allow=plan.allow, where="trainer")


def make_data(plan: Plan) -> ImageData:
    """The data set of a plan, loaded and checked."""
    data = build(plan.full["data"], allow=plan.allow, where="data")
    checked(data.prepare, where="data")()
    return data


def make_learner(
    plan: Plan,
    data: ImageData,
    settings: Settings | None = None,
    *,
    callbacks: Mapping[str, Any] | None = None,
    teacher: "Teacher | None" = None,
    trains: bool = True,
) -> "Learner":
    """Network, loss, algorithm, callbacks, optimizer and schedule of a plan; `callbacks` are further ones, by name.

    trains: False for a trained network that is only looked at: no distillation terms, so no teacher.
    The backbone is initialised first, so runs of one seed share it.
    """
    from attnlab.training.learner import Learner  # Lightning: only once the data is known to be there
    from attnlab.training.seeding import seed_all

    full, allow = plan.full, plan.allow
    settings = settings or make_settings(plan)
    offers = offers_of(data, settings)
    seed_all(full["seed"])
    placements, penalties = make_placements(plan)
    building = offers | ({"teacher": getattr(teacher.network, "network", teacher.network)} if teacher else {})
    network, shapes = make_network(plan, data, building, placements, start=trains)
    for placement in network.placed.placements:
        log.info("%s %s %s (%s)", placement.name, placement.how, placement.place, " x ".join(map(str, placement.shape)))
    warn_of_single_cells(network)

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
    pair = {"student_shapes": shapes_by_place(shapes), "teacher_shapes": teacher.shapes if teacher else {}}
    pair["make_peer"] = lambda: make_network(plan, data, building, placements, start=trains)[0]
    pair["train_labels"] = lambda: data.train_labels()
    distillation = make_all(plan, "distillation", offers | pair) if trains else {}
    terms = penalties | distillation
    own = make_all(plan, "callback", offers)
    for name, callback in own.items():
        if trains and (missing := [split for split in getattr(callback, "needs", ()) if not data.has(split)]):
            raise ConfigError(f"callback={name} needs {missing[0]} images, and there are none; set data.{missing[0]}=0.1 to hold some out")
    images = functools.partial(data.eval_loader, "train")
    around = {"train_images": images, "train_size": len(data.split("train")), "dim": feature_shape[0]}
    algorithm = make(full["algorithm"], offers | pair | around, allow=allow, where="algorithm")
    for one in (network, *(peer for peer in getattr(algorithm, "peers", ()) if isinstance(peer, Network))):
        keep_places(one, {"loss": loss, "algorithm": algorithm, **terms, **own})
    if teacher:
        follow(teacher, distillation, data, alone=not {"teacher"} & {*asked(loss, skip=2), *getattr(algorithm, "asks", ())})
    learner = Learner(
        network,
        loss,
        optimizer=checked(optimizer, where="optimizer"),
        schedule=checked(build(full["schedule"], allow=allow, where="schedule"), where="schedule"),
        settings=settings,
        algorithm=algorithm,
        terms=terms,
        callbacks={**own, **(callbacks or {})},
        teacher=teacher,
        seed=full["seed"],
        training=plan.training,
        task=data.task,
    )
    if teacher and "teacher" not in learner.asks and not starts_from_teacher(full["init"], allow):
        raise ConfigError(f"teacher={full['teacher']}: nothing in this run follows it; add distillation=kd, or drop the teacher")
    if teacher and teacher.foreign and "teacher" in learner.asks:
        raise ConfigError(f"{teacher.foreign}; init=teacher alone takes weights of others, too")
    return learner


def starts_from_teacher(node: Mapping[str, Any], allow: Sequence[str]) -> bool:
    """Whether the network starts from its teacher's weights."""
    return bool(node) and "teacher" in asked(build(node, allow=allow, where="init"), skip=1)


def warn_of_single_cells(network: Network) -> None:
    """Attention over a map of one cell has nothing to choose from."""
    shapes = {placement.key: placement.shape for placement in network.placed.placements}
    for key, component in network.placed.components():
        if hasattr(component, "map") and len(shape := shapes.get(key, ())) == 3 and shape[1] * shape[2] == 1:
            log.warning("%s: its map is 1 x 1, one cell for the whole image; choose an earlier place, or larger images", key)


def make_placements(plan: Plan) -> tuple[dict[str, Mapping[str, Any]], dict[str, Callable[[Network], torch.Tensor]]]:
    """The components of a plan by name: what is placed in the network, and penalties on its weights."""
    placements, penalties = {}, {}
    for group in having(placed=True):
        for name, entry in build(plan.full[group], allow=plan.allow, where=group).items():
            if name in placements or name in penalties:
                raise ConfigError(f"{group}.{name}: another component has this name; rename one")
            if "penalty" in entry:
                penalties[name] = entry["penalty"]
            else:
                placements[name] = entry
    return placements, penalties


def make_network(
    plan: Plan, data: ImageData, offers: Mapping[str, Any], placements: Mapping[str, Mapping[str, Any]], *, start: bool = True
) -> tuple[Network, dict[str, Place]]:
    """A network with what is placed in it, its weights from the present state of the generator, and the places of its backbone.

    start: let the model's own file and `init` set the weights; False where those of a checkpoint are to come.
    """
    model = checked(build(plan.full["model"], allow=plan.allow, where="model"), where="model")
    backbone = model(num_classes=data.num_classes, shape=data.shape, **given(model, {"first_weights": start}))
    if start and (initialise := build(plan.full["init"], allow=plan.allow, where="init")):
        checked(initialise, where="init")(backbone, **given(initialise, offers, skip=1))
    places = places_of(backbone, data.shape)
    where = {name: f"{group}.{name}" for group in having(placed=True) for name in plan.full[group]}
    options = {"shape": data.shape, "num_classes": data.num_classes, "offers": offers, "where": where}
    return Network(backbone, placements, **options).to(memory_format=torch.channels_last), places


def follow(teacher: "Teacher", terms: Mapping[str, Any], data: ImageData, *, alone: bool) -> None:
    """Have a teacher give what the terms need: places that they name, or logits once for all where they are all that is asked of it.

    alone: nothing but the terms asks for it.
    """
    for name, term in terms.items():
        if places := getattr(term, "teacher_places", None):
            teacher.keep(list(places), where=f"distillation.{name}.teacher_places")
    fixed = not (data.crop or data.flip or data.min_scale)
    if alone and terms and fixed and all(getattr(term, "logits_only", False) for term in terms.values()):
        teacher.remember(functools.partial(data.eval_loader, "train"), len(data.split("train")), num_classes=data.num_classes)


def offers_of(data: ImageData, settings: Settings) -> dict[str, Any]:
    """What a constructor may ask for by name, whatever it is of (see `attnlab.config.asking`)."""
    steps = data.steps_per_epoch(world_size=settings.world_size)
    mean, std = data.moments()
    offers = {"shape": data.shape, "num_classes": data.num_classes, "mean": list(mean), "std": list(std)}
    return {**offers, "steps_per_epoch": steps, "total_steps": settings.max_epochs * steps}


def make(node: Mapping[str, Any], offers: Mapping[str, Any], *, allow: Sequence[str], where: str) -> Any:
    """The object of a config node, given by name what its constructor asks for."""
    part = build({**node, "_partial_": True}, allow=allow, where=where)
    return checked(part, where=where)(**given(part, offers))


def make_all(plan: Plan, group: str, offers: Mapping[str, Any]) -> dict[str, Any]:
    """The objects of a group that takes several, by name."""
    return {name: make(node, offers, allow=plan.allow, where=f"{group}.{name}") for name, node in plan.full[group].items()}


def keep_places(network: Network, parts: Mapping[str, Any]) -> None:
    """Have `Output.values` hold the places that a part names in its attribute `places`."""
    for name, part in parts.items():
        if places := getattr(part, "places", None):
            network.keep([places] if isinstance(places, str) else list(places), where=f"{name}.places")


def make_heads(plan: Plan, data: ImageData, settings: Settings) -> dict[str, Any]:
    """The OOD heads of a plan."""
    return make_all(plan, "ood", offers_of(data, settings))


def make_explainers(plan: Plan, data: ImageData, settings: Settings) -> dict[str, Any]:
    """The explainers of a plan."""
    return make_all(plan, "explainer", offers_of(data, settings))


def make_evaluators(plan: Plan, data: ImageData, settings: Settings) -> dict[str, Any]:
    """The evaluators of a plan in their order, and after them those that a chosen group is `asked_by`."""
    found = make_all(plan, "evaluator", offers_of(data, settings))
    chosen = {node["_target_"] for node in plan.full["evaluator"].values()}
    for group in GROUPS.values():
        if group.asked_by and plan.full[group.name] and group.asked_by not in chosen:
            found.setdefault(group.asked_by.split(".")[-2], build({"_target_": group.asked_by}, where=group.name))
    for name, evaluator in found.items():
        if not callable(getattr(evaluator, "run", None)):
            raise ConfigError(f"evaluator.{name}: {type(evaluator).__name__} has no method run(trained)")
    return found
