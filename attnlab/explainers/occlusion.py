"""Occlusion (Zeiler and Fergus, 1311.2901).   Legend: N windows, B batch, C channels, H, W image size."""

import torch
from torch import Tensor, nn

from attnlab.explainers.attribution import logits_of, rows_a_pass, undisturbed


class Occlusion:
    """map = mean over the windows that cover a pixel of y_c(x) - y_c(x with the window at the data's mean colour), y_c the logit; signed.

    Args:
        window: side of the square window, as a share of the image's shorter side.
        stride: its step, as a share of the window. The last window of a row or column is moved back inside the image.

    The network is a black box: no gradients, any architecture. Positive where the class loses by the occlusion; scores rank by value.
    Raises ValueError: window outside (0, 1], stride outside (0, 1].
    """

    def __init__(self, *, window: float = 0.2, stride: float = 0.5) -> None:
        if not 0 < window <= 1 or not 0 < stride <= 1:
            raise ValueError(f"window and stride must be in (0, 1], got {window} and {stride}")
        self.window, self.stride = window, stride

    @torch.no_grad()
    def explain(self, network: nn.Module, x_BCHW: Tensor, target_B: Tensor) -> Tensor:
        """Maps (B, 1, H, W), signed."""
        windows_NHW, total_BHW = self.windows(*x_BCHW.shape[2:]).to(x_BCHW), torch.zeros_like(x_BCHW[:, 0])
        rows_max = rows_a_pass(x_BCHW)

        def scores(rows: Tensor) -> Tensor:
            logits = torch.cat([logits_of(network, part) for part in rows.split(rows_max)]).to(x_BCHW)
            return logits.view(-1, len(x_BCHW), logits.shape[1]).gather(2, target_B.expand(len(rows) // len(x_BCHW), -1)[..., None])[..., 0]

        with undisturbed(network, x_BCHW.device.type):
            clean_1B = scores(x_BCHW)
            for part_nHW in windows_NHW.split(max(1, rows_max // len(x_BCHW))):
                drop_nB = clean_1B - scores(((1 - part_nHW)[:, None, None] * x_BCHW).flatten(0, 1))
                total_BHW += torch.einsum("nb,nhw->bhw", drop_nB, part_nHW)
        return (total_BHW / windows_NHW.sum(0))[:, None]

    def windows(self, height: int, width: int) -> Tensor:
        """Masks (N, H, W), 1 in the window; every pixel is in one at least."""
        side = max(1, round(self.window * min(height, width)))
        step = max(1, round(self.stride * side))
        covers = [
            torch.stack([(at >= start) & (at < start + side) for start in dict.fromkeys([*range(0, size - side, step), size - side])])
            for size, at in ((height, torch.arange(height)), (width, torch.arange(width)))
        ]
        return (covers[0][:, None, :, None] & covers[1][None, :, None, :]).flatten(0, 1).float()
