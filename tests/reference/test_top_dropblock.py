"""Top DropBlock and BatchDrop against the authors' numbers and obvious loops, in fp64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnlab.regularizers.batch_drop import BatchDrop, drop_rectangle
from attnlab.regularizers.top_dropblock import TopDropBlock
from tests.golden_numbers import golden


@pytest.mark.parametrize("case", "abc")
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_top_equals_the_authors_code(case: str, memory_format: torch.memory_format) -> None:
    gold = golden("components", f"tdb_{case}_")
    x = gold["x"].contiguous(memory_format=memory_format).requires_grad_()
    module = TopDropBlock(x.shape[1:], ratio=gold["ratio"].item())
    y = module(x)
    assert torch.equal(y, gold["y"]) and y.is_contiguous(memory_format=memory_format)
    assert ((y == 0).all(dim=(1, 3)).sum(1) == gold["rows"]).all()
    (gx,) = torch.autograd.grad(y, x, gold["gy"])
    assert torch.equal(gx, gold["gx"])
    assert module.eval()(x) is x


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), height=st.integers(1, 8), ratio=st.floats(0, 0.99), coarse=st.booleans())
def test_top_equals_the_loop(seed: int, height: int, ratio: float, coarse: bool) -> None:
    torch.manual_seed(seed)
    x = torch.randn(3, 4, height, 5, dtype=torch.float64)
    x = x.round() if coarse else x  # with ties
    expected = x.clone()
    for image in expected:
        scores = [max(sum(image[c, i, j].item() ** 2 for c in range(4)) for j in range(5)) for i in range(height)]
        for row in sorted(range(height), key=lambda i: -scores[i])[: round(ratio * height)]:
            image[:, row] = 0
    assert torch.equal(TopDropBlock(x.shape[1:], ratio=ratio)(x), expected)


def test_the_hot_row_is_dropped_and_one_row_stays() -> None:
    x = torch.rand(2, 3, 4, 4, dtype=torch.float16)
    x[0, 1, 2, 3], x[1, 0, 0, 1] = 300, -300  # squares beyond fp16
    y = TopDropBlock((3, 4, 4))(x)
    assert [(y[b] == 0).all(dim=(0, 2)).nonzero().flatten().tolist() for b in (0, 1)] == [[2], [0]]
    one = torch.rand(2, 3, 1, 4)
    assert torch.equal(TopDropBlock((3, 1, 4))(one), one)  # the authors' slice drops everything here


def test_batch_drop_equals_the_authors_code() -> None:
    gold = golden("components", "bdb_")
    top, left, height, width = gold["rect"]
    found = drop_rectangle(gold["x"], top[None], left[None], height=height.item(), width=width.item())
    assert torch.equal(found, gold["y"])
    assert (height, width) == (round(0.33 * 9), 5)  # what the module makes of the authors' fractions


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), size=st.tuples(st.integers(1, 7), st.integers(1, 7)), part=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_batch_drop_zeroes_one_rectangle_of_the_asked_size_in_all_images(seed: int, size: tuple, part: tuple) -> None:
    torch.manual_seed(seed)
    y = BatchDrop((2, *size), height=part[0], width=part[1])(torch.ones(3, 2, *size))
    hole = y[0, 0] == 0
    h, w = round(part[0] * size[0]), round(part[1] * size[1])
    assert torch.equal(y, y[:1, :1].expand_as(y)) and hole.sum() == h * w
    if h * w:
        rows, columns = hole.any(1).nonzero().flatten(), hole.any(0).nonzero().flatten()
        assert rows[-1] - rows[0] == h - 1 and columns[-1] - columns[0] == w - 1


def test_every_position_of_the_rectangle_is_equally_likely() -> None:
    torch.manual_seed(0)
    module, x = BatchDrop((1, 5, 1), height=0.4), torch.ones(1, 1, 5, 1)
    tops = torch.stack([(module(x) == 0).flatten().float().argmax() for _ in range(800)])
    counts = torch.bincount(tops, minlength=4)
    assert len(counts) == 4 and ((counts - 200).abs() < 5 * (800 * 0.25 * 0.75) ** 0.5).all()
    assert module.eval()(x) is x


@pytest.mark.parametrize("make", [TopDropBlock, BatchDrop])
def test_keeps_channels_last_and_traces(make: type) -> None:
    x = torch.randn(4, 3, 6, 6).contiguous(memory_format=torch.channels_last)
    module = make((3, 6, 6))
    torch.manual_seed(0)
    y = torch.compile(module, backend="eager", fullgraph=True)(x)
    torch.manual_seed(0)
    assert torch.equal(y, module(x)) and y.is_contiguous(memory_format=torch.channels_last)


def test_wrong_values() -> None:
    for make, options, match in (
        (TopDropBlock, {"ratio": 1.0}, r"ratio must be in \[0, 1\), got 1"),
        (BatchDrop, {"width": -0.1}, r"width must be a fraction of the map in \[0, 1\], got -0\.1"),
    ):
        with pytest.raises(ValueError, match=match):
            make((3, 4, 4), **options)
        with pytest.raises(ValueError, match=r"needs a place of shape \(C, H, W\), .*got \(8,\)"):
            make((8,))
