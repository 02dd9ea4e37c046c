"""The loggers: what lands in W&B's offline file and in TensorBoard's event files, and that a broken W&B never stops a run."""

import inspect
import json
import logging
import math
import os
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from attnlab.loggers.tensorboard import TensorboardLogger
from attnlab.loggers.wandb import WandbLogger, direction
from attnlab.loggers.wandb_client import has_credentials
from attnlab.loggers.wandb_log import last_step
from tests import ROOT
from tests.loggers.wandb_file import OfflineFile

ROWS = [{"epoch": e, "train/loss": 1 / (e + 1), "train/loss/ce": 0.9 / (e + 1), "val/acc": (0.5, 0.8, 0.7)[e], "lr": 0.1} for e in range(3)]
CONFIG = {"model": {"width": 16, "names": ["a", "b"]}, "seed": 3, "nothing": None}


@pytest.fixture(autouse=True)
def no_account(monkeypatch, tmp_path):
    """No credentials, no settings and no way out: nothing of the machine's own W&B set-up is read or written."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.chdir(tmp_path)
    Path("runs/one run").mkdir(parents=True)
    yield
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()  # ends its helper process


def about(**other):
    base = {"folder": Path("runs/one run"), "run_id": "3fa9c1d2", "name": "digits-rect-s0", "config": CONFIG, "group": "digits-rect"}
    return {**base, "tags": ["rect", "digits"], "resumed": False, **other}


def picture(path="picture.png") -> Path:
    Image.new("RGB", (6, 4), (200, 30, 30)).save(path)
    return Path(path)


def write_run(logger, rows=ROWS, **other) -> None:
    logger.open(**about(**other))
    for row in rows:
        logger.log(row, step=row["epoch"])
    logger.figure("figures/attention", picture())
    logger.histogram("scores/msp/mnist", torch.tensor([0.0, 1.0, 1.0, math.nan, math.inf]))
    logger.histogram("scores/msp/none", torch.tensor([math.nan]))
    logger.summary({"test/acc": 0.97, "ood/msp/mnist/auroc": 0.9, "test/nll": 0.1, "val/acc": 0.7, "gone": None})


def warnings_of(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == WandbLogger.__module__ and record.levelno >= logging.WARNING]


def offline_files(folder="runs/one run") -> list[Path]:
    sys.modules["wandb"].teardown()  # W&B's helper process writes the last bytes a moment after finish() returns
    return sorted(Path(folder, "wandb").glob("offline-run-*/*.wandb"))


def test_wandb_offline_file_holds_everything():
    logger = WandbLogger(project="bench", tags=["pilot", "rect"])
    write_run(logger)
    logger.close(failed=False)
    hint = logger.hint
    logger.close(failed=True)  # does nothing

    (path,) = offline_files()
    file = OfflineFile(path)
    assert {key: file.config[key] for key in CONFIG} == CONFIG
    assert (file.run.run_id, file.run.project, file.run.display_name, file.run.run_group) == (
        "3fa9c1d2",
        "bench",
        "digits-rect-s0",
        "digits-rect",
    )
    assert list(file.run.tags) == ["rect", "digits", "pilot"]
    for row in ROWS:
        stored = file.history[row["epoch"]]
        assert {key: stored[key] for key in row} == row
    assert file.history[3]["epoch"] == 2
    assert file.history[3]["figures/attention/_type"] == "image-file"
    assert (path.parent / "files" / file.history[3]["figures/attention/path"]).read_bytes() == Path("picture.png").read_bytes()
    assert sum(file.history[3]["scores/msp/mnist/values"]) == 3
    assert not any(key.startswith("scores/msp/none") for key in file.history[3])
    assert file.summary["test/acc"] == 0.97 and file.summary["ood/msp/mnist/auroc"] == 0.9 and "gone" not in file.summary
    assert file.summary["val/acc"] == {"max": 0.8, "last": 0.7} and file.summary["train/loss/ce"] == {"min": 0.3, "last": 0.3}
    assert not any(key.startswith(("val/acc/", "summary")) for key in file.summary)
    assert file.metrics["val/acc"].step_metric == "epoch" and file.metrics["val/acc"].summary.max
    assert file.metrics["test/nll"].summary.min and not file.metrics["lr"].summary.min
    assert file.exit_code == 0
    assert shlex.split(hint) == ["wandb", "sync", str(path.parent)] and not path.is_absolute() and logger.hint == hint


def test_wandb_file_tells_nothing_of_the_machine(tmp_path):
    logger = WandbLogger()
    write_run(logger)
    logger.close(failed=False)
    (path,) = offline_files()
    told = OfflineFile(path).bytes
    for secret in (os.path.realpath(sys.executable), sys.executable, str(tmp_path), sys.argv[0] or "-", os.getcwd()):
        assert secret.encode() not in told
    assert not OfflineFile(path).run.host and (len(socket.gethostname()) < 4 or socket.gethostname().encode() not in told)
    files = {str(file.relative_to(path.parent / "files")) for file in (path.parent / "files").rglob("*") if file.is_file()}
    assert all(name.startswith("media/") for name in files), files


def test_wandb_failed_run_and_resumed_run():
    logger = WandbLogger(group="mine")
    logger.open(**about())
    for row in ROWS[:2]:
        logger.log(row, step=row["epoch"])
    logger.close(failed=True)
    (first,) = offline_files()
    file = OfflineFile(first)
    assert file.exit_code == 1 and file.run.run_group == "mine"

    again = WandbLogger()
    again.open(**about(resumed=True))
    again.log(ROWS[0], step=0)
    assert first.exists()  # until all that it holds is in the second
    write_run(again, resumed=True)
    again.log({"epoch": 1, "val/acc": 0.0}, step=1)  # a step it has: not written twice
    again.close(failed=False)
    (second,) = offline_files()
    file = OfflineFile(second)
    assert file.run.run_id == "3fa9c1d2"
    assert [file.history[e]["val/acc"] for e in range(3)] == [0.5, 0.8, 0.7]
    assert again.hint == f"wandb sync '{second.parent}'"
    aside = Path("runs/one run/wandb/superseded")
    assert last_step(aside / first.parent.name / first.name) == 1 and len(list(aside.iterdir())) == 2  # nothing is deleted


def test_a_resumed_run_leaves_out_what_was_sent():
    """Sent after a kill, then gone on: W&B appends the second file to the first."""
    for rows in (ROWS[:2], ROWS):
        logger = WandbLogger()
        logger.open(**about(resumed=rows is ROWS))
        for row in rows:
            logger.log(row, step=row["epoch"])
        logger.close(failed=False)
        *_, path = offline_files()
        path.with_name(path.name + ".synced").touch()
    first, second = (OfflineFile(path) for path in offline_files())
    assert (list(first.history), list(second.history)) == ([0, 1], [2])


def test_a_file_cut_short_is_read_as_far_as_it_goes():
    logger = WandbLogger()
    write_run(logger)
    logger.close(failed=True)
    (path,) = offline_files()
    whole = path.read_bytes()
    steps = set()
    for size in (*range(0, len(whole), 97), len(whole)):
        path.write_bytes(whole[:size])
        steps.add(last_step(path))
    assert steps == {-1, 0, 1, 2, 3}


def test_pictures_are_bounded(caplog):
    logger = WandbLogger(pictures=2)
    logger.open(**about())
    with caplog.at_level("INFO", logger="attnlab"):
        for i in range(5):
            logger.figure(f"figures/{i}", picture())
        logger.close(failed=False)
    (row,) = OfflineFile(offline_files()[0]).history.values()
    assert {key.split("/")[1] for key in row if key.startswith("figures/")} == {"0", "1"}
    assert "2 of 5 pictures (logger.pictures=2)" in caplog.text


def test_a_table_holds_text_numbers_and_pictures():
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    logger = WandbLogger()
    logger.open(**about())
    logger.table("predictions", ["image", "label", "ood/msp"], [[pixels, "cat", 0.5], [pixels + 1, "dog", None]])
    logger.close(failed=False)
    (path,) = offline_files()
    file = OfflineFile(path)
    (artifact,) = file.artifacts
    files = {entry.path: Path(entry.local_path) for entry in artifact.manifest.contents}
    table = json.loads(files["predictions.table.json"].read_text())
    assert table["columns"] == ["image", "label", "ood/msp"] and [row[1:] for row in table["data"]] == [["cat", 0.5], ["dog", None]]
    for row, expected in zip(table["data"], (pixels, pixels + 1), strict=True):
        assert np.array_equal(np.asarray(Image.open(files[row[0]["path"]])), expected)
    assert all(str(path).startswith("runs/one run/wandb/data/") for path in files.values())  # go with the run, as its `wandb sync` line
    assert file.history[0]["predictions/_type"] == "table-file"


def test_the_line_after_a_sweep():
    folders = [Path("runs") / name for name in ("one run", "two", "three")]
    assert WandbLogger.sweep_hint(folders) is None
    for folder in folders[:2]:
        (folder / "wandb/offline-run-1-a").mkdir(parents=True)
        (folder / "wandb/offline-run-1-a/run-a.wandb").touch()
    assert WandbLogger.sweep_hint(folders) == "wandb sync runs/*/wandb"
    (folders[1] / "wandb/offline-run-1-a/run-a.wandb.synced").touch()
    assert WandbLogger.sweep_hint(folders) == "wandb sync 'runs/one run'/wandb"


ALONE = """
import os, signal, sys, time
from pathlib import Path
from attnlab.loggers.wandb import WandbLogger
from attnlab.loggers.wandb_log import last_step

def start(run_id):
    logger.open(folder=Path("runs"), run_id=run_id, name="a", config={}, group="", tags=[], resumed=False)

logger = WandbLogger(mode="offline")
start("a")
logger.close(failed=False)
from wandb.sdk.wandb_run import Run
print([name for name in ("wandb.sdk.launch", "wandb.apis.public") if name in sys.modules], logger.hint)
print(Run._detect_and_apply_job_inputs.__qualname__, flush=True)
start("b")
for step in range(2):
    logger.log({"train/loss": 1.0}, step=step)
(path,) = Path("runs/wandb").glob("*/run-b.wandb")
for _ in range(300):
    if last_step(path) == 1:
        break
    time.sleep(0.1)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_start_is_light_and_a_kill_leaves_a_readable_file():
    """All of W&B's API would be imported, whose docstrings are searched for one by one, a second of CPU; rows are kept back for 15 s."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, env=environment)
    assert done.returncode == -signal.SIGKILL, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("[] wandb sync runs/wandb/offline-run-") and second == "Run._detect_and_apply_job_inputs"
    (path,) = Path("runs/wandb").glob("*/run-b.wandb")
    assert OfflineFile(path).history.keys() == {0, 1}


def test_wandb_two_runs_in_one_process():
    for i in range(2):
        logger = WandbLogger()
        write_run(logger, run_id=f"run{i}", folder=Path("runs"))
        logger.close(failed=False)
    assert {OfflineFile(path).run.run_id for path in offline_files("runs")} == {"run0", "run1"}


def test_wandb_id_is_one_that_it_takes():
    logger = WandbLogger()
    logger.open(**about(run_id="rect@layer3," * 9 + "-3fa9c1d2"))
    logger.close(failed=False)
    run_id = OfflineFile(offline_files()[0]).run.run_id
    assert len(run_id) == 64 and run_id.endswith("-3fa9c1d2") and not set(run_id) & set("/\\#?%:@,")


def break_init(monkeypatch, broken_modes=("online", "offline")) -> list[str]:
    import wandb

    works, asked = wandb.init, []

    def init(**options):
        asked.append(options["mode"])
        if options["mode"] in broken_modes:
            raise wandb.errors.CommError("no network\nand a long story")
        return works(**options)

    monkeypatch.setattr(wandb, "init", init)
    return asked


def test_broken_wandb_warns_once_and_goes_on(monkeypatch, caplog):
    asked = break_init(monkeypatch)
    logger = WandbLogger()
    write_run(logger)
    logger.close(failed=False)
    assert asked == ["offline"] and logger.hint is None
    (warning,) = warnings_of(caplog)
    assert "no network" in warning and "long story" not in warning


def test_online_that_fails_becomes_offline(monkeypatch, caplog):
    asked = break_init(monkeypatch, broken_modes=("online",))
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    logger = WandbLogger()
    write_run(logger)
    logger.close(failed=False)
    assert asked == ["online", "offline"] and len(warnings_of(caplog)) == 1 and logger.hint.startswith("wandb sync ")
    assert len(OfflineFile(offline_files()[0]).history) == 4


def test_wandb_that_breaks_in_the_middle(monkeypatch, caplog):
    logger = WandbLogger()
    logger.open(**about())
    monkeypatch.setattr(logger._run, "log", lambda *_, **__: 1 / 0)
    for row in ROWS:
        logger.log(row, step=row["epoch"])
    logger.figure("figures/none", Path("is-not-there.png"))
    logger.close(failed=False)
    (warning,) = warnings_of(caplog)
    assert "ZeroDivisionError" in warning


def test_a_finish_that_fails_leaves_the_sync_command(monkeypatch):
    logger = WandbLogger()
    logger.open(**about())
    finish = logger._run.finish
    monkeypatch.setattr(logger._run, "finish", lambda **_: 1 / 0)
    logger.hint = "W&B: http://example.invalid/run"
    logger.close(failed=False)
    assert logger.hint.startswith("wandb sync ")
    finish()


class Server:
    """In place of a W&B run that is online and has epochs 0 and 1 already."""

    offline, url, step = False, "http://127.0.0.1:9/run", 2

    def __init__(self) -> None:
        self.rows, self.summary, self.defined = [], {}, set()
        self.settings = type("Settings", (), {"sync_dir": "runs/wandb/run-1"})

    def define_metric(self, key, **_):
        self.defined.add(key)

    def log(self, row, step, commit):
        self.rows.append((step, commit, sorted(row)))

    def finish(self, exit_code):
        self.rows.append(exit_code)


def test_online_resume_sends_only_what_is_new(monkeypatch):
    import wandb

    server, asked = Server(), []
    monkeypatch.setattr(wandb, "init", lambda **options: asked.append(options) or server)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    logger = WandbLogger(entity="team")
    write_run(logger, ROWS[:2], resumed=True)
    assert [row[:2] for row in server.rows] == [(2, False), (2, False)]  # pictures only: it has both epochs
    assert "val/acc" in server.defined and "val/acc" not in server.summary
    server.rows.clear()
    write_run(logger, resumed=True)
    assert server.rows.pop(0) == 1  # opening again ends the first as failed
    assert logger.hint == f"W&B: {server.url}"
    logger.close(failed=True)
    assert (asked[0]["mode"], asked[0]["resume"], asked[0]["id"], asked[0]["entity"]) == ("online", "allow", "3fa9c1d2", "team")
    assert [row[:2] for row in server.rows[:-1]] == [(2, True), (3, False), (3, False)] and server.rows[-1] == 1
    logger = WandbLogger()
    logger.open(**about())
    assert asked[-1]["resume"] == "allow"  # W&B appends to an id that it has: nothing may go there twice
    logger.close(failed=False)


@pytest.mark.parametrize("mode", ["disabled", "nonsense"])
def test_wandb_mode_of_the_environment(monkeypatch, mode, caplog):
    monkeypatch.setenv("WANDB_MODE", mode)
    logger = WandbLogger()
    write_run(logger)
    logger.close(failed=False)
    assert logger.hint is None and not Path("runs/one run/wandb").exists()
    assert ("WANDB_MODE" in caplog.text) == (mode == "nonsense")


def test_online_without_credentials_does_not_ask(caplog, monkeypatch):
    asked = break_init(monkeypatch)
    WandbLogger(mode="online").open(**about())
    assert asked == ["offline"] and "wandb login" in caplog.text


def test_credentials(monkeypatch, tmp_path):
    assert not has_credentials()
    netrc = tmp_path / "netrc"
    netrc.write_text("machine api.wandb.ai login user password " + "0" * 40 + "\n")
    assert not has_credentials()  # WANDB_BASE_URL is another server
    monkeypatch.delenv("WANDB_BASE_URL")
    assert has_credentials()
    netrc.write_text("machine ('broken")
    assert not has_credentials()
    netrc.write_bytes(b"\xff\xfe\x00")
    assert not has_credentials()
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert has_credentials()


def test_direction():
    for key in ("val/acc", "test/acc", "ood/knn/dtd/auroc", "ood/knn/dtd/aupr_in", "loc/iou"):
        assert direction(key) == "max", key
    for key in ("train/loss", "train/loss/ce", "test/nll", "test/ece", "ood/knn/dtd/fpr95_id", "val/loss"):
        assert direction(key) == "min", key
    for key in ("lr", "images_per_second", "epoch", "accent", "glossary/x"):
        assert direction(key) is None, key


def test_bad_settings_say_what_is_right():
    with pytest.raises(ValueError, match="auto, online or offline"):
        WandbLogger(mode="of")
    with pytest.raises(ValueError, match="project"):
        WandbLogger(project="a/b")
    with pytest.raises(ValueError, match="64"):
        WandbLogger(tags=["x" * 65])
    for kind in (WandbLogger, TensorboardLogger):
        with pytest.raises(ValueError, match="pictures must be at least 0, got -1"):
            kind(pictures=-1)


def events(folder: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder), size_guidance={"images": 0, "histograms": 0, "scalars": 0}).Reload()


def test_tensorboard_holds_everything_and_resumes():
    pytest.importorskip("tensorboard")
    logger = TensorboardLogger()
    logger.open(**about(notes="python -m x"))
    logger.log({"epoch": 0, "val/acc": 0.1, "lr": None}, step=0)
    logger.log({"epoch": 1, "val/acc": 0.2}, step=1)
    logger.close(failed=True)
    write_run(logger, resumed=True)
    logger.table("predictions", ["image", "label", "score"], [[np.zeros((2, 2, 3), np.uint8), "a|b", 0.25]])
    logger.close(failed=False)
    logger.close(failed=False)
    logger.log(ROWS[0], step=0)  # after the end: nothing
    assert shlex.split(logger.hint) == ["tensorboard", "--logdir", "runs/one run/tensorboard"]
    stored = events(Path("runs/one run/tensorboard"))
    assert [(e.step, round(e.value, 4)) for e in stored.Scalars("val/acc")] == [(0, 0.5), (1, 0.8), (2, 0.7)]
    assert [(e.step, round(e.value, 4)) for e in stored.Scalars("test/acc")] == [(2, 0.97)]
    (image,) = stored.Images("figures/attention")
    assert (image.width, image.height) == (6, 4)
    assert stored.Histograms("scores/msp/mnist")[0].histogram_value.num == 3
    text = stored.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "run: digits-rect-s0" in text and "width: 16" in text
    table = stored.Tensors("predictions/text_summary")[0].tensor_proto.string_val[0].decode()
    assert table == "| label | score |\n| --- | --- |\n| a\\|b | 0.2500 |"
    assert TensorboardLogger.sweep_hint([Path("runs/one run"), Path("runs/none")]) == "tensorboard --logdir 'runs/one run'"


def test_tensorboard_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install tensorboard"):
        TensorboardLogger()


def test_configs_and_contract():
    folder = ROOT / "configs" / "logger"
    for name in ("csv", "none"):
        assert OmegaConf.load(folder / f"{name}.yaml") == {}
    for name, kind in (("wandb", WandbLogger), ("tensorboard", TensorboardLogger)):
        config = OmegaConf.to_container(OmegaConf.load(folder / f"{name}.yaml"))
        assert config.pop("_target_") == f"{kind.__module__}.{kind.__qualname__}"
        assert isinstance(kind(**config), kind) and set(config) == set(inspect.signature(kind).parameters)
    for method in ("open", "log", "figure", "table", "histogram", "summary", "close", "sweep_hint"):
        ours, theirs = (inspect.signature(getattr(kind, method)) for kind in (WandbLogger, TensorboardLogger))
        assert list(ours.parameters) == list(theirs.parameters)


def test_importing_is_cheap():
    code = "import sys; import attnlab.loggers.wandb, attnlab.loggers.tensorboard, attnlab.figures\n"
    code += "print([m for m in ('wandb', 'tensorboard', 'matplotlib', 'torch', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_values_as_arrays():
    logger = WandbLogger()
    logger.open(**about())
    logger.histogram("scores/a", np.arange(5.0))
    logger.histogram("scores/b", [1, 2, 3])
    logger.histogram("scores/c", torch.zeros(3, dtype=torch.bfloat16))
    logger.close(failed=False)
    row = OfflineFile(offline_files()[0]).history[0]
    assert [sum(row[f"scores/{key}/values"]) for key in "abc"] == [5, 3, 3]
