"""What every choice of attention, regularizer and loss costs, for docs/catalogue.md: parameters on ResNet-18, exactly, and a training step.

The step is that of a ResNet-18 of a quarter of the width on batches of 16 images: on a CPU its processor seconds on one thread, which
other work on the machine hardly changes, on a GPU the clock's; the median ratio of neighbouring steps with and without the choice. The
first look, --quick, counts parameters alone.
"""

import statistics
import sys
import time
from typing import Any

import torch

from benches.common import Options, Table, resident, seconds
from benches.components import DESCRIBED, SHAPE, Step

TITLE = "What a choice adds to ResNet-18 (3x32x32, 10 classes): parameters, and per cent of a training step"
GROUPS = ("attention", "regularizer", "loss")
WIDTH, BATCH = 16, 16
NOT_HERE = {  # choices that this network cannot have, or that are nothing by themselves
    "attention/none": "is nothing",
    "attention/ltpa": "is for model=vgg_ltpa",
    "attention/ltpa_merge": "is for model=vgg_ltpa",
    "regularizer/none": "is nothing",
}


def choices() -> list[str]:
    from attnlab.config.targets import group_choices

    return [f"{group}/{name}" for group in GROUPS for name in group_choices(group)]


def parameters(choice: str | None) -> int:
    """What is trained, network and loss, of ResNet-18 with a choice at its yaml's own place."""
    from attnlab.config.compose import compose
    from attnlab.pipeline.factory import make_learner
    from attnlab.pipeline.load import RecordedData
    from attnlab.training.settings import Settings

    words = ["data=digits", "data.size=32", "model=resnet18", "logger=none", *([choice.replace("/", "=")] if choice else [])]
    with torch.random.fork_rng():
        learner = make_learner(compose(words), RecordedData(DESCRIBED, {"batch_size": 128}), Settings(accelerator="cpu"))
    return sum(parameter.numel() for parameter in learner.parameters() if parameter.requires_grad)


def measure(options: Options) -> tuple[dict[str, Any], Table]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        chosen = choices()[:1] if options.toy else choices()
        found, table, plain = {}, [["", "parameters", "step"]], parameters(None)
        for choice in (one for one in chosen if one not in NOT_HERE):
            row = {"parameters": parameters(choice) - plain, **({} if options.quick else step_of(options, choice))}
            found[choice] = row
            table.append([choice, f"{row['parameters']:+,}", f"{100 * row['step']:+.0f} %" if "step" in row else ""])
            print(*table[-1], file=sys.stderr, flush=True)
        by = "processor seconds of one thread" if options.torch_device.type == "cpu" else "seconds"
        return {"plain": plain, "by": by, "width": WIDTH, "batch_size": BATCH, "choices": found}, table
    finally:
        torch.set_num_threads(threads)


def step_of(options: Options, choice: str) -> dict[str, Any]:
    """`step`, what a choice adds as a share of the step without it, and its quartiles."""
    ratios: list[float] = []
    settings = options.settings(max_epochs=10)
    for turn in range(2):
        batch = next(iter(resident(4 * BATCH, SHAPE, batch_size=BATCH, device=settings.device, pad=4, flip=True)))
        order = (choice, None) if turn else (None, choice)
        words = {name: name and name.replace("/", "=") for name in order}
        steps = {name: Step(words[name], batch, settings, 1, width=4 if options.toy else WIDTH) for name in order}
        for number in range(7):
            found = {name: _seconds(steps[name]) for name in (order if number % 2 else order[::-1])}
            if number >= 2:
                ratios.append(found[choice] / found[None])
    quarters = statistics.quantiles(ratios, n=4)
    return {"step": round(statistics.median(ratios) - 1, 3), "quartiles": [round(quarters[0] - 1, 3), round(quarters[2] - 1, 3)]}


def _seconds(step: Step) -> float:
    if step.device.type != "cpu":
        return seconds(step.work, step.device)
    start = time.process_time()
    step.work()
    return time.process_time() - start
