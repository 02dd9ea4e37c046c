"""Callbacks: each against an obvious loop, and that what they keep is tested, saved and found again."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from attnlab.callbacks.best import Best, is_better
from attnlab.callbacks.early_stop import EarlyStop
from attnlab.callbacks.ema import EMA
from attnlab.callbacks.swa import SWA
from attnlab.config.targets import ConfigError
from tests.golden_numbers import golden

VAL = ["data.val=0.25", "trainer.precision=32", "trainer.threads=1"]


def weights(folder) -> dict:
    return torch.load(folder / "last.ckpt", weights_only=True)


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).double()


def test_ema_equals_the_mean_teachers_code() -> None:
    gold = golden("components", "ema_")
    student, teacher = net(), net()
    for network, name in ((student, "student"), (teacher, "teacher")):
        network.load_state_dict(
            {key.removeprefix(f"{name}_p_"): value for key, value in gold.items() if key.startswith(f"{name}_p_")}, strict=False
        )
    ema = EMA(decay=gold["decay"].item(), warmup=False)
    ema.on_fit_start(SimpleNamespace(network=student))
    ema.load_state_dict(teacher.state_dict())
    for step in (1, 2):
        ema.on_step(SimpleNamespace(network=student), step)
    for name, value in ema.tested(student).named_parameters():
        torch.testing.assert_close(value, gold[f"after2_p_{name}"], rtol=1e-12, atol=0)


@pytest.mark.parametrize(("warmup", "buffers"), [(True, "average"), (False, "copy")])
def test_ema_is_the_loop(warmup: bool, buffers: str) -> None:
    network = net().float()
    ema = EMA(decay=0.9, warmup=warmup, buffers=buffers)
    ema.on_fit_start(SimpleNamespace(network=network))
    expected = {name: value.clone() for name, value in network.state_dict().items()}
    for step in range(1, 6):
        with torch.no_grad():
            for value in network.parameters():
                value += torch.randn_like(value)
        network(torch.randn(8, 4))
        ema.on_step(SimpleNamespace(network=network), step)
        decay = min(0.9, (1 + step) / (10 + step)) if warmup else 0.9
        for name, value in network.state_dict().items():
            averaged = value.is_floating_point() and ("running" not in name or buffers == "average")
            expected[name] = decay * expected[name] + (1 - decay) * value if averaged else value.clone()
    torch.testing.assert_close(ema.state_dict(), expected)
    assert not any(parameter.requires_grad for parameter in ema.network.parameters())


@pytest.mark.parametrize(
    "make", [lambda: EMA(decay=1.0), lambda: SWA(start=1.0), lambda: Best(metric="test/acc"), lambda: EarlyStop(patience=0)]
)
def test_values_out_of_range(make) -> None:
    with pytest.raises(ValueError, match=r"must be|cannot be"):
        make()


def test_better_is_better() -> None:
    assert is_better(1.0, None, "min") and is_better(0.6, 0.5, "max") and is_better(0.4, 0.5, "min")
    assert not is_better(None, None, "max") and not is_better(float("nan"), None, "max")
    assert not is_better(0.5, 0.5, "min")
    assert not is_better(0.5, 0.5, "max") and not is_better(0.55, 0.5, "max", by=0.1) and not is_better(0.45, 0.5, "min", by=0.1)


def test_ema_and_swa_are_tested_and_saved_and_leave_training_alone(run) -> None:
    """The figures of a run are those of the network its checkpoint's average gives."""
    plain = run(*VAL, "trainer.max_epochs=3")
    for name in ("ema", "swa"):
        found = run(
            *VAL, "trainer.max_epochs=3", f"callback={name}", *(["callback.ema.decay=0.9"] if name == "ema" else ["callback.swa.start=0"])
        )
        one, two = weights(plain["folder"]), weights(found["folder"])
        assert all(torch.equal(two["state_dict"][key], value) for key, value in one["state_dict"].items())
        assert found["metrics"]["test/nll"] != plain["metrics"]["test/nll"] and found["metrics"]["val/nll"] != plain["metrics"]["val/nll"]
        assert nll_of(found) == pytest.approx(found["metrics"]["test/nll"], rel=1e-5)


def nll_of(found: dict) -> float:
    """By hand: the averaged weights of the checkpoint in the run's network, on the test images."""
    from attnlab.pipeline.factory import make_data, make_learner

    state = weights(found["folder"])["attnlab"]["states"]
    (key,) = [key for key in state if key.startswith("callback.")]
    values = state[key]["average"] if key == "callback.swa" else state[key]
    values = {name.removeprefix("module."): value for name, value in values.items() if name != "n_averaged"}
    data = make_data(found["plan"])
    network = make_learner(found["plan"], data).network
    network.load_state_dict(values)
    network.eval()
    with torch.no_grad():
        parts = [(network(x).logits, y) for x, y in data.eval_loader("test", "cpu")]
    return nn.functional.cross_entropy(torch.cat([z for z, _ in parts]).double(), torch.cat([y for _, y in parts])).item()


def test_swa_is_the_mean_of_the_last_epochs(run) -> None:
    words = [*VAL, "trainer.max_epochs=4", "trainer.checkpoint_seconds=0"]
    seen = []

    class Watch:
        order = -1

        def on_epoch_end(self, learner, row) -> None:
            seen.append(copy.deepcopy(learner.network.state_dict()))

    from attnlab.training.callback_list import CallbackList

    add = CallbackList.add
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CallbackList, "add", lambda self, given: add(self, {**given, "watch": Watch()}))
        found = run(*words, "callback=swa", "callback.swa.start=0.5")
    average = weights(found["folder"])["attnlab"]["states"]["callback.swa"]["average"]
    for name in [key for key in seen[0] if key.endswith("weight")]:
        torch.testing.assert_close(average[f"module.{name}"], (seen[2][name] + seen[3][name]) / 2)


def test_best_is_the_epoch_with_the_best_validation(run) -> None:
    found = run(*VAL, "trainer.max_epochs=4", "callback=best", "callback.best.metric=val/nll", "callback.best.mode=min", "optimizer.lr=0.5")
    rows = weights(found["folder"])["attnlab"]["history"]
    nlls = [row["val/nll"] for row in rows]
    state = weights(found["folder"])["attnlab"]["states"]["callback.best"]
    assert state["value"] == min(nlls) and state["epoch"] == nlls.index(min(nlls)) == rows[-1]["best_epoch"]
    assert [row["best_epoch"] for row in rows] == [nlls[: n + 1].index(min(nlls[: n + 1])) for n in range(4)]
    # what is tested is that epoch's network: a run that ends there, under the same schedule, has the same figures
    from attnlab.pipeline.factory import make_data, make_learner

    data = make_data(found["plan"])
    learner = make_learner(found["plan"], data)
    learner.restore(weights(found["folder"]))
    assert learner.tested() is not learner.network and learner.tested(now=True) is learner.network
    assert all(torch.equal(value, state["weights"][key]) for key, value in learner.tested().state_dict().items())


class Epochs:
    """A learner as callbacks see it at the end of an epoch: every epoch its only weight is the epoch's number."""

    def __init__(self) -> None:
        self.network, self.stopped = nn.Linear(1, 1, bias=False), False
        self.trainer = SimpleNamespace(strategy=SimpleNamespace(broadcast=lambda value: value))

    def end(self, callback, epoch: int, value: float) -> dict[str, float]:
        nn.init.constant_(self.network.weight, float(epoch))
        row = {"epoch": float(epoch), "val/acc": value}
        callback.on_epoch_end(self, row)
        return row

    def tested(self, *, now: bool = False) -> nn.Module:
        return self.network if now else nn.Linear(1, 1, bias=False).requires_grad_(False)

    def stop(self) -> None:
        self.stopped = True


def test_best_keeps_the_weights_of_the_epoch_and_early_stop_counts_from_it() -> None:
    best, learner = Best(), Epochs()
    rows = [learner.end(best, epoch, value) for epoch, value in enumerate([0.1, 0.4, 0.4, 0.5, 0.2], start=1)]
    assert [row["best_epoch"] for row in rows] == [1, 2, 2, 4, 4] and best.weights["weight"].item() == 4
    again = Best()
    again.load_state_dict(best.state_dict())
    assert again.tested(learner.network).weight.item() == 4 and learner.network.weight.item() == 5
    stop, stops = EarlyStop(patience=2, min_delta=0.05), []
    for epoch, value in enumerate([0.1, 0.4, 0.42, 0.5, 0.5, 0.54], start=1):
        learner.end(stop, epoch, value)
        stops.append(learner.stopped)
    assert stops == [False] * 5 + [True]  # .42 is no step of .05 over .4, .54 none over .5
    again, learner = EarlyStop(patience=2), Epochs()
    again.load_state_dict({**stop.state_dict(), "waited": 1})
    learner.end(again, 7, 0.3)
    assert learner.stopped


def test_swa_goes_on_with_its_mean() -> None:
    learner = SimpleNamespace(network=nn.Linear(1, 1, bias=False), settings=SimpleNamespace(max_epochs=4), last_epoch=False)
    first, second = SWA(start=0.0), SWA(start=0.0)
    for callback in (first, second):
        callback.on_fit_start(learner)
    for learner.current_epoch, value in enumerate((2.0, 4.0, 9.0)):
        nn.init.constant_(learner.network.weight, value)
        if value == 9:
            second.load_state_dict(copy.deepcopy(first.state_dict()))
        (first if value < 9 else second).on_epoch_end(learner, {})
    assert second.tested(learner.network).weight.item() == 5 and first.tested(learner.network).weight.item() == 3


def test_early_stop_ends_the_run_and_the_repeat_does_not_go_on(run) -> None:
    words = [
        *VAL,
        "trainer.max_epochs=9",
        "optimizer.lr=1e-9",
        "schedule=constant",
        "callback=early_stop",
        "callback.early_stop.patience=2",
    ]
    found = run(*words)
    assert found["status"] == "finished" and found["epochs"] < 9
    assert weights(found["folder"])["attnlab"]["stopped"]
    (found["folder"] / "result.json").unlink()  # as if it had been killed after training
    assert run(*words)["epochs"] == found["epochs"]


def test_what_needs_validation_images_says_so(run) -> None:
    with pytest.raises(ConfigError, match=r"callback=best needs val images, and there are none; set data\.val=0\.1"):
        run("callback=best")
