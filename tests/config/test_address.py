"""A run is its configuration: what moves its address and what does not."""

import pytest

from attnlab.config.compose import compose

BASE = ["logger=none", "model.width=8"]


def address(*overrides: str) -> str:
    return compose([*BASE, *overrides]).address


@pytest.fixture(scope="module")
def base() -> str:
    return address()


@pytest.mark.parametrize(
    "overrides",
    [
        ["logger=csv"],
        ["paths.outputs=/elsewhere"],
        ["name=mine"],
        ["force=true"],
        ["objective=test/nll"],
        ["trainer.progress=false"],
        ["trainer.checkpoint_seconds=1"],
        ["data.root=/downloads", "data.num_workers=7"],
        ["seed=0"],
        ["model.width=8"],
        ["optimizer.lr=1e-1"],
        ["+model.stem=cifar"],
        ["loss.label_smoothing=0"],
        ["data.flip=false"],  # the signature's default, not in the yaml
    ],
)
def test_what_cannot_change_the_numbers_leaves_the_address(base: str, overrides: list[str]) -> None:
    assert address(*overrides) == base


@pytest.mark.parametrize(
    "overrides",
    [
        ["seed=1"],
        ["model.width=9"],
        ["attention=se"],
        ["optimizer.lr=0.2"],
        ["trainer.max_epochs=7"],
        ["trainer.precision=bf16-mixed"],
        ["data.split_seed=1"],
        ["ood=msp"],
        ["data.flip=true"],
    ],
)
def test_what_can_does(base: str, overrides: list[str]) -> None:
    assert address(*overrides) != base


def test_order_matters_where_components_meet_and_nowhere_else() -> None:
    assert address("attention=[se,eca]") != address("attention=[eca,se]")
    assert address("model.stem=cifar", "model.bottleneck=3") == address("model.bottleneck=3", "model.stem=cifar")


def test_the_label_reads_well() -> None:
    plan = compose(["attention=[rect,se]", "regularizer=cutout", "loss=large_margin", "seed=3"])
    assert plan.run_id == f"digits-resnet18-rect-se-cutout-large_margin-s3-{plan.address}"
    assert compose(["name=pilot"]).run_id.startswith("pilot-")


def test_the_record_shows_defaults_that_the_yaml_leaves_out() -> None:
    assert compose(BASE).full["data"]["split_seed"] == 0
