"""GLICO: great circles, partners of a class, which images a batch becomes, and a run."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from attnlab.algorithms.glico import GLICO, SHARES, partners, slerp
from attnlab.config.targets import ConfigError


def test_great_circles() -> None:
    torch.manual_seed(0)
    a, b = (F.normalize(torch.randn(5, 7, dtype=torch.float64), dim=1) for _ in range(2))
    torch.testing.assert_close(slerp(a, b, 0.0), a)
    torch.testing.assert_close(slerp(a, b, 1.0), b)
    part = slerp(a, b, 0.3)
    torch.testing.assert_close(part.norm(dim=1), torch.ones(5, dtype=torch.float64))
    torch.testing.assert_close((part * a).sum(1).acos(), 0.3 * (a * b).sum(1).acos())
    torch.testing.assert_close(slerp(a, a, 0.4), a, rtol=1e-3, atol=1e-3)


def test_partners_are_others_of_the_class() -> None:
    torch.manual_seed(0)
    y, seen = torch.tensor([0, 1, 0, 2, 1, 0]), set()
    for _ in range(40):
        found = partners(y)
        assert torch.equal(y[found], y) and found[3] == 3 and all(found[i] != i for i in (0, 1, 2, 4, 5))
        seen.add(int(found[0]))
    assert seen == {2, 5}


def test_a_batch_is_the_images_or_between_two() -> None:
    torch.manual_seed(0)
    one = GLICO((1, 8, 8), 6, code=5, width=4)
    one.codes, one.decoder = one.peers
    z, batch = F.normalize(one.codes.weight.detach(), dim=1), SimpleNamespace(x=torch.randn(6, 1, 8, 8), y=torch.tensor([0, 0, 1, 1, 2, 2]))
    other = torch.tensor([1, 0, 3, 2, 5, 4])
    expected = [batch.x, *(one.decoder(slerp(z, z[other], t)) for t in SHARES)]
    kinds = []
    for _ in range(60):
        x = one.between(z, batch)
        (kind,) = [i for i, wanted in enumerate(expected) if torch.allclose(x, wanted, atol=1e-5)]
        kinds.append(kind)
    assert set(kinds) == {0, 1, 2, 3, 4} and 22 < kinds.count(0) < 38


def test_a_run(run) -> None:
    words = ["algorithm=glico", "algorithm.code=16", "algorithm.width=8", "optimizer.lr=0.05"]
    found = run(*words, "trainer.max_epochs=4", "evaluator=none")
    rows = [line.split(",") for line in (found["folder"] / "metrics.csv").read_text().splitlines()]
    losses = [float(dict(zip(rows[0], row))["train/loss/generator"]) for row in rows[1:]]
    assert losses[-1] < losses[0] and found["metrics"]["train/loss/generator_ce"] > 0
    state = torch.load(found["folder"] / "last.ckpt", weights_only=True)["state_dict"]
    assert state["peers.0.weight"].shape == (64, 16)
    with pytest.raises(ConfigError, match="mixup mixes labels"):
        run("algorithm=glico", "regularizer=mixup", "check=true")
    with pytest.raises(ConfigError, match="has images of its own, which the teacher does not see"):
        run("algorithm=glico", "distillation=kd", f"teacher={found['folder']}", "check=true")
    with pytest.raises(ValueError, match="start in"):
        GLICO((1, 8, 8), 6, start=1.0)
