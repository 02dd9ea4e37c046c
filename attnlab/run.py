"""Run: the stages of one run, in order: build, fit, test, ood, localisation, figures. Each leaves its results in the record at once."""

import contextlib
import itertools
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from attnlab import record as records
from attnlab.build import ConfigError, build, checked
from attnlab.config import Plan, outputs
from attnlab.data.base import ImageData
from attnlab.learner import Learner, seed_all
from attnlab.network import FEATURES, Network
from attnlab.placement import places_of
from attnlab.record import BrokenRecord, Record
from attnlab.trainer import Settings, callbacks, quiet

log = logging.getLogger("attnlab")


@dataclass
class Parts:
    """What a plan builds."""

    data: ImageData
    network: Network
    learner: Learner
    settings: Settings
    heads: dict[str, Any]
    extra: dict[str, Any] = field(default_factory=dict)


def make_data(plan: Plan) -> ImageData:
    """The data set of a plan, loaded."""
    data = build(plan.full["data"], allow=plan.allow, where="data", seed=plan.full["seed"])
    checked(data.prepare, where="data")()
    return data


def make(plan: Plan, data: ImageData, settings: Settings, **hooks: Any) -> Parts:
    """Build everything around the data. The backbone is initialised before its guests, so runs of one seed share it."""
    full, allow = plan.full, plan.allow
    settings.apply()
    seed_all(full["seed"])
    make_backbone = build(full["model"], allow=allow, where="model")
    backbone = checked(make_backbone, where="model")(num_classes=data.num_classes, shape=data.shape)
    placements, weight_regularizers = {}, {}
    for group in ("attention", "regularizer"):
        for name, entry in build(full[group], allow=allow, where=group).items():
            if "penalty" in entry:
                weight_regularizers[name] = entry["penalty"]
            elif name in placements:
                raise ConfigError(f"{group}.{name}: a component of this name is chosen already; rename one")
            else:
                placements[name] = entry
    network = checked(Network, where="placement")(backbone, placements, shape=data.shape, num_classes=data.num_classes)
    network.to(memory_format=torch.channels_last)

    make_loss = build(full["loss"], allow=allow, where="loss")
    loss = checked(make_loss, where="loss")(data.num_classes, _feature_size(network, data))
    if getattr(loss, "needs_fc", False) and not isinstance(network.fc, nn.Linear):
        raise ConfigError(f"loss {type(loss).__name__} needs a Linear at fc; this network has {type(network.fc).__name__} there")
    for claim in network.placed.claims:
        log.info("placed %s %s %s %s", claim.name, claim.how, claim.place, "x".join(map(str, claim.shape)))
    learner = Learner(
        network,
        loss,
        optimizer=checked(build(full["optimizer"], allow=allow, where="optimizer"), where="optimizer"),
        schedule=checked(build(full["schedule"], allow=allow, where="schedule"), where="schedule"),
        weight_regularizers=weight_regularizers,
        seed=full["seed"],
        address=plan.address,
        val_every=settings.val_every,
        **hooks,
    )
    heads = build(full["ood"], allow=allow, where="ood")
    return Parts(data, network, learner, settings, heads)


def _feature_size(network: Network, data: ImageData) -> int:
    shapes = places_of(network.backbone, data.shape)
    if FEATURES not in shapes:
        return data.num_classes
    (shape,) = shapes[FEATURES].outputs
    return shape[0]


def train(plan: Plan) -> float | None:
    """Do what is missing of a plan's run and return its objective. The last line on stdout is the path of its result.json."""
    if plan.full["check"]:
        return try_out(plan)
    if int(os.environ.get("LOCAL_RANK", 0)) > 0:
        return _worker(plan)
    record = Record.find(outputs(plan), plan.address, plan.label)
    with record.lock():
        stored = record.result()
        if stored and stored["status"] == records.FINISHED and not plan.full["force"]:
            changed = records.changed_defaults(stored["config"], plan.full)
            changed = [text for text in changed if not text.startswith(("name", "logger", "paths", "force", "trainer.checkpoint", "trainer.progress"))]
            if changed:
                raise ConfigError(f"{record.result_path} was made with other defaults ({'; '.join(changed[:3])}); force=true runs afresh")
            log.info("%s: finished before; nothing to do (force=true runs afresh)", record.run_id)
            return _tell(record, stored, plan)
        if plan.full["force"] and record.folder.exists():
            log.info("force=true: the old record is kept in %s", record.keep_beside())
        with record.logfile():
            return Run(plan, record).go()


def _tell(record: Record, result: Mapping[str, Any], plan: Plan) -> float | None:
    """The summary on stderr, the path on stdout."""
    metrics = result["metrics"]
    shown = [key for key in metrics if key.startswith("test/") or key.endswith("/auroc") or key.startswith("loc/")]
    width = max(map(len, shown), default=0)
    for key in shown:
        log.info("  %-*s %s", width, key, "none" if metrics[key] is None else f"{metrics[key]:.4f}")
    print(record.result_path, flush=True)
    return metrics.get(plan.full["objective"])


def _worker(plan: Plan) -> None:
    """A further process of trainer=ddp: trains along, and leaves the record to the first."""
    settings = build(plan.full["trainer"], where="trainer")
    parts = make(plan, make_data(plan), settings)
    record = Record.find(outputs(plan), plan.address, plan.label)
    path = record.checkpoint_path  # the first process has looked at it, and writes none before we have trained along
    _fit(parts, path=path, resume=path if path.exists() else None, plan=plan)


def _fit(parts: Parts, *, path: Path, resume: Path | None, plan: Plan) -> None:
    settings, learner = parts.settings, parts.learner
    rank = int(os.environ.get("LOCAL_RANK", 0))
    world = settings.devices if settings.strategy == "ddp" else 1
    device = torch.device("cuda", rank) if settings.device.type == "cuda" else settings.device
    loader = parts.data.train_loader(device, rank=rank, world_size=world)
    if len(loader) == 0:
        raise ConfigError(f"data.batch_size={parts.data.batch_size} leaves no whole batch of the training images; lower it")
    images = len(loader) * parts.data.batch_size * world
    trainer = settings.trainer(callbacks(path, settings=settings, images_per_epoch=images))
    if settings.compile_mode:
        parts.network.compile(mode=settings.compile_mode, dynamic=False)
    with quiet(), _children(plan, world):
        try:
            trainer.fit(learner, train_dataloaders=loader, ckpt_path=resume, weights_only=True)
        except SystemExit as stop:  # Lightning turns Ctrl-C and SIGTERM into one
            raise KeyboardInterrupt from stop


@contextlib.contextmanager
def _children(plan: Plan, world: int) -> Iterator[None]:
    """Lightning starts the other processes of ddp by our command line: in a sweep it must be this job's, not the sweep's."""
    from attnlab.config import loosen

    argv, environment = list(sys.argv), dict(os.environ)
    try:
        if world > 1:
            sys.argv[1:] = loosen(plan.overrides)
        yield
    finally:
        sys.argv[:] = argv
        for key in ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            if key in environment:
                os.environ[key] = environment[key]
            else:
                os.environ.pop(key, None)


class Run:
    """One run on its way. `go()` does every stage; each writes what it found before the next begins."""

    def __init__(self, plan: Plan, record: Record) -> None:
        self.plan = plan
        self.record = record
        self.logger: Any = None
        self.scores: dict[str, dict[str, Tensor]] = {}
        self.bank: Any = None
        self.maps: dict[str, Tensor] = {}
        self.rectangles: dict[str, Tensor] = {}
        self.result: dict[str, Any] = {
            "status": records.RUNNING,
            "stage": "build",
            "run_id": record.run_id,
            "config": plan.full,
            "overrides": list(plan.overrides),
            "command": " ".join(["python -m attnlab.train", *plan.overrides]),
            "seed": plan.full["seed"],
            "metrics": {},
            "stage_seconds": {},
            "versions": records.versions(),
            "git": records.git_state(),
            "started": records.now(),
        }

    def go(self) -> float | None:
        failures: list[tuple[str, Exception]] = []
        needed = (self.build, self.fit)
        later = (self.test, self.ood, self.localisation, self.figures)
        try:
            self.record.sweep_temporaries()
            for stage in needed:
                self._timed(stage)
            for stage in later:
                try:
                    self._timed(stage)
                except Exception as error:  # the other stages do not need this one's result
                    self._note(stage.__name__, error)
                    failures.append((stage.__name__, error))
            if failures:
                stage, error = failures[0]
                raise error
            self.result["status"] = records.FINISHED
            self._finish_logger()
            self._save("done")
        except KeyboardInterrupt:
            self.result["status"] = records.INTERRUPTED
            self._save(self.result["stage"])
            raise
        except BaseException as error:
            self.result["status"] = records.FAILED
            if not failures:
                self._note(self.result["stage"], error)
            self._save(self.result["stage"])
            if isinstance(error, ValueError | OSError) or not isinstance(error, Exception):
                raise
            raise UnexpectedError(self.record, error) from error
        finally:
            if self.logger:
                self.logger.close(failed=self.result["status"] != records.FINISHED)
                if self.logger.hint:
                    log.info("%s", self.logger.hint)
        log.info("%s: finished in %.0f s", self.record.run_id, records.now() - self.result["started"])
        return _tell(self.record, self.result, self.plan)

    def _timed(self, stage: Callable[[], None]) -> None:
        self.result["stage"] = stage.__name__
        start = time.monotonic()
        stage()
        self.result["stage_seconds"][stage.__name__] = round(time.monotonic() - start, 3)
        self._save(stage.__name__)

    def _save(self, stage: str) -> None:
        self.result["stage"] = stage
        self.record.write(self.result)

    def _note(self, stage: str, error: BaseException) -> None:
        """The record says what failed, train.log says where."""
        text = " ".join(str(error).split()) or type(error).__name__
        self.result["error"] = {"stage": stage, "kind": type(error).__name__, "message": text}
        log.debug("%s", "".join(traceback.format_exception(error)))

    # ---- stages -------------------------------------------------------------------------------------------------------------------

    def build(self) -> None:
        self.settings = build(self.plan.full["trainer"], allow=self.plan.allow, where="trainer")
        self.data = make_data(self.plan)
        self.parts = make(self.plan, self.data, self.settings, validate=self._validate if self.data.has("val") else None, on_row=self._on_row)
        network = self.parts.network
        self.network, self.learner = network, self.parts.learner
        self.result |= {
            "places": {claim.key: claim.how for claim in network.placed.claims},
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            "device": describe_device(self.settings.device),
            "precision": str(self.settings.resolved_precision),
            "data": self.data.describe(),
        }
        for name in self.data.ood:
            checked(self.data.image_set, where="data.ood")(name)
        self._open_logger()

    def fit(self) -> None:
        path = self.record.checkpoint_path
        checkpoint = self._checkpoint()
        done = len(checkpoint["attnlab"]["history"]) if checkpoint else 0
        if checkpoint:
            log.info("continuing after epoch %d of %d", done, self.settings.max_epochs)
        if checkpoint and done >= self.settings.max_epochs:
            self.learner.load_state_dict(checkpoint["state_dict"])
            self.learner.history = checkpoint["attnlab"]["history"]
        else:
            _fit(self.parts, path=path, resume=path if checkpoint else None, plan=self.plan)
        history = self.learner.history
        self.record.write_history(history)
        seconds = sum(row["seconds"] for row in history)
        images = sum(row["seconds"] * row["images_per_second"] for row in history)
        last = {key: value for key, value in history[-1].items() if key.startswith(("train/", "val/"))}
        self.result["metrics"] |= last
        self.result |= {"epochs": len(history), "seconds": seconds, "images_per_second": images / max(seconds, 1e-9)}
        self.network.to(self.settings.device)

    def test(self) -> None:
        from attnlab.metrics import classification_metrics
        from attnlab.ood.bank import extract

        with self.settings.autocast():
            self.bank = extract(self.network, self._loader("test"))
        metrics = classification_metrics(self.bank.logits, self.bank.labels)
        self.result["metrics"] |= {f"test/{name}": value for name, value in metrics.items()}

    def ood(self) -> None:
        from attnlab.ood.bank import evaluate_heads

        if not self.parts.heads or not self.data.ood:
            return
        with self.settings.autocast():
            metrics, self.scores, errors = evaluate_heads(
                self.network,
                self.parts.heads,
                self._loader("train"),
                self._loader("test"),
                {name: self._loader(name) for name in self.data.ood},
            )
        self.result["metrics"] |= metrics
        if errors:
            raise ValueError("; ".join(f"ood.{name}: {message}" for name, message in errors.items()))

    def localisation(self) -> None:
        from attnlab.localisation import localisation_metrics

        boxes = self.data.image_set("test").boxes
        self.maps, self.rectangles = self._collect_maps()
        if boxes is None or len(self.data.shape) != 3:
            return
        height, width = self.data.shape[1:]
        for key, maps in self.maps.items():
            found = localisation_metrics(maps, boxes, height, width, rectangles_B5=self.rectangles.get(key))
            self.result["metrics"] |= {f"loc/{key}/{name}": value for name, value in found.items()}

    def figures(self) -> None:
        draw(self)

    # ---- what the stages share ----------------------------------------------------------------------------------------------------

    def _loader(self, split: str) -> Any:
        return self.data.eval_loader(split, self.settings.device)

    def _validate(self) -> dict[str, float]:
        from attnlab.metrics import classification_metrics
        from attnlab.ood.bank import extract

        with self.settings.autocast():
            bank = extract(self.network, self._loader("val"))
        return {f"val/{name}": value for name, value in classification_metrics(bank.logits, bank.labels).items()}

    def _collect_maps(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Attention maps and rectangles of every guest that has them, over the test images, on the CPU."""
        if not any(hasattr(guest, "map") for _, guest in self.network.placed.guests()):
            return {}, {}
        maps: dict[str, list[Tensor]] = {}
        rectangles: dict[str, list[Tensor]] = {}
        self.network.eval()
        with torch.no_grad(), self.settings.autocast():
            for x, _ in self._loader("test"):
                self.network(x)
                for key, guest in self.network.placed.guests():
                    for name, store in (("map", maps), ("rectangle", rectangles)):
                        value = getattr(guest, name, None)
                        if value is not None:
                            store.setdefault(key, []).append(value.detach().float().cpu())
        return tuple({key: torch.cat(values) for key, values in store.items()} for store in (maps, rectangles))

    def _checkpoint(self) -> dict[str, Any] | None:
        """last.ckpt if it is there, whole, of this run and of this network; else BrokenRecord."""
        path = self.record.checkpoint_path
        if not path.exists():
            return None
        try:
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
            told, state = checkpoint["attnlab"], checkpoint["state_dict"]
            address, history = told["address"], told["history"]
        except OSError:
            raise
        except Exception as error:  # pickle, zip and key errors of every kind
            raise records.set_aside(path, f"is damaged ({_first_line(error)})") from error
        if address != self.plan.address:
            raise records.set_aside(path, f"belongs to another run ({address})")
        present = self.learner.state_dict()
        for name in {**present, **state}:
            if name not in state or name not in present or state[name].shape != present[name].shape:
                raise records.set_aside(path, f"does not fit this network (at {name})")
        if not history or not all(isinstance(row, dict) for row in history):
            raise records.set_aside(path, "is damaged (no history)")
        return checkpoint

    def _on_row(self, row: dict[str, float], history: list[dict[str, float]]) -> None:
        self.record.write_history(history)
        if self.logger:
            self.logger.log(row, step=int(row["epoch"]))

    def _open_logger(self) -> None:
        self.logger = build(self.plan.full["logger"] or None, allow=self.plan.allow, where="logger") or None
        if self.logger:
            parts = [*self.plan.full["attention"], *self.plan.full["regularizer"]]
            self.logger.open(
                folder=self.record.folder,
                run_id=self.record.run_id,
                name=self.record.run_id,
                config=self.plan.full,
                group=self.plan.label.rpartition("-s")[0] or self.plan.label,
                tags=parts,
                resumed=self.record.checkpoint_path.exists(),
            )

    def _finish_logger(self) -> None:
        if not self.logger:
            return
        self.logger.summary({key: value for key, value in self.result["metrics"].items() if value is not None})
        for head, sets in self.scores.items():
            for name, scores in sets.items():
                self.logger.histogram(f"ood/{head}/{name}", scores)
        for path in sorted((self.record.folder / "figures").glob("*.png")):
            self.logger.figure(f"figures/{path.stem}", path)


class UnexpectedError(ValueError):
    """Not the user's mistake: one line for the terminal, the traceback in train.log."""

    def __init__(self, record: Record, error: BaseException) -> None:
        super().__init__(f"{type(error).__name__}: {_first_line(error)} (traceback in {record.folder / 'train.log'})")


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def draw(run: Run) -> None:
    """Everything a person would rather look at than read, into figures/."""
    from attnlab.report import figures

    folder = run.record.folder / "figures"
    if run.learner.history:
        figures.training_curves(run.learner.history, path=folder / "curves.png")
    if run.scores:
        auroc = {
            head: {name: run.result["metrics"].get(f"ood/{head}/{name}/auroc") for name in sets if name != "test"}
            for head, sets in run.scores.items()
        }
        figures.score_histograms(run.scores, path=folder / "ood_scores.png", auroc=auroc)
    if run.bank is not None:
        figures.reliability(run.bank.logits.cpu(), run.bank.labels.cpu(), path=folder / "reliability.png")
    images = run.data.image_set("test")
    if len(run.data.shape) != 3:
        return
    for key, maps in run.maps.items():
        chosen = torch.linspace(0, len(maps) - 1, min(16, len(maps))).round().long()
        labels = run.bank.labels.cpu()[chosen]
        guessed = run.bank.logits.argmax(1).cpu()[chosen]
        rectangles = run.rectangles.get(key)
        figures.attention_grid(
            images.images[chosen].cpu(),
            maps[chosen],
            path=folder / f"attention_{key.replace('/', '.').replace('@', '_at_')}.png",
            rectangles_N5=None if rectangles is None else rectangles[chosen],
            boxes_N4=None if images.boxes is None else images.boxes[chosen],
            titles=[run.data.classes[index] for index in guessed.tolist()],
            correct=(labels == guessed).tolist(),
        )


def describe_device(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = getattr(torch.cpu, "get_capabilities", dict)().get("cpu_name", "CPU")
    return f"{name}, {torch.get_num_threads()} threads"


def try_out(plan: Plan) -> None:
    """check=true: build all, take one training step, test, score and draw nothing; nothing is written."""
    from attnlab.metrics import classification_metrics
    from attnlab.ood.bank import evaluate_heads, extract

    settings = build(plan.full["trainer"], allow=plan.allow, where="trainer")
    data = make_data(plan)
    parts = make(plan, data, settings)
    learner, network = parts.learner.to(settings.device), parts.network
    loader = data.train_loader(settings.device)
    if len(loader) == 0:
        raise ConfigError(f"data.batch_size={data.batch_size} leaves no whole batch of the training images; lower it")
    optimizer = learner.make_optimizer(list(learner.parameters()))
    factor = learner.make_schedule(total_steps=settings.max_epochs * len(loader), steps_per_epoch=len(loader))
    assert factor(0) >= 0
    learner.train()
    for x, y in itertools.islice(itertools.cycle(loader), 2):
        with settings.autocast():
            terms, _ = learner.terms(x, y)
        total = torch.stack([term.float() for term in terms.values()]).sum()
        if not torch.isfinite(total):
            raise ValueError(f"the loss is {float(total)} at the first step ({', '.join(terms)})")
        total.backward()
        optimizer.step()
        optimizer.zero_grad()
    log.info("steps    ok  %s", "  ".join(f"{name} {float(term.detach()):.4f}" for name, term in terms.items()))
    with settings.autocast():
        bank = extract(network, _some(data.eval_loader("test", settings.device)))
        classification_metrics(bank.logits, bank.labels)
        log.info("test     ok  %d images", len(bank.labels))
        if parts.heads and data.ood:
            loaders = {name: _some(data.eval_loader(name, settings.device)) for name in data.ood}
            train_loader = list(itertools.islice(loader, 16))
            _, _, errors = evaluate_heads(network, parts.heads, train_loader, _some(data.eval_loader("test", settings.device)), loaders)
            if errors:
                raise ValueError("; ".join(f"ood.{name}: {message}" for name, message in errors.items()))
            log.info("ood      ok  %s on %s", ", ".join(parts.heads), ", ".join(data.ood))
    log.info("check    ok  %s: %s parameters", plan.run_id, f"{sum(p.numel() for p in network.parameters()):,}")


def _some(loader: Any) -> list:
    return list(itertools.islice(loader, 1))


__all__ = ["BrokenRecord", "Parts", "Run", "UnexpectedError", "describe_device", "draw", "make", "make_data", "train", "try_out"]
