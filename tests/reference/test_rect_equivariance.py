"""The equivariance loss of rectangular attention: its pieces against slow loops, its zeros, and what weight 0 must leave alone; fp64."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnlab.attention import rect
from attnlab.attention.rect import RectAttention, moments_rectangle, rectangle_map
from attnlab.attention.rect_equivariance import draw_similarity, equivariance_loss, transform_map, transform_rectangle

NONE = (0.0, 0.0, 0.0, 1.0)
similarity = st.tuples(st.floats(-0.25, 0.25), st.floats(-0.25, 0.25), st.floats(-0.5, 0.5), st.floats(0.8, 1.25))


def similarities(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def features(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed)).relu()


def slow_map(x_CHW, row):
    """Every cell looks up where it came from and blends the four cells around that point."""
    H, W = x_CHW.shape[1:]
    dx, dy, p, k = row
    out = torch.zeros_like(x_CHW)
    for i in range(H):
        for j in range(W):
            x, y = (2 * j + 1) / W - 1 - dx, (2 * i + 1) / H - 1 - dy
            back_x, back_y = (math.cos(p) * x + math.sin(p) * y) / k, (-math.sin(p) * x + math.cos(p) * y) / k
            column, line = ((back_x + 1) * W - 1) / 2, ((back_y + 1) * H - 1) / 2
            for a in (math.floor(line), math.floor(line) + 1):
                for b in (math.floor(column), math.floor(column) + 1):
                    if 0 <= a < H and 0 <= b < W:
                        out[:, i, j] += x_CHW[:, a, b] * (1 - abs(line - a)) * (1 - abs(column - b))
    return out


@settings(deadline=None, max_examples=30)
@given(st.lists(similarity, min_size=1, max_size=3), st.integers(1, 5), st.integers(1, 5))
def test_the_moved_map_equals_a_slow_loop(rows, H, W):
    x = features(len(rows), 2, H, W)
    expected = torch.stack([slow_map(x[b], row) for b, row in enumerate(rows)])
    torch.testing.assert_close(transform_map(x, similarities(*rows)), expected, rtol=1e-9, atol=1e-12)


def test_shifts_by_whole_cells_and_quarter_turns_move_cells():
    x = features(1, 3, 6, 8)
    moved = transform_map(x, similarities((2 * 2 / 8, -2 / 6, 0.0, 1.0)))  # two cells right, one up
    expected = torch.zeros_like(x)
    expected[:, :, :-1, 2:] = x[:, :, 1:, :-2]
    torch.testing.assert_close(moved, expected, atol=1e-12, rtol=1e-12)
    square = features(1, 3, 6, 6)
    turned = transform_map(square, similarities((0.0, 0.0, math.pi / 2, 1.0)))  # from x to y, which points down: clockwise
    torch.testing.assert_close(turned, square.rot90(-1, (2, 3)), atol=1e-12, rtol=1e-12)


@settings(deadline=None, max_examples=30)
@given(similarity, st.tuples(*[st.floats(-0.3, 0.3)] * 2, *[st.floats(0.3, 0.9)] * 2, st.floats(-1, 1)))
def test_map_and_rectangle_move_alike(row, rectangle):
    """The map of T(rectangle) at T(y) is the map of the rectangle at y, up to the sharpness, which T scales."""
    k = row[3]
    before = torch.tensor([rectangle], dtype=torch.float64)
    after = transform_rectangle(before, similarities(row))
    point = torch.tensor([[0.2, -0.1, 0.0, 0.0, 0.0]], dtype=torch.float64)  # a place, written as a rectangle's centre
    there = transform_rectangle(point, similarities(row))

    def value(rectangle_B5, point_B5, sharpness):  # the one cell of a 1x1 map is at 0, so move the rectangle the other way
        moved = rectangle_B5.clone()
        moved[:, :2] -= point_B5[:, :2]
        return rectangle_map(moved, 1, 1, sharpness).item()

    assert value(after, there, 10.0 / k) == pytest.approx(value(before, point, 10.0), rel=1e-9)


def test_the_loss_equals_its_formula_row_by_row():
    generator = torch.Generator().manual_seed(1)
    found, before = torch.randn(2, 4, 5, dtype=torch.float64, generator=generator)
    rows = [(0.1, -0.2, 0.4, 1.1), (0.0, 0.25, -0.5, 0.8), NONE, (-0.2, 0.1, 0.2, 1.25)]
    total = 0.0
    for b, (dx, dy, p, k) in enumerate(rows):
        cx, cy, w, h, theta = before[b].tolist()
        fx, fy, fw, fh, turned = found[b].tolist()
        centre = k * (math.cos(p) * cx - math.sin(p) * cy) + dx, k * (math.sin(p) * cx + math.cos(p) * cy) + dy
        total += (fx - centre[0]) ** 2 + (fy - centre[1]) ** 2 + (fw - k * w) ** 2 + (fh - k * h) ** 2
        total += 1 - math.cos(2 * (turned - theta - p))
    assert equivariance_loss(found, before, similarities(*rows)).item() == pytest.approx(total / 4)
    turned = before + torch.tensor([0, 0, 0, 0, math.pi], dtype=torch.float64)  # half a turn is the same rectangle
    assert equivariance_loss(turned, before, similarities(*[NONE] * 4)).item() == pytest.approx(0, abs=1e-12)


def exact_head(x_B1HW):
    """Moments of the map itself: moves with it exactly while all of it stays inside."""
    return moments_rectangle((x_B1HW + 1e-300).log(), factor=1.5)


def blob(size=16):
    x = torch.zeros(1, 1, size, size, dtype=torch.float64)
    x[0, 0, 5:10, 6:12] = features(5, 6) + 0.1
    x[0, 0, 8, 4:14] += 1.0  # longer than high, so the angle is well defined
    return x


EXACT = [(4 / 16, 0.0, 0.0, 1.0), (-2 / 16, 4 / 16, 0.0, 1.0), (0.0, 0.0, math.pi / 2, 1.0), (0.0, 0.0, -math.pi / 2, 1.0), NONE]


@pytest.mark.parametrize("row", EXACT)
def test_an_exactly_equivariant_head_has_no_loss(row):
    x, T = blob(), similarities(row)
    loss = equivariance_loss(exact_head(transform_map(x, T)), exact_head(x), T)
    assert loss.item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("wrong", [(0.5, 0, 0, 1), (0, -0.5, 0, 1), (0, 0, 0.7, 1), (0, 0, 0, 1.4)])
@pytest.mark.parametrize("row", EXACT)
def test_another_similarity_than_the_one_that_moved_the_map_has_a_clear_one(row, wrong):
    dx, dy, p, k = row
    x, T, other = blob(), similarities(row), similarities((dx + wrong[0], dy + wrong[1], p + wrong[2], k * wrong[3]))
    assert equivariance_loss(exact_head(transform_map(x, T)), exact_head(x), other).item() > 0.03


def test_a_mild_similarity_of_a_smooth_blob_is_followed_closely():
    yy, xx = torch.meshgrid(*[(2 * torch.arange(40, dtype=torch.float64) + 1) / 40 - 1] * 2, indexing="ij")
    x = torch.exp(-((xx - 0.1) ** 2 / 0.02 + (yy + 0.1) ** 2 / 0.006))[None, None].expand(64, 1, 40, 40)
    torch.manual_seed(0)
    T = draw_similarity(torch.zeros(64, 5, dtype=torch.float64))
    before, after = exact_head(x), exact_head(transform_map(x, T))
    assert equivariance_loss(after, before, T) < 1e-3 < 0.1 < equivariance_loss(after, before, similarities(*[NONE] * 64))


def test_draws_are_mild_and_fill_their_range():
    torch.manual_seed(0)
    dx, dy, p, k = draw_similarity(torch.zeros(20_000, 5)).unbind(1)
    for value, reach in ((dx, 0.25), (dy, 0.25), (p, math.radians(30)), (k.log(), math.log(1.25))):
        assert value.abs().max() <= reach and value.min() < -0.99 * reach and value.max() > 0.99 * reach
        assert abs(value.mean()) < 0.05 * reach
    assert not draw_similarity(torch.zeros(5, 5), rotate=False)[:, 2].any()


# ---- in the module ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("predictor", ["moments", "grid"])
def test_weight_0_adds_no_pass_and_draws_nothing(predictor, monkeypatch):
    monkeypatch.setattr(rect, "transform_map", lambda *args: pytest.fail("a second pass"))
    module = RectAttention((8, 6, 6), predictor=predictor).double()
    state = torch.get_rng_state()
    module(features(3, 8, 6, 6))
    assert torch.equal(torch.get_rng_state(), state)
    assert module.penalty.item() == pytest.approx(0.1 * module.map.mean().item())
    RectAttention((8, 6, 6), equivariance_weight=1.0).double().eval()(features(3, 8, 6, 6))  # nor does eval mode


@pytest.mark.parametrize("predictor", ["moments", "grid"])
@pytest.mark.parametrize("rotate", [True, False])
def test_the_penalty_is_the_sum_and_only_the_first_pass_moves_running_statistics(predictor, rotate):
    torch.manual_seed(0)
    module = RectAttention((8, 7, 6), predictor=predictor, rotate=rotate, area_weight=0.2, equivariance_weight=0.3).double()
    plain = copy.deepcopy(module)
    plain.equivariance_weight = 0.0
    x = features(4, 8, 7, 6)
    torch.manual_seed(1)
    y = module(x)
    assert torch.equal(y, plain(x)) and torch.equal(module.rectangle, plain.rectangle)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(module.buffers(), plain.buffers(), strict=True))
    assert all(norm.track_running_stats for norm in module.modules() if isinstance(norm, torch.nn.BatchNorm2d))

    torch.manual_seed(1)
    T = draw_similarity(plain.rectangle, rotate=rotate)
    found = plain.predictor(transform_map(x, T))
    expected = 0.2 * plain.map.mean() + 0.3 * equivariance_loss(found, plain.rectangle, T)
    assert module.penalty.item() == pytest.approx(expected.item())
    assert torch.equal(T[:, 2] == 0, torch.full((4,), not rotate))
    module = RectAttention((8, 7, 6), predictor=predictor, area_weight=0.0, equivariance_weight=0.3).double()
    module(x)
    assert module.penalty > 0


@pytest.mark.parametrize("predictor", ["moments", "grid"])
def test_gradient_reaches_every_weight_and_the_map(predictor):
    torch.manual_seed(0)
    module = RectAttention((8, 9, 9), predictor=predictor, area_weight=0.0, equivariance_weight=1.0).double()
    x = features(6, 8, 9, 9).requires_grad_()
    module(x)
    module.penalty.backward()
    assert x.grad.abs().max() > 0 and x.grad.isfinite().all()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        # moments: a constant added to all scores changes no softmax
        assert (parameter.grad.abs().max() > 0) or name == "predictor.score.3.bias", name


def test_training_by_the_loss_alone_makes_the_head_follow():
    torch.manual_seed(0)
    module = RectAttention((4, 12, 12), predictor="grid", area_weight=0.0, equivariance_weight=1.0)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    x = torch.zeros(32, 4, 12, 12)
    for b in range(32):
        x[b, b % 4, 3 + b % 3 : 7 + b % 4, 4 : 8 + b % 2] = 1.0
    values = []
    for _ in range(60):
        optimizer.zero_grad()
        module(x)
        module.penalty.backward()
        optimizer.step()
        values.append(module.penalty.item())
    assert sum(values[-10:]) < 0.6 * sum(values[:10])


def test_one_graph():
    torch._dynamo.reset()
    torch.manual_seed(0)
    module = RectAttention((8, 6, 6), equivariance_weight=1.0)
    other = copy.deepcopy(module)
    compiled = torch.compile(other, backend="aot_eager", fullgraph=True)
    x = features(3, 8, 6, 6, dtype=torch.float32)
    for _ in range(2):
        torch.manual_seed(1)
        (module(x).sum() + module.penalty).backward()
        torch.manual_seed(1)
        (compiled(x).sum() + other.penalty).backward()
    for ours, theirs in zip(module.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(theirs.grad, ours.grad)
    for ours, theirs in zip(module.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(theirs, ours)


def test_autocast_and_half_precision_maps():
    module = RectAttention((8, 6, 6), equivariance_weight=1.0)
    x = features(3, 8, 6, 6, dtype=torch.float32).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = module(x)
    assert y.dtype == torch.bfloat16 and module.penalty.dtype == torch.float32 and module.penalty.isfinite()
    assert transform_map(x, similarities(NONE, NONE, NONE).float()).dtype == torch.bfloat16


def test_a_weight_below_0_is_refused():
    with pytest.raises(ValueError, match="equivariance_weight must be >= 0, got -1"):
        RectAttention((8, 4, 4), equivariance_weight=-1.0)
