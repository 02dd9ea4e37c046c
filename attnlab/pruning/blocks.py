"""Residual blocks that add nothing: finding the norm that decides it, and leaving them out."""

from torch import nn

from attnlab.backbones.resnet import BasicBlock, Bottleneck


def last_norm(block: nn.Module) -> nn.Module:
    """The batch norm before a residual block's sum."""
    return block.bn3 if isinstance(block, Bottleneck) else block.bn2


def without_empty_blocks(backbone: nn.Module) -> None:
    """Put the final ReLU in the place of every block that adds nothing to its shortcut."""
    for name, block in list(backbone.named_modules()):
        if isinstance(block, BasicBlock | Bottleneck) and block.downsample is None:
            norm = last_norm(block)
            if not norm.weight.any() and not norm.bias.any() and not block._forward_hooks:
                parent, _, last = name.rpartition(".")
                setattr(backbone.get_submodule(parent), last, block.relu3 if isinstance(block, Bottleneck) else block.relu2)
