"""Placement: verbs, globs, reads, refusals, and that placed modules leave the network's own names, copies and graphs alone."""

import copy
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from attnlab.network import Network, Output
from attnlab.placement.attach import place, placed
from attnlab.placement.places import matches, places_of

SHAPE = (3, 12, 12)


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv, self.bn, self.relu = nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(x + self.bn(self.conv(x)))


class Backbone(nn.Module):
    """A small network that names its places as ours do."""

    def __init__(self, num_classes: int = 5) -> None:
        super().__init__()
        self.input = nn.Identity()
        self.stem = nn.Conv2d(3, 8, 3)
        self.layer1 = nn.Sequential(Block(8), Block(8))
        self.layer2 = nn.Sequential(Block(8))
        self.features = nn.Identity()
        self.fc = nn.Linear(8, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer2(self.layer1(self.stem(self.input(x))))
        return self.fc(self.features(x.mean((2, 3))))


class Scale(nn.Module):
    """Multiplies by a learnt number; keeps a map and a penalty."""

    def __init__(self, shape: tuple[int, ...], *, start: float = 2.0) -> None:
        super().__init__()
        self.shape = shape
        self.factor = nn.Parameter(torch.tensor(start))
        self.map: Tensor | None = None
        self.penalty: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.map = torch.sigmoid(x.mean(1, keepdim=True))
        self.penalty = self.factor**2
        return x * self.factor


class Add(nn.Module):
    def __init__(self, shape: tuple[int, ...], *, value: float = 1.0) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return x + self.value


class Halves(nn.Module):
    """Mixes every image with its neighbour, labels too."""

    def __init__(self, shape: tuple[int, ...], *, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes

    def forward(self, x: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if target is None or not self.training:
            return x, target
        soft = nn.functional.one_hot(target, self.num_classes).to(x.dtype)
        return (x + x.roll(1, 0)) / 2, (soft + soft.roll(1, 0)) / 2


class Reader(nn.Module):
    """Stands in for the final layer and reads two stages."""

    def __init__(self, shape: tuple[int, ...], *, host: nn.Linear, read_shapes: list[tuple[int, ...]]) -> None:
        super().__init__()
        self.shapes = [shape, *read_shapes]
        self.fc = nn.Linear(shape[0] + sum(read[0] for read in read_shapes), host.out_features)

    def forward(self, f: Tensor, *maps: Tensor) -> Tensor:
        return self.fc(torch.cat([f, *(read.mean((2, 3)) for read in maps)], 1))


class Bigger(nn.Module):
    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, x], 1)


FULL = {
    "halves": {"at": "input", "module": Halves, "reads": ["target"], "writes": ["target"]},
    "scale": {"at": "layer*", "module": Scale},
    "reader": {"at": "fc", "how": "replace", "module": Reader, "reads": ["layer1", "layer2.0.bn"]},
}


@pytest.fixture
def x() -> Tensor:
    return torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(0))


def network(placements: dict, seed: int = 0) -> Network:
    torch.manual_seed(seed)
    return Network(Backbone(), placements, shape=SHAPE, num_classes=5)


def test_after_before_and_replace_compute_what_they_say(x: Tensor) -> None:
    model = Backbone().eval()
    stem, plain = model.stem(x), model(x)
    placements = {"a": {"at": "stem", "module": Add}, "b": {"at": "stem", "how": "before", "module": partial(Add, value=0.5)}}
    with placed(model, placements, shape=SHAPE) as components:
        assert list(components) == ["a@stem", "b@stem"]
        torch.testing.assert_close(model.stem(x), nn.functional.conv2d(x + 0.5, model.stem.weight, model.stem.bias) + 1)
    assert torch.equal(model.stem(x), stem)
    with placed(model, {"r": {"at": "**.relu", "how": "replace", "module": lambda shape: nn.Tanh()}}, shape=SHAPE):
        assert [type(block.relu) for block in (*model.layer1, *model.layer2)] == [nn.Tanh] * 3
    assert torch.equal(model(x), plain)


def test_a_module_that_asks_for_no_shape_is_given_none(x: Tensor) -> None:
    class Twice(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * x

    model = Backbone().eval()
    stem = model.stem(x)
    modules = {"twice": Twice, "relu": nn.ReLU, "drop": partial(nn.Dropout, p=0.3)}
    with placed(model, {name: {"at": "stem", "module": module} for name, module in modules.items()}, shape=SHAPE) as components:
        assert components["relu@stem"].inplace is False and components["drop@stem"].p == 0.3
        assert model.stem(x).equal((2 * stem).relu())


def test_several_placed_modules_run_in_config_order(x: Tensor) -> None:
    model = Backbone()
    plain = model.stem(x)
    place(model, {"first": {"at": "stem", "module": Add}, "second": {"at": "stem", "module": Scale}}, shape=SHAPE)
    torch.testing.assert_close(model.stem(x), (plain + 1) * 2)


def test_names_of_the_backbone_stay(x: Tensor) -> None:
    names = list(Backbone().state_dict())
    placements = {key: FULL[key] for key in ("halves", "scale")}
    net = network(placements)
    assert list(net.backbone.state_dict()) == names
    assert [name for name in net.state_dict() if not name.startswith("backbone.")] == [
        "placed.scale@layer1.factor",
        "placed.scale@layer2.factor",
    ]
    nested = network({"scale": {"at": "layer1.*.bn", "module": Scale}})
    assert list(nested.placed) == ["scale@layer1/0/bn", "scale@layer1/1/bn"]
    assert [component.shape for component in nested.placed.values()] == [(8, 10, 10)] * 2
    nested.backbone.load_state_dict(Backbone().state_dict(), strict=True)


def test_placed_modules_leave_the_initialisation_of_the_backbone_alone() -> None:
    plain, full = network({}), network({"scale": FULL["scale"]})
    for name, value in plain.backbone.state_dict().items():
        assert torch.equal(value, full.backbone.state_dict()[name])


def test_reads_arrive_with_their_shapes_and_the_tape_is_empty_afterwards(x: Tensor) -> None:
    net = network(FULL)
    reader = net.backbone.fc
    assert isinstance(reader, Reader) and reader.shapes == [(8,), (8, 10, 10), (8, 10, 10)]
    seen = []
    reader.register_forward_pre_hook(lambda module, args: seen.append(args))
    out = net(x, torch.arange(4))
    f, layer1, bn = seen[0]
    assert torch.equal(f, out.features) and layer1.shape == bn.shape == (4, 8, 10, 10)
    assert net.placed.store.values == {}
    assert dict(net.placed.components())["reader@fc"] is reader


def test_a_read_place_is_read_after_its_own_modules(x: Tensor) -> None:
    net = network({"scale": {"at": "layer1", "module": partial(Scale, start=0.0)}, "reader": FULL["reader"]})
    seen = []
    net.backbone.fc.register_forward_pre_hook(lambda module, args: seen.append(args[1]))
    net(x)
    assert not seen[0].any()


def test_target_is_read_and_rewritten_in_training_only(x: Tensor) -> None:
    net = network(FULL)
    labels = torch.tensor([0, 1, 2, 2])
    out = net(x, labels)
    assert isinstance(out, Output) and out.target.shape == (4, 5)
    torch.testing.assert_close(out.target.sum(1), torch.ones(4))
    assert out.target[1, 0] == 0.5 and out.target[1, 1] == 0.5
    assert net(x).target is None
    assert torch.equal(net.eval()(x, labels).target, labels)


def test_maps_and_penalties_carry_the_key_of_their_module(x: Tensor) -> None:
    net = network({"scale": FULL["scale"]})
    net(x)
    assert list(net.maps()) == list(net.penalties()) == ["scale@layer1", "scale@layer2"]
    sum(net.penalties().values()).backward()
    assert net.placed["scale@layer2"].factor.grad == 4


def test_deepcopy_follows_its_own_modules(x: Tensor) -> None:
    net = network(FULL).eval()
    net(x)  # leaves maps with a graph behind
    other = copy.deepcopy(net)
    assert torch.equal(net(x).logits, other(x).logits)
    with torch.no_grad():
        other.placed["scale@layer1"].factor.zero_()
    assert not torch.equal(net(x).logits, other(x).logits)
    assert net.placed["scale@layer1"].factor == 2


def test_a_users_own_model_can_be_copied_too(x: Tensor) -> None:
    model = Backbone()
    model.placed = place(model, {"scale": {"at": "layer1", "module": Scale}}, shape=SHAPE)
    model(x)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.placed["scale@layer1"].factor.zero_()
    assert model(x).std() > 0 and "placed.scale@layer1.factor" in model.state_dict()


def test_state_dict_round_trip(x: Tensor) -> None:
    one, two = network(FULL, seed=1).eval(), network(FULL, seed=2).eval()
    assert not torch.equal(one(x).logits, two(x).logits)
    two.load_state_dict(one.state_dict(), strict=True)
    assert torch.equal(one(x).logits, two(x).logits)


@pytest.mark.parametrize("training", [True, False])
def test_one_graph(x: Tensor, training: bool) -> None:
    torch._dynamo.reset()
    net = network(FULL).train(training)
    whole = torch.compile(copy.deepcopy(net), fullgraph=True, backend="eager")
    labels = torch.arange(4)
    for _ in range(2):
        mine, theirs = net(x, labels), whole(x, labels)
        torch.testing.assert_close(mine.logits, theirs.logits)
        torch.testing.assert_close(mine.target, theirs.target)
        torch.testing.assert_close(mine.features, theirs.features)
    whole(x, labels).logits.sum().backward()


def test_compiling_in_place_keeps_the_names(x: Tensor) -> None:
    torch._dynamo.reset()
    net = network(FULL)
    names = list(net.state_dict())
    net.compile(fullgraph=True, backend="eager")
    net(x, torch.arange(4))
    assert list(net.state_dict()) == names
    copy.deepcopy(net)(x, torch.arange(4))


def test_removed_placed_modules_leave_nothing(x: Tensor) -> None:
    model = Backbone().eval()
    plain, names = model(x), list(model.state_dict())
    with pytest.raises(RuntimeError, match="stop"), placed(model, FULL, shape=SHAPE, num_classes=5):
        raise RuntimeError("stop")
    assert torch.equal(model(x), plain) and list(model.state_dict()) == names
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_the_dry_run_changes_nothing() -> None:
    model = Backbone()
    before = copy.deepcopy(model.state_dict())
    state = torch.random.get_rng_state()
    found = places_of(model, SHAPE)
    assert torch.equal(state, torch.random.get_rng_state()) and model.training
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    assert found["layer1"].outputs == {(8, 10, 10)} and found["fc"].inputs == {(8,)} and found["fc"].outputs == {(5,)}


BAD = {
    "no place": ({"g": {"at": "layre2", "module": Add}}, r"g\.at: no place matches 'layre2'; nearest: layer2"),
    "no glob": ({"g": {"at": "**.gelu", "module": Add}}, r"no place matches '\*\*\.gelu'"),
    "same place": (
        {k: {"at": "layer1.0.bn", "how": "replace", "module": nn.Identity} for k in "ab"},
        r"layer1\.0\.bn is also layer1\.0\.bn, which placement\.b replaces",
    ),
    "nested": (
        {"a": {"at": "layer1", "how": "replace", "module": Add}, "b": {"at": "layer1.0.bn", "how": "replace", "module": Add}},
        r"placement\.b\.at: layer1\.0\.bn lies inside layer1, which placement\.a replaces",
    ),
    "inside": (
        {"a": {"at": "layer1", "how": "replace", "module": Add}, "b": {"at": "layer1.0", "module": Add}},
        r"b\.at: layer1\.0 lies inside layer1",
    ),
    "how": ({"g": {"at": "stem", "how": "around", "module": Add}}, r"g\.how: 'around' is none of after, before, replace"),
    "key": ({"g": {"at": "stem", "modul": Add}}, r"g\.modul: unknown key; nearest: module"),
    "module": ({"g": {"at": "stem"}}, r"g\.module: missing"),
    "writes": ({"g": {"at": "stem", "module": Add, "writes": ["stem"]}}, r"only \[target\] can be written"),
    "read later": ({"g": {"at": "stem", "module": Add, "reads": ["layer1"]}}, r"reads: layer1 runs after stem"),
    "read unknown": ({"g": {"at": "fc", "module": Add, "reads": ["layer9"]}}, r"reads: no place matches 'layer9'; nearest: layer"),
    "shape": ({"g": {"at": "layer2", "module": Bigger}}, r"placement\.g: "),
    "constructor": ({"g": {"at": "layer2", "module": partial(Scale, start="high")}}, r"placement\.g: .*shape \(8, 10, 10\)"),
    "no module": ({"g": {"at": "layer2", "module": lambda shape: 3}}, r"must build a torch\.nn\.Module, got int"),
}


@pytest.mark.parametrize("case", BAD)
def test_refusals_name_key_and_remedy_and_leave_the_model_whole(case: str) -> None:
    placements, message = BAD[case]
    model = Backbone()
    with pytest.raises(ValueError, match=message):
        place(model, placements, shape=SHAPE)
    assert list(model.state_dict()) == list(Backbone().state_dict())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_place_called_with_several_shapes_is_refused() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu, self.pool = nn.ReLU(), nn.MaxPool2d(2)

        def forward(self, x: Tensor) -> Tensor:
            return self.relu(self.pool(self.relu(x)))

    with pytest.raises(ValueError, match=r"relu handles 2 tensors of several shapes .* choose a place that is called once"):
        place(Shared(), {"g": {"at": "relu", "module": Add}}, shape=SHAPE)


def test_globs() -> None:
    names = ["bn", "layer1", "layer1.0", "layer1.0.bn", "layer1.0.bn2", "layer10", "layer2.1.bn"]
    assert matches("layer*", names) == ["layer1", "layer10"]
    assert matches("layer?", names) == ["layer1"]
    assert matches("layer1.*.bn", names) == ["layer1.0.bn"]
    assert matches("**.bn*", names) == ["bn", "layer1.0.bn", "layer1.0.bn2", "layer2.1.bn"]
    assert matches("layer**", names) == [name for name in names if name.startswith("layer")]


@given(st.lists(st.from_regex(r"[a-z]{1,3}[0-9]?(\.[a-z0-9]{1,3}){0,3}", fullmatch=True), unique=True))
def test_glob_laws(names: list[str]) -> None:
    assert matches("**", names) == names
    assert matches("*", names) == [name for name in names if "." not in name]
    for name in names:
        assert matches(name, names) == [name]
        assert set(matches(name.rpartition(".")[0] + ".*", names)) <= set(matches(name.partition(".")[0] + ".**", names)) or "." not in name
