"""What gradient explainers share: a network run without trace, gradients of class scores by the image, and weighted sums of them.

Legend: B batch, C channels, H, W image size, K classes, N points (of a path or a cloud) around each image.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

VALUES = 2**20  # of input in one pass: 341 images of 3 x 32 x 32, 6 of 3 x 224 x 224; on a CPU a quarter, whose maps stay in its caches


@contextmanager
def undisturbed(network: nn.Module, device_type: str) -> Iterator[None]:
    """Eval mode, no autocast, no compiled graph; the modes of all modules are afterwards what they were, also after an error."""
    modes = {module: module.training for module in network.modules()}
    try:
        network.eval()
        with torch.autocast(device_type, enabled=False), torch.compiler.set_stance("force_eager"):
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def logits_of(network: nn.Module, x_BCHW: Tensor) -> Tensor:
    """Logits (B, K) of a network that gives an `Output`, or of a plain one that gives them itself.

    Images go in as channels_last, whatever they were composed as: convolutions of a CPU are faster with it, also where weights are not.
    """
    out = network(x_BCHW.contiguous(memory_format=torch.channels_last) if x_BCHW.ndim == 4 else x_BCHW)
    return out if isinstance(out, Tensor) else out.logits


def rows_a_pass(x_BCHW: Tensor) -> int:
    """How many images fit in one pass, at least one."""
    return max(1, VALUES // (4 if x_BCHW.device.type == "cpu" else 1) // x_BCHW[0].numel())


def score_gradient(network: nn.Module, x_BCHW: Tensor, target_B: Tensor) -> Tensor:
    """d logit_target / d x, of the shape of x, in chunks; `.grad` of nothing is touched."""
    parts = []
    with undisturbed(network, x_BCHW.device.type), torch.enable_grad():
        for x, target in zip(x_BCHW.split(rows := rows_a_pass(x_BCHW)), target_B.split(rows)):
            x = x.detach().requires_grad_()
            score = logits_of(network, x.clone()).gather(1, target[:, None]).sum()  # a copy: the first module may work in place
            parts.append(torch.autograd.grad(score, x)[0])
    return torch.cat(parts)


GradientRule = Callable[[nn.Module, Tensor, Tensor], Tensor]


def weighted_gradients(
    gradient: GradientRule, network: nn.Module, x_BCHW: Tensor, target_B: Tensor, num: int, points: Callable[[slice], tuple[Tensor, Tensor]]
) -> Tensor:
    """sum_n w_n * gradient(z_n), of the shape of x.

    points(rows) gives z (n, B, C, H, W) and w, which broadcasts to it, of these rows out of `num`: only what fits in one pass is made.
    """
    step = max(1, rows_a_pass(x_BCHW) // len(x_BCHW))
    total_BCHW = torch.zeros_like(x_BCHW)
    for start in range(0, num, step):
        z_NBCHW, weight = points(slice(start, min(start + step, num)))
        found = gradient(network, z_NBCHW.flatten(0, 1), target_B.repeat(len(z_NBCHW)))
        total_BCHW += (weight * found.view_as(z_NBCHW)).sum(0)
    return total_BCHW


def normal_draws(num: int, x_BCHW: Tensor, seed: int) -> Tensor:
    """Standard normal noise (num, 1, C, H, W), the same for every image, so that a map does not depend on the batch its image came in."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num, 1, *x_BCHW.shape[1:], generator=generator).to(x_BCHW)


def blurred(x_BCHW: Tensor, sigma: float) -> Tensor:
    """Images blurred by a Gaussian of `sigma` pixels, cut at three of them and mirrored at the border; 0: the images themselves."""
    from torchvision.transforms.functional import gaussian_blur

    if sigma == 0:
        return x_BCHW
    sizes = [2 * min(int(3 * sigma + 1), size - 1) + 1 for size in x_BCHW.shape[:1:-1]]  # of the kernel, width first
    return gaussian_blur(x_BCHW, sizes, [sigma, sigma])


def channel_sum(attribution_BCHW: Tensor) -> Tensor:
    """The signed map (B, 1, H, W) of an attribution: what all channels of a pixel give together."""
    return attribution_BCHW.sum(1, keepdim=True)
