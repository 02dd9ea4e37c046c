"""What norms that stand in the place of another one share: which hosts they take, and what they keep of them."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def check_norm(host: nn.Module | None, *, name: str) -> None:
    """ValueError unless `host` is nothing (a norm placed after something) or a norm that does nothing else.

    Some of timm's norms hold the activation that follows; to replace such a one would lose it.
    """
    if host is None:
        return
    if not isinstance(host, _BatchNorm | nn.GroupNorm | nn.InstanceNorm2d | nn.LayerNorm):
        raise ValueError(f"{name} replaces a norm, here it would replace a {type(host).__name__}; name norms in `at`")
    if inside := [type(child).__name__ for child in host.children() if not isinstance(child, nn.Identity)]:
        raise ValueError(f"{name} would lose the {inside[0]} inside the {type(host).__name__} that it replaces; choose norms without one")


def take_over(norm: nn.Module, host: nn.Module | None) -> None:
    """Give `norm` the weights and statistics of `host` that it has under the same name and shape: a pretrained network keeps its own."""
    if host is not None:
        like = next(host.parameters(), None)
        if like is not None:
            norm.to(device=like.device, dtype=like.dtype)
        own = {name: value.shape for name, value in norm.state_dict().items()}
        kept = {name: value for name, value in host.state_dict().items() if own.get(name) == value.shape}
        norm.load_state_dict(kept, strict=False)
