"""Localisation against slow loops over pixels, and the laws of its figures."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnlab.evaluation import localisation as loc

H, W = 12, 20
law = settings(max_examples=15, deadline=None)


def boxes_of(seed, num=9, whole=False):
    """Boxes inside the image, with an area; `whole`: edges on pixel edges."""
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(num, 2, generator=generator) * torch.tensor([W - 2.0, H - 2.0])
    size = 1 + torch.rand(num, 2, generator=generator) * (torch.tensor([W, H]) - low - 1)
    boxes = torch.cat([low, low + size], 1).double()
    return boxes.round() if whole else boxes


def maps_of(seed, num=9, height=H, width=W):
    return torch.rand(num, 1, height, width, generator=torch.Generator().manual_seed(seed)).double() ** 4


def slow_iou(a, b):
    across = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return across / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - across)


def slow_threshold_box(image, threshold):
    pixels = [(i, j) for i in range(H) for j in range(W) if image[i, j] >= threshold * image.max()]
    rows, columns = zip(*pixels)
    return [min(columns), min(rows), max(columns) + 1, max(rows) + 1]


def slow_pointing(image, box):
    top = [(i, j) for i in range(H) for j in range(W) if image[i, j] == image.max()]
    return sum(box[0] <= j + 0.5 < box[2] and box[1] <= i + 0.5 < box[3] for i, j in top) / len(top)


def slow_energy(image, box):
    inside = 0.0
    for i in range(H):
        for j in range(W):
            across = max(0.0, min(j + 1, box[2]) - max(j, box[0])) * max(0.0, min(i + 1, box[3]) - max(i, box[1]))
            inside += image[i, j] * across
    return inside / image.sum()


def loop(slow, *batches):
    return torch.tensor([slow(*(row.squeeze(0).numpy() if row.ndim > 1 else row.tolist() for row in rows)) for rows in zip(*batches)])


@law
@given(st.integers(0, 10_000))
def test_equal_to_loops_over_pixels(seed):
    maps, boxes, others = maps_of(seed), boxes_of(seed), boxes_of(seed + 1)
    torch.testing.assert_close(loc.iou(boxes, others), loop(slow_iou, boxes, others).double())
    torch.testing.assert_close(loc.pointing_game(maps, boxes).double(), loop(slow_pointing, maps, boxes).double())
    torch.testing.assert_close(loc.energy_inside(maps, boxes), loop(slow_energy, maps, boxes).double())
    for threshold in (0.2, 0.5, 1.0):
        expected = loop(lambda image, t=threshold: slow_threshold_box(image, t), maps)
        torch.testing.assert_close(loc.threshold_box(maps, threshold=threshold), expected.float())


def test_iou_by_hand():
    a = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 2, 2], [1, 1, 1, 1]])
    b = torch.tensor([[1.0, 1, 3, 3], [0, 0, 2, 2], [5, 5, 6, 6], [1, 1, 1, 1]])
    assert loc.iou(a, b).tolist() == pytest.approx([1 / 7, 1, 0, 0])


@law
@given(st.integers(0, 10_000))
def test_iou_is_symmetric_and_one_with_itself(seed):
    boxes, others = boxes_of(seed), boxes_of(seed + 1)
    torch.testing.assert_close(loc.iou(boxes, others), loc.iou(others, boxes))
    torch.testing.assert_close(loc.iou(boxes, boxes), torch.ones(len(boxes)).double())


def slow_rectangle_box(rectangle):
    """Extremes of the four corners, turned from the rectangle's own axes (u, v) into map coordinates."""
    cx, cy, w, h, theta = rectangle
    corners = [(u * w / 2, v * h / 2) for u in (-1, 1) for v in (-1, 1)]
    x = [cx + u * math.cos(theta) - v * math.sin(theta) for u, v in corners]
    y = [cy + u * math.sin(theta) + v * math.cos(theta) for u, v in corners]
    edges = [(min(x) + 1) / 2 * W, (min(y) + 1) / 2 * H, (max(x) + 1) / 2 * W, (max(y) + 1) / 2 * H]
    return [min(max(edge, 0), limit) for edge, limit in zip(edges, (W, H, W, H))]


@law
@given(st.integers(0, 10_000))
def test_rectangle_box_holds_the_four_corners(seed):
    u = torch.rand(9, 5, generator=torch.Generator().manual_seed(seed)).double()
    rectangles = u * torch.tensor([2, 2, 2, 2, 2 * math.pi]) - torch.tensor([1, 1, 0, 0, math.pi])
    torch.testing.assert_close(loc.rectangle_box(rectangles, H, W), loop(slow_rectangle_box, rectangles).double())
    turned = rectangles + torch.tensor([0, 0, 0, 0, math.pi])
    torch.testing.assert_close(loc.rectangle_box(turned, H, W), loc.rectangle_box(rectangles, H, W), atol=1e-4, rtol=0)


def test_rectangle_box_by_hand():
    rectangles = torch.tensor(
        [[0.0, 0, 2, 2, 0], [0, 0, 1, 1, 0], [-0.5, 0.5, 0.5, 1, 0], [-0.5, 0.5, 1, 0.5, math.pi / 2], [5, 0, 1, 1, 0]]
    )
    expected = torch.tensor([[0.0, 0, W, H], [5, 3, 15, 9], [2.5, 6, 7.5, 12], [2.5, 6, 7.5, 12], [W, 3, W, 9]])
    torch.testing.assert_close(loc.rectangle_box(rectangles, H, W), expected)


def test_rectangle_box_is_the_box_of_the_rectangles_map():
    """A hard rectangle drawn by the attention's own equations on the map's grid, and its bounding box, agree to a pixel."""
    height = width = 64
    grid = (2 * torch.arange(64).double() + 1) / 64 - 1
    for cx, cy, w, h, theta in [(0.1, -0.2, 0.8, 0.5, 0.4), (-0.3, 0.3, 0.4, 0.9, -1.1), (0, 0, 1.5, 0.2, 0.8)]:
        x, y = grid[None, :] - cx, grid[:, None] - cy
        u, v = math.cos(theta) * x + math.sin(theta) * y, -math.sin(theta) * x + math.cos(theta) * y
        drawn = ((u.abs() <= w / 2) & (v.abs() <= h / 2)).double()[None, None]
        box = loc.rectangle_box(torch.tensor([[cx, cy, w, h, theta]]), height, width)
        assert (loc.threshold_box(drawn) - box).abs().max() <= 1.5


def test_threshold_box_of_plain_maps():
    image = torch.zeros(3, 1, H, W)
    image[0, 0, 3:5, 7:10] = 1
    image[1] = 0.7
    assert loc.threshold_box(image).tolist() == [[7, 3, 10, 5], [0, 0, W, H], [0, 0, W, H]]
    for threshold in (0.0, 1.1):
        with pytest.raises(ValueError, match=r"threshold must be in \(0, 1\]"):
            loc.threshold_box(image, threshold=threshold)


def test_pointing_game_shares_a_plateau():
    image = torch.full((1, 1, H, W), 0.5)
    image[..., 2:4, 2:6] = 1
    assert loc.pointing_game(image, torch.tensor([[2.0, 2, 4, 4]])).item() == 0.5
    assert loc.pointing_game(image, torch.tensor([[2.0, 2, 6, 4]])).item() == 1
    assert loc.pointing_game(image, torch.tensor([[10.0, 2, 16, 4]])).item() == 0


def test_energy_of_a_uniform_map_is_the_boxs_share_of_the_image():
    boxes = boxes_of(3)
    shares = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) / (H * W)
    torch.testing.assert_close(loc.energy_inside(torch.full((len(boxes), 1, H, W), 0.3).double(), boxes), shares)
    assert loc.energy_inside(torch.zeros(1, 1, H, W), torch.tensor([[0.0, 0, 3, 3]])).item() == 0


def test_upsampling_keeps_edges_together():
    small = torch.rand(1, 1, 3, 5)
    large = loc.upsample(small, H, W)
    assert large.shape == (1, 1, H, W)
    torch.testing.assert_close(large[..., 0, 0], small[..., 0, 0])  # the outermost half cell is flat
    flipped = loc.upsample(small.flip(-1), H, W)
    torch.testing.assert_close(flipped.flip(-1), large)


def slow_metrics(maps, boxes, rectangles):
    kept = [n for n in range(len(boxes)) if (boxes[n, 2] > boxes[n, 0]) and (boxes[n, 3] > boxes[n, 1])]
    width, height = (np.mean([float(boxes[n, k + 2] - boxes[n, k]) for n in kept]) for k in (0, 1))
    centred = [(W - width) / 2, (H - height) / 2, (W + width) / 2, (H + height) / 2]
    sums = dict.fromkeys(("map_iou", "rect_iou", "centred_iou", "pointing", "energy", "centred_energy"), 0.0)
    for n in kept:
        image = loc.upsample(maps[n : n + 1], H, W)[0, 0].numpy()
        box = boxes[n].tolist()
        sums["map_iou"] += slow_iou(slow_threshold_box(image, 0.5), box)
        sums["rect_iou"] += slow_iou(slow_rectangle_box(rectangles[n].tolist()), box)
        sums["centred_iou"] += slow_iou(centred, box)
        sums["pointing"] += slow_pointing(image, box)
        sums["energy"] += slow_energy(image, box)
        sums["centred_energy"] += (box[2] - box[0]) * (box[3] - box[1]) / (H * W)
    return {name: value / len(kept) for name, value in sums.items()} | {"images": len(kept), "skipped": len(boxes) - len(kept)}


@pytest.mark.parametrize("chunk", [5, 256])
def test_localisation_metrics_are_the_means_of_the_slow_ones(chunk, monkeypatch):
    monkeypatch.setattr(loc, "CHUNK", chunk)
    maps, boxes = maps_of(5, height=3, width=5).float(), boxes_of(5).float()
    boxes[2] = math.nan
    boxes[7, 2] = boxes[7, 0]
    rectangles = torch.rand(9, 5, generator=torch.Generator().manual_seed(5)) - torch.tensor([0.5, 0.5, 0, 0, 0])
    found = loc.localisation_metrics(maps, boxes, H, W, rectangles)
    assert found == pytest.approx(slow_metrics(maps, boxes, rectangles), rel=1e-5)
    assert all(type(value) is float for value in found.values())
    without = loc.localisation_metrics(maps, boxes, H, W)
    assert found.pop("rect_iou") > 0
    assert without == found


def test_a_perfect_attention_scores_one():
    boxes = boxes_of(1, whole=True)
    maps = torch.zeros(len(boxes), 1, H, W)
    for image, (x0, y0, x1, y1) in zip(maps, boxes.int().tolist()):
        image[0, y0:y1, x0:x1] = 1
    centre = (boxes[:, :2] + boxes[:, 2:]) / torch.tensor([W, H]) - 1
    size = 2 * (boxes[:, 2:] - boxes[:, :2]) / torch.tensor([W, H])
    found = loc.localisation_metrics(maps, boxes, H, W, torch.cat([centre, size, torch.zeros(len(boxes), 1)], 1))
    assert [found[key] for key in ("map_iou", "rect_iou", "pointing", "energy")] == pytest.approx([1, 1, 1, 1], abs=1e-5)
    assert found["centred_iou"] < 0.7


def test_images_without_a_box_are_counted():
    maps = torch.ones(4, 1, 2, 2)
    boxes = torch.tensor([[math.nan] * 4, [3.0, 3, 3, 5], [-5, -5, -1, -1], [6, 2, 4, 1]])
    assert loc.localisation_metrics(maps, boxes, H, W) == {"images": 0, "skipped": 4}
    clipped = loc.localisation_metrics(maps[:1], torch.tensor([[-5.0, -5, W / 2, H + 9]]), H, W)
    assert clipped["centred_energy"] == clipped["energy"] == 0.5
    # what a skipped image's map holds does not matter
    maps[0] = math.nan
    assert loc.localisation_metrics(maps, boxes, H, W)["skipped"] == 4


def test_what_does_not_fit_is_refused():
    maps, boxes = torch.ones(2, 1, 3, 3), torch.tensor([[0.0, 0, 2, 2]]).repeat(2, 1)
    with pytest.raises(ValueError, match=r"maps must be \(B, 1, h, w\)"):
        loc.localisation_metrics(maps[:, 0], boxes, H, W)
    with pytest.raises(ValueError, match=r"boxes \(B, 4\)"):
        loc.localisation_metrics(maps, boxes[:1], H, W)
    with pytest.raises(ValueError, match=r"rectangles must be \(2, 5\)"):
        loc.localisation_metrics(maps, boxes, H, W, torch.zeros(2, 4))
    with pytest.raises(ValueError, match="rectangles hold NaN"):
        loc.localisation_metrics(maps, boxes, H, W, torch.full((2, 5), math.nan))
    for bad in (math.nan, -0.1):
        with pytest.raises(ValueError, match="1 of 2 maps hold NaN, infinite or negative"):
            loc.localisation_metrics(maps.index_fill(0, torch.tensor([1]), bad), boxes, H, W)


def test_a_pointing_hit_is_nearer_than_the_tolerance() -> None:
    heat, mask = torch.zeros(1, 1, 8, 8), torch.zeros(1, 8, 8)
    heat[0, 0, 1, 2], mask[0, 4, 6] = 1, 1  # 3 down, 4 to the right: 5 away
    assert [loc.pointing_hit(heat, mask, tolerance=tolerance).item() for tolerance in (4.9, 5.0, 5.1)] == [0, 0, 1]
