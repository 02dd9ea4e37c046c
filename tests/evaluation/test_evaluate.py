"""Evaluation of finished runs: deep ensembles against the mean of their members by hand, and what is kept of a run's own."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch import nn

from attnlab.ensemble import Ensemble, Renormalised
from attnlab.evaluate import evaluate, plan_of
from attnlab.network import Output
from attnlab.records.record import Record
from tests.commands import command
from tests.conftest import POINTS, TINY, write_result

ONE = [*TINY, "trainer.max_epochs=1", "trainer.precision=32"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of finished runs: two kinds of network on the same images, one on fewer (other moments), one on points."""
    from attnlab.config.compose import compose
    from attnlab.config.plan import outputs
    from attnlab.pipeline.train import train

    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("outputs")
    commands = {
        "plain": [*ONE, "ood=[msp,energy,knn]"],
        "rect": [*ONE, "seed=1", "attention=rect", "loss=large_margin", "model.bottleneck=3", "regularizer=dropout"],
        "fewer": [*ONE, "data.limit=32", "seed=2"],
        "points": [*POINTS, "trainer.max_epochs=1"],
    }
    folders = {}
    for name, words in commands.items():
        plan = compose([*words, f"paths.outputs={root}"])
        train(plan)
        folders[name] = Record.find(outputs(plan), plan.address, plan.label).folder
    return folders


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def by_hand(*folders: Path) -> tuple[np.ndarray, np.ndarray]:
    """The mean of the runs' probabilities of the test images, each run's network fed by its own moments; and the labels."""
    from attnlab.pipeline.factory import make_data, make_learner

    members = []
    for folder in folders:
        plan, told = plan_of(folder, [])
        data = make_data(plan)
        learner = make_learner(plan, data)
        learner.load_state_dict(torch.load(folder / "last.ckpt", weights_only=True)["state_dict"])
        test = data.image_set("test")
        with torch.no_grad():
            logits = learner.network.eval()((test.images / 255 - told["data"]["mean"][0]) / told["data"]["std"][0]).logits
        members.append(softmax(logits.double().numpy(), 1))
    return np.mean(members, 0), test.labels.numpy()


# -- the module


class Fixed(nn.Module):
    def __init__(self, logits, features=None):
        super().__init__()
        self.logits, self.features = torch.as_tensor(logits), features

    def forward(self, x, target=None):
        return Output(self.logits, self.features, nn.Identity(), target)


def test_logits_are_the_log_of_the_mean_probability():
    rows = [[[2.0, 0, -1], [0, 0, 0]], [[-3.0, 1, 1], [700, 0, -700]]]
    out = Ensemble([Fixed(row) for row in rows])(torch.zeros(2, 1))
    expected = np.mean([softmax(np.array(row), 1) for row in rows], 0)
    np.testing.assert_allclose(out.logits.exp(), expected, rtol=1e-12, atol=1e-300)
    assert out.logits.dtype == torch.float64 and out.logits.isfinite().all()
    assert out.features is None and out.fc is None and out.target is None
    torch.testing.assert_close(Ensemble([Fixed(rows[0])])(torch.zeros(2, 1)).logits, torch.tensor(rows[0]).double().log_softmax(1))


def test_equal_confident_members_are_told_apart():
    """In fp32 every log-probability of these is 0."""
    z = torch.tensor([[20.0, 0], [25, 0], [30, 0]])
    logits = Ensemble([Fixed(z), Fixed(z)])(torch.zeros(3, 1)).logits
    assert (logits[:, 0].diff() > 0).all() and (logits < 0).all()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(Ensemble([Fixed(z), Fixed(z)])(torch.zeros(3, 1)).logits, logits)


def test_features_stand_side_by_side():
    f, g = torch.arange(6.0).view(2, 3), -torch.arange(8.0).view(2, 2, 2)
    z = torch.zeros(2, 4)
    assert torch.equal(Ensemble([Fixed(z, f), Fixed(z, g)])(f).features, torch.cat([f, g.flatten(1)], 1))
    assert Ensemble([Fixed(z, f), Fixed(z)])(f).features is None


def test_members_that_cannot_be():
    with pytest.raises(ValueError, match="at least one member"):
        Ensemble([])
    with pytest.raises(ValueError, match=r"disagree on the classes: logits of \(2, 3\), \(2, 4\)"):
        Ensemble([Fixed(torch.zeros(2, 3)), Fixed(torch.zeros(2, 4))])(torch.zeros(2, 1))


@pytest.mark.parametrize("shape", [(4, 2), (4, 2, 5, 3)])
def test_renormalised_sees_its_own_moments(shape):
    class Echo(nn.Module):
        def forward(self, x, target=None):
            return x

    given, learned = ([0.3, 0.5], [0.2, 0.7]), ([0.1, 0.6], [0.4, 0.3])
    raw = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    channels = (-1, *[1] * (len(shape) - 2))
    seen = [(raw - torch.tensor(mean).view(channels)) / torch.tensor(std).view(channels) for mean, std in (given, learned)]
    torch.testing.assert_close(Renormalised(Echo(), given=given, learned=learned)(seen[0]), seen[1])


# -- the command


def test_an_ensemble_is_the_mean_of_its_members(made) -> None:
    path = evaluate([made["plain"], made["rect"]], ["evaluator=[ood,localisation,figures,calibration]"])
    found = read(path)
    p, labels = by_hand(made["plain"], made["rect"])
    assert found["status"] == "finished" and found["metrics"]["test/acc"] == pytest.approx((p.argmax(1) == labels).mean())
    assert found["metrics"]["test/nll"] == pytest.approx(-np.log(p[range(len(p)), labels]).mean(), rel=1e-5)
    members = sorted(made[name].name for name in ("plain", "rect"))
    assert found["members"] == members and found["run_id"] == path.parent.name
    assert path.parent.parent == made["plain"].parent.parent / "ensembles"
    assert path.parent.name.startswith("digits-resnet18-w4-e1+1-x2-")
    assert found["parameters"] == sum(read(made[name] / "result.json")["parameters"] for name in ("plain", "rect"))
    assert {key.split("/")[1] for key in found["metrics"] if key.startswith("ood/")} == {"msp", "entropy"}
    assert {each.name for each in (path.parent / "figures").iterdir()} >= {"ood_scores.png", "consistency.png", "reliability.png"}
    assert not [each for each in (path.parent / "figures").iterdir() if each.name.startswith("attention")]
    assert Record(path.parent).result() == found  # a whole record


def test_the_order_of_members_does_not_matter(made) -> None:
    first = evaluate([made["plain"], made["rect"]], ["ood=[entropy,knn]", "ood.knn.k=3"])
    one = read(first)
    second = evaluate([made["rect"], made["plain"]], ["ood=[entropy,knn]", "ood.knn.k=3"])
    assert second == first and read(second)["metrics"] == one["metrics"]
    assert evaluate([made["rect"], made["plain"]], ["ood=entropy"]) != first


def test_members_are_fed_by_their_own_moments(made) -> None:
    """The run on fewer images normalised by their mean and spread."""
    moments = [read(made[name] / "result.json")["data"]["mean"] for name in ("plain", "fewer")]
    assert moments[0] != moments[1]
    found = read(evaluate([made["plain"], made["fewer"]], []))
    p, labels = by_hand(made["plain"], made["fewer"])
    assert found["metrics"]["test/nll"] == pytest.approx(-np.log(p[range(len(p)), labels]).mean(), rel=1e-5)
    assert found["run_id"].startswith("digits-resnet18-w4-e1-x2-")


def test_features_joined_are_the_mean_of_the_logits(made) -> None:
    """CAT: one final layer on all features gives the members' mean logits; heads that need it work."""
    found = read(evaluate([made["plain"], made["rect"]], ["ood=vim"], join="features"))
    assert found["run_id"].partition("-x2")[2].startswith("-cat-") and "join=features" in found["command"]
    assert "ood/vim/photos/auroc" in found["metrics"]
    plain = read(evaluate([made["plain"], made["rect"]], []))
    assert found["metrics"]["test/nll"] != plain["metrics"]["test/nll"]


def test_the_command(made) -> None:
    words = [f"run={made['rect']}", f"run={made['plain']}", "ood=[msp,entropy]", "data.ood=[photos]"]
    done = command("attnlab.evaluate", *words)
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.strip().splitlines()[-1])
    found = read(path)
    assert found["command"] == " ".join(["python -m attnlab.evaluate", *words])
    assert 0 <= found["metrics"]["ood/entropy/photos/auroc"] <= 1
    assert not [each for each in path.parent.iterdir() if each.name.endswith(".tmp")]


MISTAKES = {
    ("run={plain}", "run={plain}"): "is given twice; the members of an ensemble are different runs",
    ("run={plain}", "run={points}"): "learned 2 classes (upper, lower) of [2], and digits-resnet18-w4-e1-s0-",
    ("run={plain}", "join=features"): "join=features joins several runs, and one is given",
    ("run={plain}", "run={rect}", "join=logits"): "join=logits: must be one of probabilities, features",
    ("run={plain}", "run=/no/such/run"): "there is no such folder",
    ("run={plain}", "run={rect}", "data=two_moons"): "choose data of the same shape and classes",
    ("run={plain}", "run={rect}", "model.width=8"): "model is the run's own and cannot be changed here",
    ("run={plain}", "seed=3"): "seed is the run's own and cannot be changed here; take another run, or change only data, ood, evaluator",
    ("run={plain}", "run={rect}", "+force=true"): "force is the run's own and cannot be changed here",
    ("run={plain}", "run={rect}", "ood=[msp,energy]"): "ood.energy/test: ValueError: the logits are log-probabilities",
    ("run={plain}", "run={rect}", "ood=vim"): "ood.vim: ValueError: ViM needs the weights of a final nn.Linear",
    ("run={plain}", "run={rect}", "ood.knn.k=3"): "knn is not chosen (ood=[msp,entropy])",
}


def test_mistakes_are_one_line(made, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    from attnlab import evaluate as command

    for words, message in MISTAKES.items():
        monkeypatch.setattr(sys, "argv", ["evaluate", *(word.format(**made) for word in words)])
        with pytest.raises(SystemExit) as stop:
            command.main()
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert stop.value.code == 1 and message in said, said


def test_members_with_other_names_of_classes(made) -> None:
    """As many classes, but not the same: their probabilities must not be averaged."""
    from attnlab.pipeline.reevaluate import EnsembleReevaluation, FinishedRun

    runs = [FinishedRun(made[name], *plan_of(made[name], [])) for name in ("plain", "rect")]
    other = {**runs[1].stored["data"], "classes": list("abcdefghij")}
    runs[1] = dataclasses.replace(runs[1], stored={**runs[1].stored, "data": other})
    with pytest.raises(ValueError, match=r"learned 10 classes \(a, b, c, \.\.\.\) of .*, and digits-.* 10 classes \(0, 1, 2, \.\.\.\)"):
        EnsembleReevaluation(runs[0].plan, runs, command="")


# -- a single run


def test_a_single_run_is_normalised_as_it_learned(made) -> None:
    found, was = read(evaluate([made["plain"]], ["data.limit=32"])), read(made["plain"] / "result.json")
    assert found["data"]["mean"] == was["data"]["mean"] and found["metrics"]["test/nll"] == was["metrics"]["test/nll"]
    own = read(evaluate([made["plain"]], ["data.mean=[0.1]", "data.std=[0.9]"]))
    assert own["data"]["mean"] == [0.1] and own["metrics"]["test/nll"] != was["metrics"]["test/nll"]


def test_heads_of_an_experiment_give_way(made, tmp_path: Path) -> None:
    """What the experiment sets of its own heads is no setting of the heads chosen now."""
    from attnlab.config.compose import compose

    result = read(made["plain"] / "result.json")
    folder = tmp_path / made["plain"].name
    folder.mkdir()
    for heads in (["msp"], ["lens_depth", "msp"]):
        words = ["experiment=lens_depth/cifar10", "data=digits", "data.ood=[photos]", "ood.knn.k=7"]
        write_result(folder / "result.json", {**result, "overrides": words, "config": compose(words).full})
        plan, _ = plan_of(folder, [f"ood=[{','.join(heads)}]", "ood.msp.temperature=2"])
        assert list(plan.full["ood"]) == heads and plan.full["ood"]["msp"]["temperature"] == 2
        assert plan.overrides[0] == words[0] and plan.overrides[-1] == "ood.msp.temperature=2"
        assert plan_of(folder, [])[0].full["ood"]["lens_depth"]["num_centers"] == 1000
