"""A user's mistake ends in one short line that names the key or file and the way out, before six hours have gone by."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from attnlab.config.compose import compose, explain
from attnlab.config.targets import ConfigError
from tests.commands import command
from tests.conftest import write_result

BAD_CONFIGS = {
    "sede=1": r"unknown key sede; nearest: seed",
    "+sede=1": r"unknown key sede; nearest: seed",
    "foo.bar=1": r"unknown key foo",
    "modle=resnet18": r"unknown key modle; nearest: model",
    "model=resnet81": r"model=resnet81: there is no such model; nearest: resnet18",
    "model.widht=3": r"unknown key model\.widht; nearest: model\.width",
    "+model.widht=3": r"unknown key model\.widht; nearest: model\.width",
    "model.width=wide": r"model\.width=wide: must be a whole number",
    "model.stem=imagnet": r"model\.stem=imagnet: must be one of cifar, imagenet",
    "data.bach_size=3": r"unknown key data\.bach_size; nearest: data\.batch_size",
    "data.ood=photos": r"data\.ood=photos: must be a list",
    "data=digitz": r"data=digitz: there is no such data; nearest: digits",
    "attention=rekt": r"attention=rekt: there is no such attention; nearest: rect",
    "attention=[rect,sa]": r"attention=sa: there is no such attention; nearest: .*se",
    "attention.rect.at=layer4": r"attention\.rect\.at: rect is not chosen \(attention=none\); attention=rect chooses it",
    "regularizer.maxdrop.module.drop=1": r"maxdrop is not chosen .*maxdropout",
    "attention=rect attention.rect.sharpnes=3": r"unknown key attention\.rect\.sharpnes; nearest: attention\.rect\.sharpness",
    "attention=rect attention.rect.sharpness=high": r"attention\.rect\.sharpness=high: must be a number",
    "attention=rect attention.rect.module.sharpness=high": r"attention\.rect\.module\.sharpness=high: must be a number",
    "attention=rect attention.rect.sharpness=3 attention.rect.module.sharpness=4": r"sharpness=3 and .*module\.sharpness=4: these are one",
    "regularizer=norm_loss regularizer.norm_loss.wieght=3": r"unknown key regularizer\.norm_loss\.wieght; nearest: .*norm_loss\.weight",
    "attention=[rect,rect]": r"attention=\[rect,rect\]: rect is named twice",
    "ood=[msp,knn,msp]": r"ood=\[msp,knn,msp\]: msp is named twice",
    "attention=[rect,none]": r"attention=\[rect,none\]: none stands alone",
    "schedule=[constant,cosine]": r"schedule=\[constant,cosine\]: schedule takes one choice, such as schedule=constant",
    "model=[resnet18]": r"model=\[resnet18\]: model takes one choice",
    "attention=rect attention.rect.module.sharpnes=3": r"attention\.rect\.module\.sharpnes; nearest: .*module\.sharpness",
    "attention=rect attention.rect.module.predictor=grit": r"predictor=grit: must be one of grid, moments",
    "attention=rect attention.rect.how=around": r"attention\.rect\.how=around: must be one of after, before, replace",
    "attention=rect attention.rect.att=layer3": r"unknown key attention\.rect\.att; nearest: attention\.rect\.at",
    "ood=mps": r"ood=mps: there is no such ood; nearest: msp",
    "ood.knn.kk=3": r"unknown key ood\.knn\.kk",
    "loss=large_margin regularizer=mixup": r"regularizer=mixup makes soft labels, which loss LargeMarginLoss cannot take; use loss=ce",
    "loss=large_margin model=vgg_ltpa attention=ltpa": r"LargeMarginLoss needs the Linear at fc, which attention=ltpa replaces",
    "seed=-1": r"seed=-1: must be 0 or more",
    "seed=one": r"seed=one: must be a whole number",
    "force=maybe": r"force=maybe: must be true or false",
    "attention=rect attention.rect.sharpness.x=1 attention.rect.sharpness=5": r"sharpness\.x: attention\.rect\.sharpness=5 comes after it",
    "name=a/b": r"name=a/b: use 1 to 80 letters",
    "name=''": r"name=: use 1 to 80 letters.*or null",
    "name='ünï'": r"name=ünï: use 1 to 80 letters",
    "name=ünï": r"name=ünï: cannot be read as key=value",
    "ood=[msp": r"ood=\[msp: cannot be read as key=value; close brackets and quotes",
    "seed=1,": r"seed=1,: cannot be read as key=value",
    "seed=(1": r"seed=\(1: cannot be read as key=value",
    "seed=0 1": r"'1' is no override; write key=value",
    "--seed=1": r"--seed=1: write it without dashes: seed=1",
    "retries=-1": r"retries=-1: must be 0 or more",
    "objective=nope": r"objective=nope: must be a metric such as test/acc; they begin with .*, calibration, localisation, figures$",
    "objective=tset/acc": r"objective=tset/acc: must be a metric such as test/acc",
    "~paths paths.outputs=x": r"~paths: paths\.outputs=x sets what it deletes",
    "~paths.outputs": r"paths\.outputs: missing; it cannot be deleted",
    "paths.outputs=": r"paths\.outputs: must name a folder",
    "hydra.verbose=7": r"hydra\.verbose=7: must be true, false",
    "paths.outputs=[a]": r"paths=.*must be keys with values, each a text",
    "trainer.accelerator={x:1}": r"trainer\.accelerator=\{'x': 1\}: must be one of auto, cpu, gpu",
    "model.width={a:1}": r"model\.width=.*: must be a whole number",
    "optimizer.lr={a:1}": r"optimizer\.lr=\{'a': 1\}: must be a number$",
    "optimizer=adamw optimizer.lr=x": r"optimizer\.lr=x: must be a number$",
    "optimizer.groups.layer1.lr=true": r"optimizer\.groups\.layer1\.lr=True: must be a number$",
    "evaluator=3": r"evaluator=3: must name a file of configs/evaluator$",
    "attention=[se,null]": r"attention=\[se,null\]: must name a file of configs/attention$",
    "regularizer=[[cutout]]": r"regularizer=\[\[cutout\]\]: must name a file of configs/regularizer$",
    "model=1e5": r"model=1e5: must name a file of configs/model$",
    "data={a:1}": r"data: must name a file of configs/data",
    "optimizer.lr=nan": r"optimizer\.lr=nan: must be finite",
    f"optimizer.lr={'9' * 400}": r"optimizer\.lr: a whole number of 400 digits; 9223372036854775807 is the largest there can be",
    "data.eval_batch_size=9223372036854775808": r"data\.eval_batch_size: a whole number of 19 digits; 9223372036854775807",
    "data.mean=[1,-99999999999999999999]": r"data\.mean: a whole number of 20 digits",
    "seed=99999999999999999999": r"seed: a whole number of 20 digits",
    "attention=rect attention.rect.sharpness=inf": r"attention\.rect\.sharpness=inf: must be finite",
    "schedule=multistep schedule.milestones=[1,-inf]": r"schedule\.milestones=-inf: must be finite",
    "model.width=2.0": r"model\.width=2\.0: must be a whole number",
    "attention=rect attention.rect.at=3": r"attention\.rect\.at=3: must be a place",
    "attention=rect attention.rect.at=[]": r"attention\.rect\.at: names no place",
    "attention=rect attention.rect.at={type:nrom}": r"at\.type=nrom: must be one of activation, conv, norm or a class",
    "attention=rect attention.rect.at={type:os.system}": r"at\.type: 'os\.system' is outside the packages of components",
    "attention=rect attention.rect.at={typ:norm}": r"unknown key attention\.rect\.at\.typ; nearest: type",
    "attention=rect attention.rect.reads=[1]": r"attention\.rect\.reads=\[1\]: must be a name or a list of names",
    "attention=rect attention.rect.writes=3": r"attention\.rect\.writes=3: must be a name",
    "data.split_seed=${nope}": r"data\.split_seed: refers to a key that is not there: nope$",
    "data.split_seed=${data.split_seed}": r"data\.split_seed: Recursive interpolation detected",
    "data.split_seed=${data}": r"data\.split_seed: Interpolation to parent node detected",
    "hydra.verbose=${nope}": r"hydra\.verbose: refers to a key that is not there: nope$",
    "attention=ltpa_merge": r"attention\.ltpa_merge\.at: refers to a key that is not there",
    "model._partial_=7": r"model\._partial_=7: can only be true",
    "ood.msp._partial_=true": r"ood\.msp\._partial_=True: ood\.msp is no partial function",
    "logger=none logger.project=x": r"logger\.project: no logger is chosen",
    "experiment=maxdropout/resnet81": r"experiment=maxdropout/resnet81: there is no such experiment; nearest: maxdropout/resnet18",
    "local=null": r"local: there is no file of configs/local to choose",
    "paths.output=x": r"unknown key paths\.output; nearest: paths\.outputs",
    "trainer.max_epochs=ten": r"trainer\.max_epochs=ten: must be a whole number",
    "trainer.precision=fp8": r"trainer\.precision=fp8: must be one of auto, 32",
    "optimizer.lrr=1": r"unknown key optimizer\.lrr; nearest: optimizer\.lr",
    "schedule=cosin": r"schedule=cosin: there is no such schedule; nearest: cosine",
    "logger.projekt=x": r"unknown key logger\.projekt; nearest: logger\.project",
    "model._target_=os.system": r"model\._target_: 'os\.system' is outside the packages of components; Python's own modules hold none",
    "model._target_=torch.hub.load": r"'torch\.hub\.load' is outside the packages of components; allow_targets=\[torch\] permits it",
    "model._target_=attnlab.backbones.resnet.resnet19": r"attnlab\.backbones\.resnet has no 'resnet19'; nearest: resnet18",
    "model._target_=attnlab.backbones.resnt.resnet18": r"there is no module 'attnlab\.backbones\.resnt'",
    "data=parquet": r"path|Missing",
    "~model": r"model: missing; it cannot be deleted",
}


@pytest.mark.parametrize("words", BAD_CONFIGS)
def test_bad_configurations_end_in_one_line(words: str) -> None:
    with pytest.raises(ConfigError, match=BAD_CONFIGS[words]) as caught:
        compose(words.split())
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


BAD_BUILDS = {
    "evaluator=transductive evaluator.transductive.alpha=-1": r"evaluator\.transductive: alpha must be at least 0",
    "evaluator=explanations evaluator.explanations.num_perturbed=-1": r"evaluator\.explanations: num_perturbed must be at least 0",
    "trainer.max_epochs=0": r"trainer: max_epochs must be at least 1, got 0",
    "trainer.threads=-1": r"trainer: threads must be in \[1, 4096\] or null, got -1",
    "trainer.threads=99999999999": r"trainer: threads must be in \[1, 4096\] or null, got 99999999999",
    "trainer.devices=2": r"trainer: devices=2 needs strategy=ddp",
    "trainer.accelerator=gpu": r"PyTorch sees no GPU here; use trainer=auto",
    "data.val=1.5": r"data: val is a fraction",
    "data.crop=99999": r"data\.crop=9+ is more than an image's side",
    "data.batch_size=5000": r"data\.batch_size=5000 is more than",
    "data.ood=[nowhere]": r"nowhere",
    "data=parquet data.path=/no/such/folder": r"/no/such/folder",
    "data=two_moons": r"resnet18.*mlp2d",
    "model=mlp2d": r"mlp2d|vector",
    "attention=rect attention.rect.at=layer9": r"^attention\.rect\.at: no place matches 'layer9'; nearest: layer",
    "attention=rect attention.rect.module.sharpness=-1": r"attention\.rect: sharpness",
    "regularizer=maxdropout regularizer.maxdropout.module.drop=1.5": r"regularizer\.maxdropout: drop must be in \[0, 1\], got 1\.5",
    "attention=rect attention.rect.at=fc": r"rect",
    "optimizer.lr=-1": r"optimizer: .*-1",
    "schedule=multistep schedule.milestones=[3,2]": r"schedule: milestones must be sorted",
    "loss.label_smoothing=2": r"loss: label_smoothing",
    "optimizer.groups.nothing.lr=1": r"no parameter is called 'nothing'; known: ([\w.]+, ){4}[\w.]+ and \d+ more",
    "model.width=0": r"model: ",
}


@pytest.mark.parametrize("words", BAD_BUILDS)
def test_bad_values_end_in_one_line_before_anything_is_written(words: str, tmp_path: Path) -> None:
    from attnlab.pipeline.dry_run import dry_run

    if words.endswith("gpu") and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises((ValueError, OSError), match=BAD_BUILDS[words]) as caught:
        dry_run(compose(["logger=none", "ood=msp", f"paths.outputs={tmp_path}", *words.split()]))
    assert len(str(caught.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())


def cli(*words: str, module: str = "attnlab.train", **kwargs) -> subprocess.CompletedProcess:
    return command(module, *words, **kwargs)


def test_the_command_line_prints_one_line_and_exits_with_1(tmp_path: Path) -> None:
    done = cli("model.widht=3", f"paths.outputs={tmp_path}")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "attnlab: unknown key model.widht; nearest: model.width\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("key", ["data.split_seed", "name", "hydra.run.dir"])
def test_a_reference_to_nothing_is_one_line_of_the_whole_command(key: str, tmp_path: Path) -> None:
    done = cli(f"{key}=${{nope}}", f"paths.outputs={tmp_path}")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"attnlab: {key}: refers to a key that is not there: nope\n"  # Hydra puts no line of its own before it
    assert not list(tmp_path.iterdir())


def test_a_record_keeps_the_words_that_were_typed(tmp_path: Path) -> None:
    words = ["data.split_seed=${seed}", "logger=none", "data=two_moons", "model=mlp2d", "evaluator=none", "trainer.max_epochs=1"]
    env = {**os.environ, "ATTNLAB_FOLDER": str(tmp_path)}
    done = cli(*words, "data.num_train=64", "data.batch_size=16", "paths.outputs=${oc.env:ATTNLAB_FOLDER}", env=env)
    result = json.loads(Path(done.stdout.strip()).read_text())
    assert {"data.split_seed=${seed}", "paths.outputs=${oc.env:ATTNLAB_FOLDER}"} <= set(result["overrides"])


def test_a_sweep_goes_on_past_a_failing_job_and_says_which(tmp_path: Path) -> None:
    base = ["logger=none", "data=two_moons", "data.num_train=64", "data.batch_size=16", "trainer.max_epochs=1", "ood=none"]
    done = cli("-m", *base, "model=resnet18,mlp2d", "seed=0,1", f"paths.outputs={tmp_path}")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr and done.stderr.strip().splitlines()[-1].startswith("attnlab: 2 of the sweep's jobs failed")
    results = [json.loads(path.read_text()) for path in tmp_path.glob("runs/*/result.json")]
    assert sorted(result["status"] for result in results) == ["failed", "failed", "finished", "finished"]


def test_help_is_quick_and_light() -> None:
    heavy = ("torch", "timm", "pytorch_lightning")
    code = (
        f"import sys, attnlab.train, attnlab.config.compose, attnlab.config.build; print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.stdout.strip() == "[]"
    shown = cli("--help").stdout
    assert "attention: " in shown and "rect" in shown and "trainer.max_epochs " in shown


def test_a_changed_default_is_not_passed_off_as_the_same_run(run) -> None:
    first = run()
    path = first["folder"] / "result.json"
    result = json.loads(path.read_text())
    result["config"]["data"]["crop"] = 7
    write_result(path, result)
    with pytest.raises(ConfigError, match=r"other defaults \(data\.crop was 7, is 1\); force=true runs afresh"):
        run()


def test_a_full_disk(run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from attnlab.records import atomic
    from attnlab.terminal import describe_os_error

    replace = os.replace

    def full(source: Path, target: Path) -> None:
        if Path(target).name == "metrics.csv":
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, "replace", full)
        with pytest.raises(OSError) as caught:
            run()
    text = describe_os_error(caught.value)
    assert text.startswith("the disk is full; free some space and repeat the command") and "metrics.csv" in text
    assert not list(tmp_path.rglob(".metrics.csv*"))
    assert run()["status"] == "finished"


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
def test_a_folder_that_cannot_be_written(code: int, run, monkeypatch: pytest.MonkeyPatch) -> None:
    from attnlab.terminal import describe_os_error

    def refuse(self: Path, *args, **kwargs) -> None:
        raise OSError(code, os.strerror(code), str(self))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refuse)
        with pytest.raises(OSError) as caught:
            run()
    assert "paths.outputs=FOLDER" in describe_os_error(caught.value)


def test_outputs_that_are_a_file(tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("mine")
    done = cli("model.width=4", "logger=none", f"paths.outputs={tmp_path}/outputs")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    assert (tmp_path / "outputs").read_text() == "mine"


def test_a_loss_that_is_no_number(run, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"loss term ce became nan in epoch \d; lower optimizer\.lr .*trainer\.gradient_clip=1"):
        run("optimizer.lr=1e30", "schedule=constant")
    (path,) = tmp_path.glob("outputs/runs/*/result.json")
    assert json.loads(path.read_text())["status"] == "failed"


def test_hydras_own_errors_are_one_line() -> None:
    from hydra.errors import OverrideParseException

    error = OverrideParseException(override="x=[1", message="no viable alternative at input '[1'\nSee https://hydra.cc/docs for details")
    assert explain(error).startswith("x=[1: cannot be read as key=value; close brackets and quotes") and "hydra.cc" not in explain(error)
