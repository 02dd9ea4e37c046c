"""Near and far: OOD metrics as two means over named sets."""

from collections.abc import Sequence

from attnlab.evaluation.trained import Trained


class NearFar:
    """`ood/<head>/near/<metric>` and `ood/<head>/far/<metric>`: the means over the named sets of what `evaluator=ood`, before it, found.

    OpenOOD v1.5 (Zhang et al., arXiv 2306.09301) has for CIFAR-10 near: cifar100, tin; far: mnist, svhn, textures, places365; for
    CIFAR-100 near: cifar10, tin, and the same far. Name the sets of `data.ood` that stand for them here.

    near, far: names of sets; one may be empty. ValueError: both are; a set that `evaluator=ood` has not scored.
    """

    def __init__(self, *, near: Sequence[str] = (), far: Sequence[str] = ()) -> None:
        self.groups = {"near": list(near), "far": list(far)}

    def run(self, trained: Trained) -> dict[str, float]:
        if not any(self.groups.values()):
            raise ValueError("near_far takes means over OOD sets, and none is named; set evaluator.near_far.near and .far")
        scored = [key.split("/") for key in trained.metrics if key.startswith("ood/")]
        scored = [parts for parts in scored if len(parts) == 4]
        found = {}
        for group, sets in self.groups.items():
            for name in sets:
                if name not in {parts[2] for parts in scored}:
                    raise ValueError(
                        f"near_far.{group}: {name} has no OOD scores; name it in data.ood and put ood before: evaluator=[ood,near_far]"
                    )
            for head, metric in sorted({(parts[1], parts[3]) for parts in scored if parts[2] in sets}):
                values = [
                    trained.metrics[f"ood/{head}/{name}/{metric}"] for name in sets if f"ood/{head}/{name}/{metric}" in trained.metrics
                ]
                found[f"ood/{head}/{group}/{metric}"] = sum(values) / len(values)
        return found
