"""Spectral layers: two matrices on the rows and columns of a map that start as a discrete cosine or Fourier transform and are trained."""
# B batch, C channels, H height, W width, N size of a side

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from attnlab.placement.shapes import check_shape


def cosine_matrix(size: int, *, inverse: bool = False, normalize: bool = True) -> Tensor:
    """(N, N), fp64: M[k, n] = cos(pi/N (n + 1/2) k), the inverse's (2/N) cos(pi/N (k + 1/2) n) with column 0 halved.

    normalize: factor sqrt(3/N) instead of 1, for the inverse of 2/N: the standard deviation of Xavier's rule.
    """
    index = torch.arange(size, dtype=torch.float64)
    factor = math.sqrt(3 / size) if normalize else 2 / size if inverse else 1.0
    matrix = factor * torch.cos(math.pi / size * torch.outer(index, index + 0.5))
    if inverse:
        matrix = matrix.T.clone()
        matrix[:, 0] /= 2
    return matrix


def fourier_matrix(size: int, *, inverse: bool = False, normalize: bool = True) -> Tensor:
    """(2, N, N), fp64: real and imaginary part of exp(-2 pi i k n / N), the inverse's exp(2 pi i k n / N) / N.

    normalize: factor sqrt(3/N) instead of 1, for the inverse of 1/N.
    """
    index = torch.arange(size, dtype=torch.float64)
    angle = 2 * math.pi / size * (torch.outer(index, index) % size)
    factor = math.sqrt(3 / size) if normalize else 1 / size if inverse else 1.0
    return factor * torch.stack([angle.cos(), angle.sin() if inverse else -angle.sin()])


def on_columns(matrix_WW: Tensor, x_BHWC: Tensor) -> Tensor:
    """sum_w M[v, w] x[h, w] in every row."""
    return matrix_WW @ x_BHWC


def on_rows(matrix_HH: Tensor, x_BHWC: Tensor) -> Tensor:
    """sum_h M[k, h] x[h, w] in every column."""
    return (matrix_HH @ x_BHWC.flatten(2)).view(x_BHWC.shape)


class CosineTransform(nn.Module):
    """y = M_H x M_W^T on every channel's map, where M starts as the discrete cosine transform or its inverse and is trained.

    Alberti et al., "Trainable spectrally initializable matrix transformations" (arXiv 1911.05045): put after a convolution, before its
    normalisation or activation. inverse: the inverse transform. normalize: matrices scaled to Xavier's deviation, as in the authors' nets
    (transform and inverse are then no inverses any more, but 9/4 of the map); False: the transform itself. random: Xavier's uniform rule
    instead, the paper's ablation. trainable: False keeps the transform fixed.
    shape: (C, H, W), to whose H and W the H^2 + W^2 parameters are tied; x, y: (B, C, H, W). Raises ValueError for another place.
    """

    def __init__(
        self, shape: tuple[int, ...], *, inverse: bool = False, normalize: bool = True, random: bool = False, trainable: bool = True
    ):
        super().__init__()
        check_shape(shape, "CHW", what="a spectral layer")
        self.rows, self.columns = (
            nn.Parameter(cosine_matrix(size, inverse=inverse, normalize=normalize).float(), requires_grad=trainable) for size in shape[1:]
        )
        if random:
            nn.init.xavier_uniform_(self.rows)
            nn.init.xavier_uniform_(self.columns)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return on_rows(self.rows, on_columns(self.columns, x_BCHW.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


class FourierTransform(nn.Module):
    """The two-dimensional Fourier transform of every channel's map, with trained matrices (arXiv 1911.05045; see `CosineTransform`).

    output: "polar": amplitude and phase (atan2, in [-pi, pi], with its jump there), the authors' choice; "complex": real and imaginary
    part; C channels each, one after the other. Where the spectrum is 0 amplitude and phase have gradient 0.
    inverse: x holds real and imaginary part (2 C channels) of C maps, the result their inverse transform.
    merge: a 1x1 convolution brings the 2 C channels back to C, so that it can be placed anywhere (ours; the authors' next convolution
    takes 2 C channels): with False the module gives (B, 2 C, H, W) and fits only in a network made for it.
    shape: (C, H, W); 2 (H^2 + W^2) parameters, tied to H and W, and 2 C C of the merging. Raises ValueError for another place or output,
    and for an inverse of an odd number of channels.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        output: Literal["polar", "complex"] = "polar",
        inverse: bool = False,
        normalize: bool = True,
        trainable: bool = True,
        merge: bool = True,
    ):
        super().__init__()
        check_shape(shape, "CHW", what="a spectral layer")
        if output not in ("polar", "complex"):
            raise ValueError(f"output must be polar or complex, got {output!r}")
        if inverse and shape[0] % 2:
            raise ValueError(f"inverse=True needs real and imaginary parts, an even number of channels, got {shape[0]}")
        self.output, self.inverse = output, inverse
        self.rows, self.columns = (
            nn.Parameter(fourier_matrix(size, inverse=inverse, normalize=normalize).float(), requires_grad=trainable) for size in shape[1:]
        )
        given = shape[0] if inverse else 2 * shape[0]
        self.merge = nn.Conv2d(given, shape[0], 1, bias=False) if merge else nn.Identity()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        with torch.autocast(x_BCHW.device.type, enabled=False):  # half precision has too few digits for a spectrum
            x_BCHW = x_BCHW.to(torch.promote_types(x_BCHW.dtype, self.rows.dtype))
            x_BHWC = x_BCHW.permute(0, 2, 3, 1)
            real, imaginary = x_BHWC.chunk(2, 3) if self.inverse else (x_BHWC, None)
            real, imaginary = _complex(on_columns, *self.columns, real, imaginary)
            real, imaginary = _complex(on_rows, *self.rows, real, imaginary)
            if self.output == "polar":
                zero = real.square() + imaginary.square() == 0  # so small that its square is 0, too: its gradient would be nan
                real, imaginary = torch.where(zero, 1.0, real), torch.where(zero, 0.0, imaginary)
                amplitude = torch.where(zero, 0.0, (real.square() + imaginary.square()).sqrt())
                real, imaginary = amplitude, torch.atan2(imaginary, real)
            y = torch.cat([real, imaginary], 3).permute(0, 3, 1, 2)
        return self.merge(y)


def _complex(
    times: Callable[[Tensor, Tensor], Tensor], m_real: Tensor, m_imaginary: Tensor, real: Tensor, imaginary: Tensor | None
) -> tuple[Tensor, Tensor]:
    """A complex matrix on complex values, of which `imaginary` None is 0."""
    if imaginary is None:
        return times(m_real, real), times(m_imaginary, real)
    return times(m_real, real) - times(m_imaginary, imaginary), times(m_imaginary, real) + times(m_real, imaginary)
