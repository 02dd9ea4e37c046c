"""Near and far: OOD metrics as means over groups of sets."""

from collections.abc import Mapping, Sequence

from attnlab.evaluation.trained import Trained


def group_means(metrics: Mapping[str, float], groups: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """`ood/<head>/<group>/<metric>`: the unweighted mean of `ood/<head>/<set>/<metric>` over a group's sets, as OpenOOD takes it; left out
    where one of them has none."""
    scored = [tuple(key.split("/")[1:]) for key in metrics if key.startswith("ood/") and key.count("/") == 3]
    found = {}
    for group, sets in groups.items():
        for head, metric in dict.fromkeys((head, metric) for head, name, metric in scored if name in sets):
            values = [metrics.get(f"ood/{head}/{name}/{metric}") for name in sets]
            if None not in values:
                found[f"ood/{head}/{group}/{metric}"] = sum(values) / len(values)
    return found


class NearFar:
    """`ood/<head>/near/<metric>` and `ood/<head>/far/<metric>`: the means over the named sets of what `evaluator=ood`, before it, found.

    OpenOOD v1.5 (Zhang et al., arXiv 2306.09301) has for CIFAR-10 near: cifar100, tin; far: mnist, svhn, texture, places365; for
    CIFAR-100 near: cifar10, tin, and the same far. `data.ood=openood_cifar10` names those, and `evaluator=ood` gives their means by
    itself; this evaluator is for groups of your own.

    near, far: names of sets; one may be empty. ValueError: both are; a set that `evaluator=ood` has not scored.
    """

    def __init__(self, *, near: Sequence[str] = (), far: Sequence[str] = ()) -> None:
        self.groups = {"near": list(near), "far": list(far)}

    def run(self, trained: Trained) -> dict[str, float]:
        if not any(self.groups.values()):
            raise ValueError("near_far takes means over OOD sets, and none is named; set evaluator.near_far.near and .far")
        scored = {key.split("/")[2] for key in trained.metrics if key.startswith("ood/") and key.count("/") == 3}
        for group, sets in self.groups.items():
            for name in sets:
                if name not in scored:
                    raise ValueError(
                        f"near_far.{group}: {name} has no OOD scores; name it in data.ood and put ood before: evaluator=[ood,near_far]"
                    )
        return group_means(trained.metrics, {group: sets for group, sets in self.groups.items() if sets})
