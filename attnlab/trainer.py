"""Trainer: how long and on what a run trains. Lightning's Trainer with everything switched off that reads the device inside an epoch."""

import contextlib
import functools
import importlib.util
import logging
import math
import os
import shutil
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

if TYPE_CHECKING:
    import pytorch_lightning as pl

log = logging.getLogger("attnlab")

Precision = Literal["auto", 32, "bf16-mixed", "16-mixed"]
Compile = Literal["auto", "off", "default", "reduce-overhead", "max-autotune"]


@dataclass(kw_only=True)
class Settings:
    """`trainer=`: epochs, device, precision.

    max_epochs: passes over the training images (at least 1).
    accelerator, devices, strategy: as Lightning has them; `strategy=ddp` starts `devices` processes.
    precision: auto = bf16 autocast where the device computes in it (CUDA; CPUs with AMX or AVX-512 BF16), else fp32. Losses on distances
    and every OOD score are fp32 in any case.
    compile: auto = torch.compile on CUDA where it can work, off elsewhere (on a CPU it costs minutes and gains little).
    gradient_clip: largest gradient norm, or null.
    val_every: epochs between two looks at the validation images, where there are any; the last epoch is always looked at.
    checkpoint_seconds: least time between two checkpoints; the last epoch always leaves one.
    threads: CPU threads, or null for PyTorch's choice.
    """

    NOT_IDENTITY = ("checkpoint_seconds", "progress", "threads", "val_every")

    max_epochs: int = 4
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int = 1
    strategy: Literal["auto", "ddp"] = "auto"
    precision: Precision = "auto"
    compile: Compile = "auto"
    gradient_clip: float | None = None
    val_every: int = 1
    checkpoint_seconds: float = 10.0
    progress: bool = True
    threads: int | None = None

    def __post_init__(self) -> None:
        for name, low in (("max_epochs", 1), ("devices", 1), ("val_every", 1), ("checkpoint_seconds", 0.0)):
            if getattr(self, name) < low:
                raise ValueError(f"{name} must be at least {low}, got {getattr(self, name)}")
        if self.gradient_clip is not None and not self.gradient_clip > 0:
            raise ValueError(f"gradient_clip must be above 0 or null, got {self.gradient_clip}")
        if self.accelerator == "gpu" and not torch.cuda.is_available():
            raise ValueError("accelerator=gpu: PyTorch sees no GPU here; use trainer=auto or trainer=cpu")
        if self.device.type == "cuda" and self.devices > torch.cuda.device_count():
            raise ValueError(f"devices={self.devices}: this machine has {torch.cuda.device_count()} GPU(s)")
        if self.devices > 1 and self.strategy != "ddp":
            raise ValueError(f"devices={self.devices} needs strategy=ddp")

    @functools.cached_property
    def device(self) -> torch.device:
        return torch.device("cuda" if self.accelerator != "cpu" and torch.cuda.is_available() else "cpu")

    @functools.cached_property
    def resolved_precision(self) -> int | str:
        if self.precision != "auto":
            return self.precision
        return "bf16-mixed" if computes_in_bf16(self.device) else 32

    @functools.cached_property
    def compile_mode(self) -> str | None:
        """The mode for torch.compile, or None for eager. ValueError: one was asked for that cannot be had here."""
        if self.compile == "off" or (self.compile == "auto" and self.device.type != "cuda"):
            return None
        missing = compile_lacks(self.device)
        if not missing:
            return "default" if self.compile == "auto" else self.compile
        if self.compile != "auto":
            raise ValueError(f"trainer.compile={self.compile}: torch.compile {missing}; use compile=auto or off to train without")
        log.info("training without torch.compile, which %s", missing)
        return None

    def autocast(self) -> contextlib.AbstractContextManager:
        """The precision of every forward pass: tests and banks see the network as training did."""
        kinds = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
        precision = self.resolved_precision
        if precision not in kinds:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=kinds[precision])

    def scaler(self) -> torch.amp.GradScaler:
        """Scales the loss of a 16-mixed run, whose gradients would underflow; passes through for any other."""
        return torch.amp.GradScaler(self.device.type, enabled=self.resolved_precision == "16-mixed")

    def apply(self) -> None:
        """Process-wide choices of speed that leave results a function of the config."""
        if self.threads:
            torch.set_num_threads(self.threads)
        if self.device.type == "cuda":
            torch.set_float32_matmul_precision("high")
            torch.backends.cudnn.benchmark = True

    def trainer(self, callbacks: "Sequence[pl.Callback]") -> "pl.Trainer":
        import pytorch_lightning as pl

        logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
        with quiet():
            return pl.Trainer(
                max_epochs=self.max_epochs,
                accelerator=self.device.type,
                devices=self.devices,
                strategy=self.strategy,
                callbacks=list(callbacks),
                logger=False,
                enable_checkpointing=True,  # ours below; Lightning adds none when given one
                enable_progress_bar=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
                inference_mode=False,
                use_distributed_sampler=False,
                log_every_n_steps=10**9,
            )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Lightning's advice (more workers, a logger, its own deprecations) is not for our users."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(pytorch_lightning|lightning_fabric|torch\.jit|torch\.utils\._pytree).*")
        warnings.filterwarnings("ignore", message=r".*(isinstance\(treespec, LeafSpec\)|srun|does not have many workers|torch\.jit).*")
        yield


def compile_lacks(device: torch.device) -> str:
    """Why torch.compile cannot work here, in words that follow its name; empty where it can."""
    gpu = device.type == "cuda"
    if gpu and importlib.util.find_spec("triton") is None:
        return "needs Triton, which is not installed"
    if gpu and torch.cuda.get_device_capability(device) < (7, 0):
        return f"needs a GPU of compute capability 7.0, and this one has {'.'.join(map(str, torch.cuda.get_device_capability(device)))}"
    variable, names = ("CC", ("cc", "gcc", "clang")) if gpu else ("CXX", ("g++", "clang++"))
    if not any(map(shutil.which, filter(None, (os.environ.get(variable), *names)))):
        return f"needs a {'C' if gpu else 'C++'} compiler, and there is neither ${variable} nor {' nor '.join(names)}"
    return ""


def computes_in_bf16(device: torch.device) -> bool:
    """Whether bf16 is faster than fp32 there: it is several times slower where a CPU only emulates it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    if capabilities:
        return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
    probes = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    return any(probe() for probe in probes if probe)


def callbacks(path: Path | None, *, settings: Settings, images_per_epoch: int) -> "list[pl.Callback]":
    """The progress line and the checkpoint writer (for a path)."""
    from pytorch_lightning.callbacks import Checkpoint

    class LastCheckpoint(Checkpoint):
        """`last.ckpt` after an epoch: at most every `checkpoint_seconds`, and always after the last. Written beside, then renamed."""

        def __init__(self) -> None:
            self.saved = time.monotonic()

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            last = trainer.current_epoch + 1 == trainer.max_epochs
            due = last or time.monotonic() - self.saved >= settings.checkpoint_seconds
            if not trainer.strategy.broadcast(due) or path is None:
                return
            temporary = path.with_name(f".{path.name}.tmp")
            trainer.save_checkpoint(temporary)
            if trainer.is_global_zero:
                temporary.replace(path)
            self.saved = time.monotonic()

    class Progress(Checkpoint):
        """One line that redraws itself in a terminal; in a log a line an epoch (at most one in two seconds), and one a minute within it.

        A Checkpoint because Lightning calls those after the learner has made the epoch's row.
        """

        def __init__(self) -> None:
            self.shown = 0.0
            self.first = (0.0, 0)
            self.total = 1
            self.terminal = sys.stderr.isatty()

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            self.total = pl_module.steps_per_epoch * trainer.max_epochs
            self.first = (time.monotonic(), pl_module.steps_per_epoch * trainer.current_epoch)
            self.shown = time.monotonic()
            pl_module.on_step = functools.partial(self.look, trainer, pl_module)

        def look(self, trainer: Any, pl_module: Any, steps: int) -> None:
            moment = time.monotonic()
            if moment - self.shown >= (0.25 if self.terminal else 60.0):
                self.shown = moment
                self.show(trainer, pl_module, steps)

        def show(self, trainer: Any, pl_module: Any, steps: int) -> None:
            if not self.terminal:
                log.info("%s", self.line(trainer, pl_module, steps))
                return
            share = (steps - 1) % pl_module.steps_per_epoch / pl_module.steps_per_epoch
            bar = "█" * round(20 * share) + "·" * (20 - round(20 * share))
            sys.stderr.write(f"\r\x1b[2K{bar} {self.line(trainer, pl_module, steps)}")
            sys.stderr.flush()

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            moment = time.monotonic()
            last = trainer.current_epoch + 1 == trainer.max_epochs
            if self.terminal or last or moment - self.shown >= 2:
                self.shown = moment
                self.show(trainer, pl_module, pl_module.tally.steps)
            if self.terminal and last:
                sys.stderr.write("\n")

        def line(self, trainer: Any, pl_module: Any, steps: int) -> str:
            start, first = self.first
            rate = (steps - first) / max(time.monotonic() - start, 1e-9)
            left = (self.total - steps) / rate if rate else math.inf
            images = rate * images_per_epoch / pl_module.steps_per_epoch
            row = pl_module.history[-1] if pl_module.history else {}
            shown = "  ".join(f"{key} {row[key]:.4f}" for key in ("train/loss", "train/acc", "val/acc") if key in row)
            clock = f"{int(left) // 60}:{int(left) % 60:02d}" if math.isfinite(left) else "?"
            return f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {shown}  {images:,.0f} images/s  {clock} left"

    return [*([Progress()] if settings.progress else []), LastCheckpoint()]
