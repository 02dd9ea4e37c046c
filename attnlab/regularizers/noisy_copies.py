"""Noisy copies: every training image comes twice, as it is and with Gaussian noise."""
# B batch, C channels, H height, W width

import torch
from torch import Tensor, nn

from attnlab.regularizers.boxes import check_image_shape


class NoisyCopies(nn.Module):
    """Append a noisy copy of every image to the batch (large-margin loss with noise injection, arXiv 2405.18499 v3).

        y = [x; (clip(x std + mean + sigma eps, 0, 1) - mean) / std],   eps ~ N(0, 1) per value;   y = x in eval

    What the network says of the first B rows is the batch's output, what it says of the others `Output.copies`. A loss that takes them says
    so by `takes_copies`: large_margin pulls the copies to the mean of the clean images of their class and has its other terms on the clean
    images; ce averages over both. Place it after `input`, last of the components there: mixers count labels, which are not doubled.

    Args:
        shape: (C, H, W).
        sigma: standard deviation of the noise, in units of the pixel range [0, 1]; > 0.
        mean, std: of the normalised images' channels, in the same units; taken from the data where not given.

    Shapes: x (B, C, H, W) -> (2B, C, H, W) in training, same dtype and memory format. Raises ValueError for values out of range, a place
    without (C, H, W), or where mean and std are unknown.
    Differs from the authors' code in: the copies go through the network with the clean images, so batch norm normalises both together
    (there: two passes), and have the same crop and flip (there: their own).
    """

    makes_copies = True

    def __init__(
        self, shape: tuple[int, ...], *, sigma: float = 0.06, mean: list[float] | None = None, std: list[float] | None = None
    ) -> None:
        super().__init__()
        check_image_shape(shape, name="noisy_copies")
        if not 0 < sigma < float("inf"):
            raise ValueError(f"sigma must be above 0 (of a pixel range of 1), got {sigma}")
        if mean is None or std is None or not len(mean) == len(std) == shape[0] or min(std) <= 0:
            raise ValueError(f"mean and std (above 0) of the images' {shape[0]} channels are needed, got {mean} and {std}")
        self.sigma = sigma
        for name, value in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(value).view(-1, 1, 1), persistent=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if not self.training:
            return x_BCHW
        pixels_BCHW = x_BCHW * self.std + self.mean
        noisy_BCHW = (pixels_BCHW + self.sigma * torch.randn_like(pixels_BCHW)).clamp(0, 1)
        return torch.cat([x_BCHW, ((noisy_BCHW - self.mean) / self.std).to(x_BCHW.dtype)])

    def extra_repr(self) -> str:
        return f"sigma={self.sigma}"
