"""Settings: `trainer=`, how long and on what a run trains. Lightning's Trainer without all that reads the device inside an epoch."""

import contextlib
import functools
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    import pytorch_lightning as pl
from attnlab.training.hardware import compile_lacks, computes_in_bf16, describe_device, forced_precision, keep_freed_memory, quiet

log = logging.getLogger("attnlab")

Precision = Literal["auto", 32, "bf16-mixed", "16-mixed"]

MOST_THREADS = 4096  # more than any machine has cores; far more, and PyTorch ends with the process

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
    threads: CPU threads (1 to 4,096), or null for PyTorch's choice.
    """

    NOT_IDENTITY = ("checkpoint_seconds", "progress", "threads")

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
        if self.threads is not None and not 1 <= self.threads <= MOST_THREADS:
            raise ValueError(f"threads must be in [1, {MOST_THREADS}] or null, got {self.threads}")
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
        return forced_precision() or ("bf16-mixed" if computes_in_bf16(self.device) else 32)

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

    def describe(self) -> dict[str, str | int]:
        """For the record: what of the machine numbers depend on and the configuration leaves open."""
        precision = str(self.resolved_precision)
        return {
            "device": describe_device(self.device),
            "device_kind": self.device.type,
            "precision": precision,
            "threads": torch.get_num_threads(),
        }

    @property
    def world_size(self) -> int:
        """Processes that train together."""
        return self.devices if self.strategy == "ddp" else 1

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
        if self.device.type == "cpu":
            keep_freed_memory()
        if self.device.type == "cuda":
            torch.set_float32_matmul_precision("high")
            torch.backends.cudnn.benchmark = True

    def trainer(self) -> "pl.Trainer":
        import pytorch_lightning as pl
        from pytorch_lightning.plugins.environments import LightningEnvironment

        from attnlab.training.checkpointing import CheckpointWriter

        for name in ("pytorch_lightning", "lightning_fabric"):
            logging.getLogger(name).setLevel(logging.ERROR)
        with quiet():
            return pl.Trainer(
                max_epochs=self.max_epochs,
                accelerator=self.device.type,
                devices=self.devices,
                strategy=self.strategy,
                logger=False,
                enable_checkpointing=False,  # our own callback does it
                # in a Slurm job too we start the processes of ddp, and what queues a job again is its launcher's affair
                plugins=[CheckpointWriter(), LightningEnvironment()],
                enable_progress_bar=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
                inference_mode=False,
                use_distributed_sampler=False,
                log_every_n_steps=10**9,
            )
