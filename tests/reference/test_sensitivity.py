"""Output sensitivity against the authors' code, the theory of a linear map, and the evaluator in units of pixels."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from attnlab.evaluation.sensitivity import Sensitivity, output_sensitivity
from attnlab.evaluation.trained import Trained
from attnlab.network import Network
from attnlab.training.settings import Settings
from tests.golden_numbers import golden


def test_equals_the_released_code() -> None:
    gold = golden("components", "sens_")
    x, moved = gold["x"], gold["x"] + gold["eps"]
    linear = output_sensitivity(x @ gold["w"].T + gold["b"], moved @ gold["w"].T + gold["b"])
    torch.testing.assert_close(linear, gold["S_linear"], rtol=1e-12, atol=0)
    theory = gold["sigma"] ** 2 * gold["w"].mean(0).square().sum()
    torch.testing.assert_close(theory, gold["S_linear_theory"], rtol=1e-12, atol=0)
    mlp = nn.Sequential(nn.Linear(7, 9), nn.ReLU(), nn.Linear(9, 4)).double()
    mlp.load_state_dict({key.removeprefix("mlp_p_"): value for key, value in gold.items() if key.startswith("mlp_p_")})
    torch.testing.assert_close(output_sensitivity(mlp(x), mlp(moved)), gold["S_mlp"], rtol=1e-12, atol=0)


@pytest.mark.parametrize("precision", [32, "bf16-mixed"])
def test_the_noise_is_of_pixels(precision, tmp_path) -> None:
    """A network of normalised images is as sensitive as the same network of pixels: sigma^2 |mean_k W_k / std|^2.

    Logits that have much apart and little in common, as training leaves them: in bf16 S would be rounding."""
    torch.manual_seed(0)
    network = Network(nn.Sequential(nn.Flatten(), nn.Linear(2 * 4, 3)), shape=(2, 2, 2)).eval()
    weight = network.backbone[1].weight.data.mul_(10)
    weight -= 0.999 * weight.mean(0)
    std, weight = (0.2, 0.4), weight.double()
    batches = [(torch.randn(500, 2, 2, 2), torch.zeros(500, dtype=torch.long)) for _ in range(20)]
    data = SimpleNamespace(ood=(), moments=lambda: ((0.5, 0.5), std), eval_loader=lambda split, device: batches)
    trained = Trained(network=network, data=data, settings=Settings(accelerator="cpu", precision=precision), folder=tmp_path)
    found = Sensitivity(sigma=0.1).run(trained)["sensitivity/output"]
    expected = 0.01 * (weight.mean(0).view(2, 4) / torch.tensor(std, dtype=torch.float64)[:, None]).square().sum()
    assert found == pytest.approx(expected.item(), rel=0.05)
    with pytest.raises(ValueError, match="sigma must be above 0"):
        Sensitivity(sigma=0)
