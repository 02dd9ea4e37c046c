"""Piece 1: does it work there at all? The main job, every component compiled, augmentation, precisions, a kill and its repair."""

import time
from typing import Any

import torch

from gpu_day.child import Day, Part

TOY = ["model.width=4", "trainer.max_epochs=1", "data.limit=128"]


def parts(toy: bool) -> list[Part]:
    return [
        Part("main job", main_job, 60),
        Part("augmentation as on the CPU", augmentation, 10),
        Part("fp32 beside the default precision", precisions, 60),
        Part("killed and resumed", killed, 100),
    ]


def main_job(day: Day, *words: str) -> dict[str, Any]:
    """README's command: accuracy, precision, the seconds of its stages."""
    (record,) = day.train("model=resnet18", "attention=rect", *words, *(TOY if day.toy else []))
    if not day.toy and record["metrics"]["test/acc"] < 0.97:
        raise RuntimeError(f"test/acc {record['metrics']['test/acc']:.4f}, where a CPU has .98")
    kept = ("metrics", "device", "precision", "seconds", "images_per_second", "stage_seconds", "wall_seconds", "versions")
    return {key: record[key] for key in kept}


def precisions(day: Day) -> dict[str, Any]:
    """The main job in fp32, and how far apart the two are."""
    found = main_job(day, "trainer.precision=32")
    default = day.found("smoke", "main job")
    ours, theirs = found["metrics"]["test/acc"], default.get("metrics", {}).get("test/acc")
    return {
        "fp32": found,
        "default_precision": default.get("precision"),
        "accuracy_over_default": None if theirs is None else ours - theirs,
    }


def augmentation(day: Day) -> dict[str, Any]:
    """An epoch's batches on the device and on the CPU: the same draws, so the same images up to a rounding of x * scale + bias."""
    from attnlab.data.loader import ResidentLoader
    from benches.common import random_images

    device = day.options.torch_device
    images, labels = random_images(1024, (3, 32, 32))
    options = dict(
        batch_size=128, mean=(0.49, 0.48, 0.45), std=(0.25, 0.24, 0.26), unit=255.0, shuffle=True, drop_last=True, pad=4, flip=True
    )
    pairs = zip(ResidentLoader(images, labels, device=device, **options), ResidentLoader(images, labels, device="cpu", **options))
    largest, same = 0.0, True
    for (x, y), (other_x, other_y) in pairs:
        largest = max(largest, float((x.cpu() - other_x).abs().max()))
        same = same and torch.equal(y.cpu(), other_y)
    if not same or largest > 1e-6:
        raise RuntimeError(f"batches differ by {largest}; labels equal: {same}")
    if device.type == "cpu":
        day.left_out.append("smoke: augmentation on CUDA")
    return {"device": str(device), "largest_difference": largest}


def killed(day: Day) -> dict[str, Any]:
    """A run that is killed (SIGKILL) after its first checkpoint and repeated, beside one that is left alone."""
    small = ["model.width=4", "data.limit=256", "trainer.max_epochs=3"] if day.toy else ["data.size=32", "trainer.max_epochs=40"]
    words = ["model=resnet18", *small, "evaluator=none", "trainer.checkpoint_seconds=0"]
    outputs = day.outputs / "killed"
    process = day.start(*words, outputs=outputs)
    while process.poll() is None and not list(outputs.glob("runs/*/last.ckpt")):
        time.sleep(0.02)
    process.kill()
    process.communicate()
    (resumed,) = day.train(*words, outputs=outputs)
    (alone,) = day.train(*words, outputs=day.outputs / "alone")
    weights = [
        torch.load(next((day.outputs / name).glob("runs/*/last.ckpt")), weights_only=True, map_location="cpu")
        for name in ("killed", "alone")
    ]
    ours, theirs = (checkpoint["state_dict"] for checkpoint in weights)
    equal = all(torch.equal(ours[name], theirs[name]) for name in theirs)
    if resumed["epochs"] != alone["epochs"] or (day.toy and not equal):
        raise RuntimeError(f"epochs {resumed['epochs']} and {alone['epochs']}; equal weights: {equal}")
    accuracies = {"resumed": resumed["metrics"]["test/acc"], "alone": alone["metrics"]["test/acc"]}
    return {**accuracies, "equal_to_the_bit": equal, "killed_in_time": process.returncode < 0}
