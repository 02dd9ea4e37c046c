"""iSQRT-COV against the authors' numbers (fp64) and eigendecompositions; the multi-order head that uses it."""

import pytest
import torch
import torch.nn.functional as F

from attnlab.heads.covariance import MultiOrderHead, covariance, matrix_square_root, upper_triangle
from tests.component_rules import check_rules, close
from tests.golden_numbers import golden

STORED = golden("components", "isqrt_")


@pytest.mark.parametrize("iterations", [3, 5, 12])
def test_equals_the_authors_code(iterations: int) -> None:
    x = STORED["x"].clone().requires_grad_()
    sigma = covariance(x)
    close(sigma, STORED["cov"])
    v = upper_triangle(matrix_square_root(sigma, iterations))
    close(v, STORED[f"v_N{iterations}"])
    v.backward(STORED[f"gv_N{iterations}"])
    close(x.grad, STORED[f"gx_N{iterations}"])


def test_covariance_is_that_of_torch() -> None:
    x = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    close(covariance(x), torch.stack([one.flatten(1).cov(correction=0) for one in x]))


def test_many_iterations_give_the_square_root_by_eigenvalues_and_five_do_not() -> None:
    torch.manual_seed(0)
    sigma = covariance(torch.randn(2, 16, 8, 8, dtype=torch.float64))
    values, vectors = torch.linalg.eigh(sigma)
    expected = vectors @ values.sqrt().diag_embed() @ vectors.mT
    close(matrix_square_root(sigma, 25), expected)
    root = matrix_square_root(sigma, 12)
    assert (root @ root - sigma).norm() / sigma.norm() < 1e-4 and torch.allclose(root, root.mT)
    assert (matrix_square_root(sigma, 5) - expected).norm() / expected.norm() > 1e-3


def test_order_of_positions_does_not_matter_and_a_constant_map_gives_zeros_and_a_finite_gradient() -> None:
    x = torch.randn(2, 5, 3, 4)
    moved = x.flatten(2)[:, :, torch.randperm(12)].view_as(x)
    torch.testing.assert_close(covariance(moved), covariance(x))
    flat = torch.ones(1, 4, 3, 3, requires_grad=True)
    root = matrix_square_root(covariance(flat), 5)
    root.sum().backward()
    assert (root == 0).all() and flat.grad.isfinite().all()


def build(**options) -> MultiOrderHead:
    return MultiOrderHead((6,), read_shapes=[(5, 8, 8), (6, 4, 4)], num_classes=3, channels=4, **options)


def test_logits_are_the_mean_of_three_heads_each_with_a_loss() -> None:
    torch.manual_seed(0)
    module, parts, y = build(weight=0.5), (torch.randn(7, 6), torch.randn(7, 5, 8, 8), torch.randn(7, 6, 4, 4)), torch.randint(0, 3, (7,))
    logits = module(*parts, y)
    last = module.reduce_last(parts[2])
    sigma = covariance(last) + 1e-5 * torch.eye(4)
    vectors = module.reduce_middle(parts[1]).amax((2, 3)), parts[0], upper_triangle(matrix_square_root(sigma, 5))
    heads = [classify(v) for classify, v in zip(module.classifiers, vectors)]
    torch.testing.assert_close(logits, sum(heads) / 3)
    torch.testing.assert_close(module.penalty, 0.5 * sum(F.cross_entropy(z, y) for z in heads))
    module.eval()(*parts, None)
    assert module.penalty is None


def test_parameters() -> None:
    """Two reductions without a bias, as batch norm follows, and three Linears."""
    head = MultiOrderHead((5,), read_shapes=[(6, 4, 4), (8, 2, 2)], num_classes=3, channels=4)
    reductions, linears = (6 + 8) * 4 + 2 * 2 * 4, 3 * (4 + 5 + 10) + 3 * 3
    assert sum(parameter.numel() for parameter in head.parameters()) == reductions + linears


def test_rules() -> None:
    check_rules(build, torch.randn(3, 6), torch.randn(3, 5, 8, 8), torch.randn(3, 6, 4, 4), torch.tensor([0, 1, 2]))


@pytest.mark.parametrize("options", [{"channels": 1}, {"iterations": 1}, {"weight": -1}, {"ridge": -1}])
def test_refusals(options: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        MultiOrderHead((6,), read_shapes=[(5, 8, 8), (6, 4, 4)], num_classes=3, **options)
    with pytest.raises(ValueError, match="reads"):
        MultiOrderHead((6,), read_shapes=[(5, 8, 8)], num_classes=3)
