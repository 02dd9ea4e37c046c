"""The optimised mask: our reading of Thakur and Fischmeister (2006.09504), after Fong and Vedaldi (1704.03296).

Legend: B batch, C channels, H, W image size, s cells of a mask a side, T steps, n pairs of draws.
"""

from collections.abc import Callable, Iterator
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.explainers.attribution import blurred, logits_of, rows_a_pass, undisturbed

Method = Literal["gradient", "evolution"]
Reference = Literal["blur", "mean"]
SIDE = 224  # pixels a side of the images that jitter and blur are given for


class OptimisedMask:
    """map = 1 - up(m),  m (s x s, in [0, 1]) the minimum of  area * mean(1 - m) + tv * mean |dm|^3 + p_c(x up(m) + x' (1 - up(m))).

    What has to be hidden for the class to lose its softmax probability p_c: the smallest and smoothest region that is found. up is
    bilinear interpolation to the image's size, |dm|^3 is summed over both directions, x' is what the hidden part becomes. Maps lie in
    [0, 1].

    Our reading: the update rule of 2006.09504, which refines a random mask by the sensitivity of single pixels and then completes the
    salient part by a generative model, is not known to us; this is the well-defined relative of its first part, with the objective and the
    white-box settings of Fong and Vedaldi. Means over cells, not sums, so that the terms do not depend on s.

    Args:
        method: gradient: Adam on m, clipped to [0, 1]. evolution: the network as a black box, Adam on logits t of m = sigmoid(t), along
            1 / (2 n sigma) sum_i (J(t + sigma e_i) - J(t - sigma e_i)) e_i,  e_i ~ N(0, I): 2 n passes a step.
            Both start at m = 1/2, as at m = 1 the probability of a sure network has next to no gradient.
        num_cells: s, at most the image's side. steps: T; 300 by gradient and 200 by evolution are usual. lr: of Adam.
        area, tv: weights of the terms.
        reference: x': the image blurred by a Gaussian of `blur` pixels, or the data's mean colour.
        jitter: the hidden image is moved by up to so many pixels at each step, so that no single pixel is what the class is lost by.
        blur, jitter: for images of 224 pixels, in proportion for others.
        num_pairs, sigma: n and sigma of evolution.
        seed: of moves and draws, which are the same for every image, so that a map does not depend on its batch.

    Raises ValueError: unknown method or reference; sizes below 1; weights below 0; lr or sigma <= 0.
    """

    def __init__(
        self,
        *,
        method: Method = "gradient",
        num_cells: int = 28,
        steps: int = 300,
        lr: float = 0.1,
        area: float = 0.01,
        tv: float = 0.2,
        reference: Reference = "blur",
        blur: float = 10.0,
        jitter: float = 4.0,
        num_pairs: int = 50,
        sigma: float = 0.1,
        seed: int = 0,
    ) -> None:
        for name, value, allowed in (("method", method, get_args(Method)), ("reference", reference, get_args(Reference))):
            if value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
        if min(num_cells, steps, num_pairs) < 1:
            raise ValueError(f"num_cells, steps and num_pairs must be at least 1, got {num_cells}, {steps} and {num_pairs}")
        if not all(value >= 0 for value in (area, tv, jitter, blur)) or not (lr > 0 and sigma > 0):
            raise ValueError("area, tv, jitter and blur must be at least 0, lr and sigma positive")
        self.method, self.num_cells, self.steps, self.lr, self.area, self.tv = method, num_cells, steps, lr, area, tv
        self.reference, self.blur, self.jitter, self.num_pairs, self.sigma, self.seed = reference, blur, jitter, num_pairs, sigma, seed

    def explain(
        self, network: nn.Module, x_BCHW: Tensor, target_B: Tensor, *, moves_T2: Tensor | None = None, noise_Tnss: Tensor | None = None
    ) -> Tensor:
        """Maps (B, 1, H, W) in [0, 1]. moves_T2: (down, right) in pixels a step; noise_Tnss: the e_i, in place of the seed's."""
        maps = []
        with undisturbed(network, x_BCHW.device.type):
            for x, target in zip(x_BCHW.detach().split(rows := rows_a_pass(x_BCHW)), target_B.split(rows)):
                maps.append(self._mask(network, x, target, self._draws(x, moves_T2, noise_Tnss)))
        return 1 - _upsampled(torch.cat(maps), x_BCHW)

    def _mask(self, network: nn.Module, x_BCHW: Tensor, target_B: Tensor, draws: Iterator[tuple[list[int], Tensor]]) -> Tensor:
        """The mask (B, 1, s, s) after all steps."""
        scale = min(x_BCHW.shape[2:]) / SIDE
        hidden_BCHW = torch.zeros_like(x_BCHW) if self.reference == "mean" else blurred(x_BCHW, self.blur * scale)
        start = 0.0 if self.method == "evolution" else 0.5  # m = 1/2
        free_B1ss = x_BCHW.new_full((len(x_BCHW), 1, *self._cells(x_BCHW)), start).requires_grad_()
        adam = torch.optim.Adam([free_B1ss], lr=self.lr)

        def objective(mask_nB1ss: Tensor, move: list[int]) -> Tensor:  # nB: masks of the B images, n times
            repeats, shown_nB1HW = len(mask_nB1ss) // len(x_BCHW), _upsampled(mask_nB1ss, x_BCHW)
            x, hidden = x_BCHW.repeat(repeats, 1, 1, 1), hidden_BCHW.repeat(repeats, 1, 1, 1)
            p_nBK = logits_of(network, _moved(hidden + shown_nB1HW * (x - hidden), move)).softmax(1)
            return self.penalty(mask_nB1ss) + p_nBK.gather(1, target_B.repeat(repeats)[:, None])[:, 0]

        for move, noise_nss in draws:
            if self.method == "gradient":
                with torch.enable_grad():
                    free_B1ss.grad = torch.autograd.grad(objective(free_B1ss, move).sum(), free_B1ss)[0]
            else:
                with torch.no_grad():
                    free_B1ss.grad = self._evolved(
                        lambda t, move=move: objective(t.sigmoid(), move), free_B1ss, noise_nss, rows_a_pass(x_BCHW)
                    )
            adam.step()
            if self.method == "gradient":
                free_B1ss.data.clamp_(0, 1)
        mask_B1ss = free_B1ss.detach()
        return mask_B1ss.sigmoid() if self.method == "evolution" else mask_B1ss

    def penalty(self, mask_B1ss: Tensor) -> Tensor:
        """area * mean(1 - m) + tv * (mean |down|^3 + mean |right|^3), (B,)."""
        steps = [mask_B1ss.diff(dim=dim).abs() ** 3 for dim in (2, 3) if mask_B1ss.shape[dim] > 1]
        return self.area * (1 - mask_B1ss).mean((1, 2, 3)) + self.tv * sum(step.mean((1, 2, 3)) for step in steps)

    def _evolved(self, objective: Callable[[Tensor], Tensor], free_B1ss: Tensor, noise_nss: Tensor, rows: int) -> Tensor:
        """The gradient of the objective by free_B1ss as antithetic draws have it, `rows` masks at a time."""
        total_B1ss = torch.zeros_like(free_B1ss)
        for part_nss in noise_nss.split(max(1, rows // (2 * len(free_B1ss)))):
            drift_n111ss = self.sigma * part_nss[:, None, None]
            pairs_2nB1ss = torch.stack([free_B1ss + drift_n111ss, free_B1ss - drift_n111ss]).flatten(0, 2)
            more_nB, less_nB = objective(pairs_2nB1ss).view(2, len(part_nss), -1)
            total_B1ss += torch.einsum("nb,nij->bij", more_nB - less_nB, part_nss)[:, None]
        return total_B1ss / (2 * len(noise_nss) * self.sigma)

    def _cells(self, x_BCHW: Tensor) -> list[int]:
        return [min(self.num_cells, size) for size in x_BCHW.shape[2:]]

    def _draws(self, x_BCHW: Tensor, moves_T2: Tensor | None, noise_Tnss: Tensor | None) -> Iterator[tuple[list[int], Tensor]]:
        generator = torch.Generator().manual_seed(self.seed)
        reach = round(self.jitter * min(x_BCHW.shape[2:]) / SIDE)
        cells = self._cells(x_BCHW)
        for step in range(self.steps):
            move = torch.randint(-reach, reach + 1, (2,), generator=generator) if moves_T2 is None else moves_T2[step]
            noise = torch.empty(0)
            if self.method == "evolution":
                noise = torch.randn(self.num_pairs, *cells, generator=generator) if noise_Tnss is None else noise_Tnss[step]
            yield move.tolist(), noise.to(x_BCHW)


def _upsampled(mask_B1ss: Tensor, x_BCHW: Tensor) -> Tensor:
    return F.interpolate(mask_B1ss, size=x_BCHW.shape[2:], mode="bilinear", align_corners=False)


def _moved(x_BCHW: Tensor, move: list[int]) -> Tensor:
    """The image moved down and right; what is uncovered repeats the border."""
    if move == [0, 0]:
        return x_BCHW
    down, right = move
    height, width = x_BCHW.shape[2:]
    row = (torch.arange(height, device=x_BCHW.device) - down).clamp(0, height - 1)
    column = (torch.arange(width, device=x_BCHW.device) - right).clamp(0, width - 1)
    return x_BCHW[:, :, row][..., column]
