"""Attention branch network against the authors' ResNet-8 (fp64): features, maps, both logits, both losses, gradients, eval mode."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from attnlab.attention.branch import AttentionBranch
from attnlab.backbones.resnet import BasicBlock
from attnlab.network import Network
from tests.component_rules import check_rules, close
from tests.golden_numbers import golden

NAMES = {
    "att_layer3.": "blocks.",
    "bn_att.": "bn.",
    "att_conv.": "evidence.",
    "bn_att2.": "evidence_bn.",
    "att_conv2.": "classify.",
    "att_conv3.": "attend.",
    "bn_att3.": "attend_bn.",
}


class ResNet8(nn.Module):
    """The trunk of the stored numbers: widths 4, 5, 6, one basic block a stage."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.layer1 = nn.Sequential(BasicBlock(4, 4, 1))
        self.layer2 = nn.Sequential(BasicBlock(4, 5, 2))
        self.layer3 = nn.Sequential(BasicBlock(5, 6, 2))
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        x = self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x)))))
        return self.fc(self.layer3(x).mean((2, 3)))


@pytest.fixture
def network() -> Network:
    build = {"abn": {"at": "layer2", "module": lambda shape: AttentionBranch(shape, num_classes=5, blocks=1, width=6)}}
    network = Network(ResNet8(), build, shape=(3, 32, 32)).double()
    state, branch = {}, {}
    for key, value in golden("components", "abn_p_").items():
        key = key.replace("downsample.0", "downsample.conv").replace("downsample.1", "downsample.bn")
        old = next((old for old in NAMES if key.startswith(old)), None)
        if old:
            branch[NAMES[old] + key.removeprefix(old)] = value
        else:
            state[key] = value
    for module, values in ((network.backbone, state), (network.placed["abn@layer2"], branch)):
        found = module.load_state_dict(values, strict=False)
        assert not found.unexpected_keys and all(key.endswith("num_batches_tracked") for key in found.missing_keys)
    return network


def test_equals_the_authors_code(network: Network) -> None:
    expected = golden("components", "abn_")
    x, y, branch = expected["x"], expected["y"], network.placed["abn@layer2"]
    with torch.no_grad():
        out = network.eval()(x)
    close(out.logits, expected["eval_logits"])
    close(branch.logits, expected["eval_att_logits"])
    close(branch.map, expected["eval_att"])
    assert branch.penalty is None

    seen = {}
    network.backbone.layer2[0].register_forward_hook(lambda m, i, o: (o.retain_grad(), seen.update(f=o))[0])
    branch.blocks.register_forward_hook(lambda m, i, o: seen.update(blocks=o))
    branch.register_forward_hook(lambda m, i, o: seen.update(masked=o))
    out = network.train()(x, y)
    for found, key in ((seen["f"], "f"), (seen["blocks"], "branch_in"), (branch.logits, "att_logits"), (branch.map, "att")):
        close(found, expected[key])
    close(seen["masked"], expected["masked"])
    close(out.logits, expected["logits"])
    loss = F.cross_entropy(out.logits, y)
    close(loss, expected["loss_per"])
    close(network.penalties()["abn@layer2"], expected["loss_att"])
    (loss + branch.penalty).backward()
    close(seen["f"].grad, expected["gf"])
    gradients = {f"{new}weight": old for old, new in NAMES.items()} | {f"{NAMES[old]}bias": old for old in NAMES if "bn" in old}
    checked = 0
    for name, parameter in branch.named_parameters():
        if name in gradients:
            key = f"g_{gradients[name]}{name.rpartition('.')[2]}"
            if key in expected:
                close(parameter.grad, expected[key])
                checked += 1
    assert checked == 8
    close(network.backbone.fc.weight.grad, expected["g_fc.weight"])
    close(network.backbone.conv1.weight.grad, expected["g_conv1.weight"])


def test_soft_labels_and_weight() -> None:
    torch.manual_seed(0)
    module, x, y = AttentionBranch((4, 6, 6), num_classes=3, weight=0.5), torch.randn(5, 4, 6, 6), torch.tensor([0, 1, 2, 2, 1])
    module(x, y)
    hard = module.penalty
    module(x, F.one_hot(y, 3).float())
    torch.testing.assert_close(module.penalty, hard)
    torch.testing.assert_close(hard, 0.5 * F.cross_entropy(module.logits, y))


def test_copies_of_the_images_have_their_labels() -> None:
    torch.manual_seed(0)
    module, x, y = AttentionBranch((4, 6, 6), num_classes=3), torch.randn(6, 4, 6, 6), torch.tensor([0, 1, 2])
    module(x, y)
    torch.testing.assert_close(module.penalty, F.cross_entropy(module.logits, torch.cat([y, y])))


def test_bottleneck_branch_has_the_width_of_the_next_stage() -> None:
    module = AttentionBranch((8, 4, 4), num_classes=3, block="bottleneck")
    assert module.evidence.in_channels == 16 and module.blocks[0].conv2.out_channels == 4
    assert module(torch.randn(2, 8, 4, 4)).shape == (2, 8, 4, 4)
    assert [block.conv1.in_channels for block in AttentionBranch((8, 4, 4), num_classes=3, blocks=3).blocks] == [8, 16, 16]


def test_rules() -> None:
    check_rules(lambda: AttentionBranch((4, 6, 6), num_classes=3), torch.randn(3, 4, 6, 6), torch.tensor([0, 1, 2]))


@pytest.mark.parametrize(
    "options", [{"blocks": 0}, {"block": "wide"}, {"weight": -1}, {"dropout": 1.0}, {"width": 6, "block": "bottleneck"}]
)
def test_refusals(options: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        AttentionBranch((4, 4, 4), num_classes=3, **options)
