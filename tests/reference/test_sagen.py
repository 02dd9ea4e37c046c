"""SAGen: its loss by a slow loop, its transforms, and two classes that differ in one patch."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from attnlab.explainers.fitting import fit_module
from attnlab.explainers.sagen import Sagen
from attnlab.explainers.two_headed_unet import TwoHeadedUNet

SETTINGS = {"steps": 3, "batch_size": 4, "lr": 0.1, "seed": 7}


class Patch(nn.Module):
    """Class 1 where the patch is bright."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(6.0))

    def forward(self, x: Tensor) -> Tensor:
        score = self.scale * x[:, 0, 4:8, 4:8].mean((1, 2))
        return torch.stack([-score, score], 1)


def images(num: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x = 0.1 * torch.randn(num, 1, 12, 12, generator=generator)
    x[:, :, 4:8, 4:8] += torch.where(torch.rand(num, generator=generator) < 0.5, -1.0, 1.0)[:, None, None, None]
    return x


@pytest.fixture(scope="module")
def fitted() -> tuple[Sagen, dict[str, float], Patch]:
    x, network = images(128), Patch()
    explainer = Sagen(steps=40, batch_size=16, lr=1e-2, adversarial=1.0, difference=3.0, rotation=0, min_zoom=1.0, widths=(4, 8))
    return explainer, explainer.fit(network, lambda index: x[index], len(x)), network


def test_the_class_is_kept_and_lost_and_the_map_is_the_patch(fitted: tuple[Sagen, dict[str, float], Patch]) -> None:
    explainer, shares, network = fitted
    assert shares["kept"] > 0.95 and shares["flipped"] > 0.9
    found = explainer.explain(network, images(16), torch.zeros(16, dtype=torch.long))
    inside = torch.zeros(12, 12, dtype=torch.bool)
    inside[4:8, 4:8] = True
    assert found.shape == (16, 1, 12, 12) and found.min() >= 0
    assert found[:, 0, inside].mean() > 5 * found[:, 0, ~inside].mean()
    assert network.scale.grad is None and network.scale.requires_grad and network.training


def test_a_fitted_module_holds_no_gradient() -> None:
    module = fit_module(
        lambda channels: nn.Conv2d(channels, 1, 1), lambda module, x, draws: module(x).square().mean(), lambda index: images(8)[index], 8,
        steps=2, batch_size=4, lr=0.1, seed=0,
    )  # fmt: skip
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in module.parameters()) and not module.training


def test_a_map_does_not_depend_on_its_batch(fitted: tuple[Sagen, dict[str, float], Patch], monkeypatch: pytest.MonkeyPatch) -> None:
    explainer, _, network = fitted
    x, target = images(5), torch.zeros(5, dtype=torch.long)
    whole = explainer.explain(network, x, target)
    monkeypatch.setattr("attnlab.explainers.attribution.VALUES", 300)
    torch.testing.assert_close(explainer.explain(network, x, target), whole, rtol=1e-5, atol=1e-6)


def test_the_seed_decides_and_the_generator_is_left_alone() -> None:
    x, state, maps = images(8), torch.get_rng_state(), []
    for seed in (0, 0, 1):
        explainer = Sagen(steps=2, batch_size=4, seed=seed)
        explainer.fit(Patch(), lambda index: x[index], len(x))
        maps.append(explainer.explain(Patch(), x, torch.zeros(8, dtype=torch.long)))
    assert torch.equal(torch.get_rng_state(), state) and torch.equal(maps[0], maps[1]) and not torch.equal(maps[0], maps[2])


def test_the_loss_is_a_slow_loop() -> None:
    class Three(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3))

    class Halves(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return 0.9 * x, x.flip(1)

    x = torch.randn(4, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    explainer = Sagen(similar=0.3, adversarial=0.7, reconstruction=2.0, difference=5.0)
    found, shares = explainer.loss(Three(), Halves(), x)
    expected = 0.0
    for one in x:
        logits, kept, lost = one.mean((1, 2)), (0.9 * one).mean((1, 2)), one.flip(0).mean((1, 2))
        c = int(logits.argmax())
        expected += 0.3 * -math.log(float(kept.softmax(0)[c])) + 0.7 * -math.log(1 - float(lost.softmax(0)[c]))
        expected += 2.0 * float((0.1 * one).square().mean() + (0.1 * one).abs().mean())
        expected += 5.0 * float((0.9 * one - one.flip(0)).square().mean() + (0.9 * one - one.flip(0)).abs().mean())
    assert abs(float(found) - expected / 4) < 1e-12
    assert shares["kept"].all() and shares["flipped"].tolist() == [int(one.mean((1, 2)).argmax()) != 1 for one in x]


def test_a_map_is_the_mean_difference_over_channels() -> None:
    class Halves(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return 0.9 * x, x.flip(1)

    explainer, x = Sagen(), torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    explainer.generator = Halves()
    explainer.generator.scale = nn.Parameter(torch.zeros(()))
    found = explainer.explain(Patch(), x, torch.zeros(4, dtype=torch.long))
    torch.testing.assert_close(found, (0.9 * x - x.flip(1)).abs().mean(1, keepdim=True))


@pytest.mark.parametrize(("num", "size"), [(3, 3), (1, 2), (50, 4)])
def test_batches_are_drawn_by_the_seed_and_no_larger_than_there_are_images(num: int, size: int) -> None:
    drawn: list[Tensor] = []

    def batch(index: Tensor) -> Tensor:
        drawn.append(index)
        return images(8)[index % 8]

    draws = torch.Generator().manual_seed(7)
    fit_module(lambda channels: nn.Conv2d(channels, 1, 1), lambda one, x, draws: one(x).square().mean(), batch, num, **SETTINGS)
    assert [index.tolist() for index in drawn[1:]] == [torch.randint(num, (size,), generator=draws).tolist() for _ in range(3)]


def test_transforms() -> None:
    x = torch.randn(6, 2, 5, 7)
    draws = torch.Generator().manual_seed(0)
    torch.testing.assert_close(Sagen(rotation=0, min_zoom=1.0, flip=False).transformed(x, draws), x, rtol=1e-4, atol=1e-5)
    mirrored = Sagen(rotation=0, min_zoom=1.0, flip=True).transformed(x, draws)
    same = [torch.allclose(one, other, atol=1e-4) for one, other in zip(mirrored, x)]
    assert 0 < sum(same) < 6
    for one, other, is_same in zip(mirrored, x, same):
        torch.testing.assert_close(one, other if is_same else other.flip(2), rtol=1e-3, atol=1e-4)
    assert Sagen().transformed(x, draws).shape == x.shape


def test_prepare_takes_the_training_images_of_a_run() -> None:
    x = images(10)
    asked: list[tuple[str, int]] = []

    def image_set(split: str, num: int) -> SimpleNamespace:
        asked.append((split, num))
        return SimpleNamespace(images=x)

    data = SimpleNamespace(shape=(1, 12, 12), image_set=image_set, normalise=lambda images: images, name="patches")
    trained = SimpleNamespace(network=Patch(), data=data, settings=SimpleNamespace(device=torch.device("cpu")))
    explainer = Sagen(steps=1, num_images=10)
    with pytest.raises(ValueError, match="call prepare"):
        explainer.explain(trained.network, x, torch.zeros(10, dtype=torch.long))
    explainer.prepare(trained)
    assert asked == [("train", 10)] and explainer.explain(trained.network, x, torch.zeros(10, dtype=torch.long)).shape == (10, 1, 12, 12)
    data.shape = (2,)
    with pytest.raises(ValueError, match="explains images"):
        explainer.prepare(trained)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 13, 9), (4, 4, 5)])
def test_the_unet_keeps_shapes_and_its_heads_differ(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    first, second = TwoHeadedUNet(shape[0]).eval()(torch.randn(2, *shape))
    assert first.shape == second.shape == (2, *shape) and not torch.equal(first, second)


def test_what_is_refused() -> None:
    for options in ({"steps": 0}, {"batch_size": 1}, {"similar": -1.0}, {"min_zoom": 0.0}, {"lr": 0.0}):
        with pytest.raises(ValueError, match="must be"):
            Sagen(**options)


def test_two_levels_written_out() -> None:
    torch.manual_seed(0)
    unet, x = TwoHeadedUNet(1, widths=(2, 3)).eval(), torch.randn(2, 1, 5, 4)
    top = unet.down[0](x)
    below = unet.down[1](nn.functional.max_pool2d(top, 2)).repeat_interleave(2, 3)
    joined = unet.up[0](torch.cat([below[:, :, [0, 0, 0, 1, 1]], top], 1))  # nearest of two rows for five
    torch.testing.assert_close(unet(x), tuple(head(joined) for head in unet.heads))
