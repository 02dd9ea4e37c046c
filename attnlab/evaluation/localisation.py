"""How well attention maps and rectangles find the object whose box is known. Pure functions on tensors, no loops over images.

Legend: B batch, H, W image height and width in pixels, h, w those of a map. Boxes (B, 4) are x0, y0, x1, y1: edges in pixels, so that
pixel j covers [j, j + 1] and a box of pixels 3 to 5 is (3, ., 6, .). Map coordinates go from -1 to 1, edge to edge, x to the right, y down.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK = 256  # images upsampled at a time: 51 MB at 224 x 224


def localisation_metrics(
    maps: Tensor, boxes: Tensor, height: int, width: int, rectangles_B5: Tensor | None = None, *, threshold: float = 0.5
) -> dict[str, float]:
    """Means over the images whose box has an area, the rest being counted in `skipped` (no box: NaN; or nothing of it in the image).

    Args:
        maps: (B, 1, h, w), not negative; brought to the image's size by bilinear interpolation (align_corners=False).
        boxes: (B, 4) true boxes in pixels of the `height` x `width` image; clipped to it.
        rectangles_B5: (B, 5) cx, cy, w, h, theta in map coordinates, as RectAttention keeps them, or None.
        threshold: of the map's maximum, for the map's box; see `threshold_box`.

    Returns `map_iou` (the thresholded map's box), `rect_iou` (the rectangle's bounding box, with rectangles), and their baseline
    `centred_iou` (the centred box of the mean true size); `pointing`; `energy` and its baseline `centred_energy` (a uniform map's: the
    share of the image that the true box takes); `images` and `skipped`. If every image is skipped, only these two.

    Raises ValueError: shapes that do not fit; maps or rectangles of scored images that are not finite; maps with negative values.
    """
    num = len(maps)
    if maps.ndim != 4 or maps.shape[1] != 1 or boxes.shape != (num, 4):
        raise ValueError(f"maps must be (B, 1, h, w) and boxes (B, 4), got {tuple(maps.shape)} and {tuple(boxes.shape)}")
    if rectangles_B5 is not None and rectangles_B5.shape != (num, 5):
        raise ValueError(f"rectangles must be ({num}, 5), got {tuple(rectangles_B5.shape)}")
    boxes_B4 = _clip(boxes.to(maps.device).float(), height, width)
    kept_B = _area(boxes_B4) > 0  # False for NaN
    maps_B1hw, boxes_B4 = maps[kept_B].detach().float(), boxes_B4[kept_B]
    found = {"images": float(len(boxes_B4)), "skipped": float(num - len(boxes_B4))}
    if not len(boxes_B4):
        return found
    if num_bad := int((~(maps_B1hw.isfinite() & (maps_B1hw >= 0))).flatten(1).any(1).sum()):
        raise ValueError(f"{num_bad} of {len(boxes_B4)} maps hold NaN, infinite or negative values")

    per_image: dict[str, list[Tensor]] = {"map_iou": [], "pointing": [], "energy": []}
    for part_B1hw, part_B4 in zip(maps_B1hw.split(CHUNK), boxes_B4.split(CHUNK)):
        part_B1HW = upsample(part_B1hw, height, width)
        per_image["map_iou"].append(iou(threshold_box(part_B1HW, threshold=threshold), part_B4))
        per_image["pointing"].append(pointing_game(part_B1HW, part_B4))
        per_image["energy"].append(energy_inside(part_B1HW, part_B4))
    if rectangles_B5 is not None:
        rectangles_B5 = rectangles_B5.to(maps.device)[kept_B].detach().float()
        if not rectangles_B5.isfinite().all():
            raise ValueError("rectangles hold NaN or infinite values")
        per_image["rect_iou"] = [iou(rectangle_box(rectangles_B5, height, width), boxes_B4)]
    per_image["centred_iou"] = [iou(centred_box(boxes_B4, height, width), boxes_B4)]
    per_image["centred_energy"] = [_area(boxes_B4) / (height * width)]
    return {name: float(torch.cat(values).double().mean()) for name, values in per_image.items()} | found


def upsample(map_B1hw: Tensor, height: int, width: int) -> Tensor:
    """A map at the image's size: bilinear, align_corners=False, so that the edges of map and image coincide."""
    return F.interpolate(map_B1hw, size=(height, width), mode="bilinear", align_corners=False)


def rectangle_box(rectangle_B5: Tensor, height: int, width: int) -> Tensor:
    """Axis-aligned bounding boxes (B, 4) in pixels, clipped to the image, of oriented rectangles.

    rectangle_B5 is cx, cy, w, h, theta: centre and full sides in map coordinates, theta in radians from the x axis towards the y axis,
    turned in map coordinates as the attention is (on an image that is not square, a turned rectangle is sheared in pixels). Half extents:
    x: (w |cos| + h |sin|) / 2,  y: (w |sin| + h |cos|) / 2. A rectangle outside the image gets a box without area.
    """
    cx, cy, w, h, theta = rectangle_B5.unbind(1)
    cos, sin = theta.cos().abs(), theta.sin().abs()
    half_x, half_y = (w * cos + h * sin) / 2, (w * sin + h * cos) / 2
    corners = torch.stack([cx - half_x, cy - half_y, cx + half_x, cy + half_y], 1)
    return _clip((corners + 1) / 2 * corners.new_tensor([width, height, width, height]), height, width)


def threshold_box(map_B1HW: Tensor, *, threshold: float = 0.5) -> Tensor:
    """The smallest box (B, 4) around all pixels whose value is at least `threshold` times the map's maximum.

    The maximum and not the range: an attention map multiplies, so one that is 0.9 to 1 everywhere looks everywhere. All pixels and not the
    largest connected part, as in weakly supervised localisation: a map that also looks elsewhere does not localise. A map of zeros has the
    whole image. Raises ValueError: threshold outside (0, 1].
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be in (0, 1], got {threshold}")
    above_BHW = (map_B1HW >= threshold * map_B1HW.amax((2, 3), keepdim=True)).squeeze(1)
    x0_B, x1_B = _first_and_end(above_BHW.any(1))
    y0_B, y1_B = _first_and_end(above_BHW.any(2))
    return torch.stack([x0_B, y0_B, x1_B, y1_B], 1)


def best_threshold_iou(map_B1HW: Tensor, boxes_B4: Tensor, height: int, width: int, *, steps: int = 20) -> float:
    """The mean IoU of the thresholded map's box at the threshold that is best for these images, one for all; in [0, 1], higher is better.

    Thresholds i / steps of each map's maximum, 0 < i < steps. One half is kind to maps of one blob and hard on maps of single pixels;
    here every method has its own (Choe et al., 2007.04178). It is chosen on the images it is scored on, so a little too high.
    """
    boxes_B4 = _clip(boxes_B4.to(map_B1HW.device).float(), height, width)
    kept_B = _area(boxes_B4) > 0
    map_B1HW, boxes_B4 = upsample(map_B1HW[kept_B].detach().float(), height, width), boxes_B4[kept_B]
    found = [float(iou(threshold_box(map_B1HW, threshold=i / steps), boxes_B4).double().mean()) for i in range(1, steps)]
    return max(found)


def iou(boxes_B4: Tensor, other_B4: Tensor) -> Tensor:
    """Intersection over union (B,) of boxes pair by pair, in [0, 1]; 0 where both have no area."""
    low_B2 = torch.maximum(boxes_B4[:, :2], other_B4[:, :2])
    high_B2 = torch.minimum(boxes_B4[:, 2:], other_B4[:, 2:])
    shared_B = (high_B2 - low_B2).clamp(min=0).prod(1)
    union_B = _area(boxes_B4) + _area(other_B4) - shared_B
    return torch.where(union_B > 0, shared_B / union_B.clamp(min=torch.finfo(union_B.dtype).tiny), 0)


def pointing_game(map_B1HW: Tensor, boxes_B4: Tensor) -> Tensor:
    """1 where the map's maximum has its centre in the box, else 0 (1608.00507, without its 15 pixels of tolerance: `pointing_hit`).

    Several pixels may share the maximum (a saturated map): the value is the share of them in the box, what a random choice would score.
    """
    map_BHW = map_B1HW.squeeze(1)
    top_BHW = map_BHW == map_BHW.amax((1, 2), keepdim=True)
    hits_B = (top_BHW & box_mask(boxes_B4, *map_BHW.shape[1:])).sum((1, 2))
    return hits_B / top_BHW.sum((1, 2))


def pointing_hit(map_B1HW: Tensor, mask_BHW: Tensor, *, tolerance: float = 15.0) -> Tensor:
    """1 where the map's maximum, the first in reading order, is less than `tolerance` pixels from a pixel of the object, else 0.

    The pointing game with its tolerance (1608.00507), as TorchRay counts it: strictly less, so 1 asks for a pixel of the
    object itself and 0 never hits. 15 pixels are meant for photographs of 224 and more; on 32 x 32 they hit nearly always. An image
    without a pixel of the object is a miss.
    """
    height, width = mask_BHW.shape[1:]
    top_B = map_B1HW.flatten(1).argmax(1)
    y_B, x_B = top_B // width, top_B % width
    away_BH = (torch.arange(height, device=mask_BHW.device) - y_B[:, None]) ** 2
    away_BW = (torch.arange(width, device=mask_BHW.device) - x_B[:, None]) ** 2
    near_BHW = away_BH[:, :, None] + away_BW[:, None, :] < tolerance**2
    return (near_BHW & mask_BHW.bool()).flatten(1).any(1).float()


def relevance_rank_accuracy(map_B1HW: Tensor, mask_BHW: Tensor) -> Tensor:
    """Share (B,) of the n most relevant pixels that are on the object, n its number of pixels (Arras et al., 2003.07258); in [0, 1].

    Higher is better; a random map scores the object's share of the image. NaN where the mask is empty.
    """
    inside_BN = mask_BHW.flatten(1).bool()
    rank_BN = map_B1HW.flatten(1).argsort(dim=1, descending=True, stable=True).argsort(1)
    num_B1 = inside_BN.sum(1, keepdim=True)
    return ((rank_BN < num_B1) & inside_BN).sum(1) / num_B1[:, 0]


def box_mask(boxes_B4: Tensor, height: int, width: int) -> Tensor:
    """Masks (B, H, W) of the pixels whose centre is in the box."""
    inside_BH, inside_BW = _centres_inside(boxes_B4, height, width)
    return inside_BH[:, :, None] & inside_BW[:, None, :]


def energy_inside(map_B1HW: Tensor, boxes_B4: Tensor) -> Tensor:
    """Share (B,) of a map's sum that is in the box (1910.01279's proportion); a pixel cut by an edge counts by its part inside.

    A uniform map scores the share of the image that the box takes; a map of zeros scores 0.
    """
    _, _, height, width = map_B1HW.shape
    part_BH, part_BW = _parts_inside(boxes_B4, height, width)
    inside_B = torch.einsum("bhw,bh,bw->b", map_B1HW.squeeze(1), part_BH.to(map_B1HW.dtype), part_BW.to(map_B1HW.dtype))
    total_B = map_B1HW.sum((1, 2, 3))
    return torch.where(total_B > 0, inside_B / total_B.clamp(min=torch.finfo(total_B.dtype).tiny), 0)


def centred_box(boxes_B4: Tensor, height: int, width: int) -> Tensor:
    """The baseline that any localisation must beat: boxes (B, 4), all the one of the mean true size in the middle of the image."""
    half_2 = (boxes_B4[:, 2:] - boxes_B4[:, :2]).mean(0) / 2
    centre_2 = boxes_B4.new_tensor([width / 2, height / 2])
    return torch.cat([centre_2 - half_2, centre_2 + half_2]).expand(len(boxes_B4), 4)


def _clip(boxes_B4: Tensor, height: int, width: int) -> Tensor:
    limit_4 = boxes_B4.new_tensor([width, height, width, height])
    return torch.minimum(boxes_B4.clamp(min=0), limit_4)


def _area(boxes_B4: Tensor) -> Tensor:
    return (boxes_B4[:, 2:] - boxes_B4[:, :2]).clamp(min=0).prod(1)


def _first_and_end(any_BN: Tensor) -> tuple[Tensor, Tensor]:
    """The first True of each row, and one past the last; argmax gives the first of equals."""
    any_BN = any_BN.to(torch.uint8)
    return any_BN.argmax(1).float(), (any_BN.shape[1] - any_BN.flip(1).argmax(1)).float()


def _centres_inside(boxes_B4: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    y_H = torch.arange(height, device=boxes_B4.device) + 0.5
    x_W = torch.arange(width, device=boxes_B4.device) + 0.5
    x0, y0, x1, y1 = boxes_B4[:, :, None].unbind(1)
    return (y_H >= y0) & (y_H < y1), (x_W >= x0) & (x_W < x1)


def _parts_inside(boxes_B4: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """How much of every row (B, H) and column (B, W) of pixels is in the box."""
    y_H, x_W = torch.arange(height, device=boxes_B4.device), torch.arange(width, device=boxes_B4.device)
    x0, y0, x1, y1 = boxes_B4[:, :, None].unbind(1)
    rows_BH = (torch.minimum(y_H + 1, y1) - torch.maximum(y_H, y0)).clamp(min=0)
    columns_BW = (torch.minimum(x_W + 1, x1) - torch.maximum(x_W, x0)).clamp(min=0)
    return rows_BH, columns_BW
