"""Where the range of an argument ends: what lies on a closed end or just inside an open one is taken, what lies beyond is refused.

RANGES holds module, class, argument and its interval; "n >= 2" is that of a whole number.
"""

import importlib
import inspect
import math

import pytest
from torch import nn

RANGES: dict[str, dict[str, dict[str, str]]] = {
    "attnlab.attention.branch": {"AttentionBranch": {"blocks": "n >= 1", "weight": "[0, "}},
    "attnlab.attention.context_aware": {"ContextAwareResidual": {"reduction": "n >= 1", "groups": "n >= 1"}},
    "attnlab.attention.dynamic_residual": {"DynamicResidual": {"num_blocks": "n >= 1", "hidden": "n >= 1"}},
    "attnlab.attention.lmask": {"LMask": {"sparse": "[0, ", "shared": "[0, ", "start": "(0, 1)", "num_classes": "n >= 2"}},
    "attnlab.attention.ltpa": {"LearnToPayAttention": {"dropout": "[0, 1)"}},
    "attnlab.attention.position": {"PositionAttention": {"reduction": "n >= 1", "budget": "n >= 76"}},
    "attnlab.attention.rect": {
        "RectAttention": {
            "sharpness": "(0, ",
            "init_size": "(0, ",
            "reduction": "n >= 1",
            "area_weight": "[0, ",
            "equivariance_weight": "[0, ",
        }
    },
    "attnlab.attention.surround": {"InhibitorySurround": {"strength": "[0, inf)", "inner": "n >= 1"}},
    "attnlab.regularizers.adaptive_noise": {"AdaptiveNoise": {"strength": "[0, inf)", "momentum": "(0, 1]"}},
    "attnlab.regularizers.adl": {"AttentionDropout": {"drop": "[0, 1]", "threshold": "[0, 1]"}},
    "attnlab.regularizers.atac": {"ATAC": {"reduction": "n >= 1"}},
    "attnlab.regularizers.batch_drop": {"BatchDrop": {"height": "[0, 1]", "width": "[0, 1]"}},
    "attnlab.regularizers.bnsr": {"SkewnessReducedBatchNorm2d": {"power": "(0, ", "smooth": "(0, ", "eps": "(0, "}},
    "attnlab.regularizers.cutmix": {"CutMix": {"alpha": "(0, ", "prob": "[0, 1]", "num_classes": "n >= 1"}},
    "attnlab.regularizers.cutout": {"Cutout": {"length": "n >= 2"}},
    "attnlab.regularizers.dgdm": {
        "DualAttentionDropBlock": {
            "top": "(0, 1]",
            "low": "[0, 1]",
            "drop": "[0, 1]",
            "high": "[0, 1]",
            "floor": "[0, 1]",
            "seed": "[0, 1]",
        }
        | {"block": "n >= 1"}
    },
    "attnlab.regularizers.dropblock": {"DropBlock": {"drop": "[0, 1)", "block": "n >= 1"}},
    "attnlab.regularizers.dropout": {"Dropout": {"drop": "[0, 1]"}},
    "attnlab.regularizers.droppath": {"DropPath": {"drop": "[0, 1]"}},
    "attnlab.regularizers.filtered_bn": {"FilteredBatchNorm2d": {"threshold": "(0, "}},
    "attnlab.regularizers.final_bn": {"FinalBatchNorm": {"momentum": "(0, 1]", "eps": "(0, "}},
    "attnlab.regularizers.group_norm": {"GroupNorm": {"groups": "n >= 1"}},
    "attnlab.regularizers.manifold_mixup": {"ManifoldMixup": {"alpha": "(0, ", "num_classes": "n >= 1"}},
    "attnlab.regularizers.maxdropout": {"MaxDropout": {"drop": "[0, 1]"}},
    "attnlab.regularizers.mixup": {"Mixup": {"alpha": "(0, ", "num_classes": "n >= 1"}},
    "attnlab.regularizers.noisy_copies": {"NoisyCopies": {"sigma": "(0, inf)"}},
    "attnlab.regularizers.norm_loss": {"NormLoss": {"weight": "[0, "}},
    "attnlab.regularizers.pgm": {"ProbabilityGuidedMaxout": {"drop": "[0, 1]"}},
    "attnlab.regularizers.random_erasing": {
        "RandomErasing": {"prob": "[0, 1]", "min_area": "(0, 0.4]", "max_area": "[0.02, 1]", "ratio": "(0, 1]"}
    },
    "attnlab.regularizers.top_dropblock": {"TopDropBlock": {"ratio": "[0, 1)"}},
    "attnlab.regularizers.weight_align": {"WeightAlign": {"eps": "(0, "}},
    "attnlab.losses.cross_entropy": {"CrossEntropy": {"label_smoothing": "[0, 1]", "weight": "[0, "}},
    "attnlab.losses.fixed_basis": {"FixedBasis": {"weight": "[0, inf)"}},
    "attnlab.losses.gccs": {"GCCS": {"mu": "(0, inf)", "sigma": "(0, inf)", "eps": "[0, inf)", "kurtosis": "[0, inf)"}},
    "attnlab.losses.large_margin": {
        "LargeMarginLoss": {name: "[0, inf)" for name in ("delta_var", "delta_dist", "alpha", "beta", "gamma", "weight")}
        | {"momentum": "[0, 1]"}
    },
    "attnlab.losses.spread": {"SpreadLoss": {"low": "[0, 0.99]", "high": "[0.2, inf)"}},
    "attnlab.distillation.dist": {"DIST": {"temperature": "(0, "}},
    "attnlab.distillation.dkd": {"DKD": {"temperature": "(0, ", "warmup": "[0, 1]"}},
    "attnlab.distillation.kd": {"KD": {"temperature": "(0, "}},
    "attnlab.ood.knn": {"KNN": {"k": "n >= 1"}},
    "attnlab.ood.lens_depth": {"LensDepth": {"alpha": "[1, inf)", "num_centers": "n >= 2", "num_inits": "n >= 1", "block": "n >= 1"}},
    "attnlab.ood.msp": {"MSP": {"temperature": "(0, "}},
    "attnlab.ood.odin": {"ODIN": {"eps": "[0, "}},
    "attnlab.ood.react": {"ReAct": {"percentile": "[0, 1]"}},
    "attnlab.ood.vim": {"ViM": {"principal_dim": "n >= 1"}},
    "attnlab.explainers.gaussian_map": {"GaussianMap": {"spread": "(0, "}},
    "attnlab.explainers.gnl_ig": {"GuidedNonLinearity": {"steps": "n >= 1"}},
    "attnlab.explainers.ig": {"IntegratedGradients": {"steps": "n >= 1"}},
    "attnlab.explainers.occlusion": {"Occlusion": {"window": "(0, 1]", "stride": "(0, 1]"}},
    "attnlab.explainers.rise": {"Rise": {"num_masks": "n >= 1", "num_cells": "n >= 1", "keep": "(0, 1]"}},
    "attnlab.explainers.smooth_grad": {"SmoothGrad": {"num_draws": "n >= 1", "noise_level": "[0, "}},
    "attnlab.explainers.smooth_taylor": {"SmoothTaylor": {"num_draws": "n >= 1", "sigma": "[0, "}},
    "attnlab.heads.cosine": {"CosineHead": {"scale": "(0, inf)"}},
    "attnlab.heads.covariance": {
        "MultiOrderHead": {"channels": "n >= 2", "iterations": "n >= 2", "weight": "[0, inf)", "ridge": "[0, inf)"}
    },
    "attnlab.heads.prototype": {"PrototypeHead": {"prototypes": "n >= 1", "sigma": "(0, inf)"}},
    "attnlab.heads.ssal": {"SSAL": {"exponent": "[0, inf)", "width": "n >= 1"}},
    "attnlab.convolutions.bipolar": {"BipolarConv2d": {"delta": "(0, inf)"}},
    "attnlab.convolutions.quadratic": {"QuadraticConv2d": {"rank": "n >= 1"}},
    "attnlab.callbacks.channel_propagation": {"ChannelPropagation": {"rate": "[0, 1)", "decay": "[0, 1]", "warmup": "[0, 1]"}},
    "attnlab.callbacks.early_stop": {"EarlyStop": {"patience": "n >= 1", "min_delta": "[0, "}},
    "attnlab.callbacks.ema": {"EMA": {"decay": "[0, 1)"}},
    "attnlab.callbacks.norm_loss_step": {"NormLossStep": {"weight": "[0, ", "eps": "(0, "}},
    "attnlab.callbacks.projection": {"Projection": {"radius": "[0, ", "interval": "n >= 1", "freeze": "[0, 1]"}},
    "attnlab.callbacks.swa": {"SWA": {"start": "[0, 1)"}},
    "attnlab.algorithms.mean_teacher": {
        "MeanTeacher": {"decay": "[0, 1)", "weight": "[0, ", "ramp": "[0, ", "noise": "[0, ", "clustering": "[0, ", "radius": "(0, "}
        | {"clustering_start": "[0, 1]", "clustering_ramp": "[0, 1]"}
    },
    "attnlab.algorithms.sam": {"SAM": {"rho": "(0, inf)"}},
    "attnlab.evaluation.adversarial": {"Adversarial": {"epsilon": "(0, ", "step": "(0, ", "steps": "n >= 1", "num": "n >= 1"}},
    "attnlab.evaluation.calibration": {"Calibration": {"fraction": "(0, 1]"}},
    "attnlab.evaluation.sensitivity": {"Sensitivity": {"sigma": "(0, inf)"}},
    "attnlab.evaluation.transductive": {"Transductive": {"shots": "n >= 1", "neighbours": "n >= 1", "power": "n >= 1"}},
}
VECTORS = {"LearnToPayAttention", "FinalBatchNorm", "MultiOrderHead", "PrototypeHead", "CosineHead", "SSAL", "ProbabilityGuidedMaxout"}


def given(cls: type) -> dict[str, object]:
    """What the framework would fill in, as far as it is asked for."""
    host = nn.Linear(6, 3) if cls.__name__ == "ProbabilityGuidedMaxout" else nn.Conv2d(8, 2, 3)
    offers = {"shape": (6,) if cls.__name__ in VECTORS else (8, 8, 8), "num_classes": 3, "dim": 6, "host": host}
    offers |= {"read_shapes": [(6, 8, 8)] * 2, "mean": [0.5] * 8, "std": [0.2] * 8}
    takes = inspect.signature(cls).parameters
    norms = ("SkewnessReducedBatchNorm2d", "GroupNorm", "FilteredBatchNorm2d", "DynamicResidual")
    return {name: value for name, value in offers.items() if name in takes and not (name == "host" and cls.__name__ in norms)}


def ends(interval: str) -> tuple[list[float], list[float]]:
    """What is to be taken and what is to be refused."""
    if interval.startswith("n >= "):
        least = int(interval.removeprefix("n >= "))
        return [least], [least - 1]
    low, high = interval[1:-1].split(",") if interval[-1] in ")]" else (interval[1:].split(",")[0], "")
    taken, refused = [float(low)], [float(low) - 1e-3]
    if interval[0] == "(":
        taken, refused = [float(low) + 1e-6], [float(low)]
    if high.strip() == "inf":
        refused.append(math.inf)
    elif high.strip():
        inside, beyond = (float(high), float(high) + 1e-3) if interval[-1] == "]" else (float(high) - 1e-6, float(high))
        taken, refused = [*taken, inside], [*refused, beyond]
    return taken, refused


@pytest.mark.parametrize("module", RANGES)
def test_ranges(module: str) -> None:
    for name, arguments in RANGES[module].items():
        cls = getattr(importlib.import_module(module), name)
        for argument, interval in arguments.items():
            taken, refused = ends(interval)
            for value in taken:
                cls(**given(cls) | {argument: value})
            for value in [*refused, *([] if isinstance(taken[0], int) else [math.nan])]:
                with pytest.raises(ValueError):
                    cls(**given(cls) | {argument: value})
