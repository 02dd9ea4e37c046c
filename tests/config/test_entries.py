"""Short keys, what an experiment leaves over, and what a yaml need not say."""

from pathlib import Path

import pytest

from attnlab.config.compose import compose, loosen, typed
from attnlab.config.targets import ConfigError, config_dir

SMALL = ["logger=none", "model.width=4"]


@pytest.mark.parametrize(
    ("choice", "key", "kind", "value"),
    [
        ("attention=rect", "attention.rect", "module", "sharpness=5"),
        ("attention=[se,rect]", "attention.rect", "module", "init_size=1"),
        ("regularizer=norm_loss", "regularizer.norm_loss", "penalty", "weight=2"),
        ("regularizer=dropblock", "regularizer.dropblock", "module", "per_channel=false"),
    ],
)
def test_a_short_key_is_the_long_one(choice: str, key: str, kind: str, value: str) -> None:
    short, long = (compose([*SMALL, choice, f"{where}.{value}"]) for where in (key, f"{key}.{kind}"))
    both = compose([*SMALL, choice, f"{key}.{value}", f"{key}.{kind}.{value}"])
    assert short.full == long.full == both.full and short.address == long.address == both.address != compose([*SMALL, choice]).address


def layer(tmp_path: Path, text: str) -> list[str]:
    """The words that put an experiment of a test's own into the search path."""
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\n" + text)
    return [f"hydra.searchpath=[file://{tmp_path}]", "experiment=mine"]


def test_the_command_line_goes_before_a_file_in_either_spelling(tmp_path: Path) -> None:
    words = [*SMALL, *layer(tmp_path, "defaults: [override /attention: rect]\nattention: {rect: {sharpness: 3}}\n")]
    assert compose(words).full["attention"]["rect"]["module"]["sharpness"] == 3
    for key in ("attention.rect.sharpness=7", "attention.rect.module.sharpness=7"):
        assert compose([*words, key]).full["attention"]["rect"]["module"]["sharpness"] == 7


def test_an_ablation_drops_what_the_experiment_says_of_the_choice_it_replaces(tmp_path: Path) -> None:
    words = [*SMALL, "experiment=advanced_dropout/cifar10"]
    plain, ablation = compose(words), compose([*words, "regularizer=none"])
    assert plain.full["regularizer"] and plain.full["optimizer"]["groups"] == {"advanced_dropout": {"lr": 1e-4}}
    assert ablation.full["regularizer"] == {} and "groups" not in ablation.full["optimizer"]
    removed = compose([*words, "regularizer=none", "~regularizer.advanced_dropout", "~optimizer.groups"])
    assert removed.address == ablation.address != plain.address
    other = compose([*words, "regularizer=cutout", "ood=msp"])
    assert list(other.full["regularizer"]) == ["cutout"] and list(other.full["ood"]) == ["msp"]


def test_a_group_of_one_drops_what_the_new_choice_does_not_know(tmp_path: Path) -> None:
    words = [*SMALL, "experiment=advanced_dropout/cifar10"]
    plan = compose([*words, "schedule=cosine", "optimizer=adamw", "model=resnet18", "data=two_moons", "model=mlp2d", "regularizer=none"])
    assert "milestones" not in plan.full["schedule"] and "nesterov" not in plan.full["optimizer"] and "hidden" not in plan.full["model"]
    with pytest.raises(ConfigError, match=r"unknown key schedule\.milestones"):
        compose([*words, "schedule=cosine", "schedule.milestones=[0.5]"])


@pytest.mark.parametrize(
    "word", ["regularizer.advanced_dropout.at=pool", "regularizer.advanced_dropout.reduction=4", "optimizer.groups.cutout.lr=0.1"]
)
def test_what_the_command_line_itself_says_stays(word: str) -> None:
    words = [*SMALL, "experiment=advanced_dropout/cifar10", "regularizer=none", word]
    if word.startswith("optimizer"):
        assert compose(words).full["optimizer"]["groups"] == {"cutout": {"lr": 0.1}}  # refused when the network is built
        return
    with pytest.raises(ConfigError, match=r"advanced_dropout is not chosen \(regularizer=none\); regularizer=advanced_dropout chooses it"):
        compose(words)


def test_an_experiment_that_misspells_its_own_choice_is_refused(tmp_path: Path) -> None:
    words = layer(tmp_path, "defaults: [override /regularizer: maxdropout]\nregularizer: {maxdropuot: {drop: 0.1}}\n")
    with pytest.raises(ConfigError, match=r"maxdropuot is not chosen .*nearest: maxdropout"):
        compose(words)
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nschedule: {peek: 0.1}\n")
    with pytest.raises(ConfigError, match=r"unknown key schedule\.peek; nearest: schedule\.peak"):
        compose(words)


def test_a_file_of_this_machine_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = compose().address
    with pytest.raises(ConfigError, match="a local file is this machine's own"):  # and no one else's
        (tmp_path / "theirs" / "local").mkdir(parents=True)
        (tmp_path / "theirs" / "local" / "default.yaml").write_text("# @package _global_\nseed: 3\n")
        compose([f"hydra.searchpath=[file://{tmp_path}/theirs]"])
    configs = tmp_path / "configs"
    configs.mkdir()
    for path in config_dir().iterdir():
        if path.name != "local":
            (configs / path.name).symlink_to(path.resolve())
    (configs / "local").mkdir()
    (configs / "local" / "default.yaml").write_text("# @package _global_\npaths: {outputs: /big}\nlogger: {project: mine}\n")
    monkeypatch.setattr("attnlab.config.compose.config_dir", lambda: configs)
    plan = compose()
    assert plan.full["paths"]["outputs"] == "/big" and plan.full["logger"]["project"] == "mine" and plan.address == address
    assert compose(["logger=none", "paths.outputs=here"]).full["logger"] == {}
    assert compose(["experiment=maxdropout/resnet18"]).full["paths"]["outputs"] == "/big"


def test_experiment_needs_no_plus_and_takes_one() -> None:
    words = ["+experiment=a", "experiment=a", "experiment=[a,b]", "a.b=1", "+a.b=1", "++a.b=1", "hydra.job.name=1", "~a.b", "-m"]
    assert loosen(words) == [
        "experiment=a",
        "experiment=a",
        "+experiment=[a,b]",
        "++a.b=1",
        "++a.b=1",
        "++a.b=1",
        "hydra.job.name=1",
        "~a.b",
        "-m",
    ]
    assert typed("++a.b=1") == "a.b=1"


def test_partial_and_after_are_implied_and_may_be_said() -> None:
    plan = compose([*SMALL, "attention=rect", "regularizer=norm_loss"])
    said = compose(
        [
            *SMALL,
            "attention=rect",
            "regularizer=norm_loss",
            "attention.rect.how=after",
            "attention.rect.module._partial_=true",
            "model._partial_=true",
        ]
    )
    assert said.full == plan.full and said.address == plan.address
    entry = plan.full["attention"]["rect"]
    assert (
        entry["how"] == "after"
        and entry["module"]["_partial_"] is True
        and "_partial_" not in plan.full["regularizer"]["norm_loss"]["penalty"]
    )
    assert all(plan.full[group]["_partial_"] is True for group in ("model", "loss", "optimizer", "schedule"))
    assert not any("_partial_" in plan.full[group] for group in ("data", "trainer", "algorithm"))
