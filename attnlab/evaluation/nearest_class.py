"""Nearest class: how well features alone classify, by their distance to the classes' means and convex hulls."""

from attnlab.evaluation.trained import TEST, Trained
from attnlab.ood.centroid import Euclidean
from attnlab.ood.convex_hull import ConvexHull


class NearestClass:
    """`nearest_class/mean_acc` and `nearest_class/hull_acc`: the share of test images whose features are nearest to the mean, and to the
    convex hull, of their own class's training features, in [0, 1].

    Our reading of nearest neighbour classification in activation space (Ju et al., ICPR 2020), known from its abstract: see
    `attnlab.ood.convex_hull`. Beside `test/acc` they say what the final layer adds to its features. Of classes that are equally near, as
    to a point inside several hulls, the first is taken; training labels are those that were given, wrong ones too.

    Args:
        samples: features drawn of each class that span its hull; null: all. The time grows with it. 1: a nearest neighbour.
        normalize: divide features by their norm first.
        seed: of the draw.

    Raises ValueError: no features; samples below 1.
    """

    def __init__(self, *, samples: int | None = 100, normalize: bool = False, seed: int = 0) -> None:
        self.heads = {
            "mean": Euclidean(normalize=normalize),
            "hull": ConvexHull(samples=samples, normalize=normalize, seed=seed),
        }

    def run(self, trained: Trained) -> dict[str, float]:
        train, test = trained.bank("train"), trained.bank(TEST)
        found = {}
        for name, head in self.heads.items():
            nearest = head.fit(train).distances(test).argmin(1)
            said = test.labels.new_tensor(head.classes)[nearest.to(test.labels.device)]
            found[f"nearest_class/{name}_acc"] = float((said == test.labels).double().mean())
        return found
