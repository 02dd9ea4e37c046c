"""What the tests of distillation terms share: the authors' numbers with gradients, and outputs of two networks."""

from collections.abc import Callable

import torch
from torch import Tensor

from attnlab.network import Output
from tests.golden_numbers import golden

NUMBERS = golden("components")


def agrees(key: str, function: Callable[..., Tensor], *inputs: str, **parameters: Tensor) -> None:
    """`function(*inputs)` is `key_loss`, its gradients are `key_g0`, `key_g1` ..., by `parameters` `key_gp_<name>`; to 1e-12."""
    given = [NUMBERS[name].clone().requires_grad_() for name in inputs]
    loss = function(*given)
    gradients = torch.autograd.grad(loss, [*given, *parameters.values()])
    names = [*(f"{key}_g{i}" for i in range(len(given))), *(f"{key}_gp_{name}" for name in parameters)]
    torch.testing.assert_close(loss.detach(), NUMBERS[f"{key}_loss"], rtol=0, atol=1e-12)
    for name, gradient in zip(names, gradients, strict=True):
        torch.testing.assert_close(gradient, NUMBERS[name], rtol=1e-10, atol=1e-13, msg=lambda text, name=name: f"{name}: {text}")


def output(logits: Tensor | None = None, **values: Tensor) -> Output:
    """An Output with these logits and the values of these places."""
    rows = len(next(iter(values.values()))) if values else 0
    out = Output(torch.zeros(rows, 2) if logits is None else logits, None, None)
    return out._replace(values=values) if "values" in Output._fields else Values(*out, values)


class Values(Output):
    """An Output with values, until it has them itself."""

    def __new__(cls, *fields: object) -> "Values":
        made = super().__new__(cls, *fields[:-1])
        made.values = fields[-1]
        return made
