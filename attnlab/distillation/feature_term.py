"""What terms that compare feature maps share: which place of the student goes with which of the teacher, and full precision.

Legend: B batch, C channels of the student, E of the teacher, H height, W width.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.config.suggest import nearest
from attnlab.placement.places import matches

if TYPE_CHECKING:
    from attnlab.network import Output

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
Pair = tuple[Tensor, Tensor]


class FeatureTerm(nn.Module):
    """`weight * self.distance(pairs)`, where pairs are the values of the student's and the teacher's places, in the order they run.

    A subclass defines `distance(pairs) -> 0-d tensor`, or a `forward` that asks for more than both Outputs and begins with `pairs`; it
    checks `self.pair_shapes` in its constructor. Values come in fp32 or better and autocast is off, as products of features overflow in
    fp16.

    Args:
        student_shapes, teacher_shapes: {place: shape without batch} of each network, in the order of the forward pass.
        places: names or globs of places of the student. teacher_places: those of the teacher; null: the same.
        weight: of the term beside the loss, whose own weight stays as it is.

    `.places` and `.teacher_places` are the names that were found: both networks keep those values (`Output.values`).
    Raises ValueError: a place that is not there, with the nearest names; numbers of places that differ.
    """

    fewest_places = 1

    def __init__(
        self,
        student_shapes: Shapes,
        teacher_shapes: Shapes,
        *,
        places: str | Sequence[str],
        teacher_places: str | Sequence[str] | None,
        weight: float,
    ) -> None:
        super().__init__()
        self.weight = weight
        self.places = _found("places", places, student_shapes, "the student")
        self.teacher_places = _found("teacher_places", places if teacher_places is None else teacher_places, teacher_shapes, "the teacher")
        if len(self.places) != len(self.teacher_places):
            ours, theirs = ", ".join(self.places), ", ".join(self.teacher_places)
            raise ValueError(f"places: {ours} of the student do not pair with {theirs} of the teacher; set teacher_places")
        if len(self.places) < self.fewest_places:
            raise ValueError(f"places: {', '.join(self.places)}: give at least {self.fewest_places}")
        self.pair_shapes = [(student_shapes[ours], teacher_shapes[theirs]) for ours, theirs in self.pairs_of_places()]

    def pairs_of_places(self) -> list[tuple[str, str]]:
        return list(zip(self.places, self.teacher_places, strict=True))

    def maps_only(self) -> None:
        """ValueError unless every pair is of maps (C, H, W)."""
        for names, shapes in zip(self.pairs_of_places(), self.pair_shapes, strict=True):
            for name, shape in zip(names, shapes, strict=True):
                if len(shape) != 3:
                    raise ValueError(f"places: {name} gives {shape}, and this compares maps (C, H, W); choose another place")

    def distance(self, pairs: Sequence[Pair]) -> Tensor:
        raise NotImplementedError

    def forward(self, out: "Output", teacher: "Output") -> Tensor:
        with torch.autocast(out.logits.device.type, enabled=False):
            return self.weight * self.distance(self.pairs(out, teacher))

    def pairs(self, out: "Output", teacher: "Output") -> list[Pair]:
        """What both gave at the places, in fp32 or better."""
        own = [full_precision(out.values[place]) for place in self.places]
        theirs = [full_precision(teacher.values[place]) for place in self.teacher_places]
        return list(zip(own, theirs, strict=True))


def full_precision(x: Tensor) -> Tensor:
    """fp16 and bf16 as fp32; the rest as it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def match_size(student_BCHW: Tensor, teacher_BEHW: Tensor) -> Pair:
    """Both maps at the smaller of the two sizes, the larger one average-pooled."""
    size = [min(pair) for pair in zip(student_BCHW.shape[2:], teacher_BEHW.shape[2:], strict=True)]
    pair = [x if list(x.shape[2:]) == size else F.adaptive_avg_pool2d(x, size) for x in (student_BCHW, teacher_BEHW)]
    return pair[0], pair[1]


def _found(key: str, patterns: str | Sequence[str], shapes: Shapes, whose: str) -> tuple[str, ...]:
    """The places that names or globs mean, in the order in which they run."""
    names, found = list(shapes), set()
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        hits = matches(pattern, names)
        if not hits:
            raise ValueError(f"{key}: no place of {whose} matches {pattern!r}; {nearest(pattern, names)}")
        found.update(hits)
    return tuple(name for name in names if name in found)
