"""Places: what `python -m attnlab.train places` says of a model: every name that `at:` takes, its module, and the shapes there."""

from collections.abc import Iterable

from attnlab.config.build import build, checked
from attnlab.config.plan import Plan
from attnlab.placement.places import places_of
from attnlab.terminal import print_table


def tell_places(plan: Plan) -> None:
    """On stdout, in the order in which a pass comes through, for one image of the plan's data, without the batch."""
    data = build(plan.full["data"], allow=plan.allow, where="data")
    shape, num_classes = checked(lambda: (data.shape, data.num_classes), where="data")()
    backbone = checked(build(plan.full["model"], allow=plan.allow, where="model"), where="model")(num_classes=num_classes, shape=shape)
    rows = []
    for name, place in sorted(places_of(backbone, shape).items(), key=lambda item: item[1].start):
        rows.append([name, place.module.__name__, _told(place.inputs), _told(place.outputs)])
    print_table(["place", "module", "takes", "gives"], rows)


def _told(shapes: Iterable[tuple[int, ...] | None]) -> str:
    return "; ".join(" x ".join(map(str, shape)) if shape else "no tensor" for shape in shapes)
