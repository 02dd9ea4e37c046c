"""attnlab as a library: names at the top that cost nothing, a run's network, heads without a bank, shapes that explain themselves."""

import inspect
import pkgutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

import attnlab
from tests import ROOT


def test_a_method_costs_no_lightning() -> None:
    code = (
        "import sys, attnlab; assert 'torch' not in sys.modules, 'torch'; attnlab.__version__\n"
        "from attnlab import RectAttention, MaxDropout, LearnToPayAttention, LargeMarginLoss, LensDepth, place, load, auroc\n"
        "heavy = {'pytorch_lightning', 'lightning', 'hydra', 'wandb', 'timm', 'matplotlib', 'pytorch_ood'} & {*sys.modules}\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_name_is_there() -> None:
    assert {*attnlab.__all__} == {"__version__", *attnlab.WHERE} <= {*dir(attnlab)}
    for name in attnlab.WHERE:
        assert getattr(attnlab, name).__module__ == attnlab.WHERE[name]
    assert (Path(attnlab.__file__).parent / "py.typed").exists()
    with pytest.raises(AttributeError, match=r"no attribute 'RectAtention'; nearest: RectAttention"):
        attnlab.RectAtention  # noqa: B018


def test_heads_take_features_and_labels() -> None:
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(40) % 2
    features = torch.randn(40, 3, generator=draw) + 8 * labels[:, None]
    near, far = features[:10] + 0.1, torch.full((5, 3), 90.0)
    for head in (attnlab.LensDepth(num_centers=10, reduction="random"), attnlab.Mahalanobis()):
        bank = attnlab.Bank(features, features.new_zeros(40, 0), labels)
        scores = head.fit(features.numpy(), labels.numpy()).score(torch.cat([near, far]))
        assert scores.dtype == torch.float64 and attnlab.auroc(scores[:10], scores[10:]) > 0.8
        other = type(head)(**({"num_centers": 10, "reduction": "random"} if isinstance(head, attnlab.LensDepth) else {})).fit(bank)
        assert torch.equal(other.score(attnlab.Bank(near, near[:, :0], labels[:10])), head.score(near))
    with pytest.raises(ValueError, match=r"features must be \(N, D\), a row a sample, got \(2, 3, 4, 4\)"):
        attnlab.LensDepth().fit(torch.zeros(2, 3, 4, 4), labels[:2])
    with pytest.raises(ValueError, match="a bank holds its labels"):
        attnlab.LensDepth().fit(bank, labels)


def test_heads_on_logits_take_logits() -> None:
    from attnlab.ood.entropy import Entropy
    from attnlab.ood.knn import KNN
    from attnlab.ood.msp import MSP

    logits = torch.tensor([[9.0, 0, 0], [0, 0, 0]])
    for head in (MSP(), Entropy()):
        sure, unsure = head.fit(logits, torch.tensor([0, 1])).score(logits)
        assert sure < unsure
    assert KNN(k=1, normalize=False).fit(logits, torch.tensor([0, 1])).score(logits).abs().max() == 0


@pytest.mark.parametrize("shape", [64, (64,), (2, 64, 8, 8), None, (64, 8.0, 8)])
def test_constructors_say_what_shape_must_be(shape: object) -> None:
    for cls in (attnlab.RectAttention, attnlab.PositionAttention):
        with pytest.raises(ValueError, match=r"needs a place of shape \(C, H, W\), without the batch, such as \(64, 32, 32\); got "):
            cls(shape)


def test_every_constructor_says_what_shape_must_be() -> None:
    """Of what is placed and asks for a `shape` that it uses; what takes the place of a layer asks for that first."""
    unused = {"GradScale", "Dropout", "DropPath", "MaxDropout", "ManifoldMixup", "Mixup"}
    seen = 0
    for room in ("attention", "regularizers", "convolutions", "heads"):
        folder = import_module(f"attnlab.{room}").__path__
        for module in (import_module(f"attnlab.{room}.{found.name}") for found in pkgutil.iter_modules(folder)):
            for name, cls in vars(module).items():
                own = inspect.isclass(cls) and issubclass(cls, torch.nn.Module) and cls.__module__ == module.__name__
                asked = inspect.signature(cls).parameters if own and name not in unused else {}
                if "shape" in asked:
                    rest = [key for key, one in asked.items() if key != "shape" and one.default is one.empty]
                    with pytest.raises(ValueError, match=r"needs a place of shape \(|(stands?|replaces) .*(place|replace)"):
                        cls(shape=64, **dict.fromkeys(rest, "x" if "name" in rest else None))
                    seen += 1
    assert seen > 25


def test_a_run_is_loaded_without_its_images(run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network that `result.json` speaks of, from its folder, its id and its address; the caller's random numbers are left alone."""
    from attnlab.config.plan import outputs
    from attnlab.pipeline.factory import make_data

    told = run("attention=rect", "callback=[ema]", "evaluator=none", "ood=none", "trainer.max_epochs=1")
    test = make_data(told["plan"]).image_set("test")
    monkeypatch.setattr("attnlab.data.digits.Digits.load", lambda *_: 1 / 0)  # no image is read
    before = torch.get_rng_state()
    found = [
        attnlab.load(told["folder"]),
        *(attnlab.load(word, outputs=outputs(told["plan"])) for word in (told["run_id"], told["run_id"].rpartition("-")[2][:5])),
    ]
    assert torch.equal(torch.get_rng_state(), before)
    for network, normalise, classes, shape, result in found:
        assert shape == (1, 16, 16) and classes[3] == "3" and result["run_id"] == told["run_id"] and not network.training
        with torch.no_grad():
            logits = network(normalise(test.images)).logits
        assert float((logits.argmax(1) == test.labels).double().mean()) == pytest.approx(told["metrics"]["test/acc"])
    with pytest.raises(ValueError, match="there is no such run; known: "):
        attnlab.load("nosuchrun", outputs=outputs(told["plan"]))
    (told["folder"] / "last.ckpt").unlink()
    with pytest.raises(ValueError, match=r"its last\.ckpt is missing"):
        attnlab.load(told["folder"])
