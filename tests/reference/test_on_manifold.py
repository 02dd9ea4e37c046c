"""On-manifold augmentation: paths against a loop, what trains what, shapes of decoded images, refusals."""

import pytest
import torch
from torch.nn import functional as F

from attnlab.algorithms.autoencoder import Decoder, Encoder
from attnlab.algorithms.on_manifold import OnManifold
from attnlab.config.targets import ConfigError


def algorithm(**options) -> OnManifold:
    torch.manual_seed(0)
    one = OnManifold((1, 9, 7), 3, code=6, width=4, **options)
    one.encoder, one.decoder, one.classifier = one.peers
    return one


def test_paths_are_the_loop() -> None:
    one = algorithm(steps=5, rate=0.3)
    z, y = torch.randn(4, 6), torch.tensor([0, 1, 2, 1])
    torch.manual_seed(1)
    x, soft = one.generate(z, y)
    torch.manual_seed(1)
    target, length = (y + torch.randint(1, 3, (4,))) % 3, torch.randint(6, (4, 1))[:, 0]
    assert (target != y).all() and len(set(length.tolist())) > 1
    for b in range(4):
        point = z[b : b + 1].clone()
        for _ in range(int(length[b])):
            point = point.detach().requires_grad_()
            (slope,) = torch.autograd.grad(F.cross_entropy(one.classifier(point), target[b : b + 1]), point)
            point = point - 0.3 * slope / slope.norm()
        torch.testing.assert_close(x[b : b + 1], one.decoder(point).detach(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(soft[b : b + 1], one.classifier(point).softmax(1).detach(), rtol=1e-4, atol=1e-5)
    assert not x.requires_grad and not soft.requires_grad
    plain, _ = algorithm(steps=0).generate(z, y)
    torch.testing.assert_close(plain, one.decoder(z).detach())


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 17, 10)])
def test_images_have_their_shape(shape: tuple[int, ...]) -> None:
    assert Decoder(shape, 5, width=4)(Encoder(shape, 5, width=4)(torch.randn(2, *shape))).shape == (2, *shape)


def test_a_run_learns_from_them(run) -> None:
    words = ["algorithm=on_manifold", "algorithm.code=8", "algorithm.width=4", "algorithm.steps=2", "algorithm.start=0.4"]
    found = run(*words, "trainer.max_epochs=4", "evaluator=none")
    rows = [line.split(",") for line in (found["folder"] / "metrics.csv").read_text().splitlines()]
    table = [dict(zip(rows[0], row)) for row in rows[1:]]
    assert float(table[-1]["train/loss/reconstruction"]) < float(table[0]["train/loss/reconstruction"])
    assert float(table[-1]["train/loss/generated_ce"]) > 0 and not table[0].get("train/loss/generated_ce")


def test_what_is_refused(run) -> None:
    with pytest.raises(ConfigError, match="loss LargeMarginLoss cannot take; use loss=ce"):
        run("algorithm=on_manifold", "loss=large_margin", "model.bottleneck=8", "check=true")
    with pytest.raises(ConfigError, match="mixup mixes labels"):
        run("algorithm=on_manifold", "regularizer=mixup", "check=true")
    teacher = run("trainer.max_epochs=1", "evaluator=none")["folder"]
    with pytest.raises(ConfigError, match="has images of its own, which the teacher does not see"):
        run("algorithm=on_manifold", "distillation=kd", f"teacher={teacher}", "check=true")
    with pytest.raises(ValueError, match="there are vectors"):
        OnManifold((2,), 3)
