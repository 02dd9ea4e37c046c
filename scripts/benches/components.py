"""What each attention, regularizer and loss adds to a training step of ResNet-18: one step with it beside one without it, in turns.

The median of the ratios of neighbouring steps: a machine may change within seconds by more than most components cost.
"""

import statistics
from typing import Any

import torch

from benches.common import Options, Table, resident, seconds

TITLE = "What a component adds to a step of ResNet-18 (3x32x32), per cent of the step without it (medians of pairs)"
SHAPE = (3, 32, 32)
DESCRIBED = {  # a data set, as a record describes one
    "shape": SHAPE, "classes": list("0123456789"), "mean": (0.5,) * 3, "std": (0.25,) * 3, "images": {"train": 128_000}
}  # fmt: skip
CHOICES = (
    "attention=rect", "attention=position", "attention=se", "attention=eca", "attention=cbam", "attention=coord",
    "regularizer=maxdropout", "regularizer=dropout", "regularizer=dropblock", "regularizer=cutout", "regularizer=random_erasing",
    "regularizer=mixup", "regularizer=cutmix", "regularizer=norm_loss", "regularizer=advanced_dropout", "loss=large_margin",
)  # fmt: skip
FIRST = ("attention=rect", "attention=position", "regularizer=maxdropout", "loss=large_margin")  # those with a target; all of --quick


class Step:
    """`seconds()`: one training step of attnlab's Learner on a ready batch, without Lightning around it."""

    def __init__(self, choice: str | None, batch: Any, settings: Any, times: int, *, width: int = 64) -> None:
        from attnlab.config.compose import compose
        from attnlab.pipeline.factory import make_learner
        from attnlab.pipeline.load import RecordedData
        from attnlab.training.epoch import Batch, EpochSums

        words = ["data=digits", "data.size=32", "model=resnet18", "model.bottleneck=30", f"model.width={width}", "logger=none"]
        plan = compose([*words, *([choice] if choice else [])])
        self.learner = make_learner(plan, RecordedData(DESCRIBED, {"batch_size": 128}), settings).to(settings.device)
        self.learner.steps_per_epoch = 1000
        self.learner.configure_optimizers()
        self.learner.prepare()
        self.totals = EpochSums()
        if settings.compile_mode:
            self.learner.compile_objective(mode=settings.compile_mode)
        self.learner.train()
        self.batch, self.times, self.device = Batch(*batch), times, settings.device

    def seconds(self) -> float:
        return seconds(self.work, self.device) / self.times

    def work(self) -> None:
        for _ in range(self.times):
            self.learner.step(self.batch, self.totals)


def measure(options: Options) -> tuple[dict[str, Any], Table]:
    threads = torch.get_num_threads()
    if options.torch_device.type == "cpu":
        torch.set_num_threads(1)  # two threads that wait for each other feel everything else that runs on a machine
    try:
        return _measure(options, gpu=options.torch_device.type == "cuda")
    finally:
        torch.set_num_threads(threads)


def _measure(options: Options, *, gpu: bool) -> tuple[dict[str, Any], Table]:
    size, times = (128, 20) if gpu else (8, 1)
    choices = FIRST if options.quick else CHOICES
    modes = ("off", "default") if gpu or options.compiled else ("off",)
    found: dict[str, Any] = {"batch_size": size, "threads": torch.get_num_threads()}
    columns: list[list[str]] = [["", *choices]]
    for mode in modes:
        settings = options.settings(compile=mode, max_epochs=10)
        column = ["eager" if mode == "off" else f"compile {mode}"]
        for choice in choices:
            if mode != "off" and not gpu and choice not in FIRST:
                column.append("")
                continue
            found.setdefault(choice, {})[mode] = row = one(options, choice, settings, size=size, times=times)
            column.append(f"{100 * row['added']:+.1f} %")
        columns.append(column)
    return found, [list(row) for row in zip(*columns)]


def one(options: Options, choice: str, settings: Any, *, size: int, times: int) -> dict[str, Any]:
    """What one component adds, as a share of the step without it."""
    ratios: list[float] = []
    for turn in range(2 if options.quick else 4):  # fresh networks each time: where they happen to lie in memory matters too
        batch = next(iter(resident(4 * size, SHAPE, batch_size=size, device=settings.device, pad=4, flip=True)))
        rounds, width = 5 if options.quick else 8, 4 if options.toy else 64
        ratios += _ratios(choice, batch, settings, times, rounds=rounds, reverse=turn % 2 == 1, width=width)
    quarters = statistics.quantiles(ratios, n=4)
    return {"added": statistics.median(ratios) - 1, "quartiles": [quarters[0] - 1, quarters[2] - 1], "pairs": len(ratios)}


def _ratios(choice: str, batch: Any, settings: Any, times: int, *, rounds: int, reverse: bool, width: int) -> list[float]:
    """Seconds of a step with the component over those of the step without it that was made next to it."""
    torch.manual_seed(0)
    order = (choice, None) if reverse else (None, choice)
    steps = {name: Step(name, batch, settings, times, width=width) for name in order}
    found = []
    for turn in range(2 + rounds):
        seconds = {name: steps[name].seconds() for name in (order if turn % 2 else order[::-1])}
        if turn >= 2:
            found.append(seconds[choice] / seconds[None])
    return found
