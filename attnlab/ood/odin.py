"""ODIN: perturbed images at a high temperature.

Legend: B, C, H, W of images.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.ood.msp import MSP


class ODIN(MSP):
    """ODIN (1706.02690): MSP at a high temperature T of images moved towards their predicted class.

    x' = x - eps * sign(grad_x CE(z(x) / T, argmax_k z_k(x))) / std;  score = -max_k softmax(z(x') / T)_k

    Args:
        temperature: T, the paper's 1000.
        eps: step in units of a pixel in [0, 1], the paper's 0.0014 for CIFAR. It was tuned on OOD data there; 0 is MSP at T.
        std: per-channel standard deviation by which the images were divided. None: eps is in units of the normalised image, a step of
            eps * std in pixels, four times smaller on CIFAR than the paper's.

    Differs from the official code in: the gradient is taken in fp32; as there, x' is not clipped to the range of images.
    """

    def __init__(self, *, temperature: float = 1000.0, eps: float = 0.0014, std: tuple[float, ...] | None = None) -> None:
        super().__init__(temperature=temperature)
        if not eps >= 0:
            raise ValueError(f"eps must be at least 0, got {eps}")
        if std is not None and min(std, default=0) <= 0:
            raise ValueError(f"std must be a positive number for each channel, got {list(std)}")
        self.temperature, self.eps, self.std = float(temperature), eps, std

    def perturb(self, network: nn.Module, x_BCHW: Tensor) -> Tensor:
        from pytorch_ood.detector import odin_preprocessing

        return odin_preprocessing(
            lambda x: network(x).logits.float(),
            x_BCHW,
            criterion=lambda z, y: F.cross_entropy(z, y, reduction="sum"),  # a mean only makes small gradients smaller
            eps=self.eps,
            temperature=self.temperature,
            norm_std=None if self.std is None else list(self.std),
        )
