"""Noisy copies: the noise against its formula, who sees the copies and who does not, and the losses that take them; fp64."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from attnlab.config.compose import compose
from attnlab.config.targets import ConfigError
from attnlab.losses.large_margin import LargeMarginLoss
from attnlab.network import Network, Output
from attnlab.pipeline.factory import make_data, make_learner
from attnlab.regularizers.mixup import Mixup
from attnlab.regularizers.noisy_copies import NoisyCopies
from tests.conftest import TINY

MEAN, STD = [0.5, 0.2], [0.25, 0.3]


def images(num: int, size: int = 6) -> torch.Tensor:
    """Normalised images of pixels in [0, 1]."""
    pixels = torch.rand(num, 2, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return (pixels - torch.tensor(MEAN).view(2, 1, 1)) / torch.tensor(STD).view(2, 1, 1)


def test_the_second_half_is_the_first_with_noise_in_pixels() -> None:
    x, module = images(50), NoisyCopies((2, 6, 6), mean=MEAN, std=STD).double()
    torch.manual_seed(1)
    y = module(x)
    torch.manual_seed(1)
    noise = torch.randn(x.shape, dtype=torch.float64)
    assert y.shape == (100, 2, 6, 6) and torch.equal(y[:50], x)
    for c in range(2):
        expected = (x[:, c] * STD[c] + MEAN[c] + 0.06 * noise[:, c]).clip(0, 1)
        torch.testing.assert_close(y[50:, c] * STD[c] + MEAN[c], expected, rtol=1e-6, atol=1e-6)
    assert module.eval()(x) is x and not list(module.state_dict())


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.input = nn.Identity()
        self.trunk = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(64, 5))
        self.features = nn.Identity()
        self.fc = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.features(self.trunk(self.input(x))))


def network_of(**placements: dict) -> Network:
    torch.manual_seed(0)
    copies = {"at": "input", "module": partial(NoisyCopies, mean=MEAN, std=STD)}
    return Network(Small(), {**placements, "noisy_copies": copies}, shape=(2, 6, 6), num_classes=3).double()


def test_the_network_tells_images_and_copies_apart() -> None:
    network, x, y = network_of(), images(4), torch.tensor([0, 1, 2, 0])
    plain = copy.deepcopy(network.backbone)
    torch.manual_seed(1)
    out = network(x, y)
    torch.manual_seed(1)
    expected = plain(x)  # the placed module is in the copy too
    assert expected.shape == (8, 3) and torch.equal(out.target, y)
    torch.testing.assert_close(out.logits, expected[:4])
    torch.testing.assert_close(out.copies.logits, expected[4:])
    torch.testing.assert_close(network.fc(out.copies.features), out.copies.logits)
    assert out.features.shape == out.copies.features.shape == (4, 5) and out.copies.copies is None
    assert network.eval()(x).copies is None
    torch._dynamo.reset()
    other = copy.deepcopy(network).train()
    compiled = torch.compile(copy.deepcopy(other), backend="eager", fullgraph=True)
    torch.manual_seed(1)
    traced = compiled(x, y)
    torch.manual_seed(1)
    torch.testing.assert_close(traced.copies.logits, other(x, y).copies.logits)


def v3_loop(f_BD, noisy_BD, y_B, fc, means, *, delta_var, delta_dist, momentum):
    """The authors' terms class by class: copies join their class in the compact term, and nowhere else."""
    classes, compact, margin, norm = sorted(set(y_B.tolist())), 0.0, 0.0, 0.0
    for c in classes:
        clean, noisy = f_BD[y_B == c], noisy_BD[y_B == c]
        current = clean.mean(0)
        mean = momentum * means[c] + (1 - momentum) * current if c in means else current
        means[c] = mean.detach()
        group = torch.cat([clean, noisy])
        compact = compact + sum(((f - mean).norm() - delta_var).clamp(min=0) ** 2 for f in group) / len(group)
        z = fc(current)
        margin = margin + max(
            (delta_dist + (z[i] - z[c]) / (fc.weight[c] - fc.weight[i]).norm()).clamp(min=0) for i in range(len(z)) if i != c
        )
        norm = norm + mean.norm()
    n = len(classes)
    return {"ce": F.cross_entropy(fc(f_BD), y_B), "compact": compact / n, "margin": margin / n, "norm": 0.001 * norm / n}


def test_large_margin_pulls_copies_to_the_clean_means() -> None:
    torch.manual_seed(0)
    options = dict(delta_var=0.5, delta_dist=5.0, momentum=0.9)
    loss, fc, means = LargeMarginLoss(3, 4, **options).double(), nn.Linear(4, 3).double(), {}
    for _ in range(2):
        f_BD, noisy_BD = (2 * torch.randn(7, 4, dtype=torch.float64).requires_grad_() for _ in range(2))
        y_B = torch.tensor([0, 0, 1, 1, 2, 0, 1])
        terms = loss(Output(fc(f_BD), f_BD, fc, y_B, Output(fc(noisy_BD), noisy_BD, fc)), y_B)
        expected = v3_loop(f_BD, noisy_BD, y_B, fc, means, **options)
        for name in expected:
            torch.testing.assert_close(terms[name], expected[name])
        leaves = [f_BD, noisy_BD, *fc.parameters()]
        for ours, theirs in zip(*(torch.autograd.grad(sum(found.values()), leaves) for found in (terms, expected)), strict=True):
            torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(loss.means, torch.stack([means[c] for c in range(3)]))


def test_mixing_goes_before_copying() -> None:
    mixup = {"at": "input", "reads": ["target"], "writes": ["target"], "module": Mixup}
    out = network_of(mixup=mixup)(images(4), torch.tensor([0, 1, 2, 0]))
    assert out.target.shape == (4, 3) and out.copies.logits.shape == (4, 3)
    with pytest.raises(ValueError, match=r"4 labels for 8 images: name what makes copies of the images after what mixes them"):
        Mixup((2, 6, 6), num_classes=3)(images(8), torch.tensor([0, 1, 2, 0]))


# ---- in a run --------------------------------------------------------------------------------------------------------------------

COPIES = [*TINY, "regularizer=noisy_copies", "loss=large_margin", "model.bottleneck=6", "optimizer.lr=0.01"]


def test_mean_and_std_are_the_datas_and_a_loss_that_takes_no_copies_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = compose(COPIES)
    data = make_data(plan)
    module = make_learner(plan, data).network.placed["noisy_copies@input"]
    for key in ("mean", "std"):
        assert getattr(module, key).flatten().tolist() == pytest.approx(list(getattr(data, key)))
    monkeypatch.setattr(LargeMarginLoss, "takes_copies", False)
    with pytest.raises(ConfigError, match="noisy_copies@input makes copies of images, which loss LargeMarginLoss does not take"):
        make_learner(plan, data)


def test_a_run_counts_images_once(run) -> None:
    result = run(base=COPIES)
    assert result["status"] == "finished" and 0 <= result["metrics"]["train/acc"] <= 1
    assert {"train/loss/ce", "train/loss/compact"} <= set(result["metrics"])


def test_keeps_channels_last() -> None:
    x = images(4).contiguous(memory_format=torch.channels_last)
    assert NoisyCopies((2, 6, 6), mean=MEAN, std=STD).double()(x).is_contiguous(memory_format=torch.channels_last)
    assert NoisyCopies((2, 6, 6), mean=MEAN, std=STD)(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma": 0.0}, "sigma must be above 0"),
        ({"mean": None}, r"mean and std .* of the images' 2 channels are needed, got None"),
        ({"std": [0.1]}, "2 channels are needed"),
        ({"std": [0.1, 0.0]}, "std .above 0."),
        ({"shape": (8,)}, r"\(C, H, W\)"),
    ],
)
def test_wrong_values(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NoisyCopies(**{"shape": (2, 6, 6), "mean": MEAN, "std": STD, **options})
