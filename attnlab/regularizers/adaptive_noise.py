"""Adaptive noise: Gaussian noise as strong as the activations vary, in training and at test time."""
# B batch, C channels

from typing import Literal

import torch
from torch import Tensor, nn

from attnlab.placement.shapes import ANY, check_shape


class AdaptiveNoise(nn.Module):
    """Our reading of adaptive noise injection (Tan, Elovici and Binder, "Adaptive Noise Injection for Training Stochastic Student Networks
    from Deterministic Teachers").

        y = x + strength std_c e,   e ~ N(0, 1) per value,   std_c the deviation of channel c over the batch and positions

    std has no gradient. In eval std is the root of its running variance in training, so that an image's noise does not depend on the other
    images of its batch, and the network is a stochastic one: `test` says what its noise is.

    Established (abstract): a student starts from a deterministic teacher's weights and gets noise whose strength follows statistics of the
    mini-batch; it stays stochastic at test time. Ours: the law above, its place, the running std, `strength`. A student of a trained
    network: `regularizer=adaptive_noise distillation=kd teacher=RUN`. Robustness to attacks is to be measured with the mean gradient over
    draws (expectation over transformation), else it is masked gradients.

    Args:
        shape: (C, ...) of the place.
        strength: >= 0; 0.1 to 0.5.
        test: `seeded`: in eval e comes from a generator that starts anew with every pass, so that results repeat (a position in the batch
            always has the same noise, and all places draw one sequence: of maps of one shape the same noise). `fresh`: from PyTorch's own
            generator: another draw a pass. `off`: y = x in eval.
        momentum: weight of the newest batch in the running variance, in (0, 1].

    Shapes: x (B, C, ...) -> same, same dtype and memory format. Raises ValueError for values out of range.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        strength: float = 0.25,
        test: Literal["seeded", "fresh", "off"] = "seeded",
        momentum: float = 0.1,
    ) -> None:
        super().__init__()
        check_shape(shape, ANY, what="adaptive_noise")
        if not 0 <= strength < float("inf"):
            raise ValueError(f"strength must be at least 0, got {strength}")
        if test not in ("seeded", "fresh", "off"):
            raise ValueError(f"test must be seeded, fresh or off, got {test!r}")
        if not 0 < momentum <= 1:
            raise ValueError(f"momentum must be in (0, 1], got {momentum}")
        self.strength, self.test, self.momentum = strength, test, momentum
        self.register_buffer("running_var", torch.ones(shape[0]))

    def forward(self, x: Tensor) -> Tensor:
        if self.strength == 0 or not (self.training or self.test != "off"):
            return x
        if self.training:
            with torch.no_grad():
                wide = x.to(torch.promote_types(x.dtype, torch.float32))
                var_C = wide.var((0, *range(2, x.ndim)), correction=0)
                self.running_var.lerp_(var_C.to(self.running_var.dtype), self.momentum)
        else:
            var_C = self.running_var
        std = var_C.sqrt().view(-1, *[1] * (x.ndim - 2))
        return x + (self.strength * std * self._noise(x)).to(x.dtype)

    def _noise(self, x: Tensor) -> Tensor:
        if self.training or self.test == "fresh":
            return torch.randn_like(x)
        noise = torch.empty_like(x)
        return noise.normal_(generator=torch.Generator(x.device).manual_seed(0))

    def extra_repr(self) -> str:
        return f"strength={self.strength}, test={self.test}, momentum={self.momentum}"
