"""Learner: the one LightningModule. Network, loss terms, penalties, optimizer and schedule; sums stay on the device for a whole epoch."""

import logging
import math
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from attnlab.network import Network

log = logging.getLogger("attnlab")


def mixed_seed(*parts: int) -> int:
    """One 63-bit seed of several numbers (a splitmix step each), so that no two of (seed, epoch, rank) share a stream."""
    state = 0
    for part in parts:
        state = (state + part + 0x9E3779B97F4A7C15) & (2**64 - 1)
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
        state ^= state >> 31
    return state >> 1


def seed_all(*parts: int) -> None:
    seed = mixed_seed(*parts)
    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)


class Learner(pl.LightningModule):
    """Trains `network` by `loss`: `terms = loss(out, y)` plus guests' `.penalty` and the weight regularizers; their sum is the loss.

    Every epoch's randomness is a function of (seed, epoch, rank), so a run continued at an epoch is the run that was never stopped.
    `history` has one row an epoch: `train/loss`, `train/loss/<term>`, `train/acc`, `val/...`, `lr`, `seconds`, `images_per_second`.
    """

    def __init__(
        self,
        network: Network,
        loss: nn.Module,
        *,
        optimizer: Callable[..., torch.optim.Optimizer],
        schedule: Callable[..., Callable[[int], float]],
        weight_regularizers: Mapping[str, Callable[[Network], Tensor]] | None = None,
        seed: int = 0,
        address: str = "",
        validate: Callable[[], dict[str, float]] | None = None,
        on_row: Callable[[dict[str, float], list[dict[str, float]]], None] | None = None,
        val_every: int = 1,
    ) -> None:
        super().__init__()
        self.network = network
        self.loss = loss
        self.make_optimizer = optimizer
        self.make_schedule = schedule
        self.weight_regularizers = dict(weight_regularizers or {})
        self.seed = seed
        self.address = address
        self.validate = validate
        self.on_row = on_row
        self.val_every = val_every
        self.history: list[dict[str, float]] = []
        self.names: list[str] = []
        self.steps_per_epoch = 1
        self.sums: Tensor | None = None
        self.started = 0.0
        self.images = 0

    def forward(self, x: Tensor, target: Tensor | None = None) -> Any:
        return self.network(x, target)

    def terms(self, x: Tensor, y: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Named loss terms of one batch, and its logits."""
        out = self.network(x, y)
        terms = dict(self.loss(out, out.target))
        terms |= self.network.penalties()
        terms |= {name: penalty(self.network) for name, penalty in self.weight_regularizers.items()}
        return terms, out.logits

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        if batch_idx == 0:
            self._start_epoch()
        terms, logits = self.terms(x, y)
        total = torch.stack([term.float() for term in terms.values()]).sum()
        with torch.no_grad():
            correct = (logits.argmax(1) == y).sum()
            row = torch.stack([term.detach().float() for term in terms.values()] + [correct.float()]).double()
            if self.sums is None:
                self.names, self.sums = list(terms), torch.zeros_like(row)
            self.sums += row
        self.images += len(y)
        return total

    def _start_epoch(self) -> None:
        """Called by the first batch: Lightning leaves its epoch-start hook out after a restart."""
        seed_all(self.seed, 1 + self.current_epoch, self.global_rank)
        self.sums, self.images, self.started = None, 0, time.monotonic()

    def on_train_epoch_end(self) -> None:
        sums = self.trainer.strategy.reduce(self.sums, reduce_op="sum")
        count = self.trainer.num_training_batches * self.trainer.world_size
        values = sums.tolist()  # the one host read of an epoch
        seconds = time.monotonic() - self.started
        images = self.images * self.trainer.world_size
        epoch = self.current_epoch
        averages = {name: value / count for name, value in zip(self.names, values)}
        row = {"epoch": epoch, "train/loss": sum(averages.values())}
        row |= {f"train/loss/{name}": value for name, value in averages.items()} if len(averages) > 1 else {}
        row |= {"train/acc": values[-1] / images, "lr": self.optimizers().param_groups[0]["lr"]}
        row |= {"seconds": seconds, "images_per_second": images / max(seconds, 1e-9)}
        bad = [name for name, value in averages.items() if not math.isfinite(value)]
        if bad:
            raise ValueError(
                f"loss term {' and '.join(bad)} became {averages[bad[0]]} in epoch {epoch + 1}; lower optimizer.lr "
                f"(now {row['lr']:.3g}) or set trainer.gradient_clip=1; epochs before it are kept"
            )
        last = epoch + 1 == self.trainer.max_epochs
        if self.validate and self.trainer.is_global_zero and (last or (epoch + 1) % self.val_every == 0):
            row |= self.validate()
        self.history.append(row)
        if self.on_row and self.trainer.is_global_zero:
            self.on_row(row, self.history)

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = self.make_optimizer([parameter for parameter in self.parameters() if parameter.requires_grad])
        steps = self.steps_per_epoch
        factor = self.make_schedule(total_steps=self.trainer.max_epochs * steps, steps_per_epoch=steps)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["attnlab"] = {"address": self.address, "history": [dict(row) for row in self.history]}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history = [dict(row) for row in checkpoint["attnlab"]["history"]]

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return batch  # loaders give batches on the device already
