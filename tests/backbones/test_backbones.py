# B batch, C channels, H height, W width, D features, K classes
"""Backbones: sizes, place names, agreement with independent networks, the laws every one of them keeps, and what they refuse."""

import copy
import inspect
from importlib import import_module

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import nn

import attnlab.backbones.timm_model as timm_module
from attnlab.backbones.cnn3 import cnn3
from attnlab.backbones.densenet import densenet_bc
from attnlab.backbones.iresnet import iresnet18, iresnet50
from attnlab.backbones.mlp2d import mlp2d
from attnlab.backbones.plainnet import plainnet
from attnlab.backbones.preact_resnet import preresnet20, preresnet164
from attnlab.backbones.resnet import resnet18, resnet34, resnet50
from attnlab.backbones.small_cnn import cnn_lc, cnn_mc
from attnlab.backbones.timm_model import timm_model
from attnlab.backbones.vgg import vgg16, vgg_bn_drop, vgg_ltpa
from attnlab.backbones.wide_resnet import wrn16_4, wrn28_10
from attnlab.config.signatures import GIVEN
from tests import ROOT

MODEL_FILES = sorted((ROOT / "configs" / "model").glob("*.yaml"))
SMALL = (3, 32, 32)
CASES = {
    "resnet18": (resnet18, SMALL, dict(width=8)),
    "resnet34": (resnet34, (1, 16, 16), dict(width=4)),
    "resnet50": (resnet50, (1, 16, 16), dict(width=4, bottleneck=5)),
    "resnet18_imagenet": (resnet18, (3, 48, 64), dict(width=8, stem="imagenet")),
    "iresnet18": (iresnet18, (1, 16, 16), dict(width=4, bottleneck=5)),
    "iresnet50_imagenet": (iresnet50, (3, 48, 64), dict(width=4, stem="imagenet")),
    "densenet_bc": (densenet_bc, (1, 16, 16), dict(depth=22, growth=4, bottleneck=5)),
    "densenet_bc_imagenet": (densenet_bc, (3, 32, 48), dict(depth=16, growth=4, stem="imagenet")),
    "preresnet20": (preresnet20, SMALL, dict(width=4, bottleneck=5)),
    "preresnet164": (preresnet164, (1, 8, 8), dict(width=4)),
    "plainnet": (plainnet, SMALL, dict(width=4, depth=8, bottleneck=5)),
    "plainnet_imagenet": (plainnet, (3, 32, 48), dict(width=4, depth=8, slope=0.0, stem="imagenet")),
    "cnn_lc": (cnn_lc, (1, 16, 16), dict(width=4, bottleneck=5)),
    "cnn_mc_imagenet": (cnn_mc, (3, 48, 32), dict(width=4, stem="imagenet")),
    "wrn28_10": (wrn28_10, (1, 16, 16), dict(width=16)),
    "wrn16_4": (wrn16_4, SMALL, dict(width=8, bottleneck=30)),
    "wrn16_4_imagenet": (wrn16_4, (3, 32, 32), dict(width=8, stem="imagenet")),
    "vgg16": (vgg16, (1, 28, 28), dict(width=4)),
    "vgg16_hidden": (vgg16, (1, 16, 16), dict(width=4, hidden=20, bottleneck=6)),
    "vgg16_imagenet": (vgg16, (3, 64, 64), dict(width=4, stem="imagenet")),
    "vgg_ltpa": (vgg_ltpa, SMALL, dict(width=4)),
    "vgg_bn_drop": (vgg_bn_drop, (1, 16, 16), dict(width=4, bottleneck=6)),
    "cnn3": (cnn3, (1, 28, 28), dict(width=8)),
    "cnn3_imagenet": (cnn3, (3, 45, 50), dict(width=4, stem="imagenet")),
    "mlp2d": (mlp2d, (2,), dict(width=16, bottleneck=2)),
    "timm_resnet": (timm_model, (3, 32, 32), dict(name="test_resnet", bottleneck=7)),
    "timm_mobilenet": (timm_model, (1, 32, 32), dict(name="mobilenetv3_small_050")),
    "timm_vit": (timm_model, (3, 32, 32), dict(name="test_vit")),
    "timm_convnext": (timm_model, (3, 32, 32), dict(name="test_convnext")),
    "timm_own_features": (timm_model, (3, 32, 32), dict(name="rexnet_100")),
    "timm_cifar": (timm_model, (1, 16, 16), dict(name="resnet18", stem="cifar")),
}


def parameters(build, *args, **options) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build(*args, **options).parameters())


def randn(shape, num=3):
    return torch.randn(num, *shape, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize(
    ("build", "num_classes", "shape", "options", "expected"),
    [
        (resnet18, 10, SMALL, {}, 11_173_962),
        (resnet34, 10, SMALL, {}, 21_282_122),
        (resnet50, 10, SMALL, {}, 23_520_842),
        (resnet18, 1000, (3, 224, 224), dict(stem="imagenet"), 11_689_512),
        (resnet34, 1000, (3, 224, 224), dict(stem="imagenet"), 21_797_672),
        (resnet50, 1000, (3, 224, 224), dict(stem="imagenet"), 25_557_032),
        (resnet18, 10, SMALL, dict(bottleneck=30), 11_173_962 - 5130 + 512 * 30 + 30 + 310),
        (wrn28_10, 10, SMALL, {}, 36_479_194),
        (wrn16_4, 10, SMALL, {}, 2_748_890),
        (vgg16, 10, SMALL, {}, 14_728_266),
        (vgg16, 10, SMALL, dict(hidden=512), 14_728_266 + 512 * 512 + 512),
        (vgg_bn_drop, 10, SMALL, {}, 14_991_946),
        (vgg_bn_drop, 100, SMALL, {}, 15_038_116),
        (cnn3, 10, (1, 28, 28), {}, 251_805),
    ],
)
def test_parameter_counts(build, num_classes, shape, options, expected):
    assert parameters(build, num_classes, shape, **options) == expected


@pytest.mark.parametrize("name", CASES)
def test_laws(name):
    """Shapes at the places, deepcopy, state_dict, channels_last, gradients everywhere, and the same answer twice in eval mode."""
    build, shape, options = CASES[name]
    torch.manual_seed(0)
    model = build(4, shape, **options)
    x = randn(shape)
    seen = {}
    for place in ("input", "features", "fc"):
        model.get_submodule(place).register_forward_hook(lambda module, args, value, place=place: seen.update({place: value}))
    assert model.training
    logits = model(x)
    assert logits.shape == (3, 4)
    assert seen["input"] is x and seen["fc"] is logits
    assert isinstance(model.fc, nn.Linear) and seen["features"].shape == (3, model.fc.in_features)
    if bottleneck := options.get("bottleneck"):
        assert model.fc.in_features == bottleneck == model.get_submodule("bottleneck").out_features
    else:
        assert "bottleneck" not in dict(model.named_children()) or name.startswith("cnn3")
    logits.square().sum().backward()
    missing = [key for key, parameter in model.named_parameters() if parameter.grad is None]
    assert not missing

    model.eval()
    first = model(x)
    assert torch.equal(first, model(x))
    torch.testing.assert_close(copy.deepcopy(model)(x), first, rtol=0, atol=0)
    torch.manual_seed(1)
    other = build(4, shape, **options).eval()
    assert not torch.allclose(other(x), first)
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other(x), first, rtol=0, atol=0)
    if len(shape) == 3:
        last = model.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
        torch.testing.assert_close(last, first, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["resnet18", "wrn16_4", "vgg_ltpa", "cnn3", "mlp2d", "timm_resnet"])
def test_traces_whole(name):
    build, shape, options = CASES[name]
    torch.manual_seed(0)
    model = build(4, shape, **options)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    torch._dynamo.reset()
    compiled = torch.compile(copy.deepcopy(model), fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(randn(shape)), model(randn(shape)))


def test_place_names():
    names = {name for name, _ in resnet18(3, SMALL, width=4).named_modules()}
    assert {"input", "stem.conv", "stem.bn", "stem.relu", "layer4", "pool", "features", "fc"} <= names
    assert {f"layer2.0.{part}" for part in ("conv1", "bn1", "relu1", "conv2", "bn2", "relu2", "downsample.conv", "downsample.bn")} <= names
    assert "layer1.0.downsample" not in names and "stem.pool" not in names
    large = {name for name, _ in resnet50(3, (3, 32, 32), width=4, stem="imagenet").named_modules()}
    assert {"stem.pool", "layer1.0.downsample.bn", "layer3.5.conv3", "layer3.5.bn3", "layer3.5.relu3"} <= large
    wide = {name for name, _ in wrn16_4(3, SMALL, width=16).named_modules()}
    assert {"stem.conv", "layer3.1.bn1", "layer3.1.relu2", "layer2.0.downsample.conv", "norm.bn", "norm.relu", "pool"} <= wide
    assert "layer1.0.downsample" not in wide and "layer4" not in wide
    assert {"layer5.pool", "layer5.relu3", "stem"} <= {name for name, _ in vgg16(3, SMALL, width=4).named_modules()}
    trunk = {name for name, _ in vgg_ltpa(3, SMALL, width=4).named_modules()}
    assert {"tap1", "tap2", "tap3", "layer1.drop1", "neck.linear", "features"} <= trunk


@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith("timm")])
def test_relus_and_norms_are_called_once(name):
    """So that a placed module may stand in for any one of them, and a hook sees one shape."""
    build, shape, options = CASES[name]
    model, calls = build(4, shape, **options).eval(), {}
    for key, module in model.named_modules():
        if key and not list(module.children()):
            module.register_forward_hook(lambda m, a, o, key=key: calls.update({key: calls.get(key, 0) + 1}))
    model(randn(shape))
    leaves = [key for key, module in model.named_modules() if key and not list(module.children())]
    assert calls == dict.fromkeys(leaves, 1)
    assert not any(getattr(module, "inplace", False) for module in model.modules())


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_resnet_is_torchvisions(name):
    import torchvision

    theirs = getattr(torchvision.models, name)(num_classes=7).double().eval()
    ours = dict(resnet18=resnet18, resnet50=resnet50)[name](7, (3, 64, 64), stem="imagenet").double().eval()
    renamed = {"conv1": "stem.conv", "bn1": "stem.bn"}
    state = {}
    for key, value in theirs.state_dict().items():
        head, _, tail = key.partition(".")
        key = f"{renamed.get(head, head)}.{tail}".replace("downsample.0", "downsample.conv").replace("downsample.1", "downsample.bn")
        state[key] = value
    ours.load_state_dict(state)
    x = randn((3, 64, 64), 2).double()
    torch.testing.assert_close(ours(x), theirs(x))


def test_wide_resnet_by_hand():
    """The pre-activation network written out with functions from the weights, as the PyTorch repositories of the paper do."""
    model = wrn16_4(5, (3, 16, 16), width=8).double()
    x = randn((3, 16, 16)).double()
    state = dict(model.named_parameters())

    def norm(y, key):
        return F.batch_norm(y, None, None, state[key + ".weight"], state[key + ".bias"], training=True)

    y = F.conv2d(x, state["stem.conv.weight"], padding=1)
    for stage in (1, 2, 3):
        for block in (0, 1):
            key = f"layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            o = F.relu(norm(y, key + ".bn1"))
            z = F.conv2d(o, state[key + ".conv1.weight"], padding=1, stride=stride)
            z = F.conv2d(F.relu(norm(z, key + ".bn2")), state[key + ".conv2.weight"], padding=1)
            if f"{key}.downsample.conv.weight" in state:
                y = F.conv2d(o, state[key + ".downsample.conv.weight"], stride=stride)
            y = y + z
    expected = F.linear(F.relu(norm(y, "norm.bn")).mean((2, 3)), state["fc.weight"], state["fc.bias"])
    torch.testing.assert_close(model(x), expected)


def test_cnn3_by_hand():
    model = cnn3(5, (1, 28, 28)).double().eval()
    assert model.get_submodule("bottleneck").in_features == 1152
    x = randn((1, 28, 28)).double()
    state, y = model.state_dict(), x
    for stage in ("layer1", "layer2", "layer3"):
        y = F.conv2d(y, state[f"{stage}.conv.weight"], state[f"{stage}.conv.bias"], padding=1) / (1 + 1e-5) ** 0.5
        y = F.max_pool2d(F.relu(y), 2)  # the other order: the same
    y = F.linear(y.flatten(1), state["bottleneck.weight"], state["bottleneck.bias"])
    torch.testing.assert_close(model(x), F.linear(y, state["fc.weight"], state["fc.bias"]))


def test_convolutions_start_by_fan_out():
    torch.manual_seed(0)
    for model in (resnet18(10, SMALL), wrn16_4(10, SMALL, width=128), vgg16(10, SMALL), cnn3(10, (1, 28, 28))):
        last = [module for module in model.modules() if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)][-1]
        assert last.weight.std().item() == pytest.approx((2 / (9 * last.out_channels)) ** 0.5, rel=0.02)
        assert last.bias is None or not last.bias.any()


def test_ltpa_trunk_maps():
    model = vgg_ltpa(10, SMALL, width=4).eval()
    shapes = {}
    for tap in ("tap1", "tap2", "tap3", "layer6", "features"):
        model.get_submodule(tap).register_forward_hook(lambda m, a, o, tap=tap: shapes.update({tap: tuple(o.shape[1:])}))
    model(randn(SMALL))
    assert shapes == dict(tap1=(16, 32, 32), tap2=(32, 16, 16), tap3=(32, 8, 8), layer6=(32, 1, 1), features=(32,))
    birds = vgg_ltpa(10, (3, 80, 80), width=4, first_pool=5).eval()
    birds.tap2.register_forward_hook(lambda m, a, o: shapes.update(tap2=tuple(o.shape[1:])))
    birds(randn((3, 80, 80)))
    assert shapes["tap2"] == (32, 16, 16)
    drops = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    assert drops == [0.3, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.5]
    assert {module.eps for module in model.modules() if isinstance(module, nn.BatchNorm2d)} == {1e-3}


@pytest.mark.parametrize(
    ("build", "shape", "options", "words"),
    [
        (resnet18, (2,), {}, "model=resnet18 takes images.*vectors of 2 values: use model=mlp2d"),
        (wrn28_10, (2,), {}, "model=wrn28_10"),
        (vgg16, (2,), {}, "model=vgg16"),
        (vgg_ltpa, (2,), {}, "model=vgg_ltpa"),
        (cnn3, (2,), {}, "model=cnn3"),
        (timm_model, (2,), dict(name="resnet18"), "model=timm"),
        (mlp2d, (1, 16, 16), {}, "takes vectors.*1x16x16.*model=resnet18"),
        (resnet18, (1, 4, 16), {}, "at least 8x8; data gives 4x16"),
        (resnet18, (1, 16, 16), dict(stem="imagenet"), "at least 32x32; data gives 16x16: use model.stem=cifar"),
        (wrn16_4, (1, 3, 3), {}, "at least 4x4"),
        (vgg16, (1, 8, 8), {}, "at least 16x16"),
        (vgg_bn_drop, (1, 8, 8), {}, "at least 16x16"),
        (cnn3, (1, 7, 7), {}, "at least 8x8"),
        (resnet18, SMALL, dict(stem="large"), "stem must be"),
        (resnet18, SMALL, dict(width=0), "width must be at least 1, got 0"),
        (cnn3, SMALL, dict(bottleneck=0), "bottleneck must be"),
        (vgg_ltpa, SMALL, dict(first_pool=0), "first_pool must be"),
        (timm_model, SMALL, dict(name="resnet19"), "no model 'resnet19'; nearest: resnet"),
        (timm_model, SMALL, dict(name="test_vit", stem="cifar"), "test_vit has none"),
        (timm_model, (3, 30, 30), dict(name="test_vit"), r"test_vit cannot take images \(3, 30, 30\)"),
        (timm_model, SMALL, dict(name="resnet18", weights="no_such_file"), "model.weights: no file no_such_file"),
    ],
)
def test_refusals(build, shape, options, words):
    with pytest.raises(ValueError, match=words):
        build(10, shape, **options)


def test_timm_keeps_its_names_and_values():
    import timm

    theirs = timm.create_model("test_resnet", num_classes=0).eval()
    ours = timm_model(5, (3, 64, 64), name="test_resnet").eval()
    result = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert not result.unexpected_keys and set(result.missing_keys) == {"fc.weight", "fc.bias"}
    x = randn((3, 64, 64))
    torch.testing.assert_close(ours(x), ours.fc(theirs(x)))
    assert {"layer3", "layer4.0.conv1"} <= {name for name, _ in ours.named_modules()}
    assert "trunk.features" in {name for name, _ in timm_model(5, (3, 32, 32), name="rexnet_100").named_modules()}


def test_timm_weights_from_a_file(tmp_path):
    import timm

    theirs = timm.create_model("test_resnet", num_classes=1000).eval()
    torch.save(theirs.state_dict(), tmp_path / "right.pth")
    ours = timm_model(5, (3, 64, 64), name="test_resnet", weights=str(tmp_path / "right.pth")).eval()
    x = randn((3, 64, 64))
    torch.testing.assert_close(ours.forward_features(x), theirs.forward_features(x))
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "other.pth")
    with pytest.raises(ValueError, match="another model's"):
        timm_model(5, (3, 64, 64), name="test_resnet", weights=str(tmp_path / "other.pth"))
    (tmp_path / "broken.pth").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="does not load as weights"):
        timm_model(5, (3, 64, 64), name="test_resnet", weights=str(tmp_path / "broken.pth"))


def test_timm_pretrained_without_a_network(monkeypatch):
    import timm

    create = timm.create_model

    def offline(name, pretrained=False, **options):
        if "img_size" in options or not pretrained:
            return create(name, **options)
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ValueError, match=r"resnet18 could not be fetched .*timm/resnet18.*HF_HOME.*model.weights=FILE"):
        timm_model(5, SMALL, name="resnet18", pretrained=True)


def test_weights_of_the_hub_are_what_their_name_in_the_cache_promises(tmp_path, monkeypatch):
    """A blob is named by its SHA-256; a byte of it changes, and a small file has another kind of name."""
    import hashlib
    from types import SimpleNamespace

    import huggingface_hub

    content = b"weights of a network"
    blob, link = tmp_path / hashlib.sha256(content).hexdigest(), tmp_path / "model.safetensors"
    blob.write_bytes(content)
    link.symlink_to(blob)
    cached = {"model.safetensors": str(link)}
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda repo, file: cached.get(file))
    config = SimpleNamespace(hf_hub_id="timm/any")
    timm_module.check_cached(config)
    blob.write_bytes(content.replace(b"w", b"v"))
    with pytest.raises(ValueError, match="it is damaged or was exchanged, remove it"):
        timm_module.check_cached(config)
    cached["model.safetensors"] = str(blob.rename(tmp_path / hashlib.sha1(content).hexdigest()))
    timm_module.check_cached(config)
    timm_module.check_cached(SimpleNamespace(hf_hub_id=None))


@pytest.mark.parametrize("path", MODEL_FILES, ids=lambda path: path.stem)
def test_yaml_states_the_defaults(path):
    """Every key is a parameter and says its default, so that the signature stays the one truth."""
    settings = yaml.safe_load(path.read_text())
    module, _, name = settings.pop("_target_").rpartition(".")
    known = inspect.signature(getattr(import_module(module), name)).parameters
    if path.stem == "timm":
        assert settings.pop("name") == "resnet18"
    assert settings == {key: known[key].default for key in settings}
    required = {key for key, parameter in known.items() if parameter.kind is parameter.KEYWORD_ONLY} - {"name", *GIVEN}
    assert required == set(settings)


def test_every_model_of_the_issue_has_a_file():
    expected = "resnet18 resnet34 resnet50 wrn28_10 wrn16_4 vgg16 vgg_ltpa vgg_bn_drop cnn3 mlp2d timm"
    assert {path.stem for path in MODEL_FILES} >= set(expected.split())
