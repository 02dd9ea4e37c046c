"""Vector-quantised head: classes by how often each code of a learned dictionary occurs on the map."""
# B batch, C channels, H height, W width, D size of a code, J codes, K classes, N = B H W positions

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnlab.placement.shapes import check_shape


class CodeOccurrenceHead(nn.Module):
    """Logits linear in the histogram of codes; put in the place of `fc`, with `reads: [layer4]`.

        z = BN(conv1x1_{C->D}(x)), a BN without affine;   q_n = argmin_j |z_n - e_j|^2 at every position n
        hist_j = share of positions with q_n = j;   logits_k = sum_j importance_kj hist_j + bias_k,   importance_kj = U_k . e_j
        in training `.penalty` = commitment mean (z - sg(e_q))^2, and codes are moving averages, with n_j = J hist_j of the batch:
        usage_j <- decay usage_j + (1 - decay) n_j,   e_j <- e_j + (1 - decay) (n_j / usage_j) (mean of the z_n with q_n = j, less e_j)

    sg stops the gradient. Forward z is replaced by its code; the gradient of the logits passes to z as it is (straight through). Before a
    batch of training, a code with usage <= restart becomes the z of a random position, with usage 1: all at first, then dead ones.

    Our reading of the explainable feature embedding of Uehara et al. (ICPR 2020), known from its abstract. Established: a dictionary of
    features by vector quantisation inside a CNN, a diagnosis from occurrence times importance. Ours: the rest. Straight through, the
    commitment of .25 and the averages are those of VQ-VAE (arXiv 1711.00937, appendix A.1; without Laplace smoothing), the restart that of
    Jukebox (arXiv 2005.00341). Importance is linear in the code, and z of fixed scale, because an earlier reading, a free importance_kj
    with soft counts for its gradient, stayed at chance: its logits hardly varied over a batch, and soon not at all. The paper's decoder,
    which draws the codes, is not here.

    shape: (D',), not used: the map is what is classified; read_shapes: [(C, H, W)]. codes: J. code_dim: D. decay: in [0, 1). restart: in
    [0, 1), in units of a fair share of the positions; 0: the first batch alone makes codes. `.dictionary` (J, D) and `.usage` (J,) are
    buffers; of several processes the first one's hold. `.codes`: (B, H, W) int64, the codes of the last forward; `evidence()`: what each
    position gives each class. `.statistics`: perplexity, exp of the entropy of the batch's codes, in [1, J]; near 1 the dictionary has
    collapsed. Distances run in fp32 or better. Losses and OOD heads that need `fc` do not apply.
    Raises ValueError for another place, other reads, codes or code_dim < 1, commitment < 0, decay or restart out of range.
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
        decay: float = 0.99,
        restart: float = 0.1,
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
        for name, value in {"decay": decay, "restart": restart}.items():
            if not 0 <= value < 1:
                raise ValueError(f"{name} must be in [0, 1), got {value}")
        self.commitment, self.decay, self.restart = commitment, decay, restart
        self.embed = nn.Conv2d(read_shapes[0][0], code_dim, 1, bias=False)
        self.bn = nn.BatchNorm2d(code_dim, affine=False)
        self.classify = nn.Linear(code_dim, num_classes)
        self.register_buffer("dictionary", torch.randn(codes, code_dim))
        self.register_buffer("usage", torch.zeros(codes))
        self.chosen: Tensor | None = None
        self.codes: Tensor | None = None
        self.penalty: Tensor | None = None
        self.statistics: dict[str, Tensor] = {}

    def forward(self, g_BD: Tensor, x_BCHW: Tensor) -> Tensor:
        z_BDHW = self.bn(self.embed(x_BCHW))
        with torch.autocast(x_BCHW.device.type, enabled=False):
            z_BHWD = z_BDHW.to(torch.promote_types(z_BDHW.dtype, self.dictionary.dtype)).permute(0, 2, 3, 1)
            with torch.no_grad():
                self._quantise(z_BHWD)
            self.penalty = self.commitment * F.mse_loss(z_BHWD, self.chosen) if self.training else None
            straight_BHWD = self.chosen + (z_BHWD - z_BHWD.detach())
        return self.classify(straight_BHWD.mean((1, 2)))

    def _quantise(self, z_BHWD: Tensor) -> None:
        """Sets `.codes`, `.chosen`, `.statistics`; in training dead codes are made anew before, and all move to their features after."""
        z_ND = z_BHWD.flatten(0, 2)
        if self.training:
            drawn_J = torch.randint(len(z_ND), self.usage.shape, device=z_ND.device)
            dead_J = self.usage <= self.restart
            self.dictionary.copy_(torch.where(dead_J[:, None], z_ND[drawn_J], self.dictionary))
            self.usage.masked_fill_(dead_J, 1)
        e_JD = self.dictionary
        q_N = ((e_JD**2).sum(1) - 2 * z_ND @ e_JD.T).argmin(1)  # |z|^2 is the same for all codes
        onehot_NJ = (q_N[:, None] == torch.arange(len(e_JD), device=e_JD.device)).to(z_ND.dtype)
        share_J = onehot_NJ.mean(0)
        self.codes, self.chosen = q_N.view(z_BHWD.shape[:3]), (onehot_NJ @ e_JD).view(z_BHWD.shape)
        self.statistics = {"perplexity": (-torch.xlogy(share_J, share_J).sum()).exp()}
        if self.training:
            n_J = len(e_JD) * share_J
            sum_JD = onehot_NJ.T @ z_ND * (len(e_JD) / len(z_ND))
            self.usage.lerp_(n_J, 1 - self.decay)
            e_JD.add_((1 - self.decay) * (sum_JD - n_J[:, None] * e_JD) / self.usage[:, None].clamp_min(1e-12))

    def evidence(self) -> Tensor:
        """(B, K, H, W): the importance U_k . e_q of the code at each position of the last forward; mean over the map + bias = logits."""
        if self.chosen is None:
            raise ValueError("evidence is that of the last forward; there was none")
        return F.linear(self.chosen, self.classify.weight).permute(0, 3, 1, 2)

    def __getstate__(self):  # a copy takes the weights, not the graph of the last batch (which cannot be copied)
        return {**super().__getstate__(), "codes": None, "chosen": None, "penalty": None, "statistics": {}}
