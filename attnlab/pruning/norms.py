"""Channels pruned at batch norms: which batch norms, and keeping their masked channels at 0.   Legend: C channels of a layer, N of all."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from attnlab.config.suggest import nearest
from attnlab.placement.places import matches


class NormMasks:
    """A mask over the channels of batch norms. A masked channel's weight and bias are 0, so it gives 0 before the activation, in training
    and in the network that is tested; `attnlab.pruning.export` takes it away.

    at: globs over the network's batch norms that have weights; ValueError where one matches none. masks: {name: (C,)}, 1 or 0.
    """

    def __init__(self, backbone: nn.Module, at: Sequence[str], *, where: str) -> None:
        known = {name: one for name, one in backbone.named_modules() if isinstance(one, nn.modules.batchnorm._BatchNorm) and one.affine}
        for pattern in at:
            if not matches(pattern, list(known)):
                raise ValueError(f"{where}.at: no batch norm matches {pattern!r}; {nearest(pattern, known)}")
        self.norms = {name: known[name] for pattern in at for name in matches(pattern, list(known))}
        self.masks = {name: torch.ones_like(norm.weight) for name, norm in self.norms.items()}
        self.sizes = [len(mask_C) for mask_C in self.masks.values()]
        self.tensors = [tensor for norm in self.norms.values() for tensor in (norm.weight, norm.bias)]

    @torch.no_grad()
    def apply(self) -> None:
        """Set what is masked to 0; to be called after every update."""
        torch._foreach_mul_(self.tensors, [mask_C for mask_C in self.masks.values() for _ in range(2)])

    @torch.no_grad()
    def keep(self, chosen: Mapping[str, Tensor]) -> None:
        """Mask what is not `chosen` (C,) of the layers that it names; what is masked stays so, and a layer keeps a channel at least."""
        for name, chosen_C in chosen.items():
            kept_C = self.masks[name] * chosen_C.to(self.masks[name].dtype)
            self.masks[name].copy_(torch.where(kept_C.any(), kept_C, self.masks[name]))
        self.apply()

    def share(self) -> Tensor:
        """The share of channels that are kept, 0-d."""
        return torch.cat(list(self.masks.values())).mean()

    def state_dict(self) -> dict[str, Tensor]:
        return self.masks

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for name, mask_C in self.masks.items():
            mask_C.copy_(state[name])
