"""Superpixels: an image cut into segments, by a grid or by SLIC, and which segments touch.

Legend: B batch, C channels, H, W image size, K segments.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Superpixels = Literal["grid", "slic"]


def grid_segments(height: int, width: int, num: int) -> Tensor:
    """Segments (H, W), numbered from 0 row by row: rectangles as square as can be, about `num` of them and at least one pixel each."""
    rows = min(height, max(1, round(math.sqrt(num * height / width))))
    columns = min(width, max(1, round(num / rows)))
    row_H, column_W = torch.arange(height) * rows // height, torch.arange(width) * columns // width
    return row_H[:, None] * columns + column_W


def segments_of(
    x_BCHW: Tensor,
    num: int,
    *,
    superpixels: Superpixels = "slic",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> list[Tensor]:
    """Segments (H, W) of every image, on the CPU, about `num` each. SLIC is of the image before normalisation by mean and std."""
    height, width = x_BCHW.shape[2:]
    if superpixels == "grid":
        return [grid_segments(height, width, num)] * len(x_BCHW)
    x_BCHW = x_BCHW.detach().double().cpu()
    if mean is not None and std is not None:
        x_BCHW = x_BCHW * x_BCHW.new_tensor(std)[:, None, None] + x_BCHW.new_tensor(mean)[:, None, None]
    return [slic(x_CHW, num) for x_CHW in x_BCHW]


def slic(x_CHW: Tensor, num: int, *, compactness: float = 10.0, sigma: float = 1.0, iterations: int = 10) -> Tensor:
    """SLIC superpixels (Achanta et al., TPAMI 2012) of an image in any range: segments (H, W), long, numbered from 0, on the CPU.

    k-means of (L, a, b) / compactness and (row, column) / step from the centres of a grid of about `num` cells, each pixel among the
    centres within two steps; then pieces smaller than half a cell join a neighbour, and none is larger than three cells. The image is
    scaled to [0, 1] and blurred by a Gaussian of `sigma` pixels first. The same segments as scikit-image's `slic(image, num,
    compactness=10, sigma=1, start_label=0)`, which the authors of MFPP use; grey images count as RGB ones, where scikit-image leaves them
    as they are. In float64 on the CPU: the segments must not depend on the device.
    """
    from scipy.ndimage import gaussian_filter

    height, width = x_CHW.shape[1:]
    x_CHW = x_CHW.detach().double().cpu()
    x_CHW = x_CHW.expand(3, -1, -1) if len(x_CHW) == 1 else x_CHW
    x_CHW = x_CHW - x_CHW.min()
    x_CHW = x_CHW / x_CHW.max().clamp(min=1e-12)
    color_CHW = _lab(x_CHW) if len(x_CHW) == 3 else x_CHW
    if sigma > 0:
        color_CHW = torch.from_numpy(gaussian_filter(color_CHW.numpy(), (0, sigma, sigma), mode="reflect"))
    color_PC = color_CHW.flatten(1).T / compactness
    starts, steps = _grid((height, width), num)
    step = max(steps)
    rows, columns = (torch.arange(start, size, by) for start, size, by in zip(starts, (height, width), steps))
    center_K2 = torch.cartesian_prod(rows, columns).double()
    reaches = [2 * by for by in _grid((height, width), len(center_K2))[1]]  # as scikit-image: of a grid of as many cells as centres
    num_cells, color_KC = len(center_K2), torch.zeros(len(center_K2), color_PC.shape[1], dtype=torch.float64)
    at_P2 = torch.cartesian_prod(torch.arange(height), torch.arange(width)).double()
    for _ in range(iterations):
        nearest_P = _nearest(color_PC, center_K2, color_KC, step, (height, width), reaches)
        count_K = torch.bincount(nearest_P, minlength=len(center_K2)).double()
        center_K2 = torch.zeros_like(center_K2).index_add_(0, nearest_P, at_P2)[count_K > 0] / count_K[count_K > 0, None]
        color_KC = torch.zeros_like(color_KC).index_add_(0, nearest_P, color_PC)[count_K > 0] / count_K[count_K > 0, None]
    size = height * width / num_cells
    return torch.tensor(_connected(nearest_P.view(height, width).tolist(), int(0.5 * size), int(3 * size)))


def adjacency(segments_HW: Tensor) -> Tensor:
    """(K, K), bool: which segments share a border (4-neighbourhood); symmetric, False on the diagonal."""
    num = int(segments_HW.max()) + 1
    touches_KK = torch.zeros(num, num, dtype=torch.bool)
    for one, other in ((segments_HW[1:], segments_HW[:-1]), (segments_HW[:, 1:], segments_HW[:, :-1])):
        touches_KK[one.flatten(), other.flatten()] = True
    touches_KK |= touches_KK.T.clone()
    return touches_KK.fill_diagonal_(False)


def _nearest(color_PC: Tensor, center_K2: Tensor, color_KC: Tensor, step: int, sizes: tuple[int, int], reaches: Sequence[int]) -> Tensor:
    """The centre (P,) that is nearest to every pixel, of those within `reaches` along rows and columns; the first one of equals."""
    around_w = torch.arange(2 * max(reaches) + 2)  # pixels a side of the window of a centre
    at_Kw, inside_Kw, far_Kw = [], [], []  # along rows and along columns
    for axis, size in enumerate(sizes):
        low_K1, high_K1 = ((center_K2[:, axis, None] + by).clamp(0, size).long() for by in (-reaches[axis], reaches[axis] + 1))
        at_Kw.append((low_K1 + around_w).clamp(max=size - 1))
        inside_Kw.append(low_K1 + around_w < high_K1)
        far_Kw.append((at_Kw[-1] - center_K2[:, axis, None]) ** 2)
    pixel_N = (at_Kw[0][:, :, None] * sizes[1] + at_Kw[1][:, None]).flatten()
    apart_Kww = sum((color_P[pixel_N].view(len(color_K), len(around_w), -1) - color_K[:, None, None]) ** 2
                    for color_P, color_K in zip(color_PC.T.contiguous(), color_KC.T))  # fmt: skip
    distance_Kww = (far_Kw[0][:, :, None] + far_Kw[1][:, None]) / step**2 + apart_Kww
    distance_N = distance_Kww.masked_fill_(~(inside_Kw[0][:, :, None] & inside_Kw[1][:, None]), math.inf).flatten()
    best_P = torch.full((len(color_PC),), math.inf, dtype=torch.float64).scatter_reduce(0, pixel_N, distance_N, "amin")
    which_N = torch.arange(len(center_K2)).repeat_interleave(len(around_w) ** 2)
    first_N = torch.where((distance_N == best_P[pixel_N]) & distance_N.isfinite(), which_N, len(center_K2))
    nearest_P = torch.full((len(color_PC),), len(center_K2)).scatter_reduce(0, pixel_N, first_N, "amin")
    return torch.where(nearest_P < len(center_K2), nearest_P, 0)


def _grid(sizes: tuple[int, int], num: int) -> tuple[list[int], list[int]]:
    """First centres and steps, along rows and columns, of scikit-image's regular grid."""
    if sizes[0] * sizes[1] <= num:
        return [0, 0], [1, 1]
    step = math.sqrt(sizes[0] * sizes[1] / num)
    steps = [step, step]
    if (short := min(sizes)) < step:
        steps = [max(sizes) / num if size != short else short for size in sizes]
    return [int(step // 2) for step in steps], [round(step) for step in steps]


def _lab(rgb_CHW: Tensor) -> Tensor:
    """CIELAB (D65) of sRGB in [0, 1]."""
    linear_CHW = torch.where(rgb_CHW > 0.04045, ((rgb_CHW + 0.055) / 1.055) ** 2.4, rgb_CHW / 12.92)
    matrix = [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
    xyz_CHW = torch.einsum("ij,jhw->ihw", torch.tensor(matrix, dtype=torch.float64), linear_CHW)
    xyz_CHW = xyz_CHW / torch.tensor([0.95047, 1.0, 1.08883], dtype=torch.float64)[:, None, None]
    x, y, z = torch.where(xyz_CHW > 0.008856, xyz_CHW.clamp(min=0.008856) ** (1 / 3), 7.787 * xyz_CHW + 16 / 116)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def _connected(labels: list[list[int]], smallest: int, largest: int) -> list[list[int]]:
    """Connected pieces of at most `largest` pixels, in the order of their first ones; pieces below `smallest` join a neighbour."""
    height, width = len(labels), len(labels[0])
    found, count = [[-1] * width for _ in range(height)], 0
    for row in range(height):
        for column in range(width):
            if found[row][column] >= 0:
                continue
            label, piece, neighbour, visited = labels[row][column], [(row, column)], 0, 0
            found[row][column] = count
            while visited < len(piece) < largest:
                i, j = piece[visited]
                for y, x in ((i, j + 1), (i, j - 1), (i + 1, j), (i - 1, j)):
                    if not (0 <= y < height and 0 <= x < width):
                        continue
                    if labels[y][x] == label and found[y][x] < 0:
                        found[y][x] = count
                        piece.append((y, x))
                        if len(piece) >= largest:
                            break
                    elif found[y][x] >= 0 and found[y][x] != count:
                        neighbour = found[y][x]
                visited += 1
            if len(piece) < smallest:
                for y, x in piece:
                    found[y][x] = neighbour
            else:
                count += 1
    return found
