"""Evaluators: each isolated, none can change the network, what is found is kept; scores.npz; runs asked again for more."""

import json
import math
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from attnlab.attention.rect import RectAttention
from attnlab.config.compose import compose
from attnlab.config.targets import ConfigError
from attnlab.data.digits import Digits
from attnlab.evaluate import evaluate
from attnlab.evaluation.explanations import Explanations
from attnlab.evaluation.runner import ResultWriter, run_evaluators
from attnlab.evaluation.scores import FILE, Scores, load_scores, save_scores
from attnlab.evaluation.trained import Incomplete, Trained
from attnlab.network import Network
from attnlab.ood.msp import MSP
from attnlab.training.settings import Settings
from tests.conftest import TINY


class Evaluator(SimpleNamespace):
    """`Evaluator(lambda trained: {...})`."""

    def __init__(self, run) -> None:
        super().__init__(run=run)


def failing(error: Exception):
    def run(trained: Trained) -> dict[str, float]:
        raise error

    return Evaluator(run)


@pytest.fixture(scope="module")
def data() -> Digits:
    data = Digits(limit=40, batch_size=16, ood=("photos",))
    data.prepare()
    return data


@pytest.fixture
def trained(data: Digits, tmp_path: Path) -> Trained:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 256, 10))
    network = Network(backbone, shape=data.shape, num_classes=10)
    return Trained(network=network, data=data, settings=Settings(accelerator="cpu", precision=32), folder=tmp_path, heads={"msp": MSP()})


@pytest.fixture
def writer(data: Digits) -> ResultWriter:
    writer = ResultWriter({"metrics": {}, "stage_seconds": {}, "data": data.describe()}, lambda result: saved.append(json.dumps(result)))
    saved: list[str] = []
    writer.saved = saved
    return writer


def test_one_that_fails_costs_its_own_metrics(trained: Trained, writer: ResultWriter) -> None:
    evaluators = {
        "first": Evaluator(lambda trained: {"first/value": 1.0}),
        "bad": failing(RuntimeError("no luck")),
        "half": failing(Incomplete("half of it", {"half/value": 0.5})),
        "last": Evaluator(lambda trained: {"last/sum": trained.metrics["first/value"] + trained.metrics["half/value"]}),
    }
    with pytest.raises(RuntimeError, match="no luck"):
        run_evaluators(trained, evaluators, writer)
    result = writer.result
    assert {key for key in result["metrics"] if not key.startswith("test/")} == {"first/value", "half/value", "last/sum"}
    assert result["metrics"]["last/sum"] == 1.5 and set(result["stage_seconds"]) == {"test", "first", "last"}
    assert result["error"] == {"stage": "bad", "kind": "RuntimeError", "message": "no luck"}
    assert "first/value" in json.loads(writer.saved[1])["metrics"]  # at once


def test_attention_of_a_few_images_costs_no_pass_over_the_others(data: Digits, tmp_path: Path) -> None:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 256, 10))
    rect = {"rect": {"at": "1", "module": RectAttention}}
    network = Network(backbone, rect, shape=data.shape, num_classes=10)
    trained = Trained(network=network, data=data, settings=Settings(accelerator="cpu", precision=32), folder=tmp_path)
    seen = []
    network.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    chosen = torch.tensor([7, 0, 31])
    maps, rectangles = trained.attention_over(chosen)
    assert seen == [3]
    torch.testing.assert_close(maps["rect@1"], trained.maps["rect@1"][chosen])
    torch.testing.assert_close(rectangles["rect@1"], trained.rectangles["rect@1"][chosen])
    assert maps["rect@1"].std() > 0
    before = len(seen)
    again, _ = trained.attention_over(chosen)  # those of all images are at hand now
    assert len(seen) == before and again["rect@1"].equal(trained.maps["rect@1"][chosen])


class Noise:
    """An explainer whose maps are random; the first time it may end the process."""

    signed = True

    def __init__(self, *, killed: bool = False) -> None:
        self.killed, self.calls = killed, 0

    def explain(self, network: nn.Module, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.killed and self.calls == 1:
            raise KeyboardInterrupt
        return torch.randn_like(x[:, :1])


def explained(trained: Trained, writer: ResultWriter, explainers: dict[str, Noise], monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """The metrics of the explanations evaluator, after another that draws numbers, too; no pictures."""
    monkeypatch.setattr(Explanations, "draw", lambda self, trained, images, guessed, maps, signed, per_image: drawn.append((maps, signed)))
    drawn: list = []
    trained.explainers = explainers
    writer.result["metrics"] = {}
    evaluator = Explanations(num_images=2, num_perturbed=3, scores=["autvc"])
    run_evaluators(
        trained, {"random/../x": Evaluator(lambda trained: {"random": float(torch.rand(()))}), "explanations": evaluator}, writer
    )
    found = {key: value for key, value in writer.result["metrics"].items() if key.startswith("explain/")}
    return {"maps": {name: maps.tolist() for name, maps in drawn[0][0].items()}, "signed": drawn[0][1], **found}


def test_a_killed_evaluator_goes_on_from_what_it_has_kept(trained: Trained, writer: ResultWriter, monkeypatch, tmp_path: Path) -> None:
    whole = explained(trained, writer, {"a": Noise(), "b": Noise(), "c": Noise()}, monkeypatch)
    assert whole["explain/a/autvc"] != whole["explain/c/autvc"] and not list(tmp_path.glob("partial*"))
    explainers = {"a": Noise(), "b": Noise(), "c": Noise(killed=True)}
    with pytest.raises(KeyboardInterrupt):
        explained(trained, writer, explainers, monkeypatch)
    (kept,) = tmp_path.glob("partial*")
    assert kept.name == "partial-explanations.ckpt" and kept.stat().st_size < 60_000
    content = kept.read_bytes()
    assert explained(trained, writer, explainers, monkeypatch) == whole
    assert [one.calls for one in explainers.values()] == [1, 1, 2] and not kept.exists()
    assert set(trained.timings) == {f"explain/{name}/seconds" for name in "abc"}

    def again(content: bytes) -> list[int]:
        kept.write_bytes(content)
        fresh = {"a": Noise(), "b": Noise(), "c": Noise()}
        assert explained(trained, writer, fresh, monkeypatch) == whole and not kept.exists()
        return [one.calls for one in fresh.values()]

    assert again(content) == [0, 0, 1]
    flipped = bytearray(content)
    flipped[content.index(b"PK\x05\x06") // 2] ^= 1
    for damaged in (b"", content[:2000], bytes(flipped)):
        assert again(damaged) == [1, 1, 1]
    writer.result["data"]["digests"]["test"] = "0" * 16  # other images
    assert again(content) == [1, 1, 1]


def test_what_failed_is_not_kept(trained: Trained, writer: ResultWriter, monkeypatch, tmp_path: Path) -> None:
    class Broken(Noise):
        def explain(self, network, x, target):
            raise RuntimeError("no luck")

    explainers = {"a": Broken(), "b": Noise(), "c": Noise(killed=True)}
    with pytest.raises(KeyboardInterrupt):
        explained(trained, writer, explainers, monkeypatch)
    with pytest.raises(Incomplete, match=r"explainer\.a: RuntimeError: no luck"):
        explained(trained, writer, explainers, monkeypatch)
    assert explainers["b"].calls == 1 and not list(tmp_path.glob("partial*"))
    assert {"explain/b/autvc", "explain/c/autvc"} <= set(writer.result["metrics"])


def test_nothing_changes_the_network(trained: Trained, writer: ResultWriter) -> None:
    network = trained.network
    before = {key: value.clone() for key, value in network.state_dict().items()}

    def prune(trained: Trained) -> dict[str, float]:
        with torch.no_grad():
            network.backbone[0].weight.mul_(0)
        return {"prune/acc": 0.0}

    def train_mode(trained: Trained) -> dict[str, float]:
        network.train()
        network(torch.randn(4, 1, 16, 16))
        return {}

    def freeze(trained: Trained) -> dict[str, float]:
        network.requires_grad_(False)
        return {"freeze/ok": 1.0}

    def look(trained: Trained) -> dict[str, float]:
        assert not network.training and all(parameter.requires_grad for parameter in network.parameters())
        assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
        return {"look/ok": 1.0}

    with pytest.raises(ValueError, match=r"changed 1 of the network's 9 weights and buffers; they were put back"):
        run_evaluators(trained, {run.__name__: Evaluator(run) for run in (prune, train_mode, freeze, look)}, writer)
    assert {"freeze/ok", "look/ok"} <= set(writer.result["metrics"]) and "train_mode" not in writer.result["stage_seconds"]
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_random_numbers_come_from_the_seed(trained: Trained, writer: ResultWriter) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    draws = [Evaluator(lambda trained, name=name: {name: float(torch.rand(1))}) for name in ("a", "b")]
    run_evaluators(trained, dict(enumerate(draws)), writer)
    assert writer.result["metrics"]["a"] == writer.result["metrics"]["b"]
    assert torch.equal(torch.rand(1), expected)  # the generator is where it was
    first = writer.result["metrics"].pop("a")
    for seed, same in ((0, True), (1, False)):
        trained.seed = seed
        writer.result["metrics"].clear()
        run_evaluators(trained, {"a": draws[0]}, writer)
        assert (writer.result["metrics"]["a"] == first) == same


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (None, "run must return a mapping of metrics to numbers, got None"),
        ({"a": torch.ones(())}, "run must return a mapping"),
        ({"test/acc": 1.0}, "gives test/acc, which is known already"),
    ],
)
def test_what_is_no_result(trained: Trained, writer: ResultWriter, found, message: str) -> None:
    with pytest.raises(ValueError, match=rf"evaluator\.odd: {message}"):
        run_evaluators(trained, {"odd": Evaluator(lambda trained: found)}, writer)
    assert "test/acc" in writer.result["metrics"]


def test_a_split_is_passed_over_once(trained: Trained, writer: ResultWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    from attnlab.evaluation.figures import Figures
    from attnlab.evaluation.ood import OOD

    passes: list[str] = []
    real = type(trained.data).eval_loader

    def counted(data, split, device):
        def batches():
            passes.append(split)
            yield from real(data, split, device)

        return batches()

    monkeypatch.setattr(type(trained.data), "eval_loader", counted)

    def everything(trained: Trained) -> dict[str, float]:
        for split in ("test", "photos"):
            assert len(trained.bank(split)) == len(trained.logits(split)[0])
        assert (trained.bank("photos").labels == -1).all() and (trained.logits("photos")[1] == -1).all()
        return {}

    run_evaluators(trained, {"ood": OOD(), "figures": Figures(), "all": Evaluator(everything)}, writer)
    assert sorted(passes) == ["photos", "test"]
    assert writer.result["pictures"] == {f"figures/{kind}.png": kind for kind in ("ood_scores", "consistency", "reliability")}


# -- scores.npz


def test_scores_come_back_and_damage_is_seen(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    from attnlab.evaluation.scores import log

    monkeypatch.setattr(log, "propagate", True)
    generator = torch.Generator().manual_seed(0)
    logits = {"test": (torch.randn(20, 3, generator=generator), torch.arange(20) % 3)}
    scores = {"msp": {"test": torch.randn(20, generator=generator).double(), "a/b": torch.tensor([math.inf, -1.0])}}
    origin = {"network": "x", "digests": {"test": "1"}}
    path = save_scores(tmp_path / FILE, Scores(logits, scores, origin))
    found = load_scores(path)
    assert all(torch.equal(one, two) for one, two in zip(found.logits["test"], logits["test"]))
    assert all(torch.equal(found.scores["msp"][name], value) for name, value in scores["msp"].items())
    assert found.origin == origin and found.logits_for(origin).keys() == {"test"}
    for other in ({**origin, "network": "y"}, {**origin, "digests": {"test": "2"}}, {**origin, "digests": {}}, {}):
        assert not found.logits_for(other)
    assert not load_scores(tmp_path / "none.npz").logits and not caplog.text

    whole = path.read_bytes()
    for at in torch.randint(0, len(whole), (60,), generator=generator).tolist():
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
        caplog.clear()
        damaged = load_scores(path)
        if damaged.logits:  # a bit that carries nothing (a date in the zip)
            assert torch.equal(damaged.logits["test"][0], logits["test"][0])
        else:
            (said,) = {record.getMessage() for record in caplog.records}
            assert "is damaged" in said and "\n" not in said
    for content in (b"", whole[:100], whole[:-30]):
        path.write_bytes(content)
        assert not load_scores(path).logits
    np.savez(path, **{**dict(np.load(_written(tmp_path, whole))), "logits/test": np.zeros((20, 3), np.float32)})  # swapped, checksums right
    assert not load_scores(path).logits and "not those that were written" in caplog.text
    np.savez(path, allow_pickle=True, digest=np.array("x"), origin=np.array([print], dtype=object))
    assert not load_scores(path).logits


def _written(folder: Path, content: bytes) -> Path:
    path = folder / "whole.npz"
    path.write_bytes(content)
    return path


# -- whole runs


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run on images with boxes that was only tested."""
    from attnlab.pipeline.train import train
    from attnlab.records.lookup import record_of

    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("outputs")
    cluttered = ["data=cluttered_digits", "data.num_train=64", "data.num_test=40", "data.limit=null", "trainer.max_epochs=1"]
    plan = compose([*TINY, *cluttered, "callback=ema", "callback.ema.decay=0.5", "evaluator=none", f"paths.outputs={root}"])
    train(plan)
    return record_of(plan).folder


def metrics_of(path: Path) -> dict[str, float]:
    return json.loads(path.read_text())["metrics"]


def test_a_run_without_evaluators_is_tested_only(made: Path) -> None:
    result = json.loads((made / "result.json").read_text())
    assert result["status"] == "finished" and {key.split("/")[0] for key in result["metrics"]} == {"train", "test"}
    assert result["pictures"] == {} and not (made / "figures").exists()
    assert load_scores(made / FILE).logits.keys() == {"test"}


def test_a_finished_run_is_asked_for_more_without_a_pass(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The average of the weights is asked, as it was tested; the temperature needs training images only."""
    was = metrics_of(made / "result.json")
    with monkeypatch.context() as patch:
        patch.setattr(Trained, "bank", lambda self, split: pytest.fail(f"a pass over {split}"))
        found = metrics_of(evaluate([made], ["evaluator=[calibration]"]))
    assert found["test/nll"] == was["test/nll"] and "calibration/temperature" in found and not [key for key in found if "ood/" in key]
    for name in ("nll", "ece", "adaptive_ece", "classwise_ece", "aurc", "risk_at_80", "risk_at_90", "risk_at_95"):
        assert found[f"calibration/{name}"] >= 0
    (made / FILE).rename(made / "away.npz")
    path = evaluate([made], ["evaluator=[calibration]", "ood=[msp]"])
    (path.parent / FILE).unlink(missing_ok=True)
    again = metrics_of(evaluate([made], ["evaluator=[calibration]", "ood=[msp]"]))
    (made / "away.npz").rename(made / FILE)
    assert again == pytest.approx(found, nan_ok=True)
    other = metrics_of(evaluate([made], ["evaluator=[calibration]", "data.num_test=30"]))  # other images: not those at hand
    assert other["test/nll"] != was["test/nll"]


def test_an_explainer_brings_its_evaluator(made: Path) -> None:
    path = evaluate([made], ["evaluator=none", "explainer=gradcam"])
    result = json.loads(path.read_text())
    assert list(result["stage_seconds"]) == ["test", "explanations"] and result["pictures"] == {
        "figures/explanations.png": "explanation",
        "figures/explanations_of_one.png": "explanation",
        "figures/faithfulness.png": "faithfulness",
    }
    assert {key for key in result["metrics"] if key.startswith("explain/")} == {
        f"explain/gradcam/{name}" for name in ("pointing", "energy", "iou", "iou_best", "rank_accuracy", "deletion", "insertion")
    }
    assert list(result["timings"]) == ["explain/gradcam/seconds"] and result["timings"]["explain/gradcam/seconds"] > 0
    assert result["metrics"]["explain/gradcam/iou_best"] >= result["metrics"]["explain/gradcam/iou"]
    assert (path.parent / "figures" / "explanations.png").stat().st_size > 10_000
    other = metrics_of(evaluate([made], ["evaluator=explanations", "evaluator.explanations.target=label", "explainer=gradcam"]))
    assert other["explain/gradcam/energy"] != result["metrics"]["explain/gradcam/energy"]
    plain = metrics_of(evaluate([made], ["evaluator=explanations"]))
    assert not [key for key in plain if key.startswith("explain/")]


def test_a_mistake_of_an_explainer_is_one_line(made: Path) -> None:
    with pytest.raises(Incomplete, match=r"explainer\.gradcam: ValueError: GradCAM: at=layer9: there is no such place; nearest: layer4"):
        evaluate([made], ["evaluator=none", "explainer=gradcam", "explainer.gradcam.at=layer9"])


def test_maps_that_are_none(trained: Trained, writer: ResultWriter) -> None:
    class Explainer:
        def __init__(self, map_of) -> None:
            self.map_of = map_of

        def explain(self, network, x, target):
            return self.map_of(x)

    trained.explainers = {
        "good": Explainer(lambda x: x),
        "flat": Explainer(lambda x: x.sum()),
        "nan": Explainer(lambda x: x * math.nan),
        "list": Explainer(lambda x: [1]),
    }
    with pytest.raises(Incomplete) as caught:
        run_evaluators(trained, {"explanations": Explanations(num_images=4, scores=["sparseness"], num_perturbed=3)}, writer)
    for text in (
        r"flat: ValueError: explain must return maps \(4, 1, H, W\), got \(\)",
        "nan: ValueError: 4 of 4 maps hold NaN",
        "got list",
    ):
        assert re.search(text, str(caught.value)), caught.value
    assert [key for key in writer.result["metrics"] if key.startswith("explain/")] == [
        "explain/good/sparseness",
    ]
    assert set(writer.result["pictures"].values()) == {"explanation"} and len(writer.result["pictures"]) == 2


def test_explainers_of_several_parts_and_with_a_preparation(trained: Trained, writer: ResultWriter) -> None:
    class Bright:
        signed = True

        def __init__(self, factor: float) -> None:
            self.factor, self.prepared = factor, 0

        def prepare(self, trained: Trained) -> None:
            self.prepared += 1

        def parts(self, network: nn.Module) -> dict[str, "Bright"]:
            return {"plus@input": self, "minus@input": Bright(-self.factor)}

        def explain(self, network, x, target):
            return self.factor * x

    explainer = Bright(1.0)
    trained.explainers = {"bright": explainer}
    names = ["deletion_insertion", "insertion_mean", "aupc", "autvc", "class_sensitivity", "sparseness"]
    names += ["road", "randomisation", "infidelity", "max_sensitivity"]
    run_evaluators(trained, {"explanations": Explanations(num_images=2, scores=names, num_perturbed=2)}, writer)
    found = {key: value for key, value in writer.result["metrics"].items() if key.startswith("explain/")}
    keys = {"deletion", "insertion", *names[1:]}
    assert {key for key in found if "/plus@input/" in key} == {f"explain/bright/plus@input/{key}" for key in keys}
    assert len(found) == 2 * len(keys) and explainer.prepared == 1
    for key in keys:  # scored by magnitude, and what has a sign is at its best scale
        assert found[f"explain/bright/plus@input/{key}"] == pytest.approx(found[f"explain/bright/minus@input/{key}"], abs=1e-5)
    assert found["explain/bright/plus@input/randomisation"] == pytest.approx(1)
    assert found["explain/bright/plus@input/class_sensitivity"] == pytest.approx(1)
    assert set(writer.result["timings"]) == {"explain/bright/plus@input/seconds", "explain/bright/minus@input/seconds"}


def test_equal_evaluations_have_equal_metrics(made: Path) -> None:
    words = ["evaluator=none", "explainer=[rise,random_map]", "explainer.rise.num_masks=5"]
    first = metrics_of(evaluate([made], words))
    assert first == metrics_of(evaluate([made], words))


def test_a_run_by_its_id(made: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    from attnlab import evaluate as command

    root = made.parent.parent
    for word in (made.name, made.name.rpartition("-")[2][:5]):
        monkeypatch.setattr(sys, "argv", ["evaluate", f"run={word}", f"paths.outputs={root}", "evaluator=[]"])
        command.main()
        said = capsys.readouterr()
        assert Path(said.out.splitlines()[-1]).parent.parent == made / "evaluations" and "test/acc" in said.err
    monkeypatch.setattr(sys, "argv", ["evaluate", "run=nothing", f"paths.outputs={root}"])
    with pytest.raises(SystemExit):
        command.main()
    assert "run=nothing: there is no such run" in capsys.readouterr().err


def test_evaluators_in_a_command() -> None:
    default = compose(["logger=none"])
    assert list(default.full["evaluator"]) == ["ood", "localisation", "figures"] and not default.full["explainer"]
    none, empty, other = (compose([f"evaluator={value}"]) for value in ("none", "[]", "[ood,calibration]"))
    assert none.full["evaluator"] == empty.full["evaluator"] == {} and none.address == empty.address
    assert len({plan.address for plan in (default, none, other)}) == 3
    assert len({plan.training for plan in (default, none, other, compose(["explainer=gradcam"]))}) == 1
    with pytest.raises(ConfigError, match=r"evaluator\.calibration\.fraction: calibration is not chosen"):
        compose(["evaluator.calibration.fraction=0.5"])
