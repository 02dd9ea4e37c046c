"""GCCS: logits of every class pulled to a Gaussian at a vertex of a simplex."""
# B batch, K classes = dimensions of the logits

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from attnlab.network import Output


class GCCS(nn.Module):
    """Gaussian class-conditional simplex loss (Ali et al., arXiv 2010.15487): our reading, as no code is published.

    Logits z (B, K) of class i are to be N(mu e_i, sigma^2 I): the K targets are the vertices of a simplex with edges mu sqrt(2).
    With the batch mean m_i and the biased batch covariance S_i of class i the loss is the mean, over classes with at least two images, of
    twice the Gaussian divergence KL(N(m_i, S_i) || N(mu e_i, sigma^2 I)):
      full      L_i = log(sigma^2K / |S_i|) - K + tr(S_i) / sigma^2 + |m_i - mu e_i|^2 / sigma^2
      diagonal  L_i = sum_d [ s_d / sigma^2 - log(s_d / sigma^2) - 1 ] + |m_i - mu e_i|^2 / sigma^2,    s = diag(S_i)
    plus, with `kurtosis` > 0, kurtosis * the mean over classes and dimensions of (fourth standardised moment - 3)^2.
    Predictions are argmax_j z_j. Softmax probabilities of such logits are saturated: NLL and ECE say little, and attacks on cross-entropy
    find no gradient, so claims of robustness want an attack on the margin.

    Established: targets, the divergence and argmax. Ours: mu = 70 and sigma = 1 (recalled), biased covariances, which classes count, and
    the form of the kurtosis term (the paper has one; off by default). |S_i| needs more than K images of a class in the batch, which
    CIFAR-10 has with 256 images and CIFAR-100 never, so `diagonal` is the default; `eps` is added to the variances.

    A batch in which no class has two images gives 0, with zero gradient. Each rank of several takes its own images' statistics.
    ValueError: mu or sigma not positive, eps or kurtosis negative, an unknown covariance; soft labels (no mixup, no cutmix).
    Returns {"gccs": scalar} and, where asked for, {"kurtosis": scalar}; in fp32 or better.
    """

    soft_targets = False
    needs_fc = False
    takes_copies = False

    def __init__(
        self,
        num_classes: int,
        dim: int,
        *,
        mu: float = 70.0,
        sigma: float = 1.0,
        covariance: Literal["diagonal", "full"] = "diagonal",
        kurtosis: float = 0.0,
        eps: float = 1e-6,
    ):
        super().__init__()
        for name, value in {"mu": mu, "sigma": sigma}.items():
            if not 0 < value < float("inf"):
                raise ValueError(f"{name} must be above 0 and finite, got {value}")
        for name, value in {"eps": eps, "kurtosis": kurtosis}.items():
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name} must be at least 0 and finite, got {value}")
        if covariance not in ("diagonal", "full"):
            raise ValueError(f"covariance must be diagonal or full, got {covariance!r}")
        self.mu, self.sigma, self.covariance, self.kurtosis, self.eps = mu, sigma, covariance, kurtosis, eps

    def forward(self, out: "Output", y: Tensor) -> dict[str, Tensor]:
        if y.ndim != 1 or y.is_floating_point():
            raise ValueError("gccs needs class numbers as labels: it does not go with mixup, cutmix or other soft labels")
        with torch.autocast(y.device.type, enabled=False):
            z_BK = out.logits.to(torch.promote_types(out.logits.dtype, torch.float32))
            num_classes = z_BK.shape[1]
            member_CB = (torch.arange(num_classes, device=y.device)[:, None] == y).to(z_BK.dtype)  # C = K classes
            count_C = member_CB.sum(1)
            counts_C = count_C >= 2
            share_C = counts_C.to(z_BK.dtype) / counts_C.sum().clamp_min(1)  # a class's part of the mean; 0 where it does not count
            weight_CB = member_CB / count_C.clamp_min(1)[:, None]
            mean_CK = weight_CB @ z_BK
            # classes that do not count get the target's own statistics: loss 0 and no NaN on the way back
            offset_CK = torch.where(counts_C[:, None], mean_CK - self.mu * torch.eye(num_classes, device=y.device, dtype=z_BK.dtype), 0.0)
            centred_BK = z_BK - F.embedding(y, mean_CK)  # not by index: this backward pass is deterministic
            variance_CK = torch.where(counts_C[:, None], weight_CB @ centred_BK**2 + self.eps, self.sigma**2)
            ratio_CK = variance_CK / self.sigma**2
            loss_C = (offset_CK**2).sum(1) / self.sigma**2 + (ratio_CK - 1).sum(1)
            if self.covariance == "diagonal":
                loss_C = loss_C - ratio_CK.log().sum(1)
            else:
                scaled_BK = centred_BK / self.sigma
                cov_CKK = torch.einsum("cb,bk,bl->ckl", weight_CB, scaled_BK, scaled_BK)
                eye_KK = torch.eye(num_classes, device=y.device, dtype=z_BK.dtype)
                cov_CKK = torch.where(counts_C[:, None, None], cov_CKK + self.eps / self.sigma**2 * eye_KK, eye_KK)
                loss_C = loss_C - 2 * torch.linalg.cholesky_ex(cov_CKK).L.diagonal(dim1=1, dim2=2).log().sum(1)
            terms = {"gccs": (loss_C * share_C).sum()}
            if self.kurtosis:
                fourth_CK = weight_CB @ centred_BK**4 / variance_CK**2
                terms["kurtosis"] = self.kurtosis * (((fourth_CK - 3) ** 2).mean(1) * share_C).sum()
            return terms
