"""A run is its configuration: what moves its address and what does not."""

import json
import re
from pathlib import Path

import pytest

from attnlab.config.compose import compose
from attnlab.config.groups import GROUPS
from attnlab.config.plan import address_of
from attnlab.config.targets import config_dir
from attnlab.pipeline.load import plan_of_record

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


@pytest.mark.parametrize(
    "words, label",
    [
        (["data=cifar10", "model.width=16", "attention=rect"], "cifar10-resnet18-w16-rect-s0"),
        (["data=parquet", "data.path=/x/fashion mnist/", "trainer.max_epochs=200"], "fashion.mnist-resnet18-e200-s0"),
        (["data=image_folder", "data.path='/x/图'"], "image_folder-resnet18-s0"),
        (["model=timm", "model.name=hf-hub:timm/resnet18.a1"], "digits-resnet18.a1-s0"),
        (["model=wrn28_10", "model.width=160", "trainer.max_epochs=4"], "digits-wrn28_10-s0"),
        (["experiment=rect/cluttered_digits", "seed=2"], "cluttered_digits-resnet18-w16-e12-s2"),
        ([f"attention=[{','.join(['rect', 'se', 'eca', 'position', 'context_aware', 'dynamic_residual', 'surround', 'lmask'])}]"], None),
    ],
)
def test_a_label_says_what_the_record_knows(words: list[str], label: str | None) -> None:
    found = compose(words).label
    assert found == label if label else len(found) <= 80 and found.endswith("-s0")


def test_the_record_shows_defaults_that_the_yaml_leaves_out() -> None:
    assert compose(BASE).full["data"]["split_seed"] == 0


# What people have on disk is found by these: they change only where a run's numbers can change, never because code moved.
PINNED = {
    ("model=resnet18", "attention=rect"): ("0fa80ca9", "0b6d096b"),
    ("experiment=maxdropout/resnet18", "data=cifar10", "seed=3", "data.drop_last=true", "schedule.milestones=[0.3,0.6,0.8]"): (
        "3e9f4233",
        "fc9e377b",
    ),
    ("data=two_moons", "model=mlp2d", "loss=large_margin", "algorithm=sam", "callback=[ema]", "evaluator=[ood,calibration]"): (
        "8437e9bd",
        "45d0289f",
    ),
}


@pytest.mark.parametrize("words", PINNED, ids=" ".join)
def test_addresses_stay(words: tuple[str, ...]) -> None:
    plan = compose(words)
    assert (plan.address, plan.training) == PINNED[words]


def test_the_address_of_a_third_partys_component_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "conf" / "attention").mkdir(parents=True)
    (tmp_path / "conf" / "attention" / "halve.yaml").write_text("halve:\n  at: layer1\n  module: {_target_: theirs_pinned.Halve}\n")
    (tmp_path / "theirs_pinned.py").write_text("class Halve:\n    def __init__(self, shape, *, by: float = 2.0):\n        pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    words = ["attention=halve", "attention.halve.by=3", f"hydra.searchpath=[file://{tmp_path}/conf]", "allow_targets=[theirs_pinned]"]
    plan = compose(words)
    assert (plan.address, plan.training) == ("bf46d8d7", "820671b9")


def test_a_record_from_before_an_option_was_there_is_read() -> None:
    """What is in it was written by an earlier version; options and groups that have come since are at their defaults."""
    record = json.loads((Path(__file__).parent / "early_record.json").read_text())
    plan = plan_of_record(record, paths={"outputs": "elsewhere"}, allow=(), where="early")
    assert {"halt", "same_code"} <= plan.full.keys() - record["config"].keys()
    assert plan.address == compose(record["overrides"]).address == record["run_id"].rpartition("-")[2]


def test_the_address_does_not_know_where_code_lives() -> None:
    one, two = ({"trainer": {"_target_": f"attnlab.{module}.Settings", "max_epochs": 3}} for module in ("trainer", "training.settings"))
    assert address_of(one, ()) == address_of(two, ())
    theirs = {"trainer": {"_target_": "theirs.training.Settings", "max_epochs": 3}}
    assert address_of(theirs, ()) != address_of(one, ())


def test_no_two_targets_of_ours_in_a_group_share_their_name() -> None:
    for group in GROUPS:
        found: dict[str, set[str]] = {}
        for path in (config_dir() / group).rglob("*.yaml"):
            for target in re.findall(r"_target_: (attnlab[\w.]+)", path.read_text()):
                found.setdefault(target.rpartition(".")[2], set()).add(target)
        assert all(len(targets) == 1 for targets in found.values()), found
