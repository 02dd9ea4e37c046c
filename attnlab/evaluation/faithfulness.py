"""Faithfulness of explanations: what happens to a class's score as what a map names is taken away; and the noise of a map.

All are batched, nothing loops over images; scores are (B,) tensors, one an image. Maps rank pixels, larger = more relevant; a map with a
sign is to be given by its magnitude.

Legend: B batch, C channels, H, W image size, S points of a curve, R regions, F fills, k side of a window.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.evaluation.attribution_scores import scores
from attnlab.explainers.attribution import logits_of, rows_a_pass, undisturbed


class DeletionInsertion(NamedTuple):
    """`deletion` and `insertion`, areas under the curves (B,) in [0, 1]; `deletion_curve` and `insertion_curve`, probabilities (B, S)."""

    deletion: Tensor
    insertion: Tensor
    deletion_curve: Tensor
    insertion_curve: Tensor


def deletion_insertion(
    network: nn.Module,
    x_BCHW: Tensor,
    map_B1HW: Tensor,
    *,
    target_B: Tensor | None = None,
    step: int | None = None,
    insert_into: Literal["blur", "mean"] = "blur",
) -> DeletionInsertion:
    """Deletion (lower is better) and insertion (higher is better) of RISE (Petsiuk et al., 1806.07421), areas under the curves in [0, 1].

    The class's probability as pixels go, most relevant first and `step` at a time: deletion from the image to the data's mean colour (0
    after normalisation), insertion from a blurred image, or one of the mean colour, to the image. S = ceil(H W / step) + 1 points,
    AUC = (sum of the points - half of the first and last) / (S - 1). Of pixels with equal relevance the first in reading order goes first.

    They cannot tell a bad map from a network that is upset by the unnatural images in between, and a score depends on the probability of
    the clean image, so compare explainers on the same network and images only.

    Args:
        map_B1HW: or (B, H, W).
        target_B: the class that is followed; None: the predicted one, as in the authors' code.
        step: pixels at a time; None: W, as in the authors' code (224 of 224 x 224).
        insert_into: `blur`: a nearly flat 11 x 11 kernel, see `blurred`.

    Raises ValueError: a map of another size, or with NaN; step < 1.
    """
    map_BHW = _checked(map_B1HW, x_BCHW)
    height, width = map_BHW.shape[1:]
    step = width if step is None else step
    if step < 1:
        raise ValueError(f"step must be at least 1, got {step}")
    if insert_into not in ("blur", "mean"):
        raise ValueError(f"insert_into must be blur or mean, got {insert_into!r}")
    order_BP = map_BHW.flatten(1).argsort(dim=1, descending=True, stable=True)
    rank_BHW = order_BP.argsort(1).view_as(map_BHW)
    num = -(-height * width // step)
    mean_BCHW = torch.zeros_like(x_BCHW)
    start_BCHW = blurred(x_BCHW) if insert_into == "blur" else mean_BCHW
    with torch.no_grad(), undisturbed(network, x_BCHW.device.type):
        if target_B is None:
            target_B = torch.cat([logits_of(network, part).argmax(1) for part in x_BCHW.split(rows_a_pass(x_BCHW))])
        curves = [
            _curve(network, rank_BHW // step, num, kept, gone, target_B) for kept, gone in ((x_BCHW, mean_BCHW), (start_BCHW, x_BCHW))
        ]
    areas = [(curve.sum(1) - (curve[:, 0] + curve[:, -1]) / 2) / num for curve in curves]
    return DeletionInsertion(*areas, *curves)


def _curve(network: nn.Module, turn_BHW: Tensor, num: int, before_BCHW: Tensor, after_BCHW: Tensor, target_B: Tensor) -> Tensor:
    """Probabilities (B, num + 1) of images whose pixels change from `before` to `after` at their turn, 0 being the first."""
    found, size = [], max(1, rows_a_pass(before_BCHW) // len(before_BCHW))
    for times_S in torch.arange(num + 1, device=turn_BHW.device).split(size):
        changed_SB1HW = (turn_BHW < times_S[:, None, None, None])[:, :, None]
        rows = torch.where(changed_SB1HW, after_BCHW, before_BCHW).flatten(0, 1)
        p = torch.cat([logits_of(network, part).softmax(1) for part in rows.split(rows_a_pass(before_BCHW))])
        p_SB = p.gather(1, target_B.repeat(len(times_S))[:, None]).view(len(times_S), -1)
        found.append(p_SB)
    return torch.cat(found).T


def blurred(x_BCHW: Tensor, *, size: int = 11, sigma: float = 5.0) -> Tensor:
    """The blur of RISE's insertion; zeros beyond the image.

    Its kernel is an impulse in `size` x `size` pixels smoothed by a Gaussian of `sigma` that is reflected at the border, so it is nearly
    flat (.0077 to .0088), in float32 as the authors'.
    """
    from scipy.ndimage import gaussian_filter1d

    impulse = torch.zeros(size, dtype=torch.float64)
    impulse[size // 2] = 1
    side = torch.from_numpy(gaussian_filter1d(impulse.numpy(), sigma))
    weight = (side[:, None] * side).float().to(x_BCHW).expand(x_BCHW.shape[1], 1, -1, -1)
    with torch.autocast(x_BCHW.device.type, enabled=False):
        return F.conv2d(x_BCHW, weight, padding=size // 2, groups=x_BCHW.shape[1])


def aupc(
    network: nn.Module,
    x_BCHW: Tensor,
    map_B1HW: Tensor,
    target_B: Tensor,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    kernel: int = 15,
    num_regions: int = 30,
    num_fills: int = 50,
    seed: int = 0,
    fills_BRFCkk: Tensor | None = None,
) -> Tensor:
    """Area under the perturbation curve of SmoothTaylor (Goh et al., 2004.10484), (B,); lower is better; not bounded, may be negative.

    The `num_regions` windows of `kernel` pixels a side with the largest mean |map|, none overlapping, are taken in that order. In each the
    mean logit of the class over `num_fills` random fillings is the next point of the curve; the filling whose logit is nearest to the
    median stays in the image. The curve, beginning with the clean image, is divided by its |logit| and integrated (Simpson, dx = 1).
    Logits have no natural zero: where the clean logit is near 0 the score explodes, so compare medians, or explainers on the same images.

    Args:
        mean, std: of the normalisation, a channel; fillings are uniform in [0, 1] before it.
        kernel, num_regions: the authors' for 224 x 224.
        num_fills: an odd number; of an even one two fillings are equally near to the median, and rounding decides.
        fills_BRFCkk: fillings in [0, 1], in place of the seed's, which are the same for every image.

    As in the authors' code a window never touches the last row or column, and windows of equal relevance go column by column.
    Raises ValueError: no room for so many windows; a map of another size, or with NaN.
    """
    from scipy.integrate import simpson

    map_BHW = _checked(map_B1HW, x_BCHW).abs()
    corners_RB2 = windows(map_BHW, kernel=kernel, num_regions=num_regions)
    num, channels = x_BCHW.shape[:2]
    if fills_BRFCkk is None:
        generator = torch.Generator().manual_seed(seed)
        fills_BRFCkk = torch.rand(1, num_regions, num_fills, channels, kernel, kernel, generator=generator)
    shift, scale = (torch.tensor(values, dtype=torch.float64)[:, None, None].to(x_BCHW) for values in (mean, std))
    fills = ((fills_BRFCkk.to(x_BCHW) - shift) / scale).expand(num, *fills_BRFCkk.shape[1:])
    span, batch = torch.arange(kernel, device=x_BCHW.device), torch.arange(num, device=x_BCHW.device)

    image_BCHW = x_BCHW.clone()
    with torch.no_grad():
        curve = [scores(network, image_BCHW, target_B)]
        for region, corner_B2 in enumerate(corners_RB2):
            rows_Bk, columns_Bk = corner_B2[:, :1] + span, corner_B2[:, 1:] + span
            at = (batch[:, None, None], slice(None), slice(None), rows_Bk[:, :, None], columns_Bk[:, None, :])
            filled_BFCHW = image_BCHW[:, None].repeat(1, fills.shape[2], 1, 1, 1)
            filled_BFCHW[at] = fills[:, region].permute(0, 3, 4, 1, 2)
            score_BF = scores(network, filled_BFCHW.flatten(0, 1), target_B.repeat_interleave(fills.shape[2])).view(num, -1)
            kept_B = (score_BF - score_BF.quantile(0.5, dim=1, keepdim=True)).abs().argmin(1)
            image_BCHW = filled_BFCHW[batch, kept_B]
            curve.append(score_BF.mean(1))
    curve_BS = torch.stack(curve, 1) / curve[0].abs()[:, None]
    return torch.from_numpy(simpson(curve_BS.double().cpu().numpy(), dx=1, axis=1)).to(curve_BS)


def windows(map_BHW: Tensor, *, kernel: int, num_regions: int) -> Tensor:
    """Upper left corners (R, B, 2), row and column, of the windows with the largest mean, in order; none overlaps another."""
    tall, wide = map_BHW.shape[1] - kernel, map_BHW.shape[2] - kernel
    if tall < 1 or wide < 1:
        raise ValueError(f"kernel={kernel} needs larger images than {map_BHW.shape[1]} x {map_BHW.shape[2]}")
    mean_BNM = F.avg_pool2d(map_BHW[:, None], kernel, stride=1)[:, 0, :tall, :wide].mT.contiguous()  # column by column
    row, column, found = torch.arange(tall, device=map_BHW.device), torch.arange(wide, device=map_BHW.device), []
    for _ in range(num_regions):
        best_B, at_B = mean_BNM.flatten(1).max(1)
        if best_B.min() == -torch.inf:
            raise ValueError(f"no room for {num_regions} windows of {kernel} pixels: choose fewer num_regions or a smaller kernel")
        corner_B2 = torch.stack([at_B % tall, at_B // tall], 1)
        found.append(corner_B2)
        near_BM, near_BN = (row - corner_B2[:, :1]).abs() < kernel, (column - corner_B2[:, 1:]).abs() < kernel
        mean_BNM = mean_BNM.masked_fill(near_BN[:, :, None] & near_BM[:, None, :], -torch.inf)
    return torch.stack(found)


def autvc(map_B1HW: Tensor, *, downscale: float = 1.5, smallest: int = 30) -> Tensor:
    """Area under the total variation curve of SmoothTaylor (2004.10484), (B,) >= 0; lower = less noisy.

    At every level of a Gaussian pyramid of the signed map (each side divided by `downscale`, sigma = downscale / 3), down to sides of
    `smallest` pixels, |map| from its minimum to its 99th percentile is brought to [0, 1] and its total variation a pixel is taken,
    (sum |dx| + sum |dy|) / (H W); these are integrated over the levels (Simpson, dx = 1). Images of different sizes have different
    numbers of levels and do not compare. A map that is smooth and wrong scores well; a constant one scores 0. With an even number of
    levels SciPy before 1.11 gave slightly other numbers.

    Raises ValueError: downscale <= 1; a map with less than two levels.
    """
    from scipy.integrate import simpson

    if not downscale > 1:
        raise ValueError(f"downscale must be larger than 1, got {downscale}")
    map_BHW = map_B1HW[:, 0] if map_B1HW.ndim == 4 else map_B1HW
    levels = [relative(level) for level in pyramid(map_BHW, downscale=downscale, smallest=smallest)]
    if len(levels) < 2:
        raise ValueError(
            f"a map of {tuple(map_B1HW.shape[-2:])} has one level of at least {smallest} pixels: choose smallest={smallest // 2}"
        )
    curve_BL = torch.stack([(one.diff(dim=1).abs().sum((1, 2)) + one.diff(dim=2).abs().sum((1, 2))) / one[0].numel() for one in levels], 1)
    return torch.from_numpy(simpson(curve_BL.double().cpu().numpy(), dx=1, axis=1)).to(curve_BL)


def relative(map_BHW: Tensor) -> Tensor:
    """|map| from its minimum to its 99th percentile as [0, 1]; what is above is 1, and a map that is constant up to rounding is 0."""
    size_BHW = map_BHW.abs()
    above_BHW = size_BHW - size_BHW.amin((1, 2), keepdim=True)
    top_B11 = above_BHW.flatten(1).quantile(0.99, dim=1)[:, None, None]
    varies_B11 = top_B11 > 100 * torch.finfo(map_BHW.dtype).eps * size_BHW.amax((1, 2), keepdim=True)
    return torch.where(varies_B11, above_BHW / torch.where(varies_B11, top_B11, 1), 0).clamp(0, 1)


def pyramid(map_BHW: Tensor, *, downscale: float, smallest: int) -> list[Tensor]:
    """Levels of a Gaussian pyramid, the map itself first, as skimage.transform.pyramid_gaussian has them (symmetric border)."""
    sigma = downscale / 3
    radius = int(4 * sigma + 0.5)
    weight = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=torch.float64) / sigma) ** 2)
    weight = (weight / weight.sum()).to(map_BHW)
    levels = [map_BHW]
    while min(size := [-int(-side // downscale) for side in levels[-1].shape[1:]]) >= smallest and size != list(levels[-1].shape[1:]):
        level = levels[-1][:, None]
        for axis, kernel in ((2, weight[:, None]), (3, weight[None])):
            side = level.shape[axis]
            at = torch.arange(-radius, side + radius, device=level.device) % (2 * side)
            with torch.autocast(level.device.type, enabled=False):
                level = F.conv2d(level.index_select(axis, torch.minimum(at, 2 * side - 1 - at)), kernel[None, None])
        levels.append(F.interpolate(level, size=size, mode="bilinear", align_corners=False)[:, 0])
    return levels


def _checked(map_B1HW: Tensor, x_BCHW: Tensor) -> Tensor:
    map_BHW = map_B1HW[:, 0] if map_B1HW.ndim == 4 and map_B1HW.shape[1] == 1 else map_B1HW
    if map_BHW.shape != (len(x_BCHW), *x_BCHW.shape[2:]):
        raise ValueError(f"maps must be (B, 1, H, W) of images {tuple(x_BCHW.shape)}, got {tuple(map_B1HW.shape)}")
    if map_BHW.isnan().any():
        raise ValueError("maps hold NaN: their pixels have no order")
    return map_BHW.to(x_BCHW)
