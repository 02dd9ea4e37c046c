"""Bayesian attention branch network: of two classifiers the less uncertain one answers.   Legend: B batch, K classes."""

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from attnlab.attention.branch import AttentionBranch
from attnlab.callbacks.mc_dropout import MCDropout, Passes
from attnlab.ensemble import mixture
from attnlab.network import Output

if TYPE_CHECKING:
    from attnlab.training.learner import Learner


class BayesianABN(MCDropout):
    """What is tested: `passes` passes in which dropout goes on; for every image the branch whose mean prediction has less entropy answers.

        p_b = 1/T sum_t softmax(z_bt),  b the attention and the perception branch;   b* = argmin_b -sum_k p_bk log p_bk;   logits = log p_b*

    Our reading of "Improving reliability of attention branch network by introducing uncertainty" (Tsukahara et al., ICPR 2020): that ABN
    (arXiv 1812.10025) is made Bayesian and that the less uncertain of its branches is output, is theirs; Monte Carlo dropout (arXiv
    1506.02142) before the last layer of each branch, the number of passes and entropy as the measure are ours. Training does not see it.

    The members of the Output are the passes of the branch that answers, so mutual_information and aleatoric work; ties answer by the
    perception branch, the network's own. `tested(...).by_attention_B` says which images of the last batch the attention branch answered.

    passes, at: as of mc_dropout. The attention branch drops by `attention.abn.dropout`, the network by `regularizer=dropout` at `features`.
    Raises ValueError: as mc_dropout; a network without an attention branch, or with two.
    """

    def __init__(self, *, passes: int = 50, at: Sequence[str] | None = None) -> None:
        super().__init__(passes=passes, at=at)

    def on_fit_start(self, learner: "Learner") -> None:
        super().on_fit_start(learner)
        branch_of(learner.network)

    def tested(self, network: nn.Module) -> nn.Module:
        return BranchPasses(copy.deepcopy(network), self.dropping(network), self.passes)


def branch_of(network: nn.Module) -> AttentionBranch:
    """The attention branch of a network."""
    found = [module for module in network.modules() if isinstance(module, AttentionBranch)]
    if len(found) != 1:
        raise ValueError(f"callback bayesian_abn needs one attention branch, and the network has {len(found)}; use attention=abn")
    return found[0]


class BranchPasses(Passes):
    """Several passes of both branches of `network`, as one network."""

    by_attention_B: Tensor | None = None

    def forward(self, x: Tensor, target: Tensor | None = None) -> Output:
        branch, passes = branch_of(self.network), []
        for _ in range(self.passes):
            out = self.network(x)
            passes.append((out, branch.logits))
        perception_BK, attention_BK = mixture([out.logits for out, _ in passes]), mixture([logits for _, logits in passes])
        self.by_attention_B = entropy(attention_BK) < entropy(perception_BK)
        chosen_B1 = self.by_attention_B[:, None]
        members = tuple(out._replace(logits=torch.where(chosen_B1, logits, out.logits)) for out, logits in passes)
        features = None if members[0].features is None else sum(one.features for one in members) / self.passes
        return Output(torch.where(chosen_B1, attention_BK, perception_BK), features, None, members=members)


def entropy(log_p_BK: Tensor) -> Tensor:
    """Entropy (B,) in nats of log-probabilities; 0 log 0 = 0."""
    return torch.special.entr(log_p_BK.softmax(1)).sum(1)
