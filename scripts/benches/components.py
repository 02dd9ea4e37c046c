"""What each attention, regularizer and loss adds to a training step of ResNet-18: one step with it beside one without it, in turns.

The fastest of many steps each, not the median: what else runs on a machine only ever adds, and more than most components do.
"""

from typing import Any

import torch

from benches.common import Options, Table, alternate, resident, seconds

TITLE = "What a component adds to a step of ResNet-18 (3x32x32), per cent of the step without it (fastest of each)"
SHAPE = (3, 32, 32)
CHOICES = (
    "attention=rect", "attention=position", "attention=se", "attention=eca", "attention=cbam", "attention=coord",
    "regularizer=maxdropout", "regularizer=dropout", "regularizer=dropblock", "regularizer=cutout", "regularizer=random_erasing",
    "regularizer=mixup", "regularizer=cutmix", "regularizer=norm_loss", "regularizer=advanced_dropout", "loss=large_margin",
)  # fmt: skip
FIRST = ("attention=rect", "attention=position", "regularizer=maxdropout", "loss=large_margin")  # those with a target; all of --quick


class Step:
    """`seconds()`: one training step of attnlab's Learner on a ready batch, without Lightning around it."""

    def __init__(self, choice: str | None, batch: Any, settings: Any, times: int) -> None:
        from attnlab.config import compose
        from attnlab.learner import Tally
        from attnlab.parts import make_learner

        words = ["data=digits", "data.size=32", "model=resnet18", "model.bottleneck=30", "logger=none"]
        plan = compose([*words, *([choice] if choice else [])])
        self.learner = make_learner(plan, Shape(), settings).to(settings.device)
        self.learner.steps_per_epoch = 1000
        self.optimizer, self.tally = self.learner.configure_optimizers(), Tally()
        if settings.compile_mode:
            self.learner.compile_objective(mode=settings.compile_mode)
        self.learner.train()
        self.batch, self.times, self.device = batch, times, settings.device

    def seconds(self) -> float:
        return seconds(self.work, self.device) / self.times

    def work(self) -> None:
        for _ in range(self.times):
            self.learner.step(*self.batch, self.optimizer, self.tally)


class Shape:
    """What a learner asks of the data."""

    shape = SHAPE
    num_classes = 10


def measure(options: Options) -> tuple[dict[str, Any], Table]:
    gpu = options.torch_device.type == "cuda"
    size, times = (128, 20) if gpu else (8, 1)
    rounds = (5 if options.quick else 15) if gpu else (6 if options.quick else 25)
    choices = FIRST if options.quick else CHOICES
    modes = ("off", "default") if gpu or options.compiled else ("off",)
    found: dict[str, Any] = {"batch_size": size}
    columns: list[list[str]] = [["", *choices]]
    for mode in modes:
        settings = options.settings(compile=mode, max_epochs=10)
        batch = next(iter(resident(4 * size, SHAPE, batch_size=size, device=settings.device, pad=4, flip=True)))
        column = ["eager" if mode == "off" else f"compile {mode}"]
        for choice in choices:
            if mode != "off" and not gpu and choice not in FIRST:
                column.append("")
                continue
            torch.manual_seed(0)
            # in pairs: the machine may change between two components, and does
            pair = {"without": Step(None, batch, settings, times).seconds, "with": Step(choice, batch, settings, times).seconds}
            fastest = alternate(pair, rounds=rounds, warmup=3, pick=min)
            added = fastest["with"] / fastest["without"] - 1
            found.setdefault(choice, {})[mode] = {"added": added, "step_seconds": fastest["without"]}
            column.append(f"{100 * added:+.1f} %")
        columns.append(column)
    return found, [list(row) for row in zip(*columns)]
