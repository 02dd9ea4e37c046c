"""Learner: the one LightningModule. It holds the parts of a run and takes its steps; how a step is taken is its algorithm's."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from attnlab.config.targets import ConfigError
from attnlab.data.task import OneLabel, SeveralLabels
from attnlab.network import Network, Output
from attnlab.records.checkpoint import TERMS
from attnlab.training.callback_list import CallbackList
from attnlab.training.epoch import Batch, EpochSums
from attnlab.training.seeding import random_state, restore_random_state, seed_all
from attnlab.training.settings import Settings
from attnlab.training.terms import LossTerms


class Learner(pl.LightningModule):
    """Trains `network`: `terms = loss(out, target)`, `.penalty` of placed modules, `terms` by name; their sum is the loss.

    Args:
        terms: further terms of the loss by name (weight penalties, distillation): called with what they ask for by name
            (`attnlab.config.asking`), they give a 0-d tensor, or a dict of them. Their parameters are trained.
        algorithm: how a step is taken, see `attnlab.algorithms.supervised`. Its `peers`, modules that it trains beside the network, are
            the learner's too: moved, optimised and saved with it.
        callbacks: by name, called in order; see `attnlab.callbacks`. Lightning's own callbacks do not hear of steps.
        task: what a label means, see `attnlab.data.task`; one class an image, if nothing is said.
        teacher: `teacher(batch) -> Output`, for the terms that ask for it; neither its parameters nor its state are the learner's.

    Every epoch's randomness is a function of (seed, epoch, rank), so a run continued at an epoch is the run that was never stopped.
    `history` has one row an epoch: `train/loss`, `train/loss/<term>`, `train/<placed module>/<statistic>`, `train/acc`, `val/...`,
    `lr`, `seconds`, `images_per_second`. `train/acc` is of labelled images, by their own label where labels
    are mixed; `train/labelled`, their share, where an algorithm takes others.
    """

    def __init__(
        self,
        network: Network,
        loss: nn.Module,
        *,
        optimizer: Callable[..., torch.optim.Optimizer],
        schedule: Callable[..., Callable[[int], float]],
        settings: Settings,
        algorithm: Any,
        terms: Mapping[str, Callable[..., Any]] | None = None,
        callbacks: Mapping[str, Any] | None = None,
        teacher: Callable[[Batch], Output] | None = None,
        seed: int = 0,
        training: str = "",
        task: OneLabel | SeveralLabels | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False  # the step is ours, Lightning has the epochs, devices and checkpoints
        self.network = network
        self.loss = loss
        self.term_modules = nn.ModuleDict({name: term for name, term in (terms or {}).items() if isinstance(term, nn.Module)})
        self.loss_terms = LossTerms(loss, terms or {})
        self.make_optimizer = optimizer
        self.make_schedule = schedule
        self.algorithm = algorithm
        self.peers = nn.ModuleList(getattr(algorithm, "peers", ()))
        self.callbacks = CallbackList(callbacks or {})
        self.teacher = teacher
        self.seed = seed
        self.training_address = training
        self.task = task or OneLabel()
        self.settings = settings
        self.autocast = settings.autocast()
        self.scaler = settings.scaler()
        self.optimizer: torch.optim.Optimizer | None = None
        self.history: list[dict[str, float]] = []
        self.stopped = False  # before the last epoch, by a callback
        self.halted = ""  # for now, and why; not in the checkpoint
        self.steps_per_epoch = 1
        self.totals = EpochSums()

        self.asks = self.loss_terms.asks
        for part in (*self.modules(), algorithm, *self.callbacks, teacher):
            self.asks |= set(getattr(part, "asks", ()))
        if "progress" in self.asks:
            self.register_buffer("progress", torch.zeros(()), persistent=False)
        else:
            self.progress = None
        if "teacher" in self.asks and teacher is None:
            who = self.loss_terms.who_asks("teacher")
            raise ConfigError(f"{who} follows a teacher, and there is none; add teacher=RUN, the id of a finished run")
        if self.num_passes > 1 and self.scaler.is_enabled():
            passes = f"algorithm {type(self.algorithm).__name__} takes {self.num_passes} backward passes a step"
            raise ConfigError(f"{passes}, which 16-mixed cannot scale; use trainer.precision=bf16-mixed or 32")

    # ---- parts --------------------------------------------------------------------------------------------------------------------

    @property
    def num_passes(self) -> int:
        """Backward passes that the algorithm takes in a step."""
        return getattr(self.algorithm, "num_passes", 1)

    def prepare(self, states: Mapping[str, Any] | None = None) -> None:
        """Before the first step: `algorithm.setup`, every `callback.on_fit_start`, then their states where there are some."""
        self.algorithm.setup(self)
        self.callbacks.call("on_fit_start", self)
        for name, part in self._stateful().items():
            if states and name in states:
                part.load_state_dict(states[name])
        self.saved_states = None

    def _stateful(self) -> dict[str, Any]:
        parts = {"algorithm": self.algorithm, **{f"callback.{name}": one for name, one in self.callbacks.by_name.items()}}
        return {name: part for name, part in parts.items() if hasattr(part, "state_dict")}

    def restore(self, checkpoint: Mapping[str, Any]) -> None:
        """What a checkpoint holds of the trained network and of callbacks and algorithm, for testing: see `tested`."""
        own = self.state_dict()  # of a network that is only looked at: without the terms that it was trained by
        self.load_state_dict({name: value for name, value in checkpoint["state_dict"].items() if name in own or not name.startswith(TERMS)})
        self.on_load_checkpoint(checkpoint)
        self.prepare(self.saved_states)

    def tested(self, *, now: bool = False) -> nn.Module:
        """The network that is tested: the algorithm's, as the callbacks have it (averaged, the best epoch's).

        now: as it stands in this epoch, without the callbacks that choose among epochs: what is validated.
        """
        return self.callbacks.tested(self.algorithm.tested(), now=now)

    def train_batches(self) -> Iterator[tuple[Tensor, ...]]:
        """The training images once more, as they are augmented in this epoch."""
        return iter(self.trainer.train_dataloader.loader)

    def stop(self) -> None:
        """End training after this epoch."""
        self.stopped = self.trainer.should_stop = True

    def halt(self, why: str) -> None:
        """Leave training after this epoch as an interruption does: it can go on."""
        self.halted, self.trainer.should_stop = why, True

    # ---- one step -----------------------------------------------------------------------------------------------------------------

    def output(self, x: Tensor, target: Tensor | None = None, network: nn.Module | None = None) -> Output:
        """What the network (or a peer) says of a batch in training."""
        network = self.network if network is None else network
        return network(x, target) if self.progress is None else network(x, target, self.progress)

    forward = output

    def terms(self, out: Output, batch: Batch, teacher: Output | None = None, network: nn.Module | None = None) -> dict[str, Tensor]:
        """Every named term of the loss of what the network (or a peer) said of a batch."""
        network = self.network if network is None else network
        offers = {"x": batch.x, "index": batch.index, "progress": self.progress, "teacher": teacher, "network": network}
        return self.loss_terms(out, offers)

    def objective(self, batch: Batch, teacher: Output | None = None) -> tuple[Tensor, Tensor, Tensor, tuple[str, ...], tuple[str, ...]]:
        """The loss of one batch; its terms and the placed modules' statistics (T,), fp32; how many it got right; the names of both.

        `compile_objective` makes it one graph.
        """
        terms, out = self.algorithm.terms(self, batch, teacher)
        values = [term.float() for term in terms.values()]
        values_T = torch.stack(values) if len(values) > 1 else values[0][None]
        total = values_T.sum() if len(values) > 1 else values[0]
        correct = self.task.right(out.logits, batch.y).sum()
        values_T = values_T.detach()
        statistics = self.network.statistics()
        if getattr(self.algorithm, "takes_unlabelled", False):
            statistics["labelled"] = (batch.y >= 0).float().mean()
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

    def step(self, batch: Batch, totals: EpochSums, *, backward: Callable[[Tensor], None] = Tensor.backward) -> None:
        """One optimisation step. Nothing here reads the device."""
        optimizer, scaler = self.optimizer, self.scaler
        batch = batch._replace(y=self.task.targets(batch.y))
        factor = self.schedule(totals.steps)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        if self.progress is not None:
            self.progress.fill_(totals.steps / self.total_steps)
        teacher = self.teacher(batch) if "teacher" in self.asks else None
        draws = random_state(batch.x.device) if self.num_passes > 1 else None
        first: list[tuple] = []

        def closure() -> None:
            """Gradients of the batch at the present weights; a second pass repeats the random draws of the first."""
            if first:
                restore_random_state(draws)
            with self.autocast:
                found = self.objective(batch, teacher)
            optimizer.zero_grad()
            backward(scaler.scale(found[0]))
            if not first:
                first.append(found)

        self.algorithm.update(self, closure)
        _, values_T, correct, totals.names, totals.watched = first[0]
        totals.add(values_T, correct, len(batch.y))

    def apply_gradients(self) -> None:
        """The optimizer's step on the gradients there are, clipped where asked for."""
        optimizer, scaler, clip = self.optimizer, self.scaler, self.settings.gradient_clip
        with_gradients = self.callbacks.with_gradients
        if clip is not None or with_gradients:
            scaler.unscale_(optimizer)
        for callback in with_gradients:
            callback.on_gradients(self, self.totals.steps)
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters(), clip)
        scaler.step(optimizer)
        scaler.update()

    def training_step(self, batches: Iterable[tuple[Tensor, ...]], index: int) -> None:
        """A chunk of optimisation steps (see `StepChunks`): what Lightning costs a call is shared by all of them."""
        if index == 0:
            self._start_epoch()
        totals, in_step = self.totals, self.callbacks.in_step
        backward = Tensor.backward if self.trainer.world_size == 1 else self.manual_backward  # DDP must hear of every backward pass
        for batch in batches:
            self.step(Batch(*batch), totals, backward=backward)
            if in_step:
                self.after_step(totals.steps)

    def after_step(self, step: int) -> None:
        """Callbacks of the `step`-th step. What is true of `step` is true of them: nothing may read the device."""
        for callback, every in self.callbacks.in_step:
            if step % every == 0:
                callback.on_step(self, step)

    # ---- one epoch ----------------------------------------------------------------------------------------------------------------

    def on_train_start(self) -> None:
        self.prepare(self.saved_states)

    def _start_epoch(self) -> None:
        """Called by the first batch: Lightning leaves its epoch-start hook out after a restart."""
        seed_all(self.seed, 1 + self.current_epoch, self.global_rank)
        self.totals = EpochSums(steps=self.current_epoch * self.steps_per_epoch, started=time.monotonic())
        self.callbacks.call("on_epoch_start", self, self.current_epoch)

    def on_train_epoch_end(self) -> None:
        totals, world = self.totals, self.trainer.world_size
        sums = self.trainer.strategy.reduce(torch.cat([totals.sums, totals.correct[None]]), reduce_op="sum")
        values = sums.tolist()  # the one host read of an epoch
        row = totals.row(values, epoch=self.current_epoch, count=self.steps_per_epoch * world, world_size=world, rate=self.rate)
        if hasattr(self.algorithm, "on_epoch_end"):
            self.algorithm.on_epoch_end(self, row)
        self.callbacks.call("on_epoch_end", self, row)

    @property
    def last_epoch(self) -> bool:
        """Whether training ends with the epoch under way."""
        return self.stopped or self.current_epoch + 1 == self.trainer.max_epochs

    @property
    def rate(self) -> float:
        """The learning rate of the next step (of the first parameter group)."""
        return self.optimizer.param_groups[0]["initial_lr"] * self.schedule(self.totals.steps)

    def peak_factor(self, steps_per_epoch: int) -> float:
        """The largest factor of the learning rate that the schedule comes to."""
        total = self.settings.max_epochs * steps_per_epoch
        return max(map(self.make_schedule(total_steps=total, steps_per_epoch=steps_per_epoch), range(total)))

    @property
    def total_steps(self) -> int:
        return self.settings.max_epochs * self.steps_per_epoch

    def configure_optimizers(self) -> torch.optim.Optimizer:
        optimizer = self.make_optimizer([parameter for parameter in self.parameters() if parameter.requires_grad])
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        self.schedule = self.make_schedule(total_steps=self.total_steps, steps_per_epoch=self.steps_per_epoch)
        self.optimizer = optimizer
        return optimizer

    # ---- checkpoints --------------------------------------------------------------------------------------------------------------

    images: Mapping[str, str] = {}  # digests of the images that bear on training, by split, where there are any
    saved_states: Mapping[str, Any] | None = None  # of algorithm and callbacks, until `prepare` hands them out

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        own = {"training": self.training_address, "history": [dict(row) for row in self.history], "stopped": self.stopped}
        own["images"] = dict(self.images)
        own["states"] = {name: part.state_dict() for name, part in self._stateful().items()}
        if self.scaler.is_enabled():
            own["scaler"] = self.scaler.state_dict()
        checkpoint["attnlab"] = own

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        own = checkpoint["attnlab"]
        self.history = [dict(row) for row in own["history"]]
        self.stopped = own.get("stopped", False)
        self.saved_states = own.get("states", {})
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(own["scaler"])

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return batch  # loaders give batches on the device already
