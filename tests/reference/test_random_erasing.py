"""Random Erasing: the distribution of its rectangles against the authors' loop."""

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnlab.regularizers.random_erasing import TRIES, RandomErasing


def authors(height, width, generator, area=(0.02, 0.4), r1=0.3):
    """The authors' loop over up to 100 tries: (h, w, top, left) or None."""
    for _ in range(100):
        target = generator.uniform(*area) * height * width
        aspect = generator.uniform(r1, 1 / r1)
        h, w = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
        if w < width and h < height:
            return h, w, generator.randint(0, height - h), generator.randint(0, width - w)
    return None


def boxes(y):
    """Rows and columns of each image's zeros, as slices; None where nothing was erased."""
    for hole in (y == 0).all(1):
        rows, columns = hole.any(1).nonzero().flatten(), hole.any(0).nonzero().flatten()
        if len(rows) == 0:
            yield None
            continue
        top, bottom, left, right = rows[0].item(), rows[-1].item() + 1, columns[0].item(), columns[-1].item() + 1
        assert hole[top:bottom, left:right].all() and hole.sum() == (bottom - top) * (right - left)  # one full rectangle
        yield bottom - top, right - left, top, left


@pytest.mark.parametrize("height, width", [(32, 32), (12, 40)])
def test_same_distribution_as_the_authors_loop(height, width):
    torch.manual_seed(0)
    generator = random.Random(0)
    count = 4000
    ours = list(boxes(RandomErasing((1, height, width), prob=1.0)(torch.ones(count, 1, height, width))))
    theirs = [authors(height, width, generator) for _ in range(count)]
    assert None not in ours and None not in theirs
    ours, theirs = torch.tensor(ours).double(), torch.tensor(theirs).double()
    error = (ours.var(0) / count + theirs.var(0) / count).sqrt()
    assert ((ours.mean(0) - theirs.mean(0)).abs() < 4.5 * error).all()
    torch.testing.assert_close(ours.std(0), theirs.std(0), rtol=0.06, atol=0)


def slow(x, prob, low, high, ratio):
    """Image by image and try by try; draws the same numbers."""
    B, _, H, W = x.shape
    areas, aspects = torch.rand(2, B, TRIES)
    chances, tops, lefts = torch.rand(3, B)
    out = x.clone()
    for b in range(B):
        for area, aspect in zip(areas[b], aspects[b], strict=True):
            area, aspect = (low + (high - low) * area) * (H * W), ratio + (1 / ratio - ratio) * aspect
            h, w = int((area * aspect).sqrt().round()), int((area / aspect).sqrt().round())
            if h < H and w < W:
                if chances[b] < prob:
                    top, left = int(tops[b] * (H - h + 1)), int(lefts[b] * (W - w + 1))
                    assert top + h <= H and left + w <= W
                    out[b, :, top : top + h, left : left + w] = 0
                break
    return out


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 10**6),
    height=st.integers(2, 20),
    width=st.integers(2, 20),
    low=st.floats(0.02, 0.9),
    more=st.floats(0, 0.5),
    ratio=st.floats(0.1, 1),
)
def test_equals_the_loop(seed, height, width, low, more, ratio):
    torch.manual_seed(seed)
    x, high = torch.randn(8, 2, height, width, dtype=torch.float64), min(low + more, 1.0)
    module = RandomErasing(x.shape[1:], prob=0.8, min_area=low, max_area=high, ratio=ratio)
    torch.manual_seed(seed)
    y = module(x)
    torch.manual_seed(seed)
    assert torch.equal(y, slow(x, 0.8, low, high, ratio))


def test_half_of_the_images_are_erased():
    torch.manual_seed(0)
    y = RandomErasing((1, 16, 16))(torch.ones(4000, 1, 16, 16))
    assert abs((y == 0).any(3).any(2).float().mean().item() - 0.5) < 0.04
    x = torch.randn(8, 1, 16, 16)
    assert torch.equal(RandomErasing((1, 16, 16), prob=0.0)(x), x)


def test_what_never_fits_stays_whole():
    x = torch.randn(8, 1, 4, 4)
    assert torch.equal(RandomErasing((1, 4, 4), prob=1.0, min_area=1.0, max_area=1.0, ratio=1.0)(x), x)


def test_noise_fill():
    torch.manual_seed(0)
    x = torch.full((300, 3, 16, 16), 7.0, dtype=torch.float64)
    y = RandomErasing((3, 16, 16), prob=1.0, fill="noise")(x)
    noise = y[y != 7]
    assert abs(noise.mean().item()) < 0.02 and abs(noise.std().item() - 1) < 0.02


def test_identity_in_eval():
    x = torch.randn(2, 3, 8, 8)
    assert RandomErasing((3, 8, 8), prob=1.0).eval()(x) is x


@pytest.mark.parametrize("fill", ["mean", "noise"])
def test_keeps_channels_last_and_traces(fill):
    module = RandomErasing((3, 8, 8), prob=0.7, fill=fill)
    x = torch.randn(6, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    torch.manual_seed(0)
    y = torch.compile(module, backend="eager", fullgraph=True)(x)
    torch.manual_seed(0)
    assert torch.equal(y, module(x))
    assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "bad, match",
    [
        ({"prob": 2}, "prob"),
        ({"min_area": 0.5}, "area"),
        ({"ratio": 3.0}, "ratio"),
        ({"fill": "red"}, "fill"),
        ({"shape": (8,)}, "C, H, W"),
    ],
)
def test_wrong_values(bad, match):
    with pytest.raises(ValueError, match=match):
        RandomErasing(**{"shape": (3, 8, 8)} | bad)
