"""Mutual learning against the authors' numbers, and two networks that learn."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.config.compose import compose
from attnlab.distillation.dml import DML, dml
from attnlab.network import Output
from attnlab.pipeline.factory import make_data, make_learner
from attnlab.training.epoch import Batch
from tests.conftest import TINY
from tests.reference.distilled import NUMBERS, agrees, output

ZS, ZT, Y = (NUMBERS[name] for name in ("kd_zs", "kd_zt", "kd_y"))


def test_authors_numbers() -> None:
    agrees("dml_1", lambda zs: dml(zs, ZT), "kd_zs")
    agrees("dml_1_withce", lambda zs: F.cross_entropy(zs, Y) + dml(zs, ZT), "kd_zs")
    agrees("dml_2", lambda zt: dml(zt, ZS), "kd_zt")
    for key, pair in (("dml_authors_1", (ZS, ZT)), ("dml_authors_2", (ZT, ZS))):  # which add 1e-8 twice
        own = pair[0].clone().requires_grad_()
        loss = dml(own, pair[1])
        assert float(loss.detach()) == pytest.approx(float(NUMBERS[f"{key}_loss"]), rel=1e-5)
        torch.testing.assert_close(torch.autograd.grad(loss, own)[0], NUMBERS[f"{key}_g0"], rtol=1e-4, atol=1e-6)


def test_neither_pulls_the_other_by_its_own_term() -> None:
    peer = ZT.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(dml(ZS.clone().requires_grad_(), peer) + 0 * peer.sum(), peer)
    assert not gradient.any()


class Peer(nn.Module):
    """Gives its logits, whatever the images; a penalty beside them."""

    def forward(self, x: Tensor, target: Tensor, progress: Tensor) -> Output:
        return output(ZT)

    def penalties(self) -> dict[str, Tensor]:
        return {"norm_loss": torch.tensor(0.5)}


def test_the_terms_weigh_the_divergences_and_the_peer_has_a_loss_of_its_own() -> None:
    terms = DML(Peer, weight=0.3)(torch.zeros(len(Y)), output(ZS), Y, torch.tensor(0.0))
    torch.testing.assert_close(terms["dml"], 0.3 * dml(ZS, ZT))
    torch.testing.assert_close(terms["dml_peer"], F.cross_entropy(ZT, Y) + 0.3 * dml(ZT, ZS) + 0.5)


def test_two_networks_learn_and_the_students_is_the_one_that_counts() -> None:
    plan = compose([*TINY, "distillation=dml", "attention=se"])
    data = make_data(plan)
    learner = make_learner(plan, data)
    term = learner.term_modules["dml"]
    names = [name for name, _ in learner.network.named_parameters()]
    assert [name for name, _ in term.peer.named_parameters()] == names
    assert not torch.equal(term.peer.backbone.fc.weight, learner.network.backbone.fc.weight)
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    learner.train()
    learner.configure_optimizers()
    learner.prepare()
    for batch in data.train_loader("cpu"):
        learner.step(Batch(*batch), learner.totals)
    after = learner.state_dict()
    for key in ("network.backbone.fc.weight", "term_modules.dml.peer.backbone.fc.weight"):
        assert not torch.equal(before[key], after[key])
    assert learner.totals.names == ("ce", "dml", "dml_peer") and learner.tested() is learner.network

    alone = make_learner(compose([*TINY, "attention=se"]), data)
    assert torch.equal(alone.network.backbone.fc.weight, before["network.backbone.fc.weight"])  # the student begins as it would alone


def test_the_student_follows_the_gradient_of_its_own_terms() -> None:
    plan = compose([*TINY, "distillation=dml"])
    learner = make_learner(plan, make_data(plan)).double().eval()
    x, y = torch.randn(8, 1, 16, 16, dtype=torch.float64), torch.arange(8)
    terms = learner.terms(learner.output(x, y), Batch(x, y))
    fc, peer = learner.network.backbone.fc.weight, learner.term_modules["dml"].peer.backbone.fc.weight
    own = torch.autograd.grad(terms["ce"] + terms["dml"], fc, retain_graph=True)[0]
    torch.testing.assert_close(torch.autograd.grad(sum(terms.values()), fc, retain_graph=True)[0], own)
    assert not torch.autograd.grad(terms["dml"], peer, allow_unused=True, retain_graph=True)[0] is not None
