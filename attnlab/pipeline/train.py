"""Run: one run from its plan to its record: build, fit, evaluate."""

import contextlib
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from attnlab.callbacks.halt import Halt
from attnlab.callbacks.history import History
from attnlab.callbacks.validation import Validation
from attnlab.config.build import build
from attnlab.config.plan import Plan
from attnlab.config.targets import ConfigError
from attnlab.evaluation.runner import ResultWriter, run_evaluators
from attnlab.evaluation.trained import Trained
from attnlab.pipeline.factory import make_data, make_evaluators, make_explainers, make_heads, make_learner, make_settings
from attnlab.pipeline.fit import fit
from attnlab.pipeline.mirror import about, in_a_sweep, show
from attnlab.pipeline.teacher import make_teacher
from attnlab.records import code, images
from attnlab.records.about import clock
from attnlab.records.checkpoint import read_checkpoint
from attnlab.records.lookup import check_code, record_of, report, skip
from attnlab.records.provenance import started
from attnlab.records.record import FAILED, FINISHED, HALTED, INTERRUPTED, Record, changed_defaults, from_one
from attnlab.terminal import as_ctrl_c

log = logging.getLogger("attnlab")


def train(plan: Plan) -> float | None:
    """Do what is missing of a plan's run and return its objective. The last line on stdout is the path of its result.json."""
    if plan.full["check"]:
        from attnlab.pipeline.dry_run import dry_run

        return dry_run(plan)
    record = record_of(plan)
    if int(os.environ.get("LOCAL_RANK", 0)) > 0:
        return _worker(plan, record)
    with as_ctrl_c(), record.lock():
        before = record.result() or {}  # what cannot be trusted is set aside, and says so
        done, objective = skip(plan)
        if done:
            return objective
        # before anything is written: a refusal leaves the record as it was
        begun_by = () if plan.full["force"] else check_code(plan, record, before, trained=before.get("status") != FINISHED)
        anew = "force=true" if plan.full["force"] else "same_code=false" if begun_by and plan.full["same_code"] is False else ""
        if anew and record.folder.exists():
            log.info("%s: the old record is kept in %s", anew, record.keep_beside())
            before, begun_by = {}, ()
        with record.logfile():
            return Run(plan, record, before=before, begun_by=begun_by).go()


def _worker(plan: Plan, record: Record) -> None:
    """A further process of trainer=ddp: trains along, and leaves the record to the first, who has looked at the checkpoint."""
    log.setLevel(logging.WARNING)  # what there is to say, the first says
    path = record.checkpoint_path
    data, settings = make_data(plan), make_settings(plan)
    learner = make_learner(plan, data, settings, callbacks={"history": History()}, teacher=make_teacher(plan, data, settings))
    fit(learner, data, settings, plan=plan, path=path, resume=path.exists())


class Halted(Exception):
    """The run was told to end for now (`attnlab.callbacks.halt`)."""


class Run:
    """One run on its way to its record."""

    def __init__(self, plan: Plan, record: Record, *, before: Mapping[str, Any], begun_by: Sequence[str] = ()) -> None:
        """`before`: what the record said when this process came. `begun_by`: modules that are not as they were then."""
        command = " ".join(["python -m attnlab.train", *plan.overrides])
        result = {"run_id": record.run_id, "command": command, "training": plan.training, **started(plan)}
        if "trained_by" in before and record.checkpoint_path.exists():
            result["trained_by"] = before["trained_by"]
        if others := {*before.get("begun_by", ()), *begun_by} if record.checkpoint_path.exists() else ():
            result["begun_by"] = sorted(others)
            result["warnings"] = [f"several codes: it was begun by other code of {', '.join(result['begun_by'])} than it was ended by"]
        self.plan, self.record, self.folder = plan, record, record.folder
        self.result, self.writer = result, ResultWriter(result, record.write)
        self.logger: Any = None

    def go(self) -> float | None:
        try:
            self.record.sweep_temporaries()
            self.record.check_links()
            self.writer.stage("build", self.build)
            with self.record.training_lock(self.plan.training):  # of runs that need one training, one trains and the others take it
                self.writer.stage("fit", self.fit)
            run_evaluators(self.trained, self.evaluators, self.writer)
            self.writer.finish()
            if self.logger:
                show(self.logger, self.trained, self.result["metrics"])
            self.writer.save()
        except Halted as why:
            self.result["error"] = {"stage": "fit", "kind": "Halted", "message": str(why)}
            self.end(HALTED)
            log.info("%s: halted: %s; the same command without halt goes on from there", self.record.run_id, why)
            print(self.record.result_path, flush=True)
            return None
        except KeyboardInterrupt:
            self.end(INTERRUPTED)
            raise
        except (ValueError, OSError) as error:
            self.writer.note(error)
            self.end(FAILED)
            raise
        except Exception as error:  # not the user's mistake: the terminal gets a line, train.log the traceback
            self.writer.note(error)
            self.end(FAILED)
            raise RuntimeError(f"{type(error).__name__}: {_first_line(error)}; traceback in {self.folder / 'train.log'}") from error
        finally:
            if self.logger:
                self.logger.close(failed=self.result["status"] not in (FINISHED, HALTED))
        whole = clock(self.result["finished"] - self.result["started"])
        log.info("%s: finished: training %s of %s", self.record.run_id, clock(self.result["seconds"]), whole)
        if self.logger and self.logger.hint:
            log.log(logging.DEBUG if in_a_sweep() else logging.INFO, "%s", self.logger.hint)
        return report(self.record, self.result, self.plan)

    def end(self, status: str) -> None:
        self.result["status"] = status
        with contextlib.suppress(OSError):  # the disk may be what failed; the error on its way says so
            self.writer.save()

    def build(self) -> None:
        self.settings = make_settings(self.plan)
        self.settings.apply()
        self.data = make_data(self.plan)
        callbacks: dict[str, Any] = {"history": History(self.on_row)}
        if self.data.has("val"):
            callbacks["validation"] = Validation(self.validate, epochs=self.settings.val_every)
        teacher = make_teacher(self.plan, self.data, self.settings)
        self.learner = make_learner(self.plan, self.data, self.settings, callbacks=callbacks, teacher=teacher)
        self.network = self.learner.network
        parts = (self.plan, self.data, self.settings)
        self.heads, self.explainers, self.evaluators = make_heads(*parts), make_explainers(*parts), make_evaluators(*parts)
        self.result |= {
            "places": {placement.key: placement.how for placement in self.network.placed.placements},
            "parameters": sum(parameter.numel() for one in (self.network, *self.learner.peers) for parameter in one.parameters()),
            **self.settings.describe(),
            "data": self.data.describe(),
        }
        self.learner.images = {split: digest for split, digest in self.result["data"]["digests"].items() if split in ("train", "val")}
        self.logger = build(self.plan.full["logger"], allow=self.plan.allow, where="logger") or None
        if self.logger:
            self.logger.open(**about(self.plan, self.record, self.result))

    def fit(self) -> None:
        checkpoint = self.checkpoint() or self.trained_elsewhere()
        done = checkpoint["attnlab"]["history"] if checkpoint else []
        if checkpoint:
            if "trained_by" not in self.result:
                log.info("going on after epoch %d of %d", len(done), self.settings.max_epochs)
            for row in from_one(done) if self.logger else []:
                self.logger.log(row, step=int(row["epoch"]))
        if len(done) < self.settings.max_epochs and not (checkpoint and checkpoint["attnlab"].get("stopped")):
            if (halt := self.plan.full["halt"]) and (why := Halt(**halt).reason(done)):
                raise Halted(why)
            path = self.record.checkpoint_path
            fit(self.learner, self.data, self.settings, plan=self.plan, path=path, resume=checkpoint is not None)
            if self.learner.halted:
                raise Halted(self.learner.halted)
        else:
            self.learner.to(self.settings.device)
            self.learner.restore(checkpoint)
        if "trained_by" not in self.result:
            self.record.announce_training(self.plan.training)
        self.learner.to(self.settings.device)
        self.network = self.learner.tested()
        self.note_measured()
        history = self.learner.history
        self.record.write_history(history)
        seconds = sum(row["seconds"] for row in history)
        images = sum(row["seconds"] * row["images_per_second"] for row in history)
        self.result["metrics"] |= {key: value for key, value in history[-1].items() if key.startswith(("train/", "val/"))}
        self.result |= {"epochs": len(history), "seconds": seconds, "images_per_second": images / max(seconds, 1e-9)}
        self.trained = Trained(
            network=self.network,
            data=self.data,
            settings=self.settings,
            folder=self.folder,
            heads=self.heads,
            explainers=self.explainers,
            history=from_one(history),
            peak_rate=self.peak_rate(),
            seed=self.plan.full["seed"],
        )

    def note_measured(self) -> None:
        """In the record, what the run measured and trained by: with it the run can be repeated, by its configuration alone it cannot."""
        if measured := self.learner.callbacks.measured():
            self.result["measured"] = measured
            what = f"{', '.join(measured)} decided about these numbers, and may come out otherwise in a repetition"
            text = f"measured on this machine: {what}; the values in the record's `measured`, as overrides, repeat the run"
            self.result["warnings"] = [*self.result.get("warnings", ()), text]

    def peak_rate(self) -> float | None:
        rate = self.plan.full["optimizer"].get("lr")
        steps = self.data.steps_per_epoch(world_size=self.settings.world_size)
        return rate and rate * self.learner.peak_factor(steps)

    def checkpoint(self) -> dict[str, Any] | None:
        """last.ckpt if it is there, whole, and of this run; one that is not is set aside (BrokenRecord)."""
        path, owners = self.record.checkpoint_path, (self.plan.training, self.plan.address)
        if not path.exists():
            return None
        checkpoint = read_checkpoint(path, owners, self.learner.state_dict())
        check_images(checkpoint, self.learner.images, path=path)
        return checkpoint

    def trained_elsewhere(self) -> dict[str, Any] | None:
        """The last checkpoint of a run that differs from this one in what is asked of it afterwards alone: it has learned the same."""
        found = None if self.plan.full["force"] else self.record.trained_elsewhere(self.plan.training)
        if not found:
            return None
        other, stored = found
        if any(not text.startswith(self.plan.not_trained_on) for text in changed_defaults(stored["config"], self.plan.full)):
            return None
        if code.changed(stored.get("code", {}), code.code_of(self.plan, trained=True)):
            return None
        if stored.get("precision") != self.result["precision"] or _train_digest(stored) != _train_digest(self.result):
            return None
        owners, epochs = (self.plan.training, other.address), self.settings.max_epochs
        checkpoint = self.record.take_checkpoint(other, owners, self.learner.state_dict(), epochs=epochs)
        if checkpoint:
            log.info(
                "the network is that of %s, which differs in what is asked of it after training only (force=true trains it again)",
                other.run_id,
            )
            self.result["trained_by"] = other.run_id
        return checkpoint

    def validate(self, network: nn.Module) -> dict[str, float]:
        from attnlab.ood.extract import extract

        with self.settings.autocast():
            bank = extract(network, self.data.eval_loader("val", self.settings.device))
        return {f"val/{name}": value for name, value in self.data.task.metrics(bank.logits.cpu(), bank.labels.cpu()).items()}

    def on_row(self, row: dict[str, float], history: list[dict[str, float]]) -> None:
        self.record.write_history(history)
        if self.logger:
            (*_, last) = from_one(history)
            self.logger.log(last, step=int(last["epoch"]))


def check_images(checkpoint: Mapping[str, Any], present: Mapping[str, str], *, path: Path) -> None:
    """ConfigError: the images of a split are not those with which `path` was trained so far."""
    then = checkpoint["attnlab"].get("images") or {}  # none in an early checkpoint
    for split in images.changed(then, present):
        raise ConfigError(
            f"data: the {split} images are not those of {path} ({images.difference(split, then, present)}); "
            "put those back to go on, or force=true trains afresh and keeps the old record beside"
        )


def _train_digest(result: Mapping[str, Any]) -> str | None:
    return result.get("data", {}).get("digests", {}).get("train")


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
