"""Every yaml of every group composes and takes two steps, with a tested and a scored batch after them. A new yaml is tested as it is."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from torch.utils._python_dispatch import TorchDispatchMode

from attnlab.config.compose import compose
from attnlab.config.groups import GROUPS, LAYERS, RATES, having
from attnlab.config.plan import Plan
from attnlab.config.signatures import complete, parameters
from attnlab.config.targets import ConfigError, config_dir, group_choices, locate
from attnlab.data.base import ImageData

SMALL = ["logger=none", "trainer.accelerator=cpu", "trainer.max_epochs=2", "data.limit=64", "data.batch_size=16", "ood=msp"]
FEW = "data.eval_batch_size=32"  # a dry run tests one batch
NARROW = ["model=resnet18", "model.width=4"]

# what a choice needs beside it, where it does not stand on the default data and a narrow ResNet-18
NEEDS = {
    "model=cnn3": ["data.size=28"],
    "model=mlp2d": ["data=two_moons"],
    "model=densenet_bc": ["model.depth=22"],
    "model=timm": ["model.name=test_resnet"],
    "model=vgg_ltpa": ["data.size=32"],
    "model=vgg_bn_drop": ["data.size=32"],
    "model=vgg16": ["data.size=32"],
    "data=two_moons": ["model=mlp2d"],
    "attention=ltpa_merge": ["model=vgg_ltpa", "model.width=4", "data.size=32", "attention.ltpa_merge.at=[tap1,tap3]"],
    "loss=large_margin": [*NARROW, "model.bottleneck=8"],
    "explainer=attention": [*NARROW, "attention=rect"],
    "explainer=mask": [*NARROW, "explainer.mask.steps=5"],
    "explainer=mfpp": [*NARROW, "explainer.mfpp.num_masks=50"],
    "explainer=lime": [*NARROW, "explainer.lime.num_samples=50"],
    "explainer=kernel_shap": [*NARROW, "explainer.kernel_shap.num_samples=60"],
    "explainer=klfds": [*NARROW, "explainer.klfds.num_samples=50"],
    "explainer=fixed_edges": [*NARROW, "model.stem=edges"],
    "callback=best": [*NARROW, "data.val=0.2"],
    "callback=mc_dropout": [*NARROW, "regularizer=dropout"],
    "data=multi_digits": [*NARROW, "loss=sigmoid", "evaluator=[ood]"],
    "callback=bayesian_abn": [*NARROW, "regularizer=dropout", "attention=abn", "callback.bayesian_abn.passes=2"],
    "callback=early_stop": [*NARROW, "data.val=0.2"],
    "trainer=ddp": [*NARROW, "trainer.devices=1"],
}
LTPA = ["model=vgg_ltpa", "model.width=4", "data.size=32"]


def cases() -> list[str]:
    return [f"{group}={choice}" for group in GROUPS for choice in group_choices(group)]


@pytest.fixture(scope="module")
def make_once() -> Callable[[Plan], ImageData]:
    """`make_data`, once for all cases that say the same of their data."""
    from attnlab.pipeline.factory import make_data

    made: dict[str, ImageData] = {}

    def make(plan: Plan) -> ImageData:
        key = repr(plan.full["data"])
        if key not in made:
            made[key] = make_data(plan)
        return made[key]

    return make


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the network that the cases of distillation train; its batch norms have seen the data."""
    from attnlab.pipeline.factory import make_data, make_learner

    plan = compose([*SMALL, *NARROW, "seed=1"])
    data = make_data(plan)
    network = make_learner(plan, data).network.train()
    with torch.no_grad():
        for _ in range(10):
            for x, *_ in data.train_loader("cpu"):
                network(x)
    path = tmp_path_factory.mktemp("teacher") / "weights.pt"
    torch.save(network.state_dict(), path)
    return path


def overrides(case: str) -> list[str]:
    group, _, choice = case.partition("=")
    needs = NEEDS.get(case, LTPA if case == "attention=ltpa" else [] if group == "model" else NARROW)
    if group == "model" and "width" in yaml.safe_load((config_dir() / "model" / f"{choice}.yaml").read_text()):
        needs = [*needs, "model.width=8"]
    taken = {text.partition("=")[0] for text in needs} | {group}
    small = [text for text in SMALL if text.partition("=")[0] not in taken]
    return [*small, *needs, case]


def test_every_folder_of_configs_is_a_group() -> None:
    folders = {path.name for path in config_dir().iterdir() if path.is_dir()} - {"hydra", "table", RATES, *LAYERS}
    assert folders == set(GROUPS)
    for pair in group_choices(RATES):
        model, _, optimizer = pair.rpartition("_")
        assert model in group_choices("model") and optimizer in group_choices("optimizer")


class Reads(TorchDispatchMode):
    """Counts what would make the host wait for a device: reads of single values, and shapes that depend on values."""

    WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount", "equal"}

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        by_mask = name.startswith("index") and any(
            isinstance(index, torch.Tensor) and index.dtype == torch.bool for part in args[1:2] if isinstance(part, list) for index in part
        )
        if name in self.WAITING or by_mask:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


def test_the_counter_of_host_reads_counts() -> None:
    x = torch.ones(3)
    with Reads() as reads:
        x.sum().item(), bool(x[0] > 0), x[x > 0]
    assert len(reads.found) == 3


@pytest.fixture
def no_host_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every training step of the test runs under the counter."""
    from attnlab.training.learner import Learner

    found, methods = [], {name: getattr(Learner, name) for name in ("step", "after_step")}

    def watched(name: str):
        def method(self: Learner, *args, **options) -> None:
            with Reads() as reads:
                methods[name](self, *args, **options)
            found.append(reads.found)

        return method

    for name in methods:
        monkeypatch.setattr(Learner, name, watched(name))
    return found


@pytest.mark.parametrize("case", cases())
def test_two_steps(
    case: str, tmp_path: Path, no_host_reads: list[list[str]], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    from attnlab.pipeline.dry_run import dry_run

    words = [FEW, *overrides(case)]
    alone = ("distillation=none", "distillation=dml", "distillation=oskd")
    if case in ("init=teacher", "init=hcore") or (case.startswith("distillation=") and case not in alone):
        words = [*words, f"teacher={request.getfixturevalue('teacher')}"]
    if case in ("ood=aleatoric", "ood=mutual_information"):
        with pytest.raises(ValueError, match="compares the members of an ensemble, and this is one network"):
            dry_run(compose(words))
        return
    if case == "trainer=gpu" and not torch.cuda.is_available():
        with pytest.raises(ValueError, match="sees no GPU here; use trainer=auto"):
            dry_run(compose([text for text in words if text != "trainer.accelerator=cpu"]))
        return
    group, _, choice = case.partition("=")
    if group == "data":
        target = locate(yaml.safe_load((config_dir() / "data" / f"{choice}.yaml").read_text())["_target_"])
        path = ["data.path=somewhere"] if "path" in parameters(target) else []
        if path or hasattr(target, "files"):  # files of one's own, or a download: composing must do
            assert compose([*words, *path]).full["data"]["_target_"].endswith(target.__name__)
            return
    else:
        monkeypatch.setattr("attnlab.pipeline.dry_run.make_data", request.getfixturevalue("make_once"))
    dry_run(compose([*words, f"paths.outputs={tmp_path}"]))
    assert no_host_reads == [[]] * 4  # two steps, and what callbacks do after them
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("group", having(several=True))
def test_files_of_groups_that_take_several_are_keyed_by_their_name(group: str) -> None:
    for choice in group_choices(group):
        text = (config_dir() / group / f"{choice}.yaml").read_text()
        assert list(yaml.safe_load(text) or {}) == ([] if choice == "none" else [choice])


def test_several_at_once() -> None:
    from attnlab.pipeline.dry_run import dry_run

    words = [*SMALL[:-1], *NARROW, "attention=[rect,se]", "regularizer=[cutout,maxdropout,mixup,norm_loss]", "ood=[msp,knn,vim]"]
    plan = compose(words)
    assert list(plan.full["attention"]) == ["rect", "se"] and plan.label.startswith("digits-resnet18-w4-rect-se-cutout-maxdropout")
    dry_run(plan)


def nodes(group: str, choice: str) -> dict[str, dict]:
    """What of a yaml has a `_target_`, by its dotted key."""
    tree = yaml.safe_load((config_dir() / group / f"{choice}.yaml").read_text()) or {}
    if not GROUPS[group].several:
        return {group: tree} if tree else {}
    if not GROUPS[group].placed:
        return {f"{group}.{name}": entry for name, entry in tree.items()}
    return {f"{group}.{name}.{key}": entry[key] for name, entry in tree.items() for key in ("module", "penalty") if key in entry}


@pytest.mark.parametrize("case", cases())
def test_a_yaml_lists_only_parameters_of_the_signature_and_says_no_more_than_it_must(case: str) -> None:
    group, _, choice = case.partition("=")
    for where, node in nodes(group, choice).items():
        required = {"path": "somewhere"} if "path" in parameters(locate(node["_target_"])) else {}
        full, _ = complete({**node, **required}, where=where)
        assert set(full) >= set(node)
    text = (config_dir() / group / f"{choice}.yaml").read_text()
    assert not re.search(r"_partial_|how: after|\t|\+experiment", text), "the table of groups implies it"


def test_a_parameter_that_the_signature_lacks_is_found() -> None:
    node = nodes("attention", "rect")["attention.rect.module"]
    with pytest.raises(ConfigError, match=r"unknown key attention\.rect\.module\.sharpnes; nearest: .*sharpness"):
        complete({**node, "sharpnes": 3}, where="attention.rect.module")


@pytest.mark.parametrize("name", group_choices("experiment"))
def test_experiments_compose_as_they_stand(name: str) -> None:
    """Nothing on the command line replaces a choice here, so a key that nothing knows would be refused."""
    assert compose([f"experiment={name}"]).address
    assert compose([f"+experiment={name}"]).address == compose([f"experiment={name}"]).address
