"""Checkpoints: the digest of their contents, and damage of every kind as one line of error."""

import copy
import random
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from attnlab.records.checkpoint import digest, inspect_checkpoint, seal
from attnlab.records.record import Record
from tests.conftest import POINTS

SHAPES = {"weight": (3, 4), "bias": (3,)}


def small() -> dict[str, Any]:
    """What Lightning writes of a run, in small."""
    generator = torch.Generator().manual_seed(0)
    state = OrderedDict((name, torch.randn(shape, generator=generator)) for name, shape in SHAPES.items())
    momentum = {0: {"momentum_buffer": torch.randn(3, 4, generator=generator)}, 1: {"momentum_buffer": None}}
    group = {"lr": 0.1, "betas": (0.9, 0.999), "nesterov": False, "params": [0, 1]}
    return {
        "epoch": 1,
        "state_dict": state,
        "optimizer_states": [{"state": momentum, "param_groups": [group]}],
        "callbacks": {"Ema": {"shadow": torch.arange(4, dtype=torch.bfloat16), "steps": 7}},
        "attnlab": {"training": "3fa9c1d2", "history": [{"epoch": 0, "seconds": 1.5}]},
    }


def sealed(checkpoint: dict[str, Any]) -> dict[str, Any]:
    seal(checkpoint)
    return checkpoint


def same(one: Any, two: Any) -> bool:
    """Whether two trees hold the same values bit for bit."""
    if isinstance(one, torch.Tensor):
        equal = isinstance(two, torch.Tensor) and one.dtype == two.dtype and one.shape == two.shape
        return equal and one.contiguous().view(torch.uint8).equal(two.contiguous().view(torch.uint8))
    if isinstance(one, dict):
        return isinstance(two, dict) and one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(two) and len(one) == len(two) and all(map(same, one, two))
    return type(one) is type(two) and one == two


def without_digest(checkpoint: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint without its digest; a flip in the name of that key alone makes another key of it."""
    own = checkpoint["attnlab"]
    return {**checkpoint, "attnlab": {key: own.get(key) for key in whole["attnlab"] if key != "digest"}}


def test_digest_survives_the_disk(tmp_path: Path) -> None:
    checkpoint = sealed(small())
    torch.save(checkpoint, tmp_path / "last.ckpt")
    read, wrong = inspect_checkpoint(tmp_path / "last.ckpt", ["3fa9c1d2"], checkpoint["state_dict"])
    assert not wrong
    assert same(read, checkpoint)
    assert digest(read) == digest(checkpoint) == checkpoint["attnlab"]["digest"]


def test_digest_is_of_the_values_alone() -> None:
    """Neither the order of keys, nor strides, nor shared storage count."""
    one, two = small(), small()
    two["state_dict"] = OrderedDict(reversed(two["state_dict"].items()))
    two["state_dict"]["weight"] = torch.randn(4, 6).t()[:3].copy_(one["state_dict"]["weight"])
    assert not two["state_dict"]["weight"].is_contiguous()
    assert digest(one) == digest(two) == digest(sealed(copy.deepcopy(one)))


def put(path: str, value: Any) -> Callable[[dict], None]:
    def change(checkpoint: dict) -> None:
        *way, last = path.split(".")
        node: Any = checkpoint
        for key in way:
            node = node[int(key)] if key.isdigit() else node[key]
        node[last] = value(node[last])

    return change


@pytest.mark.parametrize(
    "change",
    [
        put("state_dict.weight", lambda value: value.t().contiguous().reshape(3, 4)),
        put("state_dict.weight", lambda value: value.double()),
        put("state_dict.weight", lambda value: value.reshape(4, 3)),
        put("state_dict.bias", lambda value: -value),
        put("callbacks.Ema.shadow", lambda value: value.half()),
        put("callbacks.Ema.steps", lambda value: value + 1),
        put("callbacks.Ema.steps", float),
        put("callbacks.Ema.steps", str),
        put("optimizer_states.0.state", lambda value: {0: value[1], 1: value[0]}),
        put("optimizer_states.0.param_groups", lambda value: [{**value[0], "nesterov": True}]),
        put("optimizer_states.0.param_groups", lambda value: [{**value[0], "lr": 0.1 + 1e-17 + 2e-17}]),
        put("attnlab.training", lambda value: value[::-1]),
        put("attnlab.history", lambda value: [*value, *value]),
        lambda checkpoint: checkpoint.pop("epoch"),
    ],
)
def test_every_value_enters_the_digest(change: Callable[[dict], None]) -> None:
    checkpoint = small()
    change(checkpoint)
    assert digest(checkpoint) != digest(small())


def test_signs_of_zero_and_kinds_of_nan_are_values() -> None:
    zero, nan = torch.zeros(1), torch.tensor([0x7FC00000, 0x7FC00001], dtype=torch.int32).view(torch.float32)
    assert digest({"x": zero}) != digest({"x": -zero})
    assert digest({"x": nan[:1]}) != digest({"x": nan[1:]})


def test_what_is_no_data_cannot_be_sealed() -> None:
    with pytest.raises(TypeError, match=r"plain data and tensors, not pathlib\."):
        seal({**small(), "where": Path("x")})


def test_a_changed_value_is_one_line(tmp_path: Path) -> None:
    checkpoint = sealed(small())
    checkpoint["state_dict"]["weight"][1, 2] += 1e-6
    torch.save(checkpoint, tmp_path / "last.ckpt")
    _, wrong = inspect_checkpoint(tmp_path / "last.ckpt", ["3fa9c1d2"], checkpoint["state_dict"])
    assert wrong == "is damaged (its contents are not what was written)"


def test_a_checkpoint_without_a_digest_is_read(tmp_path: Path) -> None:
    checkpoint = small()
    torch.save(checkpoint, tmp_path / "last.ckpt")
    read, wrong = inspect_checkpoint(tmp_path / "last.ckpt", ["3fa9c1d2"], checkpoint["state_dict"])
    assert not wrong
    assert same(read, checkpoint)


def attempt(path: Path, content: bytes, whole: dict[str, Any], owner: str) -> str:
    """Read `content` as a checkpoint: it is `whole`, or there is one line of what is wrong."""
    path.write_bytes(content)
    read, wrong = inspect_checkpoint(path, [owner], whole["state_dict"])
    assert "\n" not in wrong
    assert wrong or same(without_digest(read, whole), without_digest(whole, whole))
    return wrong


@pytest.mark.parametrize("share", [0.0, 0.25])
def test_flipped_bits(tmp_path: Path, share: float) -> None:
    """One bit anywhere, or (share 0.25) in the tensors' own bytes, where nothing but the digest can notice."""
    whole = sealed(small())
    torch.save(whole, tmp_path / "whole.ckpt")
    content = (tmp_path / "whole.ckpt").read_bytes()
    weights = whole["state_dict"]["weight"].numpy().tobytes()
    inside = range(content.index(weights), content.index(weights) + len(weights))
    draws, noticed = random.Random(0), 0
    for _ in range(200):
        place = draws.choice(inside) if share else draws.randrange(len(content))
        flipped = bytearray(content)
        flipped[place] ^= 1 << draws.randrange(8)
        noticed += bool(attempt(tmp_path / "last.ckpt", bytes(flipped), whole, "3fa9c1d2"))
    assert noticed == 200 if share else noticed > 0


def test_cut_short(tmp_path: Path) -> None:
    """torch.load raises an OSError for some lengths: still the file is damaged, and the disk is not."""
    whole = sealed(small())
    torch.save(whole, tmp_path / "whole.ckpt")
    content = (tmp_path / "whole.ckpt").read_bytes()
    for length in range(0, len(content), 23):
        said = attempt(tmp_path / "last.ckpt", content[:length], whole, "3fa9c1d2")
        assert "is damaged" in said and "weights_only" not in said  # torch's advice is to load what may run code


def test_an_os_error_of_torch_is_damage_where_the_file_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(torch, "load", fail)
    (tmp_path / "last.ckpt").write_bytes(b"PK")
    assert inspect_checkpoint(tmp_path / "last.ckpt", ["3fa9c1d2"], {})[1] == "is damaged ([Errno 22] Invalid argument)"
    with pytest.raises(FileNotFoundError):
        inspect_checkpoint(tmp_path / "other.ckpt", ["3fa9c1d2"], {})


def test_flipped_bits_of_a_run(run: Callable[..., dict]) -> None:
    """The last checkpoint of a real run: optimizer, loops and callbacks are plain data; a flip gives the same tensors or a line."""
    path = run("trainer.max_epochs=1", base=POINTS)["folder"] / "last.ckpt"
    whole = torch.load(path, weights_only=True)
    assert whole["attnlab"]["digest"] == digest(whole)
    content, owner = path.read_bytes(), whole["attnlab"]["training"]
    assert not attempt(path, content, whole, owner)
    draws = random.Random(1)
    for _ in range(100):
        flipped = bytearray(content)
        flipped[draws.randrange(len(content))] ^= 1 << draws.randrange(8)
        attempt(path, bytes(flipped), whole, owner)


@pytest.mark.parametrize(("epochs", "stopped", "taken"), [(1, False, True), (5, False, False), (5, True, True)])
def test_a_checkpoint_is_taken_if_its_training_is_over(tmp_path: Path, epochs: int, stopped: bool, taken: bool) -> None:
    """After all epochs, or stopped before; what cannot be trusted is neither taken nor touched."""
    one, two = (Record(tmp_path / "runs" / f"x-0000000{number}") for number in (1, 2))
    checkpoint = small()
    checkpoint["attnlab"]["stopped"] = stopped
    one.folder.mkdir(parents=True)
    torch.save(sealed(checkpoint), one.checkpoint_path)
    found = two.take_checkpoint(one, ["3fa9c1d2"], checkpoint["state_dict"], epochs=epochs)
    assert (found is not None) == two.checkpoint_path.exists() == taken
    one.checkpoint_path.write_bytes(b"no checkpoint")
    assert two.take_checkpoint(one, ["3fa9c1d2"], checkpoint["state_dict"], epochs=epochs) is None
    assert one.checkpoint_path.read_bytes() == b"no checkpoint" and not list(two.folder.glob(".*.tmp"))
