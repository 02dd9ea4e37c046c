"""Learner: the one LightningModule. Network, loss terms, penalties, optimizer and schedule; sums stay on the device for a whole epoch."""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from attnlab.network import Network
from attnlab.training.epoch import EpochSums
from attnlab.training.seeding import seed_all
from attnlab.training.settings import Settings


class Learner(pl.LightningModule):
    """Trains `network` by `loss`: `terms = loss(out, y)`, `.penalty` of placed modules, weight regularizers; their sum is the loss.

    Every epoch's randomness is a function of (seed, epoch, rank), so a run continued at an epoch is the run that was never stopped.
    `history` has one row an epoch: `train/loss`, `train/loss/<term>`, `train/<placed module>/<statistic>`, `train/acc`, `val/...`,
    `lr`, `seconds`, `images_per_second`.
    """

    def __init__(
        self,
        network: Network,
        loss: nn.Module,
        *,
        optimizer: Callable[..., torch.optim.Optimizer],
        schedule: Callable[..., Callable[[int], float]],
        settings: Settings,
        weight_regularizers: Mapping[str, Callable[[Network], Tensor]] | None = None,
        seed: int = 0,
        training: str = "",
        validate: Callable[[], dict[str, float]] | None = None,
        on_row: Callable[[dict[str, float], list[dict[str, float]]], None] | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False  # the step is ours, Lightning has the epochs, devices and checkpoints
        self.network = network
        self.loss = loss
        self.make_optimizer = optimizer
        self.make_schedule = schedule
        self.weight_regularizers = dict(weight_regularizers or {})
        self.seed = seed
        self.training_address = training
        self.validate = validate
        self.on_row = on_row
        self.settings = settings
        self.autocast = settings.autocast()
        self.scaler = settings.scaler()
        self.on_step: Callable[[int], None] | None = None
        self.history: list[dict[str, float]] = []
        self.steps_per_epoch = 1
        self.totals = EpochSums()

    def forward(self, x: Tensor, target: Tensor | None = None) -> Any:
        return self.network(x, target)

    def terms(self, x: Tensor, y: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Named loss terms of one batch, and its logits."""
        out = self.network(x, y)
        terms = dict(self.loss(out, out.target))
        terms |= self.network.penalties()
        terms |= {name: penalty(self.network) for name, penalty in self.weight_regularizers.items()}
        return terms, out.logits

    def objective(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, tuple[str, ...], tuple[str, ...]]:
        """The loss of one batch; its terms and the placed modules' statistics (T,), fp32; how many it got right; the names of both.

        `compile_objective` makes it one graph.
        """
        terms, logits = self.terms(x, y)
        values = [term.float() for term in terms.values()]
        values_T = torch.stack(values) if len(values) > 1 else values[0][None]
        total = values_T.sum() if len(values) > 1 else values[0]
        correct = (logits.argmax(1) == y).sum()
        values_T = values_T.detach()
        statistics = self.network.statistics()
        if statistics:
            values_T = torch.cat([values_T, torch.stack([value.detach().float() for value in statistics.values()])])
        return total, values_T, correct, tuple(terms), tuple(statistics)

    def compile_objective(self, **options: Any) -> None:
        """Forward pass and loss as one graph (and, by it, the backward pass). Evaluation stays eager: it needs no second compilation.

        Networks of one architecture share a compilation, of however many learners; a further architecture in the same process gets its
        own. Where PyTorch would stop compiling and go on in eager mode, with a warning that nobody reads, it is an error instead.
        """
        torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = 512
        torch._dynamo.config.fail_on_recompile_limit_hit = True
        self.objective = torch.compile(self.objective, dynamic=False, **options)

    def training_step(self, batches: Iterable[tuple[Tensor, Tensor]], index: int) -> None:
        """A chunk of optimisation steps (see `StepChunks`): what Lightning costs a call is shared by all of them."""
        if index == 0:
            self._start_epoch()
        trainer, totals = self.trainer, self.totals
        optimizer, alone = trainer.optimizers[0], trainer.world_size == 1
        backward = Tensor.backward if alone else self.manual_backward  # DDP must hear of every backward pass
        for x, y in batches:
            self.step(x, y, optimizer, totals, backward=backward)
            if self.on_step:
                self.on_step(totals.steps)
            if alone and trainer.received_sigterm:
                return  # Lightning sees it next

    def step(
        self,
        x: Tensor,
        y: Tensor,
        optimizer: torch.optim.Optimizer,
        totals: EpochSums,
        *,
        backward: Callable[[Tensor], None] = Tensor.backward,
    ) -> None:
        """One optimisation step. Nothing here reads the device."""
        factor = self.schedule(totals.steps)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        with self.autocast:
            total, values_T, correct, totals.names, totals.watched = self.objective(x, y)
        optimizer.zero_grad()
        backward(self.scaler.scale(total))
        if self.settings.gradient_clip is not None:
            self.scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(self.parameters(), self.settings.gradient_clip)
        self.scaler.step(optimizer)
        self.scaler.update()
        if totals.sums is None:
            totals.sums, totals.correct = torch.zeros_like(values_T, dtype=torch.float64), torch.zeros_like(correct)
        totals.sums += values_T
        totals.correct += correct
        totals.images += len(y)
        totals.steps += 1

    def _start_epoch(self) -> None:
        """Called by the first batch: Lightning leaves its epoch-start hook out after a restart."""
        seed_all(self.seed, 1 + self.current_epoch, self.global_rank)
        self.totals = EpochSums(steps=self.current_epoch * self.steps_per_epoch, started=time.monotonic())

    def on_train_epoch_end(self) -> None:
        totals, world = self.totals, self.trainer.world_size
        sums = self.trainer.strategy.reduce(torch.cat([totals.sums, totals.correct[None]]), reduce_op="sum")
        count = self.steps_per_epoch * world
        values = sums.tolist()  # the one host read of an epoch
        seconds = time.monotonic() - totals.started
        images = totals.images * world
        epoch = self.current_epoch
        averages = {name: value / count for name, value in zip(totals.names, values)}
        row = {"epoch": epoch, "train/loss": sum(averages.values())}
        row |= {f"train/loss/{name}": value for name, value in averages.items()} if len(averages) > 1 else {}
        row |= {f"train/{name}": value / count for name, value in zip(totals.watched, values[len(totals.names) :])}
        row |= {"train/acc": values[-1] / images, "lr": self.rate}
        row |= {"seconds": seconds, "images_per_second": images / max(seconds, 1e-9)}
        bad = [name for name, value in averages.items() if not math.isfinite(value)]
        if bad:
            raise ValueError(
                f"loss term {' and '.join(bad)} became {averages[bad[0]]} in epoch {epoch + 1}; lower optimizer.lr "
                f"(now {row['lr']:.3g}) or set trainer.gradient_clip=1; epochs before it are kept"
            )
        last = epoch + 1 == self.trainer.max_epochs
        if self.validate and self.trainer.is_global_zero and (last or (epoch + 1) % self.settings.val_every == 0):
            row |= self.validate()
        self.history.append(row)
        if self.on_row and self.trainer.is_global_zero:
            self.on_row(row, self.history)

    @property
    def rate(self) -> float:
        """The learning rate of the next step (of the first parameter group)."""
        return self.trainer.optimizers[0].param_groups[0]["initial_lr"] * self.schedule(self.totals.steps)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        optimizer = self.make_optimizer([parameter for parameter in self.parameters() if parameter.requires_grad])
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        steps = self.steps_per_epoch
        self.schedule = self.make_schedule(total_steps=self.settings.max_epochs * steps, steps_per_epoch=steps)
        return optimizer

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["attnlab"] = {"training": self.training_address, "history": [dict(row) for row in self.history]}
        if self.scaler.is_enabled():
            checkpoint["attnlab"]["scaler"] = self.scaler.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history = [dict(row) for row in checkpoint["attnlab"]["history"]]
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(checkpoint["attnlab"]["scaler"])

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return batch  # loaders give batches on the device already
