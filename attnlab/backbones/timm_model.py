# B batch, C channels, H height, W width, D features, K classes
"""Any model of timm as a backbone, under timm's own names, with our first and last places added."""

import difflib
import hashlib
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from attnlab.backbones.head import Stem, check_images, check_sizes

log = logging.getLogger("attnlab")


class Places:
    """Mixed into the class of a timm model: its forward, with the places `input`, `features`, `fc` and, where asked for, `bottleneck`."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BD = self.forward_head(self.forward_features(self.input(x_BCHW)), pre_logits=True)
        if self.bottleneck is not None:
            x_BD = self.bottleneck(x_BD)
        return self.fc(self.features(x_BD))

    def own_names(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state dict of timm's model with its classifier, under the names here: `head.fc.weight` is `fc.weight`. Ours stays as it is."""
        if {*state} >= {"fc.weight", "fc.bias"} and self.timm_classifier != "fc":
            return dict(state)
        found = {}
        for name, value in state.items():
            if self.timm_classifier and name.startswith(f"{self.timm_classifier}."):
                name = f"fc{name.removeprefix(self.timm_classifier)}"
                value = value.flatten(1) if name == "fc.weight" else value  # of a 1x1 convolution
            elif isinstance(self, Trunk) and not name.startswith("trunk."):
                name = f"trunk.{name}"
            found[name] = value
        return found


class Trunk(nn.Module):
    """Holds a timm model that uses one of our names for a part of its own."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk

    def forward_features(self, x_BCHW: Tensor) -> Tensor:
        return self.trunk.forward_features(x_BCHW)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        return self.trunk.forward_head(x, pre_logits=pre_logits)


def timm_model(
    num_classes: int,
    shape: tuple[int, ...],
    *,
    name: str,
    pretrained: bool = False,
    weights: str | None = None,
    first_weights: bool = True,
    stem: Stem = "imagenet",
    bottleneck: int | None = None,
) -> nn.Module:
    """The timm model `name` for images of `shape` (C, H, W); forward(x_BCHW) -> logits_BK.

    timm's names stay (`layer3`, `blocks.2`, `stages.1` ...), so its weights and its documentation apply; `input` (Identity) comes first,
    `bottleneck` (Linear, where asked for), `features` (Identity, (D,), what timm gives its classifier) and `fc` (Linear) last. Models that
    call a part of their own `features` (vgg, densenet, dpn, rexnet, selecsls, inception_v4) have their names under `trunk.` instead.
    pretrained  timm's weights, downloaded once into the Hugging Face cache, without their classifier.
    weights     a file of weights of this model to start from instead, timm's or yours. Its classifier is kept where it has `num_classes`
                classes (and there is no bottleneck); where it does not fit, `fc` starts afresh, and a line in the log says so.
    first_weights  False where other weights are to come: neither `pretrained` nor `weights` is looked at.
    stem        imagenet: as timm has it. cifar: `conv1` becomes 3x3 with stride 1 (and starts afresh) and `maxpool` nothing.
    Raises ValueError for an unknown name (with the nearest), images the model cannot take, vectors, a stem it does not have, weights that
    do not exist, cannot be fetched or are another model's.
    """
    import timm

    pretrained, weights = pretrained and first_weights, weights if first_weights else None
    check_images("timm", shape, stem=stem)  # how small an image may be, only a pass can tell
    check_sizes(num_classes=num_classes, bottleneck=bottleneck)
    if ":" not in name and not timm.is_model(name.split(".")[0]):
        close = difflib.get_close_matches(name, timm.list_models(), n=5, cutoff=0.5)
        raise ValueError(f"timm has no model {name!r}; nearest: {', '.join(close) or 'none, see timm.list_models()'}")
    options: dict[str, Any] = {"num_classes": 0, "in_chans": shape[0]}
    if weights is not None:
        if not os.path.isfile(weights):
            raise ValueError(f"model.weights: no file {weights}; give a .safetensors or .pth file of timm's weights of {name}")
        options["pretrained_cfg_overlay"] = {"file": weights}
    model = _create(name, shape, pretrained or weights is not None, options)
    if weights is not None:
        _check_weights(model, name, weights)
    if stem == "cifar":
        _set_cifar_stem(model, name)

    classifier = model.pretrained_cfg.get("classifier")
    own = {"input", "features", "bottleneck"} | (set() if isinstance(getattr(model, "fc", None), nn.Identity) else {"fc"})
    if any(hasattr(model, place) for place in own):
        model = Trunk(model)
    dim = _feature_dim(model, name, shape)
    model.input = nn.Identity()
    model.bottleneck = None if bottleneck is None else nn.Linear(dim, bottleneck)
    model.features = nn.Identity()
    model.fc = nn.Linear(bottleneck or dim, num_classes)
    model.__class__ = type(type(model).__name__, (Places, type(model)), {})
    model.timm_classifier = classifier if isinstance(classifier, str) else ""
    if weights is not None:
        _keep_classifier(model, weights)
    return model


def _create(name: str, shape: tuple[int, ...], pretrained: bool, options: dict[str, Any]) -> nn.Module:
    """timm.create_model with the image size where the model takes one; weights that it fetches are those that their name promises."""
    import timm

    timm.models.set_pretrained_check_hash(True)  # for weights by URL, whose file names carry a part of their SHA-256
    try:
        try:
            model = timm.create_model(name, pretrained=pretrained, img_size=tuple(shape[1:]), **options)
        except TypeError as error:
            if "img_size" not in str(error):
                raise
            model = timm.create_model(name, pretrained=pretrained, **options)
        if pretrained and "pretrained_cfg_overlay" not in options:
            check_cached(timm.get_pretrained_cfg(name))
        return model
    except Exception as error:  # timm, its hub client and its file readers each raise their own kinds
        reason = f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"
        if not pretrained:
            raise ValueError(f"timm cannot build {name} for images {tuple(shape)}: {reason}") from error
        if file := options.get("pretrained_cfg_overlay", {}).get("file"):
            raise ValueError(f"model.weights: {file} does not load as weights of {name}: {reason}") from error
        config = timm.get_pretrained_cfg(name)
        if not getattr(config, "has_weights", True):
            raise ValueError(f"timm has no pretrained weights for {name}; use model.pretrained=false") from error
        source = getattr(config, "hf_hub_id", None) or name
        raise ValueError(
            f"the pretrained weights of {name} could not be fetched ({reason}). Without a network: put {source} into Hugging Face's cache "
            f"(HF_HOME, ~/.cache/huggingface by default), or download its model.safetensors elsewhere and give model.weights=FILE"
        ) from error


def check_cached(config: Any) -> None:
    """ValueError: a file of weights in the Hugging Face cache is not what the hub sent. The cache names a file of weights by the SHA-256
    that the hub states for it; its client compares sizes alone. Small files that go by another name are left unchecked."""
    from huggingface_hub import try_to_load_from_cache

    for file in ("model.safetensors", "pytorch_model.bin"):
        path = try_to_load_from_cache(config.hf_hub_id, file) if getattr(config, "hf_hub_id", None) else None
        if not isinstance(path, str):
            continue
        blob = Path(path).resolve()
        with open(blob, "rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
        if re.fullmatch("[0-9a-f]{64}", blob.name) and found != blob.name:
            raise ValueError(f"{blob} has the SHA-256 {found[:12]}; it is damaged or was exchanged, remove it")


def _check_weights(model: nn.Module, name: str, weights: str) -> None:
    """timm skips names that a file lacks; a file of another model would leave the network as it started, silently."""
    from timm.models import load_state_dict

    names, given = set(model.state_dict()), set(load_state_dict(weights))
    if len(names & given) < len(names) / 2:
        raise ValueError(f"model.weights: {weights} has {len(names & given)} of the {len(names)} tensors of {name}; it is another model's")


def _keep_classifier(model: nn.Module, weights: str) -> None:
    """The classifier of a file of weights becomes `fc`, if it fits."""
    from timm.models import load_state_dict

    given = model.own_names(load_state_dict(weights, weights_only=True))
    state = {name: given[f"fc.{name}"] for name in model.fc.state_dict() if f"fc.{name}" in given}
    if model.bottleneck is None and {name: value.shape for name, value in state.items()} == {
        name: value.shape for name, value in model.fc.state_dict().items()
    }:
        model.fc.load_state_dict(state)
        log.info("model.weights: fc is the classifier of %s", weights)
        return
    theirs = f"is of {len(state['weight'])} classes" if "weight" in state else "is not in it"
    why = "a bottleneck stands before fc" if model.bottleneck is not None else f"the one of {weights} {theirs}"
    log.warning("model.weights: fc, of %d classes, starts afresh: %s", model.fc.out_features, why)


def _set_cifar_stem(model: nn.Module, name: str) -> None:
    conv = getattr(model, "conv1", None)
    if not isinstance(conv, nn.Conv2d) or not hasattr(model, "maxpool"):
        raise ValueError(
            f"model=timm with stem=cifar needs a model with `conv1` and `maxpool`, such as resnet18; {name} has none: use imagenet"
        )
    model.conv1 = nn.Conv2d(conv.in_channels, conv.out_channels, 3, stride=1, padding=1, bias=conv.bias is not None)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()


def _feature_dim(model: nn.Module, name: str, shape: tuple[int, ...]) -> int:
    """D, from a pass in eval mode; models state it under several names, and some refuse small images only here."""
    model.eval()
    try:
        with torch.no_grad():
            features = model.forward_head(model.forward_features(torch.zeros(1, *shape)), pre_logits=True)
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"timm's {name} cannot take images {tuple(shape)}: {reason}") from error
    finally:
        model.train()
    if features.dim() != 2:
        raise ValueError(f"timm's {name} gives values of shape {tuple(features.shape[1:])} before its classifier; attnlab needs a vector")
    return features.shape[1]
