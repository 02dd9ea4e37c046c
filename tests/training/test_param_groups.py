"""Parameter groups: a component's own learning rate, what is refused, and a run that goes on with them."""

from typing import Any

import pytest
import torch

from attnlab.config.compose import compose
from attnlab.config.targets import ConfigError
from attnlab.pipeline.factory import make_data, make_learner
from attnlab.training.learner import Learner
from tests.conftest import POINTS

DROPOUT = [*POINTS, "model.width=16", "trainer.accelerator=cpu", "regularizer=advanced_dropout"]
OWN = "optimizer.groups.advanced_dropout.lr=1e-4"


def learner_of(*words: str) -> Learner:
    plan = compose([*DROPOUT, *words])
    return make_learner(plan, make_data(plan))


def optimizer_of(learner: Learner) -> torch.optim.Optimizer:
    return learner.make_optimizer([parameter for parameter in learner.parameters() if parameter.requires_grad])


def names(learner: Learner, group: dict) -> list[str]:
    known = {id(parameter): name for name, parameter in learner.named_parameters()}
    return [known[id(parameter)] for parameter in group["params"]]


def test_a_component_has_its_rate_and_all_else_is_the_optimizers() -> None:
    learner = learner_of(OWN)
    rest, own = optimizer_of(learner).param_groups
    assert (rest["lr"], own["lr"]) == (0.1, 1e-4)
    assert {key: value for key, value in own.items() if key not in ("params", "lr")} == {
        key: value for key, value in rest.items() if key not in ("params", "lr")
    }
    assert len(own["params"]) == 6 and all("advanced_dropout@features" in name for name in names(learner, own))
    every = [*names(learner, rest), *names(learner, own)]
    assert sorted(every) == sorted(name for name, _ in learner.named_parameters()) and len(set(every)) == len(every)


def test_globs_and_a_schedule_that_multiplies_every_rate() -> None:
    learner = learner_of("optimizer.groups={network.backbone.*.linear.*:{lr:0.02,momentum:0.5},advanced_dropout:{lr:1e-4}}")
    optimizer = optimizer_of(learner)
    rest, layers, _ = optimizer.param_groups
    assert names(learner, layers) == [f"network.backbone.layer{n}.linear.{kind}" for n in (1, 2, 3) for kind in ("weight", "bias")]
    assert names(learner, rest) == ["network.backbone.fc.weight", "network.backbone.fc.bias"] and layers["momentum"] == 0.5
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.1**step)
    optimizer.step()
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.01, 0.002, 1e-5])


def test_a_component_that_replaces_and_one_at_several_places() -> None:
    words = ["data=digits", "data.limit=64", "data.batch_size=16", "model=resnet18", "model.width=4", "regularizer=none", "logger=none"]
    plan = compose([*words, "attention=se", "optimizer.groups.se.lr=0.3"])
    learner = make_learner(plan, make_data(plan))
    assert len({name.split(".")[2] for name in names(learner, optimizer_of(learner).param_groups[1])}) == 8  # one a block
    ltpa = ["attention=ltpa", "attention.ltpa.reads=[layer2,layer3,layer4]", "optimizer.groups.ltpa.lr=0.3"]
    plan = compose([*words, *ltpa])
    learner = make_learner(plan, make_data(plan))
    assert all(name.startswith("network.backbone.fc.") for name in names(learner, optimizer_of(learner).param_groups[1]))


def test_a_group_of_everything_leaves_no_empty_one() -> None:
    learner = learner_of("optimizer.groups={**:{lr:0.5}}")
    (group,) = optimizer_of(learner).param_groups
    assert group["lr"] == 0.5 and len(group["params"]) == len(list(learner.parameters()))


def test_without_groups_nothing_changes() -> None:
    assert compose([*DROPOUT, "optimizer.groups={}"]).short == compose(DROPOUT).short
    assert "groups" not in compose(DROPOUT).full["optimizer"]
    learner = learner_of()
    (group,) = optimizer_of(learner).param_groups
    assert names(learner, group) == [name for name, _ in learner.named_parameters()]
    assert compose([*DROPOUT, OWN]).address != compose(DROPOUT).address


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("optimizer.groups.advanced_dropot.lr=1", r"optimizer\.groups\.advanced_dropot: no component .*; nearest: advanced_dropout"),
        (
            "optimizer.groups={network.backbone.fd.*:{lr:1}}",
            r"no parameter is called 'network.*fd.\*'; nearest: network\.backbone\.fc",
        ),
        (
            "optimizer.groups.advanced_dropout.lrr=1",
            r"unknown key optimizer\.groups\.advanced_dropout\.lrr; nearest: .*\.lr$",
        ),
        ("optimizer.groups.advanced_dropout.nesterov=3", r"advanced_dropout\.nesterov=3: must be true or false"),
        ("optimizer.groups.advanced_dropout.lr=-1", r"optimizer\.groups\.advanced_dropout: Invalid learning rate: -1"),
        (
            "optimizer.groups.advanced_dropout=1",
            r"advanced_dropout=1: must be settings, such as .*advanced_dropout\.lr=1e-4",
        ),
        ("optimizer.groups=1e-4", r"optimizer\.groups=0\.0001: must be names with settings"),
        ("optimizer.groups={**:{lr:1},advanced_dropout:{lr:1}}", r"advanced_dropout: network.* is in optimizer\.groups\.\*\* already"),
    ],
)
def test_mistakes_are_one_line(word: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        learner_of(word)
    assert "\n" not in str(caught.value)


def test_a_component_without_parameters() -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.groups\.dropout: dropout has no parameters to train"):
        learner_of("regularizer=[advanced_dropout,dropout]", "optimizer.groups.dropout.lr=1")


def test_an_interrupted_run_goes_on_with_its_groups(run: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    base = [*DROPOUT, OWN, "trainer.max_epochs=3", "trainer.checkpoint_seconds=0", "trainer.threads=1"]
    whole = run(base=base)
    step = Learner.training_step

    def stopping(self: Learner, batch: Any, index: int) -> torch.Tensor:
        if self.current_epoch == 2:
            raise KeyboardInterrupt
        return step(self, batch, index)

    monkeypatch.setattr(Learner, "training_step", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(f"paths.outputs={tmp_path}/torn", base=base)
    monkeypatch.undo()
    torn = run(f"paths.outputs={tmp_path}/torn", base=base)
    assert torn["metrics"] == whole["metrics"]
    one, two = (torch.load(result["folder"] / "last.ckpt", weights_only=True) for result in (whole, torn))
    assert all(torch.equal(one["state_dict"][name], two["state_dict"][name]) for name in one["state_dict"])
    rates = [[group["lr"] for group in checkpoint["optimizer_states"][0]["param_groups"]] for checkpoint in (one, two)]
    assert rates[0] == rates[1] and rates[0][1] == pytest.approx(1e-3 * rates[0][0])
    history = one["attnlab"]["history"]
    assert [row["lr"] for row in history][-1] == rates[0][0]


def test_the_recipe_of_advanced_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its network at an eighth of the width: a mask before each of the two Linears, and its own parameters at 1e-4."""
    plan = compose(["experiment=advanced_dropout/cifar10", "model.width=8", "model.hidden=64", "logger=none"])
    digits = compose(["data=digits", "data.size=32", "logger=none"])
    learner = make_learner(plan, make_data(digits))
    assert [placement.key for placement in learner.network.placed.placements] == ["advanced_dropout@pool", "advanced_dropout@features"]
    rest, own = optimizer_of(learner).param_groups
    assert (rest["lr"], own["lr"], own["momentum"], own["weight_decay"]) == (0.1, 1e-4, 0.9, 5e-4) and len(own["params"]) == 12
    factor = learner.make_schedule(total_steps=300, steps_per_epoch=1)
    assert [factor(epoch) for epoch in (149, 150, 224, 225)] == pytest.approx([1, 0.1, 0.1, 0.01])
    ablation = compose(["experiment=advanced_dropout/cifar10", "regularizer=none"])
    assert "groups" not in ablation.full["optimizer"] and not ablation.full["regularizer"]
