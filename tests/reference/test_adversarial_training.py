"""Adversarial training: the step is the plain one on PGD's images; clean images, statistics and refusals."""

import copy

import pytest
import torch
from torch.nn import functional as F

from attnlab.algorithms.adversarial_training import AdversarialTraining
from attnlab.config.targets import ConfigError
from attnlab.losses.adversarial import pgd
from tests.reference.small_learner import DIM, backbone, batches, small_learner, take

MOMENTS = ([0.0] * DIM, [0.5] * DIM)


@pytest.mark.parametrize("clean", [0.0, 0.5, 1.0])
def test_a_step_is_the_plain_one_on_moved_images(clean: float) -> None:
    (batch,) = batches(1)
    algorithm = AdversarialTraining((DIM,), *([values[0]] for values in MOMENTS), epsilon=0.1, step=0.05, steps=3, clean=clean)
    network = backbone()
    plain = small_learner(network=copy.deepcopy(network))
    learner = small_learner(algorithm, network=network)
    torch.manual_seed(3)
    take(learner, [batch])
    torch.manual_seed(3)
    num = round(6 * clean)
    x, y = batch.x[num:], batch.y[num:]
    moved = x
    if len(x):
        start = 0.2 * (2 * torch.rand_like(x) - 1)
        moved = pgd(plain.network.eval(), x, y, epsilon=0.2, step=0.1, steps=3, start=start)
        before, after = (F.cross_entropy(plain.network(one).logits, y) for one in (x, moved))
        assert after > before and (moved - x).abs().max() <= 0.2 + 1e-12
    take(plain.train(), [batch._replace(x=torch.cat([batch.x[:num], moved]))])
    for one, other in zip(learner.state_dict().values(), plain.state_dict().values()):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)  # epsilon is fp32
    assert learner.network.training


def test_images_alone_are_kept_in_their_range() -> None:
    assert AdversarialTraining((1, 4, 4), [0.5], [0.5]).is_image and not AdversarialTraining((DIM,), *MOMENTS).is_image


def test_what_is_refused(run) -> None:
    with pytest.raises(ConfigError, match="mixup mixes labels, which algorithm=adversarial_training's attack would not know"):
        run("algorithm=adversarial_training", "regularizer=mixup", "check=true")
    with pytest.raises(ValueError, match="steps at least 1"):
        AdversarialTraining((DIM,), *MOMENTS, steps=0)
