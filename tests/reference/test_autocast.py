"""What is to be computed in full precision is so inside autocast too: the same bits from fp32 values as outside of it.

A case a module, by its name; what a case does must hold no layer that autocast may take (a placed convolution, say).
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from attnlab.attention.lmask import confusion
from attnlab.attention.ltpa import AttentionUnit
from attnlab.convolutions.quadratic import QuadraticConv2d
from attnlab.convolutions.spectral import FourierTransform
from attnlab.distillation.sp import SP
from attnlab.explainers.sobel import Sobel
from attnlab.heads.cosine import CosineHead
from attnlab.heads.covariance import MultiOrderHead
from attnlab.heads.prototype import PrototypeHead
from attnlab.heads.ssal import group_cross_entropy
from attnlab.losses.gccs import GCCS
from attnlab.network import Output
from attnlab.regularizers.advanced_dropout import AdvancedDropout


def features() -> Tensor:
    return torch.randn(8, 6, generator=torch.Generator().manual_seed(0))


def maps() -> Tensor:
    return torch.randn(8, 6, 5, 4, generator=torch.Generator().manual_seed(1))


def labels() -> Tensor:
    return torch.arange(8) % 3


def multi_order() -> Tensor:
    """What the last Linear is given, from maps that no convolution has reduced."""
    head = MultiOrderHead((6,), read_shapes=[(6, 5, 4)] * 2, num_classes=3, channels=6)
    head.reduce_middle, head.reduce_last, seen = nn.Identity(), nn.Identity(), []
    head.classifiers[2].register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    head(features(), maps(), maps(), None)
    return seen[0]


def distilled() -> Tensor:
    shapes = {"layer1": (6, 5, 4)}
    out, teacher = (Output(features(), None, None, values={"layer1": values}) for values in (maps(), maps().flip(0)))
    return SP(shapes, shapes)(out, teacher)


CASES: dict[str, Callable[[], Tensor]] = {
    "attnlab.attention.lmask": lambda: confusion(maps(), torch.eye(3)[labels()]),
    "attnlab.attention.ltpa": lambda: AttentionUnit(6, 6, compatibility="dp", match="g_down", dropout=0.0)(maps(), features())[0],
    "attnlab.convolutions.quadratic": lambda: QuadraticConv2d((6, 5, 4), host=nn.Conv2d(6, 2, 3), form="full")(maps()),
    "attnlab.convolutions.spectral": lambda: FourierTransform((6, 5, 4), merge=False)(maps()),
    "attnlab.distillation.feature_term": distilled,
    "attnlab.explainers.sobel": lambda: Sobel().explain(nn.Identity(), maps(), labels()),
    "attnlab.heads.cosine": lambda: CosineHead((6,), num_classes=3)(features()),
    "attnlab.heads.covariance": multi_order,
    "attnlab.heads.prototype": lambda: PrototypeHead((6,), num_classes=3)(features()),
    "attnlab.heads.ssal": lambda: group_cross_entropy(features()[:, :2], features().softmax(1), torch.arange(6) % 2),
    "attnlab.losses.gccs": lambda: GCCS(3, 6, covariance="full")(Output(features()[:, :3], None, None), labels())["gccs"],
    "attnlab.regularizers.advanced_dropout": lambda: AdvancedDropout((6, 5, 4))(maps()),
}


@pytest.mark.parametrize("module", CASES)
def test_the_same_in_autocast(module: str) -> None:
    found = []
    for enabled in (False, True):
        torch.manual_seed(0)
        # fp16, so that a module that turned autocast on by itself would not give the same in both: its own would be bf16
        with torch.autocast("cpu", dtype=torch.float16 if enabled else torch.bfloat16, enabled=enabled):
            found.append(CASES[module]())
    assert found[0].dtype == torch.float32
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=0)
