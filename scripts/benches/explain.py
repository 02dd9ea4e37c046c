"""Explanations: deletion and insertion of a batch beside the authors' loop over images; IG and SmoothGrad beside captum's."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benches.common import Options, Table, alternate
from benches.common import seconds as wall_seconds

TITLE = "Explanations (images 3x32x32, steps of a row)"
SHAPE = (3, 32, 32)


def seconds(work: Callable[[], Any], device: torch.device) -> float:
    """On a CPU with one thread its own seconds, which what else the machine does leaves alone; else those of the clock."""
    if device.type != "cpu" or torch.get_num_threads() > 1:
        return wall_seconds(work, device)
    start = time.process_time()
    work()
    return time.process_time() - start


def single_run(model: nn.Module, image_1CHW: Tensor, map_HW: np.ndarray, mode: str, substrate: Any) -> float:
    """One image as RISE's CausalMetric has it (its `single_run`): one pass a step, the image changed through numpy between them."""
    high, wide = image_1CHW.shape[2:]
    channels, pixels, step = image_1CHW.shape[1], high * wide, wide
    with torch.no_grad():
        target = int(model(image_1CHW).argmax(1))
        num = -(-pixels // step)
        start, finish = (image_1CHW.clone(), substrate(image_1CHW)) if mode == "del" else (substrate(image_1CHW), image_1CHW.clone())
        scores = np.empty(num + 1)
        order = np.flip(np.argsort(map_HW.reshape(-1, pixels), axis=1), axis=-1)
        for i in range(num + 1):
            scores[i] = float(model(start)[0, target])
            if i < num:
                coords = order[:, step * i : step * (i + 1)]
                changed = start.cpu().numpy().reshape(1, channels, pixels)
                changed[0, :, coords] = finish.cpu().numpy().reshape(1, channels, pixels)[0, :, coords]
                start = torch.from_numpy(changed.reshape(1, channels, high, wide)).to(image_1CHW)
    return (scores.sum() - scores[0] / 2 - scores[-1] / 2) / num


def measure(options: Options) -> tuple[dict[str, Any], Table]:
    from attnlab.evaluation.faithfulness import blurred, deletion_insertion
    from attnlab.explainers.ig import IntegratedGradients
    from attnlab.explainers.smooth_grad import SmoothGrad

    device = options.torch_device
    images, few, rounds = (64, 2, 3) if options.quick else (256, 8, 5)
    x = torch.randn(images, *SHAPE, generator=torch.Generator().manual_seed(0)).to(device)
    heat = torch.rand(images, 1, *SHAPE[1:], generator=torch.Generator().manual_seed(1)).to(device)
    found: dict[str, Any] = {"images": images, "images_of_the_loop": few}
    table: Table = [["", "ms an image", "beside", "ratio"]]
    for name, network in _networks(device).items():
        model = nn.Sequential(_Logits(network), nn.Softmax(dim=1)).eval()
        substrates = {"del": torch.zeros_like, "ins": blurred}

        def ours(network: nn.Module = network) -> float:
            return seconds(lambda: deletion_insertion(network, x, heat), device) / images

        def theirs(model: nn.Module = model, substrates: dict = substrates) -> float:
            def loop() -> None:
                for i in range(few):
                    for mode, substrate in substrates.items():
                        single_run(model, x[i : i + 1], heat[i, 0].cpu().numpy(), mode, substrate)

            return seconds(loop, device) / few

        pair = alternate({"ours": ours, "theirs": theirs}, rounds=rounds)
        areas = deletion_insertion(network, x[:few], heat[:few])
        expected = [
            [single_run(model, x[i : i + 1], heat[i, 0].cpu().numpy(), mode, s) for i in range(few)] for mode, s in substrates.items()
        ]
        apart = float((torch.stack(areas[:2]).cpu().double() - torch.tensor(expected)).abs().max())
        ratio = pair["theirs"] / pair["ours"]
        found[f"deletion_insertion_{name}"] = {"ours": pair["ours"], "authors": pair["theirs"], "ratio": ratio, "apart": apart}
        words = [f"deletion and insertion, {name}", f"{1e3 * pair['ours']:.1f}", f"authors' loop {1e3 * pair['theirs']:.1f}"]
        table.append([*words, f"{ratio:.1f} times as fast"])

    try:
        from captum.attr import IntegratedGradients as CaptumIG
        from captum.attr import NoiseTunnel, Saliency
    except ImportError:
        table.append(["IG, SmoothGrad", "", "captum is not installed", ""])
        return found, table
    some = x[: 4 if options.quick else 16]
    target = torch.zeros(len(some), dtype=torch.long, device=device)
    name, network = next(iter(_networks(device).items()))
    plain = _Logits(network).eval()
    noisy = {"nt_type": "smoothgrad", "nt_samples": 50, "stdevs": 0.5, "abs": False}
    contests = {
        "IG, 50 points": (
            lambda: IntegratedGradients(steps=50).attribute(network, some, target),
            lambda: CaptumIG(plain).attribute(some, target=target, n_steps=50),
        ),
        "SmoothGrad, 50 draws": (
            lambda: SmoothGrad(num_draws=50).attribute(network, some, target),
            lambda: NoiseTunnel(Saliency(plain)).attribute(some, target=target, **noisy),
        ),
    }
    for label, (mine, captums) in contests.items():
        runs = {"ours": lambda work=mine: seconds(work, device), "captum": lambda work=captums: seconds(work, device)}
        pair = {key: value / len(some) for key, value in alternate(runs, rounds=rounds).items()}
        ratio = pair["captum"] / pair["ours"]
        found[label] = {**pair, "ratio": ratio, "images": len(some), "network": name}
        table.append([f"{label}, {name}", f"{1e3 * pair['ours']:.1f}", f"captum {1e3 * pair['captum']:.1f}", f"{ratio:.2f} times as fast"])
    return found, table


class _Logits(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x).logits


def _networks(device: torch.device) -> dict[str, nn.Module]:
    from attnlab.backbones.cnn3 import cnn3
    from attnlab.backbones.resnet import resnet18
    from attnlab.network import Network

    torch.manual_seed(0)
    backbones = {"ResNet-18 of width 16": resnet18(10, SHAPE, width=16), "cnn3 of width 16": cnn3(10, SHAPE, width=16)}
    return {name: Network(backbone, shape=SHAPE, num_classes=10).to(device).eval() for name, backbone in backbones.items()}
