"""A config is data: what a `_target_` may name, and that nothing else is found, imported or called."""

import os
import sys
import types

import pytest

from attnlab.config.compose import compose
from attnlab.config.targets import COMPONENTS, FUNCTIONS, LIBRARIES, ConfigError, locate

HOSTILE = {
    "os.system": "outside the packages of components; Python's own modules hold none",
    "builtins.exec": "outside the packages",
    "subprocess.run": "outside the packages",
    "torch.load": r"outside the packages .*allow_targets=\[torch\]",
    "torch.hub.load": "outside the packages",
    "torch": "outside the packages",
    "torch.nn": "write _target_ as package.module.Name|is no class",
    "torch.nn.init.normal_": "is no class",
    "torch.nn.functional.relu": "is no class",
    "torch.nn.modules.module.torch": "is no class",
    "torch.nn.Parameter": "is no Module",
    "torch.nn.utils.clip_grad_norm_": "is no class",
    "torch.optim.lr_scheduler.StepLR": "is no Optimizer",
    "torch.optim.lr_scheduler.LambdaLR": "is no Optimizer",
    "torch.optim.swa_utils.AveragedModel": "is no Optimizer",
    "torchvision.ops.nms": "is no class",
    "torchvision.transforms.Lambda": "is no Module",
    "timm.layers.create_act_layer": "is no class",
    "timm.models.load_checkpoint": "outside the packages",
    "pytorch_ood.model.registry.load_state_dict_from_url": "outside the packages",
    "pytorch_ood.dataset.img.Textures": "outside the packages",
    "pytorch_ood.detector.torch": "has no",
    "attnlab.sweeps.sweep.launch": "outside the packages .*those of attnlab are data",
    "attnlab.sweeps.local.Path": "is defined elsewhere",
    "attnlab.sweeps.local.register": "is no class",
    "attnlab.records.atomic.write_atomic": "outside the packages",
    "attnlab.config.targets.locate": "outside the packages",
    "attnlab.train.job": "outside the packages",
    "attnlab.evaluation.stages.Path": "is defined elsewhere|is no class|no module|has no",
    "attnlab.ood.fermat.subprocess": "is no class",
    "attnlab.ood.fermat.compiled": "is no class",
    "attnlab.ood.fermat.ThreadPoolExecutor": "is defined elsewhere",
    "attnlab.data.vision.urlopen": "has no",
    "attnlab.data.readers.folder.read": "is no class",
    "attnlab.data.images.torch": "is no class",
    "attnlab.backbones.vgg.nn": "is no class or function",
    "attnlab.backbones.resnet.Tensor": r"is defined elsewhere \(torch\)",
    "attnlab.backbones.resnet.init_convolutions": "is defined elsewhere",
    "attnlab.backbones.timm_model._create": "without private names",
    "attnlab.backbones.resnet.__builtins__": "without private names",
    "attnlab.backbones.resnet.resnet18.__globals__": "without private names",
    "attnlab.attention.rect.RectAttention.forward": "no module",
    "attnlab.attention..rect": "no module|write _target_",
    "attnlab.attention.": "no module|has no|write _target_",
    "": "outside the packages",
}


@pytest.mark.parametrize("target", HOSTILE)
def test_hostile_targets_are_refused_in_one_line(target: str) -> None:
    with pytest.raises(ConfigError, match=HOSTILE[target]) as caught:
        locate(target, where="model._target_")
    assert str(caught.value).startswith("model._target_: ") and "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_refused_target_is_not_imported() -> None:
    assert "antigravity" not in sys.modules
    with pytest.raises(ConfigError):
        compose(["model._target_=antigravity.fly"])
    assert "antigravity" not in sys.modules


FINE = [
    "torch.nn.ReLU",
    "torch.nn.modules.activation.ReLU",
    "torch.optim.SGD",
    "torchvision.ops.DropBlock2d",
    "timm.layers.BatchNormAct2d",
    "pytorch_ood.detector.KNN",
    "attnlab.attention.rect.RectAttention",
    "attnlab.backbones.resnet.resnet18",
    "attnlab.training.schedules.cosine",
    "attnlab.training.settings.Settings",
    "attnlab.sweeps.local.LocalLauncher",
]


@pytest.mark.parametrize("target", FINE)
def test_components_are_found(target: str) -> None:
    assert locate(target).__name__ == target.rpartition(".")[2]


def test_the_packages_of_components_are_there() -> None:
    import importlib

    for package in (*COMPONENTS, *LIBRARIES):
        importlib.import_module(package)
    assert set(FUNCTIONS) <= set(COMPONENTS)


def test_a_package_of_somebody_else_gives_what_it_defines(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = types.ModuleType("mine_of_tests")
    exec("from os import system, path\nfrom subprocess import run\nclass Gate: pass\ndef gate(): pass\nvalue = 3", mine.__dict__)
    monkeypatch.setitem(sys.modules, "mine_of_tests", mine)
    for name in ("Gate", "gate"):
        assert locate(f"mine_of_tests.{name}", allow=["mine_of_tests"]) is getattr(mine, name)
        with pytest.raises(ConfigError, match=r"allow_targets=\[mine_of_tests\] permits it"):
            locate(f"mine_of_tests.{name}")
    assert mine.system is os.system
    for name, message in {
        "system": "is no class or function",
        "run": "defined in subprocess",
        "value": "is no class",
        "path": "no class",
    }.items():
        with pytest.raises(ConfigError, match=message):
            locate(f"mine_of_tests.{name}", allow=["mine_of_tests"])


@pytest.mark.parametrize("package", ["os", "subprocess", "builtins", "attnlab", "attnlab.sweeps", "''"])
def test_allow_targets_permits_neither_python_nor_the_rest_of_attnlab(package: str) -> None:
    with pytest.raises(ConfigError, match="must be a package of components, neither of Python's own nor of attnlab"):
        compose([f"allow_targets=[{package}]"])


@pytest.mark.parametrize("key", ["model.width", "name", "data.ood", "attention.rect.at", "objective"])
@pytest.mark.parametrize(
    "text", ["${oc.env:SECRET_OF_TESTS}", "${ oc.env:SECRET_OF_TESTS}", "${${objective}:SECRET_OF_TESTS}", "a ${oc.decode:b}"]
)
def test_a_config_reads_nothing_from_its_machine(key: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_TESTS", "hush")
    with pytest.raises(ConfigError, match=rf"^{key}: calls a resolver of OmegaConf") as caught:
        compose(["attention=rect", f"{key}='{text}'"])
    assert "hush" not in str(caught.value)


def test_but_where_it_writes_may_depend_on_it_and_references_to_other_keys_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUT_OF_TESTS", "there")
    plan = compose(["paths.outputs='${oc.env:OUT_OF_TESTS}/x'", "seed=3", "model.width='${seed}'"])
    assert plan.full["paths"] == {"outputs": "there/x"} and plan.full["model"]["width"] == plan.full["data"]["seed"] == 3
