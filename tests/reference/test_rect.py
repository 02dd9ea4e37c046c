"""Rectangular attention: the map against a slow loop, its laws, both predictors; fp64."""

import copy
import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnlab.attention.rect import RectAttention, half_angle, moments_rectangle, rectangle_map

PROFILES = ("product", "abs", "quadratic")
PREDICTORS = ("moments", "grid")


def sigmoid(z):
    return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))


def slow_map(rectangle, H, W, s, profile):
    cx, cy, w, h, theta = rectangle
    lam = {
        "product": lambda z, r: sigmoid(s * (z + r)) * sigmoid(s * (r - z)),
        "abs": lambda z, r: sigmoid(s * (r - abs(z))),
        "quadratic": lambda z, r: sigmoid(s * (1 - (z / r) ** 2)),
    }[profile]
    rows = []
    for i in range(H):
        row = []
        for j in range(W):
            x, y = (2 * j + 1) / W - 1 - cx, (2 * i + 1) / H - 1 - cy
            u = math.cos(theta) * x + math.sin(theta) * y
            v = -math.sin(theta) * x + math.cos(theta) * y
            row.append(lam(u, w / 2) * lam(v, h / 2))
        rows.append(row)
    return rows


def rectangles(*rows):
    return torch.tensor(rows, dtype=torch.float64)


number = st.floats(-1, 1)
size = st.floats(0.05, 3)
rectangle = st.tuples(number, number, size, size, st.floats(-2, 2))


@settings(deadline=None, max_examples=40)
@given(st.lists(rectangle, min_size=1, max_size=3), st.integers(1, 6), st.integers(1, 6), st.floats(0.5, 30), st.sampled_from(PROFILES))
def test_map_equals_a_slow_loop(rows, H, W, s, profile):
    A = rectangle_map(rectangles(*rows), H, W, s, profile)
    expected = torch.tensor([slow_map(row, H, W, s, profile) for row in rows], dtype=torch.float64)
    assert A.shape == (len(rows), 1, H, W)
    assert torch.allclose(A[:, 0], expected, rtol=1e-9, atol=1e-12)
    assert (A >= 0).all() and (A <= 1).all()


@settings(deadline=None, max_examples=40)
@given(rectangle)
def test_strictly_inside_the_unit_interval_at_the_default_sharpness(row):
    A = rectangle_map(rectangles(row), 7, 9)
    assert (A > 0).all() and (A < 1).all()


@settings(deadline=None, max_examples=40)
@given(rectangle, st.sampled_from(PROFILES))
def test_half_turn_and_swapped_sides_are_the_same_rectangle(row, profile):
    cx, cy, w, h, theta = row
    A, turned, swapped = rectangle_map(
        rectangles(row, (cx, cy, w, h, theta + math.pi), (cx, cy, h, w, theta + math.pi / 2)), 8, 11, 10.0, profile
    )
    assert torch.allclose(A, turned) and torch.allclose(A, swapped)


@pytest.mark.parametrize("profile", PROFILES)
def test_sharp_limit_is_the_indicator(profile):
    row = (0.13, -0.21, 0.9, 0.52, 0.6)
    A = rectangle_map(rectangles(row), 31, 37, 1e6, profile)[0, 0]
    for i in range(31):
        for j in range(37):
            x, y = (2 * j + 1) / 37 - 1 - row[0], (2 * i + 1) / 31 - 1 - row[1]
            u, v = math.cos(0.6) * x + math.sin(0.6) * y, math.cos(0.6) * y - math.sin(0.6) * x
            assert A[i, j].item() == pytest.approx(float(abs(u) < 0.45 and abs(v) < 0.26), abs=1e-6)


@pytest.mark.parametrize("profile", ["product", "abs"])
@pytest.mark.parametrize("theta", [0.0, 0.3, 1.2])
def test_area_inside_the_map(profile, theta):
    A = rectangle_map(rectangles((0.1, -0.05, 0.8, 0.5, theta)), 200, 200, 200.0, profile)
    assert A.mean().item() == pytest.approx(0.8 * 0.5 / 4, rel=0.02)


@settings(deadline=None, max_examples=25)
@given(rectangle, st.integers(-2, 2), st.integers(-2, 2), st.sampled_from(PROFILES))
def test_one_cell_further_is_the_same_map_one_cell_further(row, down, right, profile):
    cx, cy, w, h, theta = row
    H, W = 9, 12
    A, moved = rectangle_map(rectangles(row, (cx + 2 * right / W, cy + 2 * down / H, w, h, theta)), H, W, 10.0, profile)[:, 0]
    rolled = torch.roll(A, (down, right), (0, 1))
    rows, columns = slice(max(down, 0), H + min(down, 0)), slice(max(right, 0), W + min(right, 0))
    assert torch.allclose(moved[rows, columns], rolled[rows, columns])


@pytest.mark.parametrize("profile", PROFILES)
def test_gradients_of_the_map(profile):
    row = rectangles((0.1, -0.2, 0.9, 0.6, 0.4), (-0.5, 0.3, 0.4, 1.5, -1.0)).requires_grad_()
    assert torch.autograd.gradcheck(lambda r: rectangle_map(r, 5, 6, 8.0, profile), (row,))


def test_map_is_fp32_at_least_whatever_comes_in():
    row = torch.tensor([[0.1, 0.2, 1.0, 0.8, 0.3]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        A = rectangle_map(row.bfloat16(), 6, 6)
    assert A.dtype == torch.float32 and torch.equal(A, rectangle_map(row.bfloat16().float(), 6, 6))
    with pytest.raises(ValueError, match="profile must be"):
        rectangle_map(row, 6, 6, 10.0, "gauss")


def slow_moments(scores, factor):
    H, W = scores.shape
    total = sum(math.exp(scores[i, j]) for i in range(H) for j in range(W))
    cells = [(math.exp(scores[i, j]) / total, (2 * j + 1) / W - 1, (2 * i + 1) / H - 1) for i in range(H) for j in range(W)]
    cx, cy = sum(p * x for p, x, _ in cells), sum(p * y for p, _, y in cells)
    xx = sum(p * (x - cx) ** 2 for p, x, _ in cells) + 1 / (3 * W * W)
    yy = sum(p * (y - cy) ** 2 for p, _, y in cells) + 1 / (3 * H * H)
    xy = sum(p * (x - cx) * (y - cy) for p, x, y in cells)
    return cx, cy, torch.tensor([[xx, xy], [xy, yy]], dtype=torch.float64), factor


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 10**6), st.floats(0.1, 6))
def test_moments_equal_a_loop_and_an_eigendecomposition(H, W, seed, spread):
    scores = spread * torch.randn(1, 1, H, W, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    cx, cy, covariance, factor = slow_moments(scores[0, 0], 2.5)
    got = moments_rectangle(scores, factor=factor)[0]
    minor, major = torch.linalg.eigvalsh(covariance)
    assert got[:4].tolist() == pytest.approx([cx, cy, factor * major.sqrt().item(), factor * minor.sqrt().item()], abs=3e-5)
    axes = torch.stack([torch.stack([got[4].cos(), got[4].sin()]), torch.stack([-got[4].sin(), got[4].cos()])])
    rebuilt = axes.T @ torch.diag((got[2:4] / factor) ** 2) @ axes
    assert torch.allclose(rebuilt, covariance, atol=1e-5)
    upright = moments_rectangle(scores, factor=factor, rotate=False)[0]
    expected = [cx, cy, factor * covariance[0, 0].sqrt().item(), factor * covariance[1, 1].sqrt().item(), 0]
    assert upright.tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("rotate", [True, False])
@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (3, 7), (1, 5)])
def test_a_uniform_score_map_gives_init_size(shape, rotate):
    got = moments_rectangle(torch.zeros(2, 1, *shape, dtype=torch.float64), factor=1.5 * math.sqrt(3), rotate=rotate)
    assert torch.allclose(got[:, :4], torch.tensor([0.0, 0.0, 1.5, 1.5], dtype=torch.float64), atol=1e-5)


@pytest.mark.parametrize("rotate", [True, False])
def test_moments_follow_the_score_map(rotate):
    blob = 3 * torch.randn(2, 1, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    scores = torch.full((2, 1, 12, 12), -60.0, dtype=torch.float64)
    scores[:, :, 2:6, 3:8] = blob
    base = moments_rectangle(scores, factor=2.0, rotate=rotate)

    def amap(rectangle):
        return rectangle_map(rectangle, 12, 12)

    moved = moments_rectangle(torch.roll(scores, (3, -2), (2, 3)), factor=2.0, rotate=rotate)
    assert torch.allclose(moved, base + torch.tensor([-4 / 12, 6 / 12, 0, 0, 0], dtype=torch.float64), atol=1e-9)
    for axis in (2, 3):
        assert torch.allclose(amap(moments_rectangle(scores.flip(axis), factor=2.0, rotate=rotate)), amap(base).flip(axis), atol=1e-9)
    quarter = moments_rectangle(scores.rot90(1, (2, 3)), factor=2.0, rotate=rotate)
    assert torch.allclose(amap(quarter), amap(base).rot90(1, (2, 3)), atol=1e-9)


def test_angle_gradient_is_right_where_it_matters_and_finite_everywhere():
    y, x = torch.tensor([0.3], dtype=torch.float64, requires_grad=True), torch.tensor([-0.4], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, b: half_angle(a, b, torch.tensor(1e-9)), (y, x))
    zero = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    half_angle(zero, zero * 1, torch.tensor(0.1)).backward()
    assert zero.grad.item() == 0
    scores = torch.zeros(1, 1, 4, 4, requires_grad=True)  # isotropic
    (moments_rectangle(scores, factor=1.0) * torch.arange(1.0, 6.0)).sum().backward()
    assert scores.grad.isfinite().all()
    peak = torch.zeros(1, 1, 4, 4)
    peak[0, 0, 1, 2] = 200.0  # all mass on one cell
    peak.requires_grad_()
    (moments_rectangle(peak, factor=1.0) * torch.arange(1.0, 6.0)).sum().backward()
    assert peak.grad.isfinite().all()


def test_the_angle_s_gradient_is_softened_by_a_twentieth_of_the_mean_variance():
    scores = torch.randn(1, 1, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    p_HW = scores.flatten().softmax(0).view(5, 6)
    x, y = ((2 * torch.arange(n, dtype=torch.float64) + 1) / n - 1 for n in (6, 5))
    dx, dy = x - (p_HW.sum(0) * x).sum(), y - (p_HW.sum(1) * y).sum()
    xx, yy = (p_HW.sum(0) * dx**2).sum() + 1 / (3 * 6**2), (p_HW.sum(1) * dy**2).sum() + 1 / (3 * 5**2)
    expected = half_angle((p_HW * dy[:, None] * dx).sum(), (xx - yy) / 2, 0.05 * (xx + yy) / 2)
    found = moments_rectangle(scores, factor=1.0)[0, 4]
    torch.testing.assert_close(*(torch.autograd.grad(theta, scores, retain_graph=True)[0] for theta in (found, expected)))


def features(*shape, dtype=torch.float32, seed=0):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed)).relu()


@pytest.mark.parametrize("predictor", PREDICTORS)
@pytest.mark.parametrize("C, H, W", [(16, 12, 12), (64, 7, 9), (8, 2, 2)])
def test_all_five_numbers_and_all_weights_have_a_gradient_at_the_start(predictor, C, H, W):
    torch.manual_seed(0)
    module, x = RectAttention((C, H, W), predictor=predictor).double(), features(6, C, H, W, dtype=torch.float64)
    y = module(x)
    module.rectangle.retain_grad()
    (y * features(6, C, H, W, dtype=torch.float64, seed=1)).sum().backward(retain_graph=True)
    assert (module.rectangle.grad.abs() > 1e-6).all()
    for parameter in module.parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all()
    weight = module.predictor.conv.weight if predictor == "grid" else module.predictor.score[0].weight
    for k in range(5):  # each number reaches the first layer
        (gradient,) = torch.autograd.grad(module.rectangle[:, k].square().sum(), weight, retain_graph=True)
        assert gradient.abs().max() > 1e-6, k


@pytest.mark.parametrize("predictor", PREDICTORS)
@pytest.mark.parametrize("init_size", [0.5, 1.0, 2.0])
def test_starts_near_init_size(predictor, init_size):
    torch.manual_seed(0)
    module = RectAttention((32, 10, 10), predictor=predictor, init_size=init_size)
    module(features(16, 32, 10, 10))
    cx, cy, w, h, _ = module.rectangle.mean(0).tolist()
    assert abs(cx) < 0.15 and abs(cy) < 0.15
    assert w == pytest.approx(init_size, rel=0.2) and h == pytest.approx(init_size, rel=0.2)


@pytest.mark.parametrize("predictor", PREDICTORS)
@pytest.mark.parametrize("B, H, W", [(1, 1, 1), (2, 1, 1), (1, 2, 2), (3, 5, 2), (1, 1, 6)])
@pytest.mark.parametrize("training", [True, False])
def test_small_maps(predictor, B, H, W, training):
    module = RectAttention((4, H, W), predictor=predictor).train(training and B * H * W > 1)  # batch norm's own limit
    x = features(B, 4, H, W)
    y = module(x)
    assert torch.equal(y, x * module.map)
    assert module.map.shape == (B, 1, H, W) and module.rectangle.shape == (B, 5)
    assert module.rectangle.isfinite().all()
    assert torch.equal(module.map, rectangle_map(module.rectangle, H, W))


def test_penalty_is_the_weighted_area():
    x = features(3, 8, 6, 6)
    module = RectAttention((8, 6, 6), area_weight=0.25)
    assert module.map is None and module.penalty is None
    module(x)
    assert module.penalty.item() == pytest.approx(0.25 * module.map.mean().item())
    module = RectAttention((8, 6, 6), area_weight=0.0)
    module(x)
    assert module.penalty is None


def test_options():
    x = features(3, 8, 6, 6)
    for predictor in PREDICTORS:
        module = RectAttention((8, 6, 6), predictor=predictor, rotate=False)
        module(x)
        assert (module.rectangle[:, 4] == 0).all()
    module = RectAttention((8, 6, 6), learn_sharpness=True, sharpness=7.0)
    module(x).sum().backward()
    assert torch.allclose(module.map, rectangle_map(module.rectangle, 6, 6, 7.0))
    assert module.log_gain.grad.abs() > 0


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_autocast_keeps_the_dtype_and_the_geometry_in_fp32(predictor):
    module = RectAttention((8, 6, 6), predictor=predictor)
    x = features(3, 8, 6, 6).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = module(x)
    assert y.dtype == torch.bfloat16 and module.map.dtype == module.rectangle.dtype == torch.float32
    assert module.penalty.dtype == torch.float32


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_one_graph(predictor):
    module = RectAttention((8, 6, 6), predictor=predictor, learn_sharpness=True)
    x = features(3, 8, 6, 6)
    module.eval()
    expected, rectangle = module(x), module.rectangle
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(x), expected) and torch.allclose(module.rectangle, rectangle)
    module.train()
    (compiled(x).sum() + module.penalty).backward()
    assert all(p.grad is not None for p in module.parameters())


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_copies_after_a_training_step(predictor):
    module = RectAttention((8, 6, 6), predictor=predictor)
    x = features(3, 8, 6, 6)
    module(x)
    others = copy.deepcopy(module), pickle.loads(pickle.dumps(module))
    expected = module.eval()(x)
    for other in others:
        assert other.map is None and other.rectangle is None and other.penalty is None
        assert torch.equal(other.eval()(x), expected)


@pytest.mark.parametrize(
    "shape, options, message",
    [
        ((10,), {}, r"place of shape \(C, H, W\)"),
        ((8, 4, 4), {"predictor": "dots"}, "predictor must be grid or moments"),
        ((8, 4, 4), {"profile": "gauss"}, "profile must be"),
        ((8, 4, 4), {"sharpness": 0.0}, "sharpness must be > 0, got 0"),
        ((8, 4, 4), {"init_size": -1.0}, "init_size must be > 0"),
        ((8, 4, 4), {"init_size": float("nan")}, "init_size must be > 0"),
        ((8, 4, 4), {"init_size": 4.0, "predictor": "grid"}, "init_size must be in"),
        ((8, 4, 4), {"area_weight": -0.1}, "area_weight must be >= 0"),
        ((8, 4, 4), {"reduction": 0}, "reduction must be > 0"),
    ],
)
def test_errors(shape, options, message):
    with pytest.raises(ValueError, match=message):
        RectAttention(shape, **options)
