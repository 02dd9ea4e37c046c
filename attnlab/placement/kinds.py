"""Kinds: what sort of module a place is, whatever a backbone calls it: `at: {type: activation|conv|norm}`, or a class.

    activation  the non-linearities of torch.nn and timm.layers, gates (Sigmoid, Hardsigmoid) among them; no softmax, no attention
    conv        nn.Conv1d, 2d, 3d, transposed or lazy, and their subclasses (timm's StdConv2d)
    norm        batch, instance, group, layer, RMS and local response norm and their subclasses (timm's BatchNormAct2d), and timm's own

What a network computes by a function (`F.relu(x)`) is no module and cannot be found.
"""

from collections.abc import Iterable

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from attnlab.config.groups import KINDS
from attnlab.config.targets import ConfigError, locate

BASES = {
    "activation": (),
    "conv": (_ConvNd,),
    "norm": (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, nn.LocalResponseNorm),
}
# modules of Python whose classes are all of a kind, but for these
HOMES = {
    "activation": ("torch.nn.modules.activation", "timm.layers.activations"),
    "conv": (),
    "norm": ("timm.layers.norm", "timm.layers.norm_act", "timm.layers.evo_norm", "timm.layers.filter_response_norm"),
}
OTHERS = (nn.MultiheadAttention, nn.Softmin, nn.Softmax, nn.Softmax2d, nn.LogSoftmax)


def kind_of(module: type[nn.Module]) -> str | None:
    """The kind of a class of modules, or None."""
    for kind in KINDS:
        at_home = any(ancestor.__module__ in HOMES[kind] for ancestor in module.__mro__)
        if issubclass(module, BASES[kind]) or (at_home and not issubclass(module, OTHERS)):
            return kind
    return None


def of_type(wanted: str | type, modules: Iterable[tuple[str, type[nn.Module]]], *, where: str) -> list[str]:
    """The names of those modules that are of a kind, or of a class (by its dotted name or itself) or a subclass of it.

    ValueError for what is neither, and where nothing is of it.
    """
    modules = list(modules)
    if isinstance(wanted, str) and "." not in wanted:
        if wanted not in KINDS:
            raise ValueError(f"{where}.type: {wanted!r} is none of {', '.join(KINDS)}, nor a class such as torch.nn.BatchNorm2d")
        found = [name for name, module in modules if kind_of(module) == wanted]
    else:
        found = [name for name, module in modules if issubclass(module, _class(wanted, where))]
    if not found:
        counts = {kind: sum(kind_of(module) == kind for _, module in modules) for kind in KINDS}
        seen = ", ".join(f"{count} {kind}" for kind, count in counts.items())
        raise ValueError(f"{where}: no module of type {wanted} runs here ({seen}); functions such as F.relu are no modules")
    return found


def _class(wanted: str | type, where: str) -> type:
    found = wanted
    if isinstance(wanted, str):  # of a config, whose check has held it against its allow_targets; or of a person's own code
        try:
            found = locate(wanted, allow=(wanted.partition(".")[0],))
        except ConfigError as error:
            raise ValueError(f"{where}.type: {error}") from None
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ValueError(f"{where}.type: {wanted!r} is no class of modules")
    return found
