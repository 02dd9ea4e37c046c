"""Vector-quantised head: classes by how often each code of a learned dictionary occurs on the map."""
# B batch, C channels, H height, W width, D size of a code, J codes, K classes, N = B H W positions

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnlab.placement.shapes import check_shape


class VectorQuantisedHead(nn.Module):
    """Logits linear in the histogram of codes; put in the place of `fc`, with `reads: [layer4]`.

        z = BN(conv1x1_{C->D}(x));   q_n = argmin_j |z_n - e_j|^2 at every position n;   hist_j = share of positions with q_n = j
        logits = W hist + bias;   in training `.penalty` = mean (sg(z) - e_q)^2 + commitment mean (z - sg(e_q))^2

    sg stops the gradient. Forward the counts are hard; their gradient is that of soft counts, softmax_j(-|z_n - e_j|^2 / (D temperature)).

    Our reading of the explainable feature embedding of Uehara et al. (ICPR 2020), known from its abstract. Established: a dictionary of
    features by vector quantisation inside a CNN, a diagnosis from occurrence times importance. Ours: the rest; the penalty and .25 are
    those of VQ-VAE (arXiv 1711.00937). Its decoder, which draws the codes, is not here.

    shape: (D',), not used: the map is what is classified; read_shapes: [(C, H, W)]. codes: J. code_dim: D. `.codes`: (B, H, W) int64, the
    codes of the last forward; `evidence()`: what each position gives each class. `.statistics`: perplexity, exp of the entropy of the
    batch's codes, in [1, J]; near 1 the dictionary has collapsed. Distances run in fp32 or better. Losses and OOD heads that need `fc` do
    not apply.
    Raises ValueError for another place, other reads, codes or code_dim < 1, commitment < 0, temperature <= 0.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        read_shapes: Sequence[tuple[int, ...]],
        num_classes: int,
        codes: int = 128,
        code_dim: int = 64,
        commitment: float = 0.25,
        temperature: float = 0.1,
    ):
        super().__init__()
        check_shape(shape, "D", what="a vector-quantised head", hint="it stands in the place of fc")
        if len(read_shapes) != 1 or len(read_shapes[0]) != 3:
            raise ValueError(f"reads must be one place with a map, as [layer4]; got shapes {[tuple(read) for read in read_shapes]}")
        for name, value in {"codes": codes, "code_dim": code_dim}.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not 0 <= commitment < float("inf"):
            raise ValueError(f"commitment must be at least 0, got {commitment}")
        if not 0 < temperature < float("inf"):
            raise ValueError(f"temperature must be above 0, got {temperature}")
        self.commitment, self.temperature = commitment, temperature
        self.embed = nn.Conv2d(read_shapes[0][0], code_dim, 1, bias=False)
        self.bn = nn.BatchNorm2d(code_dim)
        self.dictionary = nn.Parameter(torch.randn(codes, code_dim))
        self.classify = nn.Linear(codes, num_classes)
        self.codes: Tensor | None = None
        self.penalty: Tensor | None = None
        self.statistics: dict[str, Tensor] = {}

    def forward(self, g_BD: Tensor, x_BCHW: Tensor) -> Tensor:
        z_BDHW = self.bn(self.embed(x_BCHW))
        with torch.autocast(x_BCHW.device.type, enabled=False):
            e_JD = self.dictionary
            z_BHWD = z_BDHW.to(torch.promote_types(z_BDHW.dtype, e_JD.dtype)).permute(0, 2, 3, 1)
            distance_BHWJ = (z_BHWD**2).sum(3, keepdim=True) - 2 * z_BHWD @ e_JD.T + (e_JD**2).sum(1)
            self.codes = distance_BHWJ.argmin(3)
            hard_BHWJ = (self.codes[..., None] == torch.arange(len(e_JD), device=e_JD.device)).to(z_BHWD.dtype)
            soft_BHWJ = (-distance_BHWJ / (self.temperature * e_JD.shape[1])).softmax(3)
            hist_BJ = (hard_BHWJ + (soft_BHWJ - soft_BHWJ.detach())).mean((1, 2))
            chosen_BHWD = hard_BHWJ @ e_JD
            self.penalty = None
            if self.training:
                self.penalty = F.mse_loss(chosen_BHWD, z_BHWD.detach()) + self.commitment * F.mse_loss(z_BHWD, chosen_BHWD.detach())
            usage_J = hard_BHWJ.mean((0, 1, 2))
            self.statistics = {"perplexity": (-torch.xlogy(usage_J, usage_J).sum()).exp()}
        return self.classify(hist_BJ)

    def evidence(self) -> Tensor:
        """(B, K, H, W): the importance W_kq of the code at each position of the last forward; mean over the map + bias = logits."""
        if self.codes is None:
            raise ValueError("evidence is that of the last forward; there was none")
        return self.classify.weight.T[self.codes].permute(0, 3, 1, 2)

    def __getstate__(self):  # a copy takes the weights, not the graph of the last batch (which cannot be copied)
        return {**super().__getstate__(), "codes": None, "penalty": None, "statistics": {}}
