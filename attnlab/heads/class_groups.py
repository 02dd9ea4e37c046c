"""Groups of classes from a confusion matrix, as SSAL's authors make them. Needs no torch."""
# K classes, G groups

from collections.abc import Sequence
from typing import Literal

import numpy as np


def even_groups(num_classes: int, num_groups: int) -> list[int]:
    """Classes in their order, cut into `num_groups` groups whose sizes differ by one at most: the group of every class."""
    if not 1 <= num_groups <= num_classes:
        raise ValueError(f"groups must be between 1 and the {num_classes} classes, got {num_groups}")
    return [index * num_groups // num_classes for index in range(num_classes)]


def group_classes(
    confusion_KK: Sequence[Sequence[float]] | np.ndarray, num_groups: int, *, put_together: Literal["similar", "different"] = "similar"
) -> list[int]:
    """The group of every class: a greedy clustering of classes that a network confuses (SSAL, Palacio et al., ICPR 2020).

    confusion_KK: counts, the diagonal is not read. `similar` puts together what is often confused (distance = largest count - count),
    `different` what seldom is (distance = count). Distances are symmetrised; a class's distance to a group is the mean over its members.
    The first group starts with the class of the smallest summed distance. While a group is empty the class farthest from its nearest group
    comes next, and starts one; afterwards the class closest to a group comes next, and joins the nearest that has fewer than 1.1 K / G
    members. Groups are numbered in the order in which the classes meet them. Use counts on validation images, not on test images.

    Differs from the authors' code in: an empty group is nearer than any other, also than one at distance 0 (there a tie leaves it empty).

    Raises ValueError for a matrix that is not square and for num_groups outside 1 .. K.
    """
    counts = np.array(confusion_KK, dtype=float)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise ValueError(f"a confusion matrix is (K, K), got shape {counts.shape}")
    num_classes = len(counts)
    if not 1 <= num_groups <= num_classes:
        raise ValueError(f"num_groups must be between 1 and the {num_classes} classes, got {num_groups}")
    if put_together not in ("similar", "different"):
        raise ValueError(f"put_together must be similar or different, got {put_together!r}")
    np.fill_diagonal(counts, 0)
    distance = counts.max() - counts if put_together == "similar" else counts
    np.fill_diagonal(distance, 0)
    distance = (distance + distance.T) / 2

    groups: list[list[int]] = [[int(distance.sum(1).argmin())], *([] for _ in range(num_groups - 1))]
    left = [index for index in range(num_classes) if index != groups[0][0]]
    while left:
        started = [group for group in groups if group]
        nearest = [min(distance[one, group].mean() for group in started) for one in left]
        one = left.pop(int(np.argmax(nearest) if len(started) < num_groups else np.argmin(nearest)))
        full = [len(group) >= 1.1 * num_classes / num_groups for group in groups]
        costs = [np.inf if done else distance[one, group].mean() if group else -1 for group, done in zip(groups, full)]
        groups[int(np.argmin(costs))].append(one)
    found = {member: index for index, group in enumerate(groups) for member in group}
    numbers: dict[int, int] = {}
    return [numbers.setdefault(found[one], len(numbers)) for one in range(num_classes)]
