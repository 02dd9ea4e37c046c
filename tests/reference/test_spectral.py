"""Spectral layers against the authors' numbers (fp64), torch's and SciPy's transforms, and their laws."""

import pytest
import scipy.fft
import torch
from torch import nn

from attnlab.convolutions.spectral import CosineTransform, FourierTransform, cosine_matrix, fourier_matrix
from tests.component_rules import check_rules, close
from tests.golden_numbers import golden

STORED = golden("components", "spec_")
SHAPE = tuple(STORED["x"].shape[1:])


def exact(module: nn.Module, matrix, **options) -> nn.Module:
    """In fp64 from the start: the parameters are kept in fp32."""
    module = module.double()
    module.rows.data, module.columns.data = (matrix(size, **options) for size in SHAPE[1:])
    return module


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("inverse", [False, True])
def test_cosine_transform_equals_the_authors_code(inverse: bool, normalize: bool) -> None:
    stored = golden("components", f"spec_{'idct' if inverse else 'dct'}{int(normalize)}_")
    options = {"inverse": inverse, "normalize": normalize}
    module = exact(CosineTransform(SHAPE, **options), cosine_matrix, **options)
    close(module.rows, stored["w1"])
    close(module.columns, stored["w2"])
    torch.testing.assert_close(CosineTransform(SHAPE, **options).rows.data, stored["w1"].float())
    x = STORED["x"].clone().requires_grad_()
    y = module(x)
    close(y, stored["y"])
    y.backward(STORED["gy"])
    close(x.grad, stored["gx"])
    close(module.rows.grad, stored["gw1"])
    close(module.columns.grad, stored["gw2"])


def test_random_matrices_take_the_same_way() -> None:
    module = CosineTransform(SHAPE, random=True).double()
    assert module.rows.abs().max() <= (6 / 12) ** 0.5 and not torch.allclose(module.rows, cosine_matrix(6))
    module.rows.data, module.columns.data = STORED["rand_w1"], STORED["rand_w2"]
    close(module(STORED["x"]), STORED["rand_y"])


@pytest.mark.parametrize("normalize", [0, 1])
@pytest.mark.parametrize(("output", "key"), [("complex", "complex"), ("polar", "amp")])
def test_fourier_transform_equals_the_authors_code(output: str, key: str, normalize: int) -> None:
    stored = golden("components", f"spec_dft_{key}{normalize}_")
    module = exact(FourierTransform(SHAPE, output=output, merge=False), fourier_matrix, normalize=bool(normalize))
    if output == "complex":
        for matrix, n in ((module.columns, 1), (module.rows, 2)):
            close(matrix, torch.stack([stored[f"wr{n}"], stored[f"wi{n}"]]))
    x = STORED["x"].clone().requires_grad_()
    y = module(x)
    gap = (y.detach() - stored["y"]).abs()
    if output == "polar":  # a real negative value has the phase pi or -pi, as rounding wants it
        gap = torch.minimum(gap, (gap - 2 * torch.pi).abs())
    assert gap.max() < 1e-9
    y.backward(stored["gy"])
    close(x.grad, stored["gx"])


def test_inverse_fourier_transform_equals_the_authors_code_and_torchs() -> None:
    x, stored = STORED["idft_x"], STORED["idft_y"]
    module = FourierTransform(tuple(x.shape[1:]), inverse=True, output="complex", merge=False).double()
    module.rows.data = module.columns.data = fourier_matrix(5, inverse=True, normalize=False)
    close(module.columns[0], STORED["idft_wr1"])
    close(module(x), stored)
    expected = torch.fft.ifft2(torch.complex(*x.chunk(2, 1)))
    close(module(x), torch.cat([expected.real, expected.imag], 1))


def test_transforms_are_those_of_libraries_and_inverses_undo_them() -> None:
    x = STORED["x"]
    plain = exact(CosineTransform(SHAPE), cosine_matrix, normalize=False)
    close(plain(x) * 4, torch.from_numpy(scipy.fft.dctn(x.numpy(), axes=(2, 3))))
    close(exact(CosineTransform(SHAPE), cosine_matrix, normalize=False, inverse=True)(plain(x)), x)
    spectrum = torch.fft.fft2(x)
    fourier = exact(FourierTransform(SHAPE, merge=False, output="complex"), fourier_matrix, normalize=False)
    close(fourier(x), torch.cat([spectrum.real, spectrum.imag], 1))
    both = exact(CosineTransform(SHAPE), cosine_matrix, inverse=True)(exact(CosineTransform(SHAPE), cosine_matrix)(x))
    close(both, 2.25 * x)


@pytest.mark.parametrize("value", [0.0, 1e-30])  # the square of which is 0
def test_a_map_of_zeros_has_a_finite_gradient(value: float) -> None:
    module, x = FourierTransform((2, 4, 4)), torch.full((1, 2, 4, 4), value, requires_grad=True)
    y = module(x)
    y.sum().backward()
    assert y.shape == x.shape and x.grad.isfinite().all() and module.rows.grad.isfinite().all()


def test_fixed_matrices_have_no_gradient() -> None:
    assert not any(p.requires_grad for p in CosineTransform(SHAPE, trainable=False).parameters())


@pytest.mark.parametrize("kind", [CosineTransform, FourierTransform])
def test_rules(kind: type) -> None:
    check_rules(lambda: kind((4, 5, 6)), torch.randn(3, 4, 5, 6))
    with pytest.raises(ValueError, match="shape"):
        kind((4,))


def test_refusals() -> None:
    with pytest.raises(ValueError, match="output"):
        FourierTransform((4, 5, 6), output="real")
    with pytest.raises(ValueError, match="inverse"):
        FourierTransform((3, 5, 6), inverse=True)
