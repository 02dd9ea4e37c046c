"""The path between two classes: its ends, its Lagrangian, its map by a slow loop; the VAE behind it."""

import pytest
import torch
from torch import Tensor, nn

from attnlab.explainers.latent_path import LatentPath
from attnlab.explainers.small_vae import SmallVAE


class Patch(nn.Module):
    """Class 1 where the patch is bright; class 2 never."""

    def forward(self, x: Tensor) -> Tensor:
        score = 4 * x[:, 0, 2:6, 2:6].mean((1, 2))
        return torch.stack([-score, score, torch.full_like(score, -50)], 1)


def images(num: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x = 0.1 * torch.randn(num, 1, 10, 11, generator=generator)
    x[:, :, 2:6, 2:6] += torch.where(torch.arange(num) % 2 == 0, -1.0, 1.0)[:, None, None, None]
    return x


def fitted(**options) -> LatentPath:
    explainer, x = LatentPath(**{"steps": 50, "lr": 3e-3, "num_latent": 3, "num_points": 6, "beta": 0.1, **options}), images(64)
    explainer.fit(Patch(), lambda index: x[index], len(x))
    return explainer


@pytest.fixture(scope="module")
def explainer() -> LatentPath:
    return fitted(path_steps=10)


def test_the_path_leads_to_the_other_class_and_the_map_is_the_patch(explainer: LatentPath) -> None:
    x, target = images(6), torch.tensor([0, 1] * 3)
    found, (_, p_BTK, other_B) = explainer.explain(Patch(), x, target), explainer.path(Patch(), x, target)
    assert other_B.tolist() == [1, 0] * 3 and explainer.codes_KD[2].isnan().all()  # no image is of class 2
    rows = torch.arange(6)
    assert (p_BTK[rows, 0, target] > 0.7).all() and (p_BTK[rows, -1, other_B] > 0.7).all()
    inside = torch.zeros(10, 11, dtype=torch.bool)
    inside[2:6, 2:6] = True
    assert found.shape == (6, 1, 10, 11) and found.min() >= 0 and found[:, 0, inside].mean() > 3 * found[:, 0, ~inside].mean()


def test_a_map_is_a_slow_loop_over_its_path(explainer: LatentPath) -> None:
    x, target = images(2), torch.tensor([0, 1])
    path, found = explainer.path(Patch(), x, target), explainer.explain(Patch(), x, target)
    for b in range(2):
        expected = torch.zeros(10, 11)
        for t in range(5):
            now, then = path.images_BTCHW[b, t], path.images_BTCHW[b, t + 1]
            lost = max(0.0, float(Patch()(now[None]).softmax(1)[0, target[b]] - Patch()(then[None]).softmax(1)[0, target[b]]))
            expected += lost * (then - now).abs().mean(0)
        torch.testing.assert_close(found[b, 0], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("entropy", [0.1, 300.0])
def test_the_steps_of_a_path_lower_its_lagrangian(explainer: LatentPath, entropy: float, monkeypatch: pytest.MonkeyPatch) -> None:
    x, target, sums = images(2), torch.tensor([0, 1]), []
    monkeypatch.setattr(explainer, "entropy", entropy)
    for steps in (0, 10, 60):
        monkeypatch.setattr(explainer, "path_steps", steps)
        images_BTCHW, p_BTK, _ = explainer.path(Patch(), x, target)
        entropy = -(p_BTK * p_BTK.clamp(min=1e-12).log()).sum()
        sums.append(float(images_BTCHW.diff(dim=1).square().sum() + explainer.entropy * entropy))
    assert sums[0] > sums[1] > sums[2]


def test_a_map_does_not_depend_on_its_batch(explainer: LatentPath, monkeypatch: pytest.MonkeyPatch) -> None:
    x, target = images(5), torch.tensor([0, 1, 0, 1, 0])
    whole = explainer.explain(Patch(), x, target)
    monkeypatch.setattr("attnlab.explainers.attribution.VALUES", 110 * 6 * 2)
    torch.testing.assert_close(explainer.explain(Patch(), x, target), whole, rtol=1e-3, atol=1e-5)


def test_the_seed_decides() -> None:
    codes = [fitted(steps=2, seed=seed).codes_KD[:2] for seed in (0, 0, 1)]
    assert torch.equal(codes[0], codes[1]) and not torch.equal(codes[0], codes[2])


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 9, 14), (2, 4, 5)])
def test_the_vae_keeps_shapes(shape: tuple[int, ...]) -> None:
    vae, x = SmallVAE(shape, dim=5), torch.randn(3, *shape)
    assert [conv.kernel_size for conv in vae.convs] == [(3, 3)] * 2
    mean, log_var = vae.encode(x)
    assert mean.shape == log_var.shape == (3, 5) and vae.decode(mean).shape == x.shape


def test_the_vae_s_loss_is_a_slow_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    vae, x = SmallVAE((1, 6, 6), dim=2).double(), torch.randn(3, 1, 6, 6, dtype=torch.float64)
    monkeypatch.setattr(torch, "randn_like", lambda value: torch.full_like(value, 0.7))
    (mean, log_var), expected = vae.encode(x), 0.0
    for b in range(3):
        z, prior = mean[b] + 0.7 * (log_var[b] / 2).exp(), torch.distributions.Normal(torch.zeros(2).double(), torch.ones(2).double())
        posterior = torch.distributions.Normal(mean[b], (log_var[b] / 2).exp())
        expected += (x[b] - vae.decode(z[None])[0]).square().sum() / 2 + 0.3 * torch.distributions.kl_divergence(posterior, prior).sum()
    torch.testing.assert_close(vae.loss(x, beta=0.3), expected / 3)


def test_what_is_refused() -> None:
    for options in ({"steps": 0}, {"num_points": 2}, {"path_lr": 0.0}, {"beta": -1.0}):
        with pytest.raises(ValueError, match="must be"):
            LatentPath(**options)
    with pytest.raises(ValueError, match="call prepare"):
        LatentPath().explain(Patch(), images(1), torch.tensor([0]))
    with pytest.raises(ValueError, match="of two predicted classes, and the network predicts 1"):
        LatentPath(steps=1).fit(Patch(), lambda index: images(8)[2 * (index // 2)], 8)
