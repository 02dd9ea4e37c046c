"""Initialisations: variances, orthogonality, centring, what keeps its own start, and that a run of another start is another run."""

import pytest
import torch
from torch import nn

from attnlab.backbones.resnet import resnet18
from attnlab.callbacks.weight_centring import WeightCentring
from attnlab.config.compose import compose
from attnlab.initialisation.he import He
from attnlab.initialisation.orthogonal import Orthogonal
from tests.conftest import TINY
from tests.reference.small_learner import batches, small_learner, take


@pytest.mark.parametrize(("mode", "slope"), [("fan_in", 0.0), ("fan_out", 0.0), ("fan_in", 1.0)])
def test_he_keeps_the_variance(mode: str, slope: float) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(40, 80, 3)
    He(mode=mode, slope=slope)(nn.Sequential(layer))
    fan = 9 * (40 if mode == "fan_in" else 80)
    assert layer.weight.var().item() == pytest.approx(2 / (1 + slope**2) / fan, rel=0.03) and (layer.bias == 0).all()
    He(centre=True)(nn.Sequential(layer))
    assert layer.weight.mean((1, 2, 3)).abs().max() < 1e-7


def test_orthogonal_filters() -> None:
    backbone = resnet18(10, (1, 16, 16), width=8)
    fc, norm = backbone.fc.weight.clone(), backbone.layer1[0].bn1.weight.clone()
    Orthogonal(gain=2.0)(backbone)
    rows = backbone.layer1[0].conv1.weight.flatten(1)
    torch.testing.assert_close(rows @ rows.mT, 4 * torch.eye(8), rtol=1e-5, atol=1e-5)
    assert torch.equal(backbone.fc.weight, fc) and torch.equal(backbone.layer1[0].bn1.weight, norm)


def test_centred_filters_of_bounded_length() -> None:
    learner = small_learner(callbacks={"centring": WeightCentring(max_norm=0.5)})
    for num in (0, 3):
        take(learner, batches(num))
        for layer in (learner.network.backbone[0], learner.network.backbone[3]):
            assert layer.weight.mean(1).abs().max() < 1e-12 and layer.weight.norm(dim=1).max() <= 0.5 + 1e-12
    centring = WeightCentring(max_norm=100.0)
    centring.on_fit_start(learner)  # what is shorter stays as long as it is
    assert learner.network.backbone[0].weight.norm(dim=1).max() <= 0.5 + 1e-12
    before = learner.network.backbone[0].weight.clone()
    learner.history = [{"epoch": 0}]
    learner.callbacks.by_name["centring"].on_fit_start(learner)
    assert torch.equal(learner.network.backbone[0].weight, before)
    for make in (lambda: WeightCentring(max_norm=0.0), lambda: He(slope=-1.0), lambda: Orthogonal(gain=0.0)):
        with pytest.raises(ValueError, match=r"must be (above )?0"):
            make()


def test_the_start_is_part_of_a_runs_address() -> None:
    plain, other = compose(TINY), compose([*TINY, "init=orthogonal"])
    assert plain.address != other.address and "orthogonal" in other.label and plain.full["init"] == {}
