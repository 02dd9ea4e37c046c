"""Piece 8: where time is left: large margin and Learn To Pay Attention on CIFAR-10 as JPEG, rectangles on all cluttered digits."""

from functools import partial
from typing import Any

from gpu_day.child import Day, Part
from gpu_day.maxdropout import packed

LTPA = {
    "VGG": ["model=vgg_bn_drop"],
    "att1": ["model=vgg_ltpa", "attention=[ltpa,ltpa_merge]", "attention.ltpa.reads=[tap3]"],
    "att2": ["model=vgg_ltpa", "attention=[ltpa,ltpa_merge]", "attention.ltpa.reads=[tap2,tap3]"],
    "att3": ["model=vgg_ltpa", "attention=[ltpa,ltpa_merge]"],
}


def parts(toy: bool) -> list[Part]:
    rates = {"lr .001": ["optimizer.lr=0.001"], "lr .1, clipped": ["optimizer.lr=0.1", "trainer.gradient_clip=10"]}
    found = [Part(f"large margin, {name}", partial(large_margin, rate=rate), 250, goes_on=True) for name, rate in rates.items()]
    found += [Part(f"learn to pay attention, {name}", partial(ltpa, row=row), 250, goes_on=True) for name, row in LTPA.items()]
    found += [Part(f"cluttered digits, seed {seed}", partial(rect, seed=seed), 60, goes_on=True) for seed in range(3)]
    return [found[1], found[5], found[6]] if toy else found


def large_margin(day: Day, *, rate: list[str]) -> dict[str, Any]:
    return packed(day, "experiment=large_margin/cifar10", *day.on_images(), "loss=ce,large_margin", *rate, epochs=200, seed=0)


def ltpa(day: Day, *, row: list[str]) -> dict[str, Any]:
    images = [word for word in day.on_images() if not word.startswith("data.crop")]
    return packed(day, "experiment=ltpa/cifar", *images, *row, epochs=300, seed=0)


def rect(day: Day, *, seed: int) -> dict[str, Any]:
    return packed(day, "experiment=rect/cluttered_digits", "attention=none,position,rect", epochs=12, seed=seed)
