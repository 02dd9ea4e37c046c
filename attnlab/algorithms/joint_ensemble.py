"""Joint ensemble: several networks trained at once on the same batches.   Legend: M members, B batch, K classes, D input values."""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from attnlab.algorithms.packing import packed_outputs
from attnlab.algorithms.supervised import Supervised
from attnlab.config.targets import ConfigError
from attnlab.distillation.feature_term import full_precision
from attnlab.ensemble import Ensemble, mixture
from attnlab.ensemble.concatenation import Concatenation
from attnlab.losses.forde import input_gradient_repulsion, principal_axes
from attnlab.network import Output

if TYPE_CHECKING:
    from attnlab.network import Network
    from attnlab.training.epoch import Batch
    from attnlab.training.learner import Learner


class JointEnsemble(Supervised):
    """M networks of the run's configuration with weights of their own, trained by one optimizer on the same batches and tested as one
    `Ensemble` (the mean of their probabilities); with `repulsion=forde` their input gradients are kept apart:

        L = sum_m L_m + R        R: FoRDE (Trinh et al., arXiv 2306.02775), see `attnlab.losses.forde`; the term `repulsion`

    A term of the log (`ce`) is the sum over the members. Without repulsion the members are those of a deep ensemble (1612.01474) that see
    one order of the images: data are loaded and augmented once, placed components draw for each member.

    Args:
        members: M >= 2. The paper: 10. Parameters, memory and the time of a step grow with it.
        repulsion: forde or none. forde takes a gradient by the images and the gradient of that: a step costs about three.
        pca: in [0, 1], how far distances between input gradients follow the principal axes of the training images: each axis counts
            1 / (pca / variance + 1 - pca). 1: FoRDE-PCA, which weighs them by their variances; 0: FoRDE-Identity; between: FoRDE-Tuned
            (the paper: 0.2 for CIFAR-10, 0.4 for CIFAR-100).
        join: what is tested: probabilities, the mean of the members' (`Ensemble`); features, one network of their features side by side
            under the mean of their final layers (CAT, arXiv 2212.07346, `Concatenation`), on which every OOD head works.
        packed: run all members as one, their weights stacked (`torch.func`). Numbers are those of the loop up to rounding. On a CPU it is
            slower (docs/speed.md), so it is off unless asked for, and its convolutions are in fp32 under bf16-mixed too (torch's vmap keeps
            autocast from them). Needs networks in which nothing is placed.

    Raises ConfigError: fewer than 2 members; a loss or term with a state of its own, which the members would share; a callback that knows
    of one network only (`single`); forde with components that rewrite labels; packed with placed components.
    Differs from the authors' code in: the principal axes are of channel-first images; variances of all training images, in eval order.
    """

    takes_label_sets = False

    def __init__(
        self,
        make_peer: "Callable[[], Network]",
        train_images: Callable[[torch.device], Iterable[tuple[Tensor, ...]]],
        *,
        members: int = 10,
        repulsion: Literal["forde", "none"] = "forde",
        pca: float = 1.0,
        packed: bool = False,
        join: Literal["probabilities", "features"] = "probabilities",
    ) -> None:
        if members < 2:
            raise ValueError(f"members must be at least 2, got {members}; algorithm=supervised trains one network")
        if not 0 <= pca <= 1:
            raise ValueError(f"pca must be in [0, 1], got {pca}")
        self.peers = [make_peer() for _ in range(members - 1)]
        self.train_images, self.repulsion, self.pca, self.packed, self.join = train_images, repulsion, pca, packed, join
        self.eager = repulsion == "forde"
        self.space: Mapping[str, Tensor] = {}

    def setup(self, learner: "Learner") -> None:
        super().setup(learner)
        self.networks = [learner.network, *learner.peers]
        for name, part in (("loss", learner.loss), *learner.term_modules.items()):
            if next(part.parameters(), None) is not None or next(part.buffers(), None) is not None:
                kind = type(part).__name__
                raise ConfigError(f"{name} {kind} keeps a state, which the members of algorithm=joint_ensemble would share; drop it")
        for name, callback in learner.callbacks.by_name.items():
            if getattr(callback, "single", False):
                raise ConfigError(f"callback={name} knows of one network, and algorithm=joint_ensemble trains several; drop one of them")
        placements = learner.network.placed.placements
        writers = [placement.name for placement in placements if placement.writes]
        if writers and self.repulsion == "forde":
            raise ConfigError(f"{writers[0]} mixes labels, and repulsion=forde needs true classes; set algorithm.repulsion=none or drop it")
        if self.packed and (placements or learner.network.kept):
            place = placements[0].key if placements else learner.network.kept[0]
            raise ConfigError(f"algorithm.packed=true runs plain networks only, and there is {place}; set algorithm.packed=false")
        if self.repulsion == "forde" and self.pca > 0 and learner.optimizer:  # none: a trained ensemble is only tested
            axes_DD, variance_D = principal_axes(x for x, *_ in self.train_images(learner.device))
            floor = variance_D.max() * 1e-12  # a pixel that never changes
            scale_D = (self.pca / variance_D.clamp_min(floor) + 1 - self.pca).rsqrt()
            self.space = {"basis_DD": axes_DD.float(), "scale_D": scale_D.float()}

    def terms(self, learner: "Learner", batch: "Batch", teacher: Output | None) -> tuple[dict[str, Tensor], Output]:
        repelled = self.repulsion == "forde"
        views = [batch.x.detach().requires_grad_(repelled) for _ in self.networks]
        if self.packed:
            outs = packed_outputs(self.networks, views, batch.y)
        else:
            outs = [learner.output(x, batch.y, network) for x, network in zip(views, self.networks)]
        terms: dict[str, Tensor] = {}
        for out, network in zip(outs, self.networks):
            for name, value in learner.terms(out, batch, teacher, network).items():
                terms[name] = terms[name] + value if name in terms else value
        if repelled:
            terms["repulsion"] = self.repel(views, [out.logits for out in outs], batch.y)
        return terms, Output(mixture([out.logits.detach() for out in outs]), None, None, outs[0].target, members=tuple(outs))

    def repel(self, views: list[Tensor], logits: list[Tensor], y: Tensor) -> Tensor:
        """R, from the gradients by its images of each member's logit of the true class."""
        true = sum(full_precision(logits_BK).gather(1, y[:, None]).sum() for logits_BK in logits)
        found = torch.autograd.grad(true, views, create_graph=True)
        gradients_MBD = full_precision(torch.stack([gradient.flatten(1) for gradient in found]))
        return input_gradient_repulsion(gradients_MBD, eps=1e-24 if self.space else 1e-12, **self.space)

    def tested(self) -> nn.Module:
        kind = Concatenation if self.join == "features" else Ensemble
        return kind(self.networks)
