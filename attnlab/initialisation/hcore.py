"""Core-biased initialisation: filters begin where a short training found them to matter.   Legend: O outputs, I inputs, V = O + I nodes."""

import torch
from torch import Tensor, nn


def core_numbers(weight_OI: Tensor) -> tuple[Tensor, Tensor]:
    """Core numbers of the outputs (O,) and the inputs (I,) of a bipartite graph with edges of weight >= 0; float64, on the CPU.

    The node of the smallest strength, the sum of its edges to nodes that are left, is taken away again and again; its core number is the
    largest strength at which a node went, up to then (the s-core of Eidsaa and Almaas, 2013; with weights 0 and 1 the k-core).
    """
    weight_OI = weight_OI.detach().double().cpu()
    num_out, num_in = weight_OI.shape
    strength_V = torch.cat([weight_OI.sum(1), weight_OI.sum(0)])
    core_V, level = torch.zeros_like(strength_V), 0.0
    for _ in range(num_out + num_in):
        node = int(strength_V.argmin())
        level = max(level, float(strength_V[node]))
        core_V[node], strength_V[node] = level, torch.inf
        if node < num_out:
            strength_V[num_out:] -= weight_OI[node]
        else:
            strength_V[:num_out] -= weight_OI[:, node - num_out]
    return core_V[:num_out], core_V[num_out:]


def bias_of(weight: Tensor) -> Tensor:
    """(O, I) in [-1, 1]: by how much a trained weight (O, I, ...) leans to positive, mean of its output's and its input's lean.

    A node's lean is the difference of its core numbers in the graphs of the positive and of the negative weights, over the largest of the
    layer's outputs, or inputs; a kernel counts by the sum of its positive, or negative, entries.
    """
    kernels_OIk = weight.detach().flatten(2) if weight.ndim > 2 else weight.detach()[..., None]
    positive, negative = (core_numbers((sign * kernels_OIk).clamp_min(0).sum(2)) for sign in (1, -1))
    out_O, in_I = ((up - down) / torch.cat([up, down, up.new_full((1,), 1e-300)]).max() for up, down in zip(positive, negative))
    return (out_O[:, None] + in_I) / 2


class HCore:
    """Our reading of Hcore-Init (Limnios et al., arXiv 2004.07636): a short training is looked at as a graph, and another begins from what
    its cores say. The short training is the run that `teacher=RUN` names.

        w_oi ~ N( shift sigma b_oi, sigma^2 ),   sigma^2 = 2 / fan-in,   b: `bias_of` the teacher's weight

    for every convolution and Linear but the last; biases 0. Established: pretraining, a core decomposition of each layer's weighted
    bipartite graph of positive and of negative weights, new weights that the core numbers bias. Ours: the s-core in place of the
    hypercore, the form of the bias and shift.

    shift: >= 0; 0 is `init=he`. ValueError: below 0; there is no teacher; a layer that the teacher lacks. Grouped convolutions: as `he`.
    """

    def __init__(self, *, shift: float = 0.5) -> None:
        if shift < 0:
            raise ValueError(f"shift must be 0 or more, got {shift}")
        self.shift = shift

    @torch.no_grad()
    def __call__(self, backbone: nn.Module, teacher: nn.Module | None = None) -> None:
        if teacher is None:
            raise ValueError("hcore looks at a short training's weights, and there is none; add teacher=RUN, a finished run")
        trained = dict(teacher.backbone.named_parameters())
        for name, layer in backbone.named_modules():
            if not isinstance(layer, nn.Linear | nn.modules.conv._ConvNd) or name == "fc":
                continue
            found = trained.get(f"{name}.weight")
            if found is None or found.shape != layer.weight.shape:
                raise ValueError(f"the teacher has no {name}.weight of shape {tuple(layer.weight.shape)}; choose its model")
            nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
            if getattr(layer, "groups", 1) == 1 and self.shift:
                sigma = (2 / layer.weight[0].numel()) ** 0.5
                lean_OI = bias_of(found).to(layer.weight)
                layer.weight.add_(self.shift * sigma * lean_OI.view(*lean_OI.shape, *[1] * (layer.weight.ndim - 2)))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
