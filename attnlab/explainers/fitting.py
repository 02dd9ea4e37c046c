"""Explainers that are fitted: a module trained on the images of a run.   Legend: B batch, C channels, H, W image size."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Batches = Callable[[Tensor], Tensor]  # positions of images (B,) -> normalised images (B, C, H, W) on the device
Loss = Callable[[nn.Module, Tensor, torch.Generator], Tensor]


def training_images(trained: Any, num: int, *, who: str) -> tuple[Batches, int]:
    """The training images of a run, unaugmented, at most `num` and every class in proportion, and how many they are.

    trained: see `attnlab.evaluation.trained.Trained`. Raises ValueError: data that are no images.
    """
    if len(trained.data.shape) != 3:
        raise ValueError(f"{who} explains images, {trained.data.name} has values of shape {tuple(trained.data.shape)}")
    images = trained.data.image_set("train", num).images
    return lambda index_B: trained.data.normalise(images[index_B]).to(trained.settings.device), len(images)


def fit_module(
    make: Callable[[int], nn.Module], loss: Loss, batches: Batches, num: int, *, steps: int, batch_size: int, lr: float, seed: int
) -> nn.Module:
    """make(channels), trained by Adam on loss(module, x_BCHW, draws) for `steps` batches drawn with replacement; in eval mode, frozen.

    Its start, the batches, what it draws itself and `draws` are by `seed`; the process's generators are left as they were. Gradients are
    of its own parameters alone, whatever else the loss runs through.
    """
    first = batches(torch.arange(1))
    draws = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[first.device] if first.device.type == "cuda" else []), torch.enable_grad():
        torch.manual_seed(seed)
        module = make(first.shape[1]).to(first).train()
        parameters = list(module.parameters())
        adam = torch.optim.Adam(parameters, lr=lr)
        for _ in range(steps):
            x_BCHW = batches(torch.randint(num, (min(batch_size, max(2, num)),), generator=draws))
            for parameter, gradient in zip(parameters, torch.autograd.grad(loss(module, x_BCHW, draws), parameters)):
                parameter.grad = gradient
            adam.step()
    for parameter in parameters:
        parameter.grad = None
    return module.eval().requires_grad_(False)
