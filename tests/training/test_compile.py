"""The training step under torch.compile, as far as a machine without a GPU can say: one graph for every component, the numbers of eager
mode, one compilation for all networks of one architecture, and never silently none."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from torch._dynamo.testing import CompileCounter

from attnlab.backbones.resnet import ResNet, resnet18
from attnlab.config.compose import compose
from attnlab.config.groups import having
from attnlab.config.targets import config_dir, group_choices
from attnlab.pipeline.factory import make_data, make_learner, make_settings
from attnlab.placement.hooks import Placement
from attnlab.placement.places import places_of
from attnlab.placement.spec import resolve
from attnlab.training.epoch import Batch, EpochSums
from attnlab.training.learner import Learner
from attnlab.training.seeding import seed_all
from attnlab.training.settings import Settings

pytestmark = pytest.mark.long
SMALL = ["logger=none", "trainer.accelerator=cpu", "data.limit=32", "data.batch_size=16", "ood=none", "model.width=4"]
BLOCKS = (1, 1, 2, 1)


def combinations() -> list[list[str]]:
    """Every component of every group, as many in one network as go together, since tracing takes seconds."""
    return [
        *([f"{group}=[{','.join(names)}]" for group, names in network.items() if names] for network in together()),
        ["attention=[ltpa,ltpa_merge]", "model=vgg_ltpa", "data.size=32"],
        *([f"loss={name}", "model=cnn3", "model.bottleneck=8"] for name in group_choices("loss")),  # which sees features and logits alone
    ]


def together() -> list[dict[str, list[str]]]:
    """Attention and regularizers in as few networks as they fit in: see `collide`."""
    with shallow():
        places = places_of(resnet18(10, (1, 8, 8), width=4), (1, 8, 8))
    networks: list[tuple[dict[str, list[str]], list[Placement]]] = []
    for group in having(placed=True):
        for name in group_choices(group):
            if name == "none" or name.startswith("ltpa"):  # whose taps a ResNet has not
                continue
            entry = yaml.safe_load((config_dir() / group / f"{name}.yaml").read_text())
            found = [] if "penalty" in entry[name] else resolve(entry, places)
            network = next((one for one in networks if not any(collide(a, b) for a in found for b in one[1])), None)
            if network is None:
                networks.append(network := ({key: [] for key in having(placed=True)}, []))
            network[0][group].append(name)
            network[1].extend(found)
    return [chosen for chosen, _ in networks]


def collide(a: Placement, b: Placement) -> bool:
    """Whether one replaces what the other stands in, or both replace the same, or both write the labels."""
    if (a.writes and b.writes) or (a.how == b.how == "replace" and a.place == b.place):
        return True
    return any(x.how == "replace" and y.place.startswith(f"{x.place}.") for x, y in ((a, b), (b, a)))


@contextlib.contextmanager
def shallow() -> Iterator[None]:
    """ResNets with a block a stage, and one stage of two: every kind of place is there, and has half as many to trace."""
    real = ResNet.__init__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ResNet, "__init__", lambda self, *given, blocks, **options: real(self, *given, blocks=BLOCKS, **options))
        yield


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch._dynamo.reset()
    with shallow():
        yield
    torch._dynamo.reset()


def learner_of(words: list[str]) -> tuple[Learner, tuple[torch.Tensor, torch.Tensor]]:
    """A learner in training mode and a batch for it."""
    plan = compose(words)
    settings, data = make_settings(plan), make_data(plan)
    learner = make_learner(plan, data, settings)
    loader = data.train_loader(settings.device)
    learner.steps_per_epoch = len(loader)
    learner.train()
    return learner, next(iter(loader))


def steps(learner: Learner, batch: tuple[torch.Tensor, torch.Tensor], *, num: int = 2) -> list[float]:
    learner.configure_optimizers()
    learner.prepare()
    totals, seen = EpochSums(), []
    for step in range(num):
        seed_all(step)
        learner.step(Batch(*batch), totals)
        seen.append(totals.sums.sum().item())
    return seen


@pytest.mark.parametrize("choice", combinations(), ids=" ".join)
def test_network_and_loss_are_one_graph(choice: list[str], tmp_path: Path) -> None:
    words = [*SMALL, *choice, f"paths.outputs={tmp_path}"]
    eager = steps(*learner_of(words))
    learner, batch = learner_of(words)
    counter = CompileCounter()
    learner.compile_objective(backend=counter, fullgraph=True)
    assert steps(learner, batch) == pytest.approx(eager, rel=1e-4)
    assert counter.frame_count == 1


def test_seeds_share_a_compilation_and_ten_architectures_have_ten(tmp_path: Path) -> None:
    words = [*SMALL[:-1], "data=two_moons", "model=mlp2d", "regularizer=dropout", f"paths.outputs={tmp_path}"]
    counter = CompileCounter()
    for width, seed in [(4, 0), (4, 1), (4, 2), *((width, 0) for width in range(5, 14))]:  # PyTorch's own limit is 8: then eager mode
        learner, batch = learner_of([*words, f"model.width={width}", f"seed={seed}"])
        learner.compile_objective(backend=counter, fullgraph=True)
        steps(learner, batch, num=1)
        assert counter.frame_count == max(1, width - 3)


def test_where_it_cannot_compile_it_says_so_and_trains_without(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def on_a_gpu(**options: str) -> Settings:
        settings = Settings(**options)
        settings.__dict__["device"] = torch.device("cuda")  # the cached property, as there may be none here
        return settings

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert on_a_gpu().compile_mode == "default" and on_a_gpu(compile="reduce-overhead").compile_mode == "reduce-overhead"
    assert Settings(accelerator="cpu").compile_mode is None and on_a_gpu(compile="off").compile_mode is None
    assert not caplog.records

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (6, 1))
    with caplog.at_level("INFO", logger="attnlab"):
        assert on_a_gpu().compile_mode is None
    assert "without torch.compile, which needs a GPU of compute capability 7.0, and this one has 6.1" in caplog.text
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"compile=default: torch\.compile needs Triton, which is not installed; use compile=auto or off"):
        _ = on_a_gpu(compile="default").compile_mode
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ValueError, match=r"needs a C\+\+ compiler, and there is neither \$CXX nor g\+\+ nor clang\+\+"):
        _ = Settings(accelerator="cpu", compile="default").compile_mode
