"""ATAC against the authors' numbers (fp64), and the laws of its gate."""

import pytest
import torch

from attnlab.regularizers.atac import ATAC
from tests.component_rules import check_rules, close
from tests.golden_numbers import golden


def loaded(context: str) -> ATAC:
    p = golden("components", "atac_p_")
    module = ATAC((6, 5, 4), context=context).double()
    state = {"reduce.weight": p["w1"][..., None, None], "expand.weight": p["w2"][..., None, None]}
    for n in ("1", "2"):
        state |= {f"bn{n}.weight": p[f"bn{n}_weight"], f"bn{n}.bias": p[f"bn{n}_bias"]}
        state |= {f"bn{n}.running_mean": p[f"bn{n}_mean"], f"bn{n}.running_var": p[f"bn{n}_var"]}
    module.load_state_dict(state | {"bn1.num_batches_tracked": torch.tensor(0), "bn2.num_batches_tracked": torch.tensor(0)})
    return module


@pytest.mark.parametrize("context", ["local", "global"])
def test_equals_the_authors_code(context: str) -> None:
    x, gy = golden("components", "atac_x")[""].requires_grad_(), golden("components", "atac_gy")[""]
    expected, module = golden("components", f"atac_{context}_"), loaded(context)
    close(module.eval()(x), expected["y_eval"])
    y = module.train()(x)
    close(y, expected["y"])
    y.backward(gy)
    close(x.grad, expected["gx"])
    found = dict(module.named_parameters())
    for key, name in {"w1": "reduce.weight", "w2": "expand.weight"}.items():
        close(found[name].grad[..., 0, 0], expected[f"g{key}"])
    count = {"local": x.shape[0] * 20, "global": x.shape[0]}[context]  # values per channel
    before = golden("components", "atac_p_")
    for n in ("1", "2"):
        bn = getattr(module, f"bn{n}")
        close(bn.weight.grad, expected[f"gbn{n}_weight"])
        close(bn.bias.grad, expected[f"gbn{n}_bias"])
        close(bn.running_mean, expected[f"rmean{n}"], atol=1e-7)
        biased = 0.9 * before[f"bn{n}_var"] + (bn.running_var - 0.9 * before[f"bn{n}_var"]) * (count - 1) / count
        close(biased, expected[f"rvar{n}"], atol=1e-7)


def test_a_pixel_gates_itself_alone_where_local_and_everywhere_where_global() -> None:
    x = torch.randn(2, 6, 5, 4, dtype=torch.float64)
    moved = x.clone()
    moved[0, :, 2, 1] += 3
    for context in ("local", "global"):
        module = loaded(context).eval()
        module.bn1.bias.data += 20  # every unit is above 0: where all are below, a change goes unseen
        changed = (module(moved) != module(x)).any(1)
        assert changed[0, 2, 1] and not changed[1].any()
        assert changed[0].all() == (context == "global") and changed[0].sum() in (1, 20)


def test_keeps_the_sign_and_shrinks() -> None:
    x = torch.randn(4, 8, 3, 3)
    y = ATAC((8, 3, 3))(x)
    assert (y * x >= 0).all() and (y.abs() <= x.abs()).all()


def test_parameters() -> None:
    assert sum(p.numel() for p in ATAC((64, 8, 8)).parameters()) == 64 * 64 + 3 * 64 == 4288
    assert ATAC((1, 8, 8)).reduce.weight.shape == (1, 1, 1, 1)


@pytest.mark.parametrize("context", ["local", "global"])
def test_rules(context: str) -> None:
    check_rules(lambda: ATAC((8, 5, 4), context=context), torch.randn(3, 8, 5, 4))


@pytest.mark.parametrize("options", [{"reduction": 0}, {"context": "wide"}])
def test_refusals(options: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        ATAC((8, 4, 4), **options)
    with pytest.raises(ValueError, match="shape"):
        ATAC((8,))
