"""A teacher and a student: what the teacher gives, what it leaves no trace in, and what is refused in one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from attnlab.config.compose import compose
from attnlab.config.targets import ConfigError
from attnlab.pipeline.factory import make_data, make_learner, make_settings
from attnlab.pipeline.teacher import make_teacher
from attnlab.pipeline.train import train
from attnlab.training.epoch import Batch
from tests.conftest import TINY, write_result
from tests.training.test_resume import equal, live, plain

QUICK = ["logger=none", "data.limit=48", "data.batch_size=16", "trainer.max_epochs=1", "trainer.accelerator=cpu", "ood=none"]


def saved(folder: Path) -> dict:
    return torch.load(folder / "last.ckpt", weights_only=True)


def parts(*words: str):
    """Plan, data, teacher and learner of a command line, as a run makes them."""
    plan = compose(list(words))
    data, settings = make_data(plan), make_settings(plan)
    teacher = make_teacher(plan, data, settings)
    return plan, data, teacher, make_learner(plan, data, settings, teacher=teacher)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """A finished teacher: cnn3 of seed 7, its weights averaged."""
    outputs = tmp_path_factory.mktemp("taught")
    plan = compose([*QUICK, "model=resnet18", "model.width=4", "seed=7", "callback=ema", f"paths.outputs={outputs}"])
    train(plan)
    (folder,) = (outputs / "runs").glob("*-s7-*")
    return {"outputs": outputs, "folder": folder, "plan": plan, "words": [*QUICK, "model.width=4", f"paths.outputs={outputs}"]}


def test_the_student_learns_from_it_and_shows_no_trace_of_it(taught: dict) -> None:
    words = [*taught["words"], "distillation=[kd,hint]"]
    plan = compose([*words, f"teacher={taught['folder'].name}"])
    train(plan)
    (folder,) = (taught["outputs"] / "runs").glob(f"*-{plan.address}")
    result, checkpoint = json.loads((folder / "result.json").read_text()), saved(folder)
    assert folder.name.startswith("digits-resnet18-w4-kd-hint-e1-s0-")
    assert result["parameters"] == json.loads((taught["folder"] / "result.json").read_text())["parameters"]
    assert result["config"]["teacher"] == f"training:{taught['plan'].training}"
    names = {name for name in checkpoint["state_dict"] if not name.startswith(("network.", "loss."))}
    assert names and all(name.startswith("term_modules.hint.regressors.") for name in names)
    (row,) = checkpoint["attnlab"]["history"]
    assert row["train/loss"] == pytest.approx(sum(row[f"train/loss/{name}"] for name in ("ce", "kd", "hint")))
    assert str(taught["outputs"]) not in json.dumps({"address": result["config"]["teacher"]})

    for word in (taught["folder"], f"training:{taught['plan'].training}"):  # the same run: nothing is trained again
        again = compose([*words, f"teacher={word}"])
        assert again.address == plan.address
        train(again)
    assert json.loads((folder / "result.json").read_text())["finished"] == result["finished"]


def test_what_the_teacher_tested_teaches_and_stays_as_it_was(taught: dict) -> None:
    _, data, teacher, learner = parts(*taught["words"], "distillation=[kd,at]", f"teacher={taught['folder']}")
    average = saved(taught["folder"])["attnlab"]["states"]["callback.ema"]
    assert equal(dict(teacher.network.state_dict()), dict(average))
    assert not any(parameter.requires_grad for parameter in teacher.network.parameters())
    assert not ({id(p) for p in learner.parameters()} & {id(p) for p in teacher.network.parameters()})
    learner.train()
    learner.configure_optimizers()
    learner.prepare()
    for batch in data.train_loader("cpu"):
        learner.step(Batch(*batch), learner.totals)
    assert not teacher.network.training and equal(dict(teacher.network.state_dict()), dict(average))
    assert not teacher.asks  # at needs maps, so it looks at every batch


def test_a_student_begins_as_it_would_without_a_teacher(taught: dict) -> None:
    *_, with_one = parts(*taught["words"], "distillation=kd", f"teacher={taught['folder']}")
    *_, without = parts(*taught["words"])
    assert equal(dict(with_one.network.state_dict()), dict(without.network.state_dict()))


def test_logits_are_computed_once_where_images_stay_as_they_are(taught: dict) -> None:
    words = [*taught["words"], "data.crop=0", "data.flip=false", "distillation=[kd,dist]", f"teacher={taught['folder']}"]
    _, data, teacher, learner = parts(*words)
    assert "index" in learner.asks and teacher.asks == ("index",)
    loader = data.train_loader("cpu")
    loader.with_index = True
    passes = []
    teacher.network.register_forward_hook(lambda *_: passes.append(1))
    batches = [Batch(*batch) for epoch in (0, 1) for batch in (loader.set_epoch(epoch), *loader)[1:]]
    for batch in batches:
        out = teacher(batch)
        torch.testing.assert_close(out.logits, teacher.look(batch.x).logits, rtol=1e-4, atol=1e-5)
        assert not out.logits.requires_grad
    assert len(passes) == len(batches) + 1  # 48 images in one, then none but this test's own

    for augmented in (["data.crop=2"], ["data.flip=true"], ["distillation=[kd,sp]"]):
        _, _, teacher, learner = parts(*words, *augmented)
        assert not teacher.asks and "index" not in learner.asks


def test_a_teacher_sees_images_normalised_as_it_learned_them(taught: dict) -> None:
    given = ["data.mean=[0.1]", "data.std=[2.0]"]
    _, data, teacher, _ = parts(*taught["words"], *given, "distillation=at", f"teacher={taught['folder']}")
    _, own, same, _ = parts(*taught["words"], "distillation=at", f"teacher={taught['folder']}")
    x, *_ = next(iter(data.eval_loader("test", "cpu")))
    y, *_ = next(iter(own.eval_loader("test", "cpu")))
    seen, known = teacher.look(x), same.look(y)
    torch.testing.assert_close(seen.logits, known.logits, rtol=1e-3, atol=1e-4)
    assert list(seen.values) == ["layer1", "layer2", "layer3", "layer4"]


def test_weights_of_the_students_own_architecture_teach(taught: dict, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    state = saved(taught["folder"])["state_dict"]
    backbone = {name.removeprefix("network.backbone."): value for name, value in state.items() if name.startswith("network.backbone.")}
    torch.save({"state_dict": state}, tmp_path / "whole.pt")
    torch.save(backbone, tmp_path / "backbone.pth")
    save_file({name: value.contiguous() for name, value in backbone.items()}, tmp_path / "backbone.safetensors")
    for name in ("whole.pt", "backbone.pth", "backbone.safetensors"):
        _, _, teacher, _ = parts(*taught["words"], "distillation=kd", f"teacher={tmp_path / name}")
        assert equal(dict(teacher.network.backbone.state_dict()), backbone)
    with pytest.raises(ConfigError, match=r"whole.pt: does not fit the network, of \d+ tensors: \d+ of another shape \("):
        parts(*taught["words"], "model.width=8", "distillation=kd", f"teacher={tmp_path / 'whole.pt'}")


class Evil:
    def __reduce__(self) -> tuple:
        return (Path("evil").touch, ())


def test_weights_run_nothing(taught: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"backbone.fc.weight": Evil()}, tmp_path / "evil.pt")
    (tmp_path / "text.safetensors").write_text("no header")
    for name in ("evil.pt", "text.safetensors"):
        with pytest.raises(ConfigError, match="is no state dict that can be loaded") as error:
            parts(*taught["words"], "distillation=kd", f"teacher={tmp_path / name}")
        assert "\n" not in str(error.value)
    assert not (tmp_path / "evil").exists()


def changed(edit: Callable[[dict], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        result = json.loads((folder / "result.json").read_text())
        edit(result)
        write_result(folder / "result.json", result)

    return apply


def _elsewhere(result: dict) -> None:
    result["config"]["model"]["_target_"] = "os.system"
    result["config"]["allow_targets"] = ["os"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "last.ckpt").write_bytes(b"PK"), r"its last.ckpt is damaged"),
        (lambda folder: (folder / "last.ckpt").unlink(), r"its last.ckpt is missing"),
        (changed(lambda result: result.update(training="00000000")), r"its last.ckpt belongs to another run"),
        (changed(lambda result: result["config"]["model"].update(width=8)), r"its last.ckpt does not fit this network"),
        (changed(lambda result: result["data"]["classes"].pop()), r"its last.ckpt does not fit this network"),
        (changed(_elsewhere), r"its record cannot be read .*'os.system' is outside the packages of components"),
        (changed(lambda result: result.pop("data")), r"its record cannot be read"),
        (changed(lambda result: result.update(status="interrupted")), r"is not finished \(interrupted\); train it first"),
    ],
)
def test_a_teacher_that_cannot_teach_is_one_line(taught: dict, tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    folder = tmp_path / taught["folder"].name
    shutil.copytree(taught["folder"], folder)
    damage(folder)
    with pytest.raises(ConfigError, match=rf"teacher=.*{message}") as error:
        parts(*taught["words"], "distillation=kd", f"teacher={folder}")
    assert "\n" not in str(error.value)


def test_a_network_starts_from_a_run_on_other_classes_and_sizes(taught: dict) -> None:
    words = ["data.only=[1,4,7]", "data.size=20", "data.mean=[0.2]", "data.std=[0.4]", f"teacher={taught['folder']}"]
    _, _, teacher, learner = parts(*taught["words"], *words, "init=teacher")
    own, theirs = learner.network.backbone.state_dict(), teacher.network.backbone.state_dict()
    assert own["fc.weight"].shape[0] == 3 and theirs["fc.weight"].shape[0] == 10
    kept = [name for name in own if not name.startswith("fc.")]
    assert len(kept) > 60 and all(torch.equal(own[name], theirs[name]) for name in kept)
    _, _, _, fresh = parts(*taught["words"], *words[:-1])
    assert torch.equal(own["fc.weight"], fresh.network.backbone.fc.weight)  # its own start
    with pytest.raises(ConfigError, match=r"learned 10 classes .* and this run learns 3 .*init=teacher alone takes weights of others"):
        parts(*taught["words"], *words, "init=teacher", "distillation=kd")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["distillation=kd"], "distillation=kd follows a teacher, and there is none; add teacher=RUN"),
        (["teacher=TEACHER"], "nothing in this run follows it; add distillation=kd"),
        (["teacher=TEACHER", "distillation=kd", "regularizer=mixup"], "regularizer=mixup mixes images inside the network"),
        (
            ["teacher=TEACHER", "distillation=at", "model=cnn3", "~model.width"],
            "at: places: layer1, layer2, layer3 of the student",
        ),
        (["teacher=TEACHER", "distillation=kd", "data.size=20"], r"learned 10 classes .* of \[1, 16, 16\], and this run learns 10"),
        (["teacher=training:00000000", "distillation=kd"], "no finished run in .* has this training; train the teacher first"),
    ],
)
def test_what_does_not_go_together_is_one_line(taught: dict, words: list[str], message: str) -> None:
    base = [word for word in taught["words"] if not ("~model.width" in words and word.startswith("model.width"))]
    words = [word.replace("TEACHER", str(taught["folder"])) for word in words if word != "~model.width"]
    with pytest.raises(ConfigError, match=message):
        parts(*base, *words)


def test_a_finished_student_outlives_its_teacher(taught: dict, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from attnlab.evaluate import evaluate

    shutil.copytree(taught["outputs"] / "runs", tmp_path / "runs")
    where = f"paths.outputs={tmp_path}"
    plan = compose([*taught["words"], where, "seed=3", "distillation=[kd,hint]", f"teacher={taught['folder'].name}"])
    train(plan)
    shutil.rmtree(tmp_path / "runs" / taught["folder"].name)
    capsys.readouterr()
    train(compose([*taught["words"], where, "seed=3", "distillation=[kd,hint]", f"teacher=training:{taught['plan'].training}"]))
    path = Path(capsys.readouterr().out.strip())
    again = json.loads(evaluate([path.parent], ["ood=msp"]).read_text())
    assert again["metrics"]["test/acc"] == json.loads(path.read_text())["metrics"]["test/acc"]
    with pytest.raises(ConfigError, match="there is no such run"):
        compose([where, "distillation=kd", f"teacher={taught['folder'].name}"])


def test_a_killed_student_ends_as_the_one_that_was_not(taught: dict, tmp_path: Path) -> None:
    words = [
        *TINY,
        "trainer.threads=1",
        "trainer.checkpoint_seconds=0",
        "distillation=[kd,hint,dkd,dml,crd]",
        f"teacher={taught['folder']}",
    ]
    whole = live(tmp_path / "whole", [], words)
    torn = live(tmp_path / "torn", [("step", 5)], words)
    assert torn["result"]["metrics"] == whole["result"]["metrics"]
    assert plain(torn["ckpt"]["attnlab"]["history"]) == plain(whole["ckpt"]["attnlab"]["history"])
    for part in ("state_dict", "optimizer_states"):
        assert equal(torn["ckpt"][part], whole["ckpt"][part]), part
    assert "going on after epoch" in torn["log"]


def test_a_sweep_names_the_teacher_that_is_missing(taught: dict, tmp_path: Path) -> None:
    from attnlab.sweeps.journal import DONE, FAILED
    from attnlab.sweeps.sweep import launch

    where = f"paths.outputs={tmp_path}"
    words = [*taught["words"], where, "distillation=kd"]
    jobs = launch([[*words, f"teacher={word}"] for word in ("digits-resnet34-s0", taught["folder"])], job=train, options=[where])
    assert [job.outcome for job in jobs] == [FAILED, DONE]
    assert "teacher=digits-resnet34-s0: there is no such run" in jobs[0].error


def test_a_sweep_may_hold_runs_without_distillation(taught: dict, tmp_path: Path) -> None:
    from attnlab.sweeps.journal import DONE
    from attnlab.sweeps.sweep import launch

    words = [*taught["words"], f"paths.outputs={tmp_path}", f"teacher={taught['folder']}"]
    jobs = launch([[*words, f"distillation={choice}"] for choice in ("none", "kd")], job=train, options=[f"paths.outputs={tmp_path}"])
    assert [job.outcome for job in jobs] == [DONE, DONE]
    assert jobs[0].plan.address == compose(taught["words"]).address != jobs[1].plan.address


def test_a_table_trains_the_teacher_first(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from attnlab import table
    from attnlab.terminal import console

    console()
    path = tmp_path / "distilled.yaml"
    common = ", ".join(word for word in QUICK if not word.startswith("ood"))
    path.write_text(
        f"title: t\nmetric: {{key: test/acc, label: acc, direction: max, margin: 1}}\ncommon: [{common}, ood=none, model.width=4]\n"
        "rows: {student: [distillation=kd, 'teacher=@teacher'], teacher: [callback=ema]}\ncolumns: {digits: []}\nseeds: [0]\n"
    )
    words = [f"table={path}", f"paths.outputs={tmp_path}", "action=run", "format=csv"]
    assert table.main(words) == 0
    results = [json.loads(file.read_text()) for file in tmp_path.glob("runs/*/result.json")]
    student, teacher = sorted(results, key=lambda result: result["config"]["teacher"] is None)
    assert student["config"]["teacher"] == f"training:{teacher['training']}" and student["started"] >= teacher["finished"]
    capsys.readouterr()
    assert table.main(words) == 0
    assert "nothing to do" in capsys.readouterr().err


def test_terms_and_loss_are_one_graph(taught: dict) -> None:
    from torch._dynamo.testing import CompileCounter

    from attnlab.config.targets import group_choices
    from tests.training.test_compile import steps

    every = ",".join(name for name in group_choices("distillation") if name != "none")
    for choice in ([f"distillation=[{every}]"], ["distillation=[kd,dkd,dist]", "data.crop=0"]):  # the second with logits kept
        seen = []
        for backend in (None, CompileCounter()):
            torch._dynamo.reset()
            _, data, teacher, learner = parts(*taught["words"], "optimizer.lr=1e-6", f"teacher={taught['folder']}", *choice)
            assert bool(teacher.asks) == ("data.crop=0" in choice)
            learner.steps_per_epoch = data.steps_per_epoch()
            if backend:
                learner.compile_objective(backend=backend, fullgraph=True)
            loader = data.train_loader("cpu")
            loader.with_index = "index" in learner.asks
            seen.append(steps(learner.train(), next(iter(loader))))
        assert seen[1] == pytest.approx(seen[0], rel=1e-4) and backend.frame_count == 1
    torch._dynamo.reset()
