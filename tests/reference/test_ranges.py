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
    "attnlab.losses.supcon": {"SupCon": {"temperature": "(0, ", "weight": "[0, "}},
    "attnlab.losses.spread": {"SpreadLoss": {"low": "[0, 0.99]", "high": "[0.2, inf)"}},
    "attnlab.distillation.dist": {"DIST": {"temperature": "(0, "}},
    "attnlab.distillation.dkd": {"DKD": {"temperature": "(0, ", "warmup": "[0, 1]"}},
    "attnlab.distillation.kd": {"KD": {"temperature": "(0, "}},
    "attnlab.ood.explanation": {"Explanation": {"side": "n >= 1", "components": "n >= 1"}},
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
    "attnlab.attention.cross_connections": {"CrossConnectedStage": {"paths": "n >= 1", "reduction": "n >= 1"}},
    "attnlab.attention.human_prior": {"HumanPriorAttention": {"spread": "(0, inf)", "absent": "[0, 1]"}},
    "attnlab.attention.multi_path": {
        "DynamicMultiPath": {"paths": "n >= 1", "hidden": "n >= 1", "target_share": "[0, 1]", "budget": "[0, inf)", "category": "[0, inf)"}
    },
    "attnlab.attention.pyramid": {"AttentionPyramid": {"reduction": "n >= 1"}},
    "attnlab.attention.se1c": {"SE1C": {"kernel": "n >= 1"}},
    "attnlab.regularizers.advanced_dropout": {"AdvancedDropout": {"reduction": "n >= 1"}},
    "attnlab.distillation.oskd": {"OSKD": {"weight": "[0, ", "neighbours": "n >= 1"}},
    "attnlab.ood.convex_hull": {"ConvexHull": {"samples": "n >= 1", "steps": "n >= 1"}},
    "attnlab.ood.explanation_autoencoder": {"ExplanationAutoencoder": {"hidden": "n >= 1", "epochs": "n >= 1"}},
    "attnlab.ood.explanation_forest": {"ExplanationForest": {"trees": "n >= 1"}},
    "attnlab.explainers.erase_refine": {"EraseAndRefine": {"rounds": "n >= 1", "threshold": "(0, 1]"}},
    "attnlab.explainers.klfds": {"Klfds": {"penalty": "(0, ", "kernel_width": "(0, "}},
    "attnlab.explainers.latent_path": {
        "LatentPath": {"steps": "n >= 1", "batch_size": "n >= 2", "num_latent": "n >= 1", "num_points": "n >= 3", "num_images": "n >= 1"}
        | {"path_steps": "n >= 0", "lr": "(0, ", "path_lr": "(0, ", "beta": "[0, ", "entropy": "[0, "}
    },
    "attnlab.explainers.lime": {"Lime": {"kernel_width": "(0, ", "alpha": "(0, "}},
    "attnlab.explainers.lrp": {"LRP": {"epsilon": "(0, ", "gamma": "[0, "}},
    "attnlab.explainers.mask": {
        "OptimisedMask": {"num_cells": "n >= 1", "steps": "n >= 1", "num_pairs": "n >= 1", "lr": "(0, ", "sigma": "(0, "}
        | {name: "[0, " for name in ("area", "tv", "jitter", "blur")}
    },
    "attnlab.explainers.mfpp": {"Mfpp": {"num_levels": "n >= 1", "num_segments": "n >= 1", "keep": "(0, 1]", "smoothing": "[0, "}},
    "attnlab.explainers.sagen": {
        "Sagen": {"steps": "n >= 1", "batch_size": "n >= 2", "num_images": "n >= 1", "min_zoom": "(0, 1]", "lr": "(0, "}
        | {name: "[0, " for name in ("similar", "adversarial", "reconstruction", "difference", "rotation")}
    },
    "attnlab.explainers.surrogate": {"SuperpixelSurrogate": {"num_samples": "n >= 2", "num_segments": "n >= 2"}},
    "attnlab.heads.gated_attention": {"GatedAttentionPool": {"hidden": "n >= 1"}},
    "attnlab.heads.vector_quantised": {
        "CodeOccurrenceHead": {"codes": "n >= 1", "code_dim": "n >= 1", "commitment": "[0, inf)", "decay": "[0, 1)", "restart": "[0, 1)"}
    },
    "attnlab.heads.weighted_region": {
        "WeightedRegions": {"grid": "n >= 1", "hidden": "n >= 1"} | {name: "[0, inf)" for name in ("regions", "rank", "error")}
    },
    "attnlab.convolutions.shift_attention": {"ShiftAttentionConv2d": {"start": "(0, inf)", "end": "(0, inf)"}},
    "attnlab.callbacks.activation_density": {"ActivationDensity": {"tolerance": "(0, ", "patience": "n >= 1", "stop": "[0, 1]"}},
    "attnlab.callbacks.hardware_ranking": {"HardwareRanking": {"batch": "n >= 1", "repeats": "n >= 1", "weight": "[0, "}},
    "attnlab.callbacks.layer_removal": {"LayerRemoval": {"blocks": "n >= 1", "prune": "[0, 1)", "num": "n >= 2"}},
    "attnlab.callbacks.magnitude_pruning": {"MagnitudePruning": {"rate": "(0, 1)", "rewind": "[0, 1)"}},
    "attnlab.callbacks.majority_vote": {"MajorityVote": {"share": "[0, 1)", "start": "[0, 0.7]", "stop": "[0.1, 1]"}},
    "attnlab.callbacks.mc_dropout": {"MCDropout": {"passes": "n >= 1"}},
    "attnlab.callbacks.rank_shrinkage": {"RankShrinkage": {"weight": "[0, ", "energy": "(0, 1]"}},
    "attnlab.callbacks.slimming": {"Slimming": {"weight": "[0, ", "rate": "[0, 1)", "prune": "[0, 1]"}},
    "attnlab.callbacks.snapshots": {"Snapshots": {"members": "n >= 1"}},
    "attnlab.callbacks.weight_centring": {"WeightCentring": {"max_norm": "(0, "}},
    "attnlab.algorithms.adversarial_training": {
        "AdversarialTraining": {"epsilon": "(0, ", "step": "(0, ", "steps": "n >= 1", "clean": "[0, 1]"}
    },
    "attnlab.algorithms.glico": {"GLICO": {"code": "n >= 1", "width": "n >= 1", "noise": "[0, ", "gamma": "[0, ", "start": "[0, 1)"}},
    "attnlab.algorithms.joint_ensemble": {"JointEnsemble": {"members": "n >= 2", "pca": "[0, 1]"}},
    "attnlab.algorithms.label_improvement": {"LabelImprovement": {"confidence": "[0, 1]", "held_out": "[0, 1)"}},
    "attnlab.algorithms.lrp_guided": {"LRPGuided": {"weight": "[0, ", "epsilon": "(0, "}},
    "attnlab.algorithms.mltp": {"MLTP": {"alpha": "[0, ", "beta": "[0, "}},
    "attnlab.algorithms.on_manifold": {
        "OnManifold": {"code": "n >= 1", "width": "n >= 1", "rate": "(0, ", "steps": "n >= 0", "weight": "[0, ", "start": "[0, 1)"}
    },
    "attnlab.algorithms.population_gradient": {"PopulationGradient": {"population": "n >= 1", "sigma": "[0, inf)"}},
    "attnlab.algorithms.transformation_regression": {
        "TransformationRegression": {"angle": "[0, 180)", "shift": "[0, 1)", "scale": "[0, inf)"}
    },
}
VECTORS = {"LearnToPayAttention", "FinalBatchNorm", "MultiOrderHead", "PrototypeHead", "CosineHead", "SSAL", "ProbabilityGuidedMaxout"}
VECTORS |= {"CodeOccurrenceHead", "WeightedRegions"}


def given(cls: type) -> dict[str, object]:
    """What the framework would fill in, as far as it is asked for."""
    hosts = {"ProbabilityGuidedMaxout": nn.Linear(6, 3), "CrossConnectedStage": nn.Sequential(nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1))}
    host = hosts.get(cls.__name__, nn.Conv2d(8, 2, 3))
    offers = {"shape": (6,) if cls.__name__ in VECTORS else (8, 8, 8), "num_classes": 3, "dim": 6, "host": host}
    offers |= {"read_shapes": [(6, 8, 8)] * (1 if cls.__name__ in ("CodeOccurrenceHead", "WeightedRegions") else 2)}
    offers |= {"mean": [0.5] * 8, "std": [0.2] * 8, "train_size": 4, "train_images": list, "make_peer": lambda: nn.Linear(6, 3)}
    offers |= {"num_samples": 9, "num_segments": 4, "superpixels": "grid", "seed": 0} if cls.__name__ == "SuperpixelSurrogate" else {}
    takes = inspect.signature(cls).parameters
    norms = ("SkewnessReducedBatchNorm2d", "GroupNorm", "FilteredBatchNorm2d", "DynamicResidual", "DynamicMultiPath")
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
