"""DenseNet-BC against torchvision's blocks (fp64) and the published size."""

import pytest
import torch
from torchvision.models import DenseNet

from attnlab.backbones.densenet import densenet_bc
from tests.component_rules import check_rules, close

NAMES = {"norm1": "bn1", "conv1": "conv1", "norm2": "bn2", "conv2": "conv2"}


def renamed(key: str) -> str | None:
    """torchvision's name of a parameter -> ours."""
    key = key.replace("features.conv0.", "stem.conv.").replace("features.norm5.", "norm.bn.").replace("classifier.", "fc.")
    if "denseblock" in key:
        _, block, layer, name, rest = key.split(".")
        return f"layer{block[-1]}.{int(layer.removeprefix('denselayer')) - 1}.{NAMES[name]}.{rest}"
    if "transition" in key:
        _, block, name, rest = key.split(".")
        return f"{block}.{'bn' if name == 'norm' else name}.{rest}"
    return None if "norm0" in key else key


def test_equals_torchvisions_behind_the_stem() -> None:
    torch.manual_seed(0)
    theirs = DenseNet(growth_rate=4, block_config=(3, 3, 3), num_init_features=8, num_classes=5).double().train()
    ours = densenet_bc(5, (3, 16, 16), depth=22, growth=4).double().train()
    state = {renamed(key): value for key, value in theirs.state_dict().items() if renamed(key)}
    state["stem.conv.weight"] = ours.stem.conv.weight.detach()  # another stem
    ours.load_state_dict(state)
    x = torch.randn(4, 8, 16, 16, dtype=torch.float64)

    def rest(x):
        blocks = list(theirs.features.children())[4:]
        for block in blocks:
            x = block(x)
        return theirs.classifier(x.relu().mean((2, 3)))

    ours.stem = torch.nn.Identity()
    for training in (True, False):
        theirs.train(training), ours.train(training)
        close(ours(x), rest(x).detach())
    ours(x).square().sum().backward()
    rest(x).square().sum().backward()
    close(ours.layer1[0].conv1.weight.grad, theirs.features.denseblock1.denselayer1.conv1.weight.grad)


@pytest.mark.parametrize(("depth", "growth", "expected"), [(100, 12, 769_162), (190, 40, 25_624_430)])
def test_sizes(depth: int, growth: int, expected: int) -> None:
    with torch.device("meta"):
        model = densenet_bc(10, (3, 32, 32), depth=depth, growth=growth)
    assert sum(p.numel() for p in model.parameters()) == expected


def test_rules() -> None:
    check_rules(lambda: densenet_bc(3, (3, 8, 8), depth=16, growth=4), torch.randn(3, 3, 8, 8))


@pytest.mark.parametrize("options", [{"depth": 99}, {"depth": 4}, {"growth": 0}])
def test_refusals(options: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        densenet_bc(3, (3, 32, 32), **options)
