"""Captum (0.9, the extra `explain`), the one place where it is used: surrogate models of LIME and KernelSHAP.

Only the surrogate is captum's: what it samples and how it fits. Its gradient methods are here without it (a test compares them), as they
then meet functional ReLUs too.   Legend: K superpixels, N samples; z: 1 where a superpixel is shown.
"""

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from attnlab.explainers.surrogate import Score


def check_captum(name: str) -> None:
    """Raise ValueError, in a line that says what to do, where captum is not installed. Nothing is imported."""
    if importlib.util.find_spec("captum") is None:
        raise ValueError(f'explainer={name} needs captum, which is not installed: pip install -e ".[explain]"')


def ridge_surrogate(score: Score, num: int, *, similarity: Callable[[Tensor], Tensor], alpha: float, num_samples: int, seed: int) -> Tensor:
    """Coefficients (K,) of captum's Lime: z_i ~ Bernoulli(1/2), weights similarity(z_1K), ridge regression with an intercept."""
    from captum._utils.models.linear_model import SkLearnRidge
    from captum.attr import Lime

    options = {"interpretable_model": SkLearnRidge(alpha=alpha), "similarity_func": lambda original, hidden, z, **_: similarity(z)}
    return _coefficients(Lime(score, **options), num, num_samples, seed)


def shapley_surrogate(score: Score, num: int, *, num_samples: int, seed: int) -> Tensor:
    """Coefficients (K,) of captum's KernelShap: z drawn by the Shapley kernel, the all-shown and all-hidden images held fixed."""
    from captum.attr import KernelShap

    return _coefficients(KernelShap(score), num, num_samples, seed)


def _coefficients(method: Any, num: int, num_samples: int, seed: int) -> Tensor:
    with torch.random.fork_rng(devices=[]):  # captum draws on the CPU from the process's generator
        torch.default_generator.manual_seed(seed)
        return method.attribute(torch.ones(1, num), n_samples=num_samples, perturbations_per_eval=num_samples)[0]
