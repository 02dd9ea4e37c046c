"""Export: a pruned network as a smaller plain one.   Legend: O output channels."""

import copy
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from attnlab.pruning.blocks import without_empty_blocks

if TYPE_CHECKING:
    from attnlab.network import Network


def export(network: "Network", images: Tensor, *, tolerance: float = 1e-5) -> "Network":
    """A copy of `network` without the channels that are 0 whatever the image, with which it computes the same in eval mode.

    A channel goes where everything that makes it is 0: the weight and bias of its batch norm, or of its convolution or Linear where no
    batch norm follows; of channels that are added (a residual trunk), in all of the layers that add. A residual block of a ResNet that
    adds nothing goes as a whole. Which layers hang together is what torch-pruning's dependency graph says (Fang et al., arXiv
    2301.12900; the extra `prune`). A layer keeps one channel at least.

    Args:
        images: a few of them, normalised, on the network's device: the graph is traced with them, and on them both networks must agree.
        tolerance: largest difference of a logit, relative to the largest logit, that counts as agreement.

    Raises ValueError: torch-pruning is not installed; placed components that have weights, whose widths nobody knows; both networks
    disagree (an activation that does not map 0 to 0, say).
    """
    if not hasattr(network, "backbone"):
        raise ValueError(f"export makes one network smaller, and this is a {type(network).__name__}")
    for key, component in network.placed.components():
        if next(component.parameters(), None) is not None:
            raise ValueError(f"export knows no widths of placed components that have weights, and there is {key}")
    plain = copy.deepcopy(network).eval().requires_grad_(True)
    without_empty_blocks(plain.backbone)
    with torch.enable_grad():
        graph = dependency_graph(plain.backbone, images)
        for group in list(graph.get_all_groups(ignored_layers=[plain.backbone.fc])):
            root, handler = group[0].dep.target.module, group[0].dep.handler
            if dead := dead_channels(graph, group):
                smaller = graph.get_pruning_group(root, handler, dead)
                smaller.prune()
    plain.placed.store.values.clear()
    plain.requires_grad_(False)
    with torch.no_grad():
        expected, found = network.eval()(images).logits, plain(images).logits
    gap, scale = (found - expected).abs().max().item(), expected.abs().max().item()
    if not gap <= tolerance * max(scale, 1.0):
        raise ValueError(f"export: the smaller network's logits differ by {gap:.2g}; does an activation map 0 to something else?")
    return plain


def dependency_graph(backbone: nn.Module, images: Tensor) -> Any:
    try:
        import torch_pruning
    except ImportError as error:
        raise ValueError("export needs torch-pruning: pip install torch-pruning") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on parameters outside of layers, which stay as they are
        return torch_pruning.DependencyGraph().build_dependency(backbone, example_inputs=images[:2], verbose=False)


def dead_channels(graph: Any, group: Any) -> list[int]:
    """Channels of the group's first layer, all layers of the group in it, that are 0 whatever the image; not every one of them."""
    total = len(group[0].idxs)
    alive: set[int] = set()
    for item in group:
        if not graph.is_out_channel_pruning_fn(item.dep.handler):
            continue  # a layer that reads the channels
        zero = zero_channels(item.dep.target)
        if zero is not None:
            alive |= {root for root, own in zip(item.root_idxs, item.idxs) if not zero[own]}
    dead = [channel for channel in range(total) if channel not in alive]
    return dead[1:] if len(dead) == total else dead


def zero_channels(node: Any) -> list[bool] | None:
    """Of a node of the graph, which of its channels are always 0; None where the layers around it decide that."""
    layer = node.module
    if isinstance(layer, _BatchNorm):
        zero_O = (layer.weight == 0) & (layer.bias == 0) if layer.affine else torch.zeros(layer.num_features)
    elif isinstance(layer, _ConvNd | nn.Linear):
        if all(isinstance(after.module, _BatchNorm) for after in node.outputs):
            return None
        zero_O = (layer.weight.flatten(1) == 0).all(1)
        zero_O = zero_O if layer.bias is None else zero_O & (layer.bias == 0)
    elif next(layer.parameters(), None) is None if isinstance(layer, nn.Module) else False:
        return None  # an activation, an addition
    else:
        zero_O = torch.zeros(max(layer.shape) if isinstance(layer, Tensor) else max(p.numel() for p in layer.parameters()))
    return zero_O.bool().tolist()
