"""ADL against the authors' numbers; our reading of DGDM against a loop over its positions. In fp64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnlab.regularizers.adl import AttentionDropout, below
from attnlab.regularizers.dgdm import DualAttentionDropBlock
from tests.golden_numbers import golden


@pytest.mark.parametrize(("branch", "drop"), [("drop", 1.0), ("importance", 0.0)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_each_branch_equals_the_authors_code(branch: str, drop: float, memory_format: torch.memory_format) -> None:
    gold = golden("components", "adl_")
    x = gold["x"].contiguous(memory_format=memory_format).requires_grad_()
    module = AttentionDropout(x.shape[1:], drop=drop, threshold=gold["threshold"].item())
    y = module(x)
    torch.testing.assert_close(y, gold[f"{branch}_y"], rtol=1e-12, atol=1e-14)
    assert y.is_contiguous(memory_format=memory_format)
    (gx,) = torch.autograd.grad(y, x, gold["gy"])
    torch.testing.assert_close(gx, gold[f"{branch}_gx"], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(module.map, gold["x"].mean(1, keepdim=True).sigmoid())


def test_one_draw_a_batch_chooses_as_the_authors_do(monkeypatch: pytest.MonkeyPatch) -> None:
    gold = golden("components", "adl_")
    module = AttentionDropout(gold["x"].shape[1:])
    monkeypatch.setattr(torch, "rand", lambda *size, **options: gold["u"].float())
    torch.testing.assert_close(module(gold["x"]), gold["mixed_y"], rtol=1e-12, atol=1e-14)
    for draw, branch in ((0.2499, "importance"), (0.25, "drop")):
        monkeypatch.setattr(torch, "rand", lambda *size, value=draw, **options: torch.tensor(value))
        torch.testing.assert_close(module(gold["x"]), gold[f"{branch}_y"], rtol=1e-12, atol=1e-14)


def test_eval_is_the_identity_with_a_map_and_negative_maps_lose_nothing() -> None:
    x = -torch.rand(2, 3, 4, 4) - 0.1
    module = AttentionDropout((3, 4, 4), drop=1.0)
    assert torch.equal(module(x), x)
    assert module.eval()(x) is x and module.map.shape == (2, 1, 4, 4)


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 10**6),
    high=st.floats(0, 1),
    floor=st.floats(0, 1),
    block=st.sampled_from([1, 3, 5]),
    chance=st.sampled_from([0, 1]),
)
def test_dgdm_erases_as_the_loop(seed: int, high: float, floor: float, block: int, chance: float) -> None:
    torch.manual_seed(seed)
    x = torch.rand(2, 4, 5, 6, dtype=torch.float64)
    module = DualAttentionDropBlock((4, 5, 6), top=1.0, drop=1.0, high=high, floor=floor, block=block, seed=chance)
    expected = x.clone()
    for image, result in zip(x, expected):
        A = image.mean(0)
        for i in range(5):
            for j in range(6):
                near = A[max(0, i - block // 2) : i + block // 2 + 1, max(0, j - block // 2) : j + block // 2 + 1]
                if (chance and (near >= high * A.max()).any()) or A[i, j] < floor * A.max():
                    result[:, i, j] = 0
    torch.testing.assert_close(module(x), expected)


def test_dgdm_keeps_the_top_channels_and_the_mean_number_of_the_low_ones() -> None:
    torch.manual_seed(0)
    x = torch.rand(400, 8, 2, 2, dtype=torch.float64) + 0.01
    module = DualAttentionDropBlock((8, 2, 2), top=0.4, low=0.25, drop=0.0)
    factor_BC = module.channel_factor(x)
    kept_BC = factor_BC > 0
    order_BC = x.mean((2, 3)).argsort(dim=1, descending=True)
    assert kept_BC.gather(1, order_BC[:, :4]).all()  # ceil(3.2)
    assert kept_BC.gather(1, order_BC[:, 4:]).double().mean().item() == pytest.approx(0.25, abs=0.04)
    torch.testing.assert_close(factor_BC.sum(1), torch.full((400,), 8.0, dtype=torch.float64))
    torch.manual_seed(1)
    y = module(x)
    torch.manual_seed(1)
    kept = x * module.channel_factor(x)[:, :, None, None]
    torch.testing.assert_close(y, kept * kept.mean(1, keepdim=True).sigmoid())


def test_dgdm_gradient_passes_the_importance_and_not_the_masks() -> None:
    x = torch.rand(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    y = DualAttentionDropBlock((3, 4, 4), top=1.0, drop=1.0)(x)
    (gx,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(gx, (y != 0).double())
    importance = DualAttentionDropBlock((3, 4, 4), top=1.0, drop=0.0)
    assert torch.autograd.gradcheck(importance, (x,))
    assert importance.eval()(x) is x and importance.map.shape == (2, 1, 4, 4)
    assert below(x, 0.0).sum() == 0


@pytest.mark.parametrize("make", [AttentionDropout, DualAttentionDropBlock])
def test_keeps_channels_last_and_traces(make: type) -> None:
    x = torch.randn(4, 8, 6, 6).contiguous(memory_format=torch.channels_last)
    module = make((8, 6, 6))
    torch.manual_seed(0)
    y = torch.compile(module, backend="eager", fullgraph=True)(x)
    torch.manual_seed(0)
    assert torch.equal(y, module(x)) and y.is_contiguous(memory_format=torch.channels_last)
    assert module(x.bfloat16()).dtype == torch.bfloat16


def test_wrong_values() -> None:
    for make in (AttentionDropout, DualAttentionDropBlock):
        with pytest.raises(ValueError, match=r"drop must be in \[0, 1\], got 1\.5"):
            make((3, 4, 4), drop=1.5)
        with pytest.raises(ValueError, match=r"needs a place of shape \(C, H, W\), .*got \(8,\)"):
            make((8,))
    with pytest.raises(ValueError, match="block must be odd and at least 1, got 4"):
        DualAttentionDropBlock((3, 4, 4), block=4)
    with pytest.raises(ValueError, match="top must be above 0"):
        DualAttentionDropBlock((3, 4, 4), top=0.0)
