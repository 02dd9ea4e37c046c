"""The vector-quantised head against a loop over positions (fp64), its gradients and its laws."""

import math

import pytest
import torch

from attnlab.heads.vector_quantised import VectorQuantisedHead
from tests.component_rules import check_rules, close


def head_of(**options) -> VectorQuantisedHead:
    torch.manual_seed(0)
    return VectorQuantisedHead((6,), read_shapes=[(6, 3, 2)], num_classes=3, **{"codes": 4, "code_dim": 5, **options})


def test_equals_a_loop() -> None:
    head, x = head_of().double(), torch.randn(2, 6, 3, 2).double()
    logits = head(torch.zeros(2, 6).double(), x)
    z, e = head.bn(head.embed(x)).detach(), head.dictionary.detach()
    counts, squared, used = torch.zeros(2, 4).double(), [], [0] * 4
    for b in range(2):
        for i in range(3):
            for j in range(2):
                distances = [math.dist(z[b, :, i, j].tolist(), code.tolist()) for code in e]
                nearest = distances.index(min(distances))
                assert head.codes[b, i, j] == nearest
                counts[b, nearest] += 1 / 6
                used[nearest] += 1
                squared.append(min(distances) ** 2 / 5)
    close(logits, (counts @ head.classify.weight.T + head.classify.bias).detach())
    close(head.penalty, torch.tensor(1.25 * sum(squared) / len(squared), dtype=torch.float64))
    shares = [n / 12 for n in used if n]
    assert head.statistics["perplexity"].item() == pytest.approx(math.exp(-sum(p * math.log(p) for p in shares)))


def test_the_penalty_pulls_codes_and_features_apart_from_each_other() -> None:
    """The dictionary's gradient is that of the first term, the features' that of the second, `commitment` times as large."""
    head, x = head_of(commitment=0.5).double(), torch.randn(2, 6, 3, 2).double()
    head(torch.zeros(2, 6).double(), x)
    for_codes, for_features = torch.autograd.grad(head.penalty, [head.dictionary, head.bn.bias])
    z = head.bn(head.embed(x)).detach().permute(0, 2, 3, 1)
    apart = head.dictionary.detach()[head.codes] - z
    expected = torch.zeros(4, 5).double().index_add_(0, head.codes.flatten(), apart.flatten(0, 2)) * 2 / apart.numel()
    close(for_codes, expected)
    close(for_features, -apart.sum((0, 1, 2)) * 2 * 0.5 / apart.numel())


def test_the_logits_gradient_is_that_of_soft_counts() -> None:
    head, x = head_of().double(), torch.randn(2, 6, 3, 2).double()
    (found,) = torch.autograd.grad(head(torch.zeros(2, 6).double(), x)[:, 0].sum(), head.embed.weight)
    z = head.bn(head.embed(x)).permute(0, 2, 3, 1)
    soft = (-((z[..., None, :] - head.dictionary) ** 2).mean(-1) / 0.1).softmax(-1)
    (expected,) = torch.autograd.grad(head.classify(soft.mean((1, 2)))[:, 0].sum(), head.embed.weight)
    close(found, expected)


def test_evidence_adds_up_to_the_logits() -> None:
    head, x = head_of().double().eval(), torch.randn(2, 6, 3, 2).double()
    logits = head(torch.zeros(2, 6).double(), x)
    assert head.penalty is None
    close(head.evidence()[1, :, 2, 0], head.classify.weight[:, head.codes[1, 2, 0]].detach())
    close(head.evidence().mean((2, 3)) + head.classify.bias, logits.detach())


class OnMap(torch.nn.Module):
    """The head of a map alone: its logits do not depend on the pooled features, and those get no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.head = head_of()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.mean((2, 3)), x)


def test_rules() -> None:
    check_rules(OnMap, torch.randn(3, 6, 3, 2))


@pytest.mark.parametrize("options", [{"codes": 0}, {"code_dim": 0}, {"commitment": -1.0}, {"temperature": 0.0}])
def test_refusals(options: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        head_of(**options)
    with pytest.raises(ValueError, match="shape"):
        VectorQuantisedHead((6, 2, 2), read_shapes=[(6, 3, 2)], num_classes=3)
    with pytest.raises(ValueError, match="reads"):
        VectorQuantisedHead((6,), read_shapes=[], num_classes=3)
