"""SSAL against the authors' numbers (fp64): groups, losses, gradients, joint prediction; and its laws."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from attnlab.heads.class_groups import even_groups, group_classes
from attnlab.heads.ssal import SSAL, branch, group_cross_entropy, joint_log_probabilities
from tests.component_rules import check_rules, close
from tests.golden_numbers import golden

STORED = golden("components", "ssal_")
NUM = sum(key.startswith("gaux") for key in STORED)
AUX, GROUPS = [STORED[f"aux{i}"] for i in range(NUM)], [STORED[f"group{i}"] for i in range(NUM)]


@pytest.mark.parametrize(("weights", "key"), [([1.0] * NUM, "loss_w1"), (STORED["weights"].tolist(), "loss_weighted")])
def test_losses_equal_the_authors_code(weights: list[float], key: str) -> None:
    logits, aux = STORED["logits"].clone().requires_grad_(), [a.clone().requires_grad_() for a in AUX]
    terms = [F.cross_entropy(logits, STORED["y"]), *(group_cross_entropy(a, STORED["y"], g) for a, g in zip(aux, GROUPS))]
    close(torch.stack(terms), STORED["terms"])
    loss = terms[0] + sum(w * term for w, term in zip(weights, terms[1:]))
    close(loss, STORED[key])
    if key == "loss_w1":
        loss.backward()
        close(logits.grad, STORED["glogits"])
        for i in range(NUM):
            close(aux[i].grad, STORED[f"gaux{i}"])


@pytest.mark.parametrize(("exponent", "key"), [(1.0, "joint_e10"), (0.3, "joint_e3")])
def test_joint_prediction_equals_the_authors_code(exponent: float, key: str) -> None:
    close(joint_log_probabilities(STORED["logits"], AUX, GROUPS, exponent).exp(), STORED[key])


@pytest.mark.parametrize(("together", "key"), [("similar", "grouping_similar"), ("different", "grouping_split")])
def test_grouping_equals_the_authors_code(together: str, key: str) -> None:
    assert group_classes(STORED["confusion"].numpy(), int(STORED["grouping_n"]), put_together=together) == STORED[key].tolist()


def test_grouping_finds_planted_groups() -> None:
    planted = [0, 1, 2, 0, 1, 2, 0, 1, 2]
    counts = np.array([[50.0 if a == b else 2 for b in planted] for a in planted])
    assert group_classes(counts, 3) == planted
    apart = group_classes(counts, 3, put_together="different")
    assert all({planted[i] for i in range(9) if apart[i] == g} == {0, 1, 2} for g in range(3))


@settings(deadline=None)
@given(st.integers(2, 12), st.data())
def test_every_group_has_members_and_none_too_many(num_classes: int, data) -> None:
    num_groups = data.draw(st.integers(1, num_classes))
    counts = np.random.default_rng(num_classes).integers(0, 50, (num_classes, num_classes))
    for found in (group_classes(counts, num_groups), even_groups(num_classes, num_groups)):
        sizes = np.bincount(found)
        assert len(sizes) == num_groups and sizes.min() >= 1 and sizes.max() < 1.1 * num_classes / num_groups + 1


def test_uniform_branches_change_no_prediction_and_groups_of_one_make_a_product_of_experts() -> None:
    logits = STORED["logits"]
    B, K = logits.shape
    flat = joint_log_probabilities(logits, [torch.zeros(B, 3).double()], [torch.tensor(even_groups(K, 3))], 0.7)
    assert torch.equal(flat.argmax(1), logits.argmax(1))
    other = torch.randn(B, K, dtype=torch.float64)
    both = joint_log_probabilities(logits, [other], [torch.arange(K)], 1.0)
    close(both, (logits + other).log_softmax(1))


def build(**options) -> SSAL:
    return SSAL((6,), read_shapes=[(3, 8, 8), (4, 4, 4), (5, 2, 2)], width=4, **options)


def parts() -> tuple[torch.Tensor, ...]:
    torch.manual_seed(1)
    return torch.randn(5, 6), torch.randn(5, 3, 8, 8), torch.randn(5, 4, 4, 4), torch.randn(5, 5, 2, 2)


def test_training_adds_a_term_and_leaves_logits_testing_joins() -> None:
    module, (z, *maps), y = build(), parts(), torch.tensor([0, 1, 5, 3, 2])
    assert module(z, *maps, y) is z
    aux = [branch(x) for branch, x in zip(module.branches, maps)]
    groups = [module.group0, module.group1, module.group2]
    assert [int(g.max()) + 1 for g in groups] == [2, 2, 3]
    expected = sum(w * F.cross_entropy(a, g[y]) for w, a, g in zip((0.42, 0.59, 0.76), aux, groups))
    torch.testing.assert_close(module.penalty, expected)
    module(z, *maps, F.one_hot(y, 6).float())
    torch.testing.assert_close(module.penalty, expected)
    module.eval()
    aux = [branch(x) for branch, x in zip(module.branches, maps)]
    torch.testing.assert_close(module(z, *maps, None), joint_log_probabilities(z, aux, groups, 0.3))
    assert module.penalty is None
    module.joint = False
    assert module(z, *maps, None) is z


def test_rules() -> None:
    z, *maps = parts()
    check_rules(build, z, *maps, torch.tensor([0, 1, 5, 3, 2]))


@pytest.mark.parametrize(
    "options",
    [
        {"groups": [2, 2]},
        {"groups": [2, 2, 7]},
        {"groups": [2, 2, [0, 0, 0, 2, 2, 2]]},
        {"groups": [2, 2, [0, 1]]},
        {"weights": [1.0]},
        {"exponent": -1.0},
        {"width": 0},
    ],
)
def test_refusals(options: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        SSAL((6,), read_shapes=[(3, 8, 8), (4, 4, 4), (5, 2, 2)], **options)


def test_groups_and_weights_of_the_paper() -> None:
    for num in (1, 2, 3):
        module = SSAL((100,), read_shapes=[(4, 8, 8)] * num, width=2)
        assert [int(module.get_buffer(f"group{index}").max()) + 1 for index in range(num)] == [20, 33, 50][-num:]
        assert module.weights == [0.42, 0.59, 0.76][-num:]
    assert [int(SSAL((3,), read_shapes=[(4, 8, 8)], width=2).get_buffer("group0").max()) + 1] == [2]


def test_a_branch_halves_its_map() -> None:
    layers = branch(3, 4, 2)
    assert layers[:6](torch.zeros(2, 3, 8, 6)).shape == (2, 4, 4, 3) and layers(torch.zeros(2, 3, 8, 6)).shape == (2, 2)
