"""Start from a trained network: the weights of `teacher=RUN`."""

from collections.abc import Sequence

import torch
from torch import nn

from attnlab.placement.places import matches


class FromTeacher:
    """The weights and running statistics of the teacher's backbone, by name, but for those that `but` names; these keep their own start.

    `teacher=RUN` names a finished run, or a file of weights: one pretrained by `algorithm=transformation_regression`, say. What the run
    has learned is part of this run's address. What the teacher has and the network lacks is left out. A run may have learned other classes
    from images of another size, where nothing but its last layer depends on them.

    but: globs over the names of parameters and buffers, as `fc.**`, the final layer. ValueError: there is no teacher; one of the network's
    tensors is not the teacher's, by name and shape, and not in `but`.
    """

    def __init__(self, *, but: Sequence[str] = ("fc.**",)) -> None:
        self.but = [but] if isinstance(but, str) else list(but)

    @torch.no_grad()
    def __call__(self, backbone: nn.Module, teacher: nn.Module | None = None) -> None:
        if teacher is None:
            raise ValueError("the network is to start from a teacher's weights, and there is none; add teacher=RUN, a finished run")
        theirs, own = teacher.backbone.state_dict(), backbone.state_dict()
        left = {name for pattern in self.but for name in matches(pattern, list(own))}
        for name, value in own.items():
            if name in left:
                continue
            if name not in theirs or theirs[name].shape != value.shape:
                raise ValueError(f"the teacher has no {name} of shape {tuple(value.shape)}; choose its model, or name it in init.but")
            value.copy_(theirs[name])
