"""Contrastive representation distillation.   Shapes: B batch, N training images, K negatives, J = 1 + K, D embedded features; 2: the
student's and the teacher's."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from attnlab.distillation.feature_term import FeatureTerm, Shapes

if TYPE_CHECKING:
    from attnlab.network import Output


def crd_nce(log_score_BJ: Tensor, *, num_images: int, eps: float = 1e-7) -> Tensor:
    """``-mean_b [log h(p_b0) + sum_k log(1 - h(p_bk))]`` with h(p) = p / (p + K / N) for log p of a positive pair, then K negative ones.

    The released code adds `eps` to the denominator of h and of 1 - h alike.
    """
    num_negatives = log_score_BJ.shape[1] - 1
    noise = num_negatives / num_images
    floor = math.log(noise + eps)
    positive_B = F.logsigmoid(log_score_BJ[:, 0] - floor)
    negative_B = F.logsigmoid(floor - log_score_BJ[:, 1:]).sum(1) + num_negatives * (math.log(noise) - floor)
    return -(positive_B + negative_B).mean()


class CRD(FeatureTerm):
    """Contrastive representation distillation (Tian, Krishnan, Isola, 1910.10699): tell the teacher's embedding of an image from its
    embeddings of K others by the student's, and the other way round, as in noise-contrastive estimation:

        weight * (crd_nce(s_b . T_j / temperature - log Z_s) + crd_nce(t_b . S_j / temperature - log Z_t)),   j = b, then K negatives

    s and t are learned linear embeddings, of length 1, of the features before the final layer; their layers are none of the student's.
    S and T are memories of the embeddings of all N training images: rows of the batch become ``momentum * old + (1 - momentum) * new``, of
    length 1 again, after the loss. Z makes the first batch's scores 1 / N on average, and stays. Memories and Z are buffers, so in the
    checkpoint (8 N D bytes); batches of several processes enter every process's memories, and an algorithm of several passes a step brings
    them up to date in each.

    Args:
        places, teacher_places: one of each.
        negatives: K >= 1, drawn anew for every image of every batch, with replacement; on a CPU most of a step of a small network, so
            lower it there. dim_embedded: D >= 1. temperature: > 0.
        momentum: of the memories, in [0, 1].
        by_class: negatives are images of other classes, as in the released code; False: any other images. An image whose label is
            unknown has all others.

    Raises ValueError: out of range; places that are not there, or several of them; all training images of one class.
    Differs from the authors' code in: negatives are drawn with replacement also where there are enough without (they: only where not);
    several rows of one image in a batch enter the memory as their mean. `weight` and the rest are those of their CIFAR benchmark.
    """

    def __init__(
        self,
        student_shapes: Shapes,
        teacher_shapes: Shapes,
        train_labels: Callable[[], Tensor],
        *,
        places: str | Sequence[str] = ("features",),
        teacher_places: str | Sequence[str] | None = None,
        negatives: int = 16384,
        dim_embedded: int = 128,
        temperature: float = 0.07,
        momentum: float = 0.5,
        by_class: bool = True,
        weight: float = 0.8,
    ) -> None:
        super().__init__(student_shapes, teacher_shapes, places=places, teacher_places=teacher_places, weight=weight)
        if len(self.places) > 1:
            raise ValueError(f"places: crd compares one place with one of the teacher, got {', '.join(self.places)}")
        if min(negatives, dim_embedded) < 1 or not temperature > 0 or not 0 <= momentum <= 1:
            values = f"{negatives}, {dim_embedded}, {temperature} and {momentum}"
            raise ValueError(f"negatives and dim_embedded must be at least 1, temperature above 0, momentum in [0, 1], got {values}")
        self.negatives, self.temperature, self.momentum = negatives, temperature, momentum
        ((ours, theirs),) = self.pair_shapes
        self.embed_student = nn.Linear(math.prod(ours), dim_embedded)
        self.embed_teacher = nn.Linear(math.prod(theirs), dim_embedded)
        for name, value_N in zip(("order_N", "first_N", "size_N"), blocks(train_labels(), by_class=by_class), strict=True):
            self.register_buffer(name, value_N, persistent=False)
        edge = math.sqrt(3 / dim_embedded)
        self.register_buffer("memory_2ND", torch.empty(2, len(self.order_N), dim_embedded).uniform_(-edge, edge))
        self.register_buffer("log_z_2", torch.full((2,), -math.inf))  # until the first batch

    def forward(self, out: "Output", teacher: "Output", index: Tensor) -> Tensor:
        with torch.autocast(out.logits.device.type, enabled=False):
            ((ours, theirs),) = self.pairs(out, teacher)
            embedded = self.embed_student(ours.flatten(1)), self.embed_teacher(theirs.flatten(1))
            return self.weight * self.contrast(F.normalize(torch.stack(embedded), dim=2), index)

    def contrast(self, embedded_2BD: Tensor, index_B: Tensor) -> Tensor:
        """The loss of a batch's embeddings, the memories brought up to date."""
        num = len(self.order_N)
        index_BJ = torch.cat([index_B[:, None], self.draw(index_B)], dim=1)
        # The other network's memory, as it is before the update: by cat, as torch.compile may repeat cheaper copies in the backward pass
        # (pytorch#197039). All N products at once are less work than J rows gathered for every image.
        memory_2ND = torch.cat([self.memory_2ND[1:], self.memory_2ND[:1]])
        score_2BN = embedded_2BD @ memory_2ND.mT / self.temperature
        score_2BJ = score_2BN.gather(2, index_BJ.expand(2, -1, -1))
        with torch.no_grad():
            log_mean_2 = of_all_processes(score_2BJ.logsumexp((1, 2))[None]).logsumexp(0) - math.log(index_BJ.numel() * num_processes())
            log_z_2 = torch.where(self.log_z_2.isinf(), log_mean_2 + math.log(num), self.log_z_2)
            if self.training:
                self.log_z_2.copy_(log_z_2)
                self.remember(embedded_2BD, index_B)
        return sum(crd_nce(score_BJ - log_z, num_images=num) for score_BJ, log_z in zip(score_2BJ, log_z_2, strict=True))

    def draw(self, index_B: Tensor) -> Tensor:
        """Positions (B, K) of negatives, each of all that there are with equal probability."""
        first_B1, size_B1 = self.first_N[index_B][:, None], self.size_N[index_B][:, None]
        free_B1 = len(self.order_N) - size_B1
        rank_BK = (torch.rand(len(index_B), self.negatives, device=index_B.device) * free_B1).long().minimum(free_B1 - 1)
        return self.order_N[rank_BK + size_B1 * (rank_BK >= first_B1)]

    def remember(self, embedded_2BD: Tensor, index_B: Tensor) -> None:
        embedded_2BD, index_B = of_all_processes(embedded_2BD.transpose(0, 1)).transpose(0, 1), of_all_processes(index_B)
        same_BB = (index_B[:, None] == index_B).to(embedded_2BD.dtype)
        new_2BD = (same_BB / same_BB.sum(1, keepdim=True)) @ embedded_2BD
        mixed_2BD = torch.lerp(new_2BD, self.memory_2ND.index_select(1, index_B), self.momentum)
        self.memory_2ND.index_copy_(1, index_B, F.normalize(mixed_2BD, dim=2))


def blocks(labels_N: Tensor, *, by_class: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """Positions (N,) of the images, class by class; where in that order the class of every image begins, and how many images it has.

    labels_N: int64, below 0 where unknown: then, or without `by_class`, an image is a class of its own. ValueError: there is one class.
    """
    alone_N = torch.arange(len(labels_N)) + labels_N.max() + 1
    labels_N = torch.where(labels_N < 0, alone_N, labels_N) if by_class else alone_N
    sorted_N, order_N = labels_N.sort(stable=True)
    first_N = torch.searchsorted(sorted_N, labels_N)
    size_N = torch.searchsorted(sorted_N, labels_N, right=True) - first_N
    if int(size_N.max()) == len(labels_N):
        raise ValueError(f"crd draws negatives from other classes, and all {len(labels_N)} training images are of one; set by_class=false")
    return order_N, first_N, size_N


def num_processes() -> int:
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def of_all_processes(x: Tensor) -> Tensor:
    """The rows of every process, one after another; without gradient."""
    if num_processes() == 1:
        return x
    every = x.new_zeros(num_processes(), *x.shape)  # a sum: the name of a gather differs between versions of PyTorch
    every[distributed.get_rank()] = x
    distributed.all_reduce(every)
    return every.flatten(0, 1)
