"""Dynamic residual: sub-blocks joined by skips whose weights depend on the input."""
# B batch, C channels, H height, W width, N sub-blocks, P = N (N + 1) / 2 skips

import torch
from torch import Tensor, nn

from attnlab.placement.shapes import check_shape


class DynamicResidual(nn.Module):
    """A block whose skips are weighed by the input, in the stead of a residual one (DRAN: Park et al., ICPR 2020; DRSAN, arXiv 2112.04488).

        alpha = mean over the map of conv1x1_{16->P}(PReLU(conv1x1_{C->16}(x)))                   (B, P), any sign
        S_n = conv3x3(PReLU(conv3x3(PReLU(x_{n-1}))));   x_n = S_n + sum_{m < n} alpha_{n,m} x_m,  n = 1..N,   x_0 = x
        y = conv1x1(concat(x_0, ..., x_N))
    alpha is in the order (1,0); (2,0), (2,1); ... `gate`: x_n = (S_n + sum) sigmoid(S_n), the parameter-free gate of DRSAN; the released
    code is that of DRSAN, and DRAN without the gate is our reading of it.

    identity: the block starts as a plain residual chain (ours): alpha_{n,n-1} = 1 and 0 elsewhere, whatever the input, and y = x_N.
    shape: (C, H, W); x, y: (B, C, H, W). num_blocks: N; 4 and 3 in the code. Its own convolutions replace the block's: at width C it has
    18 C C N + (N + 1) C C weights. Raises ValueError for another place, num_blocks < 1, hidden < 1, and a `host` that changes the shape.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        host: nn.Module | None = None,
        num_blocks: int = 4,
        hidden: int = 16,
        gate: bool = False,
        identity: bool = True,
    ):
        super().__init__()
        check_shape(shape, "CHW", what="a dynamic residual block")
        for name, value in {"num_blocks": num_blocks, "hidden": hidden}.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if host is not None and not keeps_shape(host, shape):
            raise ValueError("a dynamic residual block keeps the shape, and the block here changes it; choose blocks inside a stage")
        channels, num_skips = shape[0], num_blocks * (num_blocks + 1) // 2
        self.gate = gate
        self.controller = nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.PReLU(hidden), nn.Conv2d(hidden, num_skips, 1))
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.PReLU(channels),
                nn.Conv2d(channels, channels, 3, padding=1),
                nn.PReLU(channels),
                nn.Conv2d(channels, channels, 3, padding=1),
            )
            for _ in range(num_blocks)
        )
        self.fuse = nn.Conv2d((num_blocks + 1) * channels, channels, 1)
        if identity:
            self._start_as_chain(channels)

    def _start_as_chain(self, channels: int) -> None:
        last = self.controller[-1]
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        nn.init.zeros_(self.fuse.weight)
        nn.init.zeros_(self.fuse.bias)
        with torch.no_grad():
            for n in range(1, len(self.blocks) + 1):
                last.bias[n * (n + 1) // 2 - 1] = 1
            nn.init.eye_(self.fuse.weight[:, -channels:, 0, 0])

    def forward(self, x_BCHW: Tensor) -> Tensor:
        alpha_BP = self.controller(x_BCHW).mean((2, 3))
        xs, first = [x_BCHW], 0
        for block in self.blocks:
            s_BCHW = block(xs[-1])
            y_BCHW = s_BCHW
            for m, earlier in enumerate(xs):
                y_BCHW = y_BCHW + alpha_BP[:, first + m, None, None, None] * earlier
            first += len(xs)
            xs.append(y_BCHW * s_BCHW.sigmoid() if self.gate else y_BCHW)
        return self.fuse(torch.cat(xs, 1))


def keeps_shape(module: nn.Module, shape: tuple[int, ...]) -> bool:
    """Whether a module gives (B, *shape) for (B, *shape); one pass on zeros, in eval mode."""
    training = module.training
    like = next(module.parameters(), torch.empty(0))
    with torch.no_grad():
        found = module.eval()(torch.zeros(1, *shape, dtype=like.dtype, device=like.device)).shape[1:]
    module.train(training)
    return tuple(found) == tuple(shape)
