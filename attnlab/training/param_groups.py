"""Optimizer groups: settings of their own, such as a learning rate, for the parameters of one component.

    optimizer.groups.advanced_dropout.lr=1e-4                     a component placed in the network, by its name, wherever it stands
    'optimizer.groups={network.backbone.layer4.**: {lr: 0.01}}'   a glob over the parameters' names, which are those of the checkpoint

In a glob `*` stays inside one dotted part, `**` crosses parts. What a group does not set is the optimizer's own setting. A schedule's
factor multiplies the base rate of every group. Imports nothing heavy.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attnlab.config.build import checked
from attnlab.config.suggest import nearest
from attnlab.config.targets import ConfigError

if TYPE_CHECKING:
    import torch

    from attnlab.placement.hooks import Placed
from attnlab.config.optimizer import PARAMETER_GROUPS


def parameter_groups(
    model: "torch.nn.Module", placed: "Placed", groups: Mapping[str, Mapping[str, Any]], *, optimizer: Callable[..., Any]
) -> list[dict[str, Any]]:
    """`[{params: [...], lr: ...}, ...]`, one entry a group, each in the order of the parameters of `model`.

    ConfigError for a name that is neither a component's nor a parameter's, a component without parameters, a parameter in two groups,
    a setting that `optimizer` refuses.
    """
    from attnlab.placement.places import matches

    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    components: dict[str, set[int]] = {}
    for key, component in placed.components():
        components.setdefault(key.partition("@")[0], set()).update(map(id, component.parameters()))
    found, owner = [], {}
    for key, options in groups.items():
        where = f"optimizer.{PARAMETER_GROUPS}.{key}"
        if key in components:
            names = [name for name, parameter in named.items() if id(parameter) in components[key]]
            if not names:
                raise ConfigError(f"{where}: {key} has no parameters to train; remove the group")
        else:
            names = matches(key, list(named))
            if not names:
                near = nearest(key, [*components, *named])
                raise ConfigError(f"{where}: no component in the network and no parameter is called {key!r}; {near}")
        for name in names:
            if name in owner:
                raise ConfigError(f"{where}: {name} is in optimizer.{PARAMETER_GROUPS}.{owner[name]} already; a parameter has one group")
            owner[name] = key
        found.append({"params": [named[name] for name in names], **options})
        checked(optimizer, where=where)(found[-1]["params"], **options)  # an optimizer holds only its own settings against their ranges
    return found


def grouped(optimizer: Callable[..., Any], groups: Sequence[Mapping[str, Any]], parameters: Sequence[Any]) -> Any:
    """The optimizer of `parameters`: first those of no group, if any are left, with its own settings, then the groups."""
    taken = {id(parameter) for group in groups for parameter in group["params"]}
    rest = [parameter for parameter in parameters if id(parameter) not in taken]
    return optimizer([*([{"params": rest}] if rest else []), *(dict(group) for group in groups)])
