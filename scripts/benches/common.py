"""What the benches share: alternating rounds, the attnlab side of a training loop, the hand-written one, tables."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

Table = list[list[str]]


@dataclass(frozen=True, kw_only=True)
class Options:
    """quick: fewer rounds. toy: networks so narrow that a figure means nothing, to see that a bench works."""

    quick: bool = False
    toy: bool = False
    device: str = "auto"
    data: Path | None = None
    compiled: bool = False

    @property
    def torch_device(self) -> torch.device:
        return torch.device("cuda" if self.device == "auto" and torch.cuda.is_available() else "cpu")

    def settings(self, **changes: Any) -> Any:
        from attnlab.training.settings import Settings

        plain = {"max_epochs": 1, "accelerator": "auto" if self.device == "auto" else "cpu", "compile": "off", "progress": False}
        settings = Settings(**{**plain, "checkpoint_seconds": 1e9, **changes})
        settings.apply()
        return settings


def alternate(
    contestants: Mapping[str, Callable[[], float]],
    *,
    rounds: int,
    warmup: int = 1,
    pick: Callable[[Sequence[float]], float] = statistics.median,
) -> dict[str, float]:
    """The median (or `pick`) of what each contestant returns, over rounds in which all take turns, every other round in reverse order."""
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(warmup + rounds):
        for name in list(contestants)[:: 1 if turn % 2 else -1]:
            value = contestants[name]()
            if turn >= warmup:
                found[name].append(value)
    return {name: pick(values) for name, values in found.items()}


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], Any], device: torch.device) -> float:
    synchronise(device)
    start = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - start


def random_images(num: int, shape: tuple[int, int, int], *, classes: int = 10) -> tuple[Tensor, Tensor]:
    """uint8 images (num, C, H, W) and labels."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (num, *shape), dtype=torch.uint8, generator=generator)
    return images.contiguous(memory_format=torch.channels_last), torch.randint(0, classes, (num,), generator=generator)


def resident(num: int, shape: tuple[int, int, int], *, batch_size: int, device: torch.device, pad: int, flip: bool) -> Any:
    """attnlab's training loader over random images, augmented as the papers do."""
    from attnlab.data.loader import ResidentLoader

    images, labels = random_images(num, shape)
    mean, std = (0.5,) * shape[0], (0.25,) * shape[0]
    return ResidentLoader(
        images,
        labels,
        batch_size=batch_size,
        mean=mean,
        std=std,
        unit=255.0,
        device=device,
        shuffle=True,
        pad=pad,
        flip=flip,
        drop_last=True,
    )


def sgd(parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9, weight_decay=5e-4, nesterov=True, fused=True)


class Framework:
    """`epoch()`: one epoch through attnlab's Learner under Lightning's Trainer, as `attnlab.train` has it; seconds a step."""

    def __init__(self, network: nn.Module, loader: Any, settings: Any, *, loss: nn.Module | None = None) -> None:
        from functools import partial

        from attnlab.algorithms.supervised import Supervised
        from attnlab.callbacks.history import History
        from attnlab.callbacks.progress import Progress
        from attnlab.losses.cross_entropy import CrossEntropy
        from attnlab.training.learner import Learner
        from attnlab.training.schedules import cosine

        loss = loss or CrossEntropy(10, 1)
        callbacks = {"history": History(), **({"progress": Progress(images_per_epoch=0)} if settings.progress else {})}
        schedule, algorithm = partial(cosine, warmup=1.0), Supervised()
        self.learner = Learner(network, loss, optimizer=sgd, schedule=schedule, settings=settings, algorithm=algorithm, callbacks=callbacks)
        self.learner.steps_per_epoch = len(loader)
        if settings.compile_mode:
            self.learner.compile_objective(mode=settings.compile_mode)
        self.loader, self.settings = loader, settings

    def epoch(self) -> float:
        from attnlab.training.epoch import StepChunks
        from attnlab.training.hardware import quiet

        trainer = self.settings.trainer()
        with quiet():
            trainer.fit(self.learner, train_dataloaders=StepChunks(self.loader))
        self.learner.network.to(self.settings.device)
        return self.learner.history[-1]["seconds"] / len(self.loader)


class Plain:
    """`epoch()`: the same number of steps by hand: forward, cross-entropy, backward, fused SGD on one ready batch; seconds a step."""

    def __init__(self, network: nn.Module, batch: tuple[Tensor, Tensor], steps: int, settings: Any) -> None:
        self.network = network.to(settings.device)
        if settings.compile_mode:
            self.network.compile(mode=settings.compile_mode, dynamic=False)
        self.batch, self.steps, self.settings = batch, steps, settings
        self.optimizer = sgd(list(network.parameters()))
        self.autocast = settings.autocast()

    def epoch(self) -> float:
        self.network.train()
        return seconds(self.work, self.settings.device) / self.steps

    def work(self) -> None:
        x, y = self.batch
        for _ in range(self.steps):
            with self.autocast:
                loss = nn.functional.cross_entropy(self.network(x), y)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()


def machine(options: Options) -> dict[str, Any]:
    """What the figures were measured on."""
    import pytorch_lightning

    device = options.torch_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "lightning": pytorch_lightning.__version__,
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
    }


def _processor() -> str:
    with open("/proc/cpuinfo") if Path("/proc/cpuinfo").exists() else open(os.devnull) as file:
        names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return names[0] if names else platform.processor()


def show(table: Table) -> None:
    """First row: heads. Text to the left, figures to the right."""
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        print("  ".join(cell.ljust(width) if column == 0 else cell.rjust(width) for column, (cell, width) in enumerate(zip(row, widths))))
