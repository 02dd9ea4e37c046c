"""Extract: the bank of a data set in one pass, also from perturbed images.

Legend: B batch, N samples, C channels, H height, W width, D features, K classes.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from attnlab.ood.bank import Bank

Perturb = Callable[[nn.Module, Tensor], Tensor]
Describe = Callable[[nn.Module, Tensor], Tensor]


def extract(network: nn.Module, loader: Iterable, *, perturb: Perturb | None = None) -> Bank:
    """The bank of `loader`'s batches (x, y): `network(x) -> Output(logits, features, fc, ...)` in eval mode, without gradients.

    Features of any shape are flattened to (N, D). `perturb(network, x)` changes the images first. Every module is put back into the mode
    it was in. The loader must not augment or drop anything that the bank should hold. Raises ValueError if it gives no batch.
    """
    if perturb is None:
        return extract_views(network, loader, {})[0][None]
    banks, errors = extract_views(network, loader, {"perturbed": perturb}, plain=False)
    if errors:
        raise errors["perturbed"]
    return banks["perturbed"]


def extract_views(
    network: nn.Module,
    loader: Iterable,
    perturbs: Mapping[str, Perturb],
    *,
    plain: bool = True,
    describes: Mapping[str, Describe] | None = None,
) -> tuple[dict[str | None, Bank], dict[str, Exception]]:
    """As `extract`, for the plain images (key None, unless plain=False) and every perturbation in a single pass over `loader`.

    `describes[view](network, x) -> (B, D)` gives a view of the plain images that has these features in place of the network's. A
    perturbation or description that raises is left out of the banks and returned with its exception; the others go on.
    """
    parameter = next(network.parameters(), None)
    describes = describes or {}
    rows: dict[str | None, list[tuple[Tensor, ...]]] = {view: [] for view in (*[None] * plain, *perturbs, *describes)}
    labels: list[Tensor] = []
    errors: dict[str, Exception] = {}
    fc = None
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        # no_grad and not inference_mode: a head that perturbs takes gradients by the images
        with torch.no_grad():
            for x_BCHW, y_B, *_ in loader:
                if parameter is not None:
                    x_BCHW = x_BCHW.to(parameter.device, non_blocking=True)
                labels.append(y_B.to(_home(x_BCHW)))
                if plain or describes:
                    out = network(x_BCHW)
                    fc = out.fc
                    row = _row(out)
                    if plain:
                        rows[None].append(row)
                for view in [view for view in describes if view not in errors]:
                    try:
                        with for_gradients(x_BCHW):
                            found_BD = describes[view](network, x_BCHW).detach().to(_home(x_BCHW))
                        rows[view].append((found_BD, *row[1:]))
                    except Exception as error:
                        errors[view] = error
                for view in [view for view in perturbs if view not in errors]:
                    try:
                        with for_gradients(x_BCHW):
                            moved_BCHW = perturbs[view](network, x_BCHW).detach()
                        out = network(moved_BCHW)
                        fc = out.fc
                        rows[view].append(_row(out))
                    except Exception as error:  # whatever one head's perturbation raises, the other heads' banks are not lost
                        errors[view] = error
    finally:
        for module, mode in modes.items():
            module.training = mode
    if not labels:
        raise ValueError("the loader gave no batch: there is nothing to extract")
    labels_N = torch.cat(labels)
    banks = {}
    for view, pairs in rows.items():
        if view not in errors:
            features, logits, *members = (torch.cat(parts) for parts in zip(*pairs))
            banks[view] = Bank(features, logits, labels_N, fc, *members)
    return banks, errors


@contextmanager
def for_gradients(x: Tensor) -> Iterator[None]:
    """Inside, gradients by the images x may be taken of a network in eval mode: fp32, eager."""
    # uncompiled: the gradient by the images in eval mode is a graph of its own, and compiling it costs more than it saves
    with torch.enable_grad(), torch.autocast(x.device.type, enabled=False), torch.compiler.set_stance("force_eager"):
        yield


def _row(out: Any) -> tuple[Tensor, ...]:
    """Features (B, D) and logits (B, K) of one batch, of an ensemble also its members' logits (B, M, K).

    A copy, always: a compiled network may reuse the memory of its outputs.
    """
    features = out.logits[:, :0] if out.features is None else out.features.flatten(1)
    both = (features, out.logits)
    if members := getattr(out, "members", None):
        both = (*both, torch.stack([member.logits for member in members], 1))
    return tuple(value.detach().to(_home(value), torch.promote_types(value.dtype, torch.float32), copy=True) for value in both)


def _home(x: Tensor) -> torch.device:
    """Where banks of what was computed on x's device live: there, but for MPS, as heads compute in fp64 and MPS has none."""
    return torch.device("cpu") if x.device.type == "mps" else x.device
