"""The vector-quantised head against a loop over positions (fp64), its gradients and its laws."""

import math

import pytest
import torch
import torch.nn.functional as F

from attnlab.heads.vector_quantised import CodeOccurrenceHead
from tests.component_rules import check_rules, close


def head_of(**options) -> CodeOccurrenceHead:
    torch.manual_seed(0)
    return CodeOccurrenceHead((6,), read_shapes=[(6, 3, 2)], num_classes=3, **{"codes": 4, "code_dim": 5, **options})


def started(**options) -> tuple[CodeOccurrenceHead, torch.Tensor, torch.Tensor]:
    """A head in fp64 whose codes are all in use, and two inputs."""
    head = head_of(**options).double()
    head.usage.copy_(torch.tensor([0.5, 1.0, 1.5, 2.0]))
    head.dictionary.mul_(torch.tensor([0.3, 0.6, 1.0, 2.0])[:, None])  # codes of unlike lengths
    return head, torch.zeros(2, 6).double(), torch.randn(2, 6, 3, 2).double()


def z_of(head: CodeOccurrenceHead, x: torch.Tensor) -> torch.Tensor:
    """(B, H, W, D) in training: every channel less its mean over its deviation."""
    z = torch.einsum("bchw,dc->bhwd", x, head.embed.weight[:, :, 0, 0])
    return (z - z.mean((0, 1, 2))) / (z.var((0, 1, 2), correction=0) + 1e-5).sqrt()


def test_equals_a_loop() -> None:
    head, g, x = started()
    z, e, usage = z_of(head, x).detach(), head.dictionary.clone(), head.usage.clone()
    logits = head(g, x)
    importance = head.classify.weight.detach() @ e.T
    expected, squared, used, sums = head.classify.bias.detach().repeat(2, 1), [], [0] * 4, torch.zeros(4, 5).double()
    for b in range(2):
        for i in range(3):
            for j in range(2):
                distances = [math.dist(z[b, i, j].tolist(), code.tolist()) for code in e]
                nearest = distances.index(min(distances))
                assert head.codes[b, i, j] == nearest
                expected[b] += importance[:, nearest] / 6
                used[nearest] += 1
                sums[nearest] += z[b, i, j]
                squared.append(min(distances) ** 2 / 5)
    close(logits, expected)
    close(head.penalty, torch.tensor(0.25 * sum(squared) / len(squared), dtype=torch.float64))
    shares = [n / 12 for n in used if n]
    assert head.statistics["perplexity"].item() == pytest.approx(math.exp(-sum(p * math.log(p) for p in shares)))
    assert len(shares) < 4  # one code at least is left out: it stays where it is
    for j in range(4):
        new_usage = 0.99 * usage[j] + 0.01 * 4 * used[j] / 12
        close(head.usage[j], new_usage)
        close(head.dictionary[j], (0.99 * usage[j] * e[j] + 0.01 * 4 / 12 * sums[j]) / new_usage if used[j] else e[j])


def test_the_gradient_of_the_logits_passes_the_codes() -> None:
    head, g, x = started()
    (found,) = torch.autograd.grad(head(g, x)[0, 0], head.embed.weight)
    (expected,) = torch.autograd.grad(head.classify(z_of(head, x).mean((1, 2)))[0, 0], head.embed.weight)
    assert found.abs().max() > 1e-3
    close(found, expected)


def test_the_scale_of_the_features_is_not_learned() -> None:
    assert {name for name, _ in head_of().named_parameters()} == {"embed.weight", "classify.weight", "classify.bias"}


def test_the_gradient_of_the_penalty_pulls_features_to_their_codes() -> None:
    head, g, x = started(commitment=0.5)
    e_JD = head.dictionary.clone()
    head(g, x)
    (found,) = torch.autograd.grad(head.penalty, head.embed.weight)
    (expected,) = torch.autograd.grad(0.5 * F.mse_loss(z_of(head, x), e_JD[head.codes]), head.embed.weight)
    assert found.abs().max() > 1e-3
    close(found, expected)


def test_the_first_batch_makes_all_codes_and_a_later_one_the_dead_ones() -> None:
    head, g, x = started(restart=0.5)
    head.usage.zero_()
    head.decay = 1.0  # no code moves but by a restart
    z_ND = z_of(head, x).detach().flatten(0, 2)
    head(g, x)
    assert torch.cdist(head.dictionary, z_ND).amin(1).max() < 1e-6
    close(head.usage, torch.ones(4).double())
    head.dictionary.fill_(7)
    head.usage.copy_(torch.tensor([0.5, 0.51, 2.0, 2.0]))
    head(g, x)
    assert (head.dictionary[0] - z_ND).norm(dim=1).min() < 1e-9
    assert (head.dictionary[1:] == 7).all()
    assert (head.codes == 0).all()  # of use in the batch that it comes from
    assert head.usage[0] == 1


def test_evidence_adds_up_to_the_logits_and_evaluation_moves_nothing() -> None:
    head, g, x = started()
    head.eval()
    before = {name: value.clone() for name, value in head.state_dict().items()}
    logits = head(g, x)
    assert head.penalty is None
    assert all(torch.equal(value, before[name]) for name, value in head.state_dict().items())
    close(head.evidence()[1, :, 2, 0], head.classify.weight.detach() @ head.dictionary[head.codes[1, 2, 0]])
    close(head.evidence().mean((2, 3)) + head.classify.bias, logits.detach())
    with pytest.raises(ValueError, match="last forward"):
        head_of().evidence()


def test_a_trunk_below_it_learns() -> None:
    """At a high rate, and in spite of commitment, which draws all images to one map: three classes by the one place that is lit."""
    head = head_of(codes=16)
    trunk = torch.nn.Sequential(torch.nn.Conv2d(3, 6, 1, bias=False), torch.nn.BatchNorm2d(6), torch.nn.ReLU())
    optimizer = torch.optim.SGD([*trunk.parameters(), *head.parameters()], lr=0.1, momentum=0.9)
    for _ in range(40):
        y = torch.randint(3, (32,))
        x = 0.3 * torch.randn(32, 3, 3, 2)
        x[torch.arange(32), y, torch.randint(3, (32,)), torch.randint(2, (32,))] += 3
        logits = head(torch.zeros(32, 6), trunk(x))
        loss = F.cross_entropy(logits, y)
        optimizer.zero_grad()
        (loss + head.penalty).backward()
        optimizer.step()
    assert loss < 0.6 * math.log(3)
    assert head.statistics["perplexity"] > 1.7  # three codes of the lit place and one of the others, in fair shares, are 1.9


class OnMap(torch.nn.Module):
    """The head of a map alone: its logits do not depend on the pooled features, and those get no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.head = head_of()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.mean((2, 3)), x)


def test_rules() -> None:
    check_rules(OnMap, torch.randn(3, 6, 3, 2))


@pytest.mark.parametrize("options", [{"codes": 0}, {"code_dim": 0}, {"commitment": -1.0}, {"decay": 1.0}, {"restart": -0.1}])
def test_refusals(options: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        head_of(**options)
    with pytest.raises(ValueError, match="shape"):
        CodeOccurrenceHead((6, 2, 2), read_shapes=[(6, 3, 2)], num_classes=3)
    with pytest.raises(ValueError, match="reads"):
        CodeOccurrenceHead((6,), read_shapes=[], num_classes=3)
