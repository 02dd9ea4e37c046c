"""Feature-dependent cross-connections: parallel copies of a stage whose maps are routed anew, image by image, between its blocks."""
# B batch, C channels, H height, W width, M paths, L blocks

import copy

import torch
from torch import Tensor, nn

from attnlab.attention.position import hidden_channels


class CrossConnection(nn.Module):
    """Y_j = sum_i g_ij X_i,  g_i. = softmax_j(W2_i ReLU(W1_i mean(X_i))): each path shares itself out. M maps in, M out."""

    def __init__(self, channels: int, paths: int, reduction: int):
        super().__init__()
        hidden = hidden_channels(channels, reduction)
        self.routers = nn.ModuleList(nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, paths)) for _ in range(paths))

    def forward(self, xs: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        g_BMM = torch.stack([router(x_BCHW.mean((2, 3))).softmax(1) for router, x_BCHW in zip(self.routers, xs, strict=True)], 1)
        ys = [sum(g_BMM[:, i, j, None, None, None] * x_BCHW for i, x_BCHW in enumerate(xs)) for j in range(len(xs))]
        return ys, g_BMM


class CrossConnectedStage(nn.Module):
    """M parallel paths of a stage's blocks with cross-connections between the blocks, in the stead of the stage (an nn.Sequential).

        X_i = x;   for every block l: X_j = block_lj(Y_j), where Y = X before the first block and the cross-connection of X after;
        y = mean_j X_j

    Our reading of feature-dependent cross-connections (Tissera et al., arXiv 2006.13904). Established: parallel paths whose maps are routed
    to the next layer's paths with weights computed from the maps themselves, a softmax over where each goes. Ours: the paths live inside
    one stage, where theirs run through the network, so that a placement can hold them; they part as copies of x and join as a mean. The
    first path has the displaced blocks; the others have the same layers with weights of their own (modules' `reset_parameters`,
    convolutions by He's rule). The places inside the stage are gone: put other components elsewhere. About M times the stage's parameters.

    shape: (C, H, W) of the stage's input; host: the stage, of two blocks or more, each of one input and output map. paths: M. reduction: of
    the routers. `.gates`: the g of the last forward, a list of L - 1 tensors (B, M, M), rows sum to 1.
    Raises ValueError for another host, paths < 1, reduction < 1.
    """

    def __init__(self, shape: tuple[int, ...], *, host: nn.Module, paths: int = 2, reduction: int = 16):
        super().__init__()
        if not isinstance(host, nn.Sequential) or len(host) < 2:
            raise ValueError(f"cross-connections stand in the place of a stage of two or more blocks, got {type(host).__name__}")
        for name, value in {"paths": paths, "reduction": reduction}.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        widths = widths_of(host, shape)
        self.paths = nn.ModuleList([host, *(_anew(host) for _ in range(paths - 1))])
        self.connections = nn.ModuleList(CrossConnection(width, paths, reduction) for width in widths[:-1])
        self.gates: list[Tensor] = []

    def forward(self, x_BCHW: Tensor) -> Tensor:
        xs, gates = [path[0](x_BCHW) for path in self.paths], []
        for index, connection in enumerate(self.connections, 1):
            ys, g_BMM = connection(xs)
            gates.append(g_BMM)
            xs = [path[index](y_BCHW) for path, y_BCHW in zip(self.paths, ys, strict=True)]
        self.gates = gates
        return sum(xs) / len(xs)

    def __getstate__(self):  # a copy takes the weights, not the graph of the last batch (which cannot be copied)
        return {**super().__getstate__(), "gates": []}


def widths_of(stage: nn.Sequential, shape: tuple[int, ...]) -> list[int]:
    """The channels after every block; one pass on zeros, in eval mode."""
    training, like = stage.training, next(stage.parameters())
    widths, x_1CHW = [], torch.zeros(1, *shape, dtype=like.dtype, device=like.device)
    stage.eval()
    with torch.no_grad():
        for block in stage:
            x_1CHW = block(x_1CHW)
            widths.append(x_1CHW.shape[1])
    stage.train(training)
    return widths


def _anew(stage: nn.Module) -> nn.Module:
    """The same layers with weights drawn anew."""
    other = copy.deepcopy(stage)
    for module in other.modules():
        if callable(getattr(module, "reset_parameters", None)):
            module.reset_parameters()
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return other
