"""A small job from the command to its end, beside the same job written in plain Lightning and as a Hydra application around it."""

import itertools
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benches.common import Options, Table

TITLE = "A small job, from the command to its end: cnn3 on digits, 2 epochs, one thread (medians, in turns)"
ROOT = Path(__file__).resolve().parents[2]
OURS = ["-m", "attnlab.train", "model=cnn3", "force=true", "optimizer.lr=0.05"]
OURS += ["trainer.accelerator=cpu", "trainer.max_epochs=2", "trainer.threads=1", "trainer.precision=32"]
SAME_WORK = ["ood=none", "evaluator=none", "logger=csv"]


def plain_lightning(folder: str, *, lr: float = 0.05, epochs: int = 2) -> None:
    """What one would write by hand: the images, a network, a module, a trainer with a checkpoint and a CSV, test accuracy."""
    import pytorch_lightning as pl
    import torch
    import torchmetrics
    from sklearn.datasets import load_digits
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    torch.set_num_threads(1)
    pl.seed_everything(0)
    images, labels = load_digits(return_X_y=True)
    x_BCHW = nn.functional.interpolate(torch.tensor(images).float().reshape(-1, 1, 8, 8) / 16, size=16, mode="bilinear")
    y = torch.tensor(labels)
    train, test = TensorDataset(x_BCHW[:1437], y[:1437]), TensorDataset(x_BCHW[1437:], y[1437:])

    class Classifier(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            sizes = [1, 64, 128, 128]  # cnn3
            blocks = [
                nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.MaxPool2d(2), nn.ReLU())
                for a, b in itertools.pairwise(sizes)
            ]
            self.network = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(512, 25), nn.Linear(25, 10))
            self.accuracy = torchmetrics.Accuracy(task="multiclass", num_classes=10)

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            loss = nn.functional.cross_entropy(self.network(batch[0]), batch[1])
            self.log("train/loss", loss, on_step=False, on_epoch=True)
            return loss

        def test_step(self, batch: Any, index: int) -> None:
            self.accuracy(self.network(batch[0]), batch[1])
            self.log("test/acc", self.accuracy)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)

    keeper = pl.callbacks.ModelCheckpoint(dirpath=folder, save_last=True)
    logger = pl.loggers.CSVLogger(folder)
    trainer = pl.Trainer(max_epochs=epochs, accelerator="cpu", logger=logger, callbacks=[keeper], enable_progress_bar=False)
    module = Classifier()
    trainer.fit(module, DataLoader(train, batch_size=64, shuffle=True, drop_last=True))
    trainer.test(module, DataLoader(test, batch_size=64))


def hydra_application(folder: str) -> None:
    import hydra
    from omegaconf import DictConfig

    config = Path(folder) / "config.yaml"
    config.write_text(f"folder: {folder}\nlr: 0.05\nepochs: 2\n")

    @hydra.main(version_base=None, config_path=folder, config_name="config")
    def main(config: DictConfig) -> None:
        plain_lightning(config.folder, lr=config.lr, epochs=config.epochs)

    sys.argv = ["job", f"hydra.run.dir={folder}"]
    main()


def cost(words: list[str]) -> tuple[float, float]:
    """Seconds on the clock and seconds of the processor of one command."""
    alike = {"OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", "CUDA_VISIBLE_DEVICES": ""}
    environment = {**os.environ, **alike, "PYTHONPATH": f"{ROOT}:{ROOT / 'scripts'}"}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"{words} ended with {done.returncode}: {done.stderr[-1000:]}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(options: Options) -> tuple[dict[str, Any], Table]:
    with tempfile.TemporaryDirectory(prefix="attnlab-bench-") as folder:
        ours, rival = [*OURS, f"paths.outputs={folder}/outputs"], ["-m", "benches.small_job"]
        jobs = {
            "attnlab, the same work": [*ours, *SAME_WORK],
            "plain Lightning": [*rival, "lightning", folder],
            "a Hydra application around it": [*rival, "hydra", folder],
            "attnlab as it comes: also OOD, figures, W&B": ours,
        }
        turns: dict[str, list[tuple[float, float]]] = {name: [] for name in jobs}
        for turn in range(-1, 2 if options.quick else 7):
            for name in list(jobs)[:: 1 if turn % 2 else -1]:
                found = cost(jobs[name])
                if turn >= 0:  # the first round puts files into the cache
                    turns[name].append(found)
    table: Table = [["", "seconds", "of the processor's time", "over plain Lightning, pairs"]]
    medians: dict[str, Any] = {}
    for name, values in turns.items():
        wall, cpu = (statistics.median(value[part] for value in values) for part in (0, 1))
        ratio = statistics.median(a[1] / b[1] for a, b in zip(values, turns["plain Lightning"]))
        medians[name] = {"seconds": wall, "cpu_seconds": cpu, "ratio": ratio}
        table.append([name, f"{wall:.2f}", f"{cpu:.2f}", f"{ratio:.3f}"])
    return medians, table


if __name__ == "__main__":
    {"lightning": plain_lightning, "hydra": hydra_application}[sys.argv[1]](sys.argv[2])
