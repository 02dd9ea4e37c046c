"""What somebody else adds needs a class and a yaml in their package, and nothing here: one newcomer through every door."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.commands import command as run_command

FILES = {
    "halve.py": '''
from torch import Tensor, nn


class Halve(nn.Module):
    """x / divisor."""

    def __init__(self, shape: tuple[int, ...], *, divisor: float = 2.0) -> None:
        super().__init__()
        self.divisor = divisor

    def forward(self, x: Tensor) -> Tensor:
        return x / self.divisor
''',
    "around.py": '''
import torch
from torch import nn

from attnlab.algorithms.supervised import Supervised


class Count:
    """Counts steps, and keeps count in the checkpoint."""

    every = 1

    def __init__(self, *, num_classes: int, total_steps: int) -> None:
        self.classes, self.total, self.steps = num_classes, total_steps, 0

    def on_step(self, learner, step: int) -> None:
        self.steps += 1

    def on_epoch_end(self, learner, row: dict) -> None:
        row["counted"] = self.steps / self.total

    def state_dict(self) -> dict:
        return {"steps": self.steps}

    def load_state_dict(self, state: dict) -> None:
        self.steps = state["steps"]


class Twice(Supervised):
    """Learns from the batch and from its negative."""

    def terms(self, learner, batch, teacher):
        out = learner.output(batch.x, batch.y)
        terms = learner.terms(out, batch, teacher)
        negative = learner.loss(learner.output(-batch.x, batch.y), batch.y)
        return {**terms, **{f"negative_{name}": value for name, value in negative.items()}}, out


class Constant:
    """All weights of fc are one value at the start."""

    def __init__(self, *, value: float = 0.25) -> None:
        self.value = value

    def __call__(self, backbone) -> None:
        nn.init.constant_(backbone.fc.weight, self.value)


class Largest:
    def run(self, trained) -> dict:
        return {"theirs/largest_logit": float(trained.bank("test").logits.max())}


class InputGradient:
    def explain(self, network, x_BCHW, target_B):
        x = x_BCHW.detach().requires_grad_()
        chosen = network(x).logits.gather(1, target_B[:, None]).sum()
        return torch.autograd.grad(chosen, x)[0].abs().sum(1, keepdim=True)


class Follow(nn.Module):
    def __init__(self, *, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, out, teacher):
        return self.weight * (out.logits - teacher.logits).square().mean()
''',
    "conf/init/constant.yaml": "_target_: theirs.around.Constant\n",
    "conf/attention/halve.yaml": "halve:\n  at: layer1\n  module: {_target_: theirs.halve.Halve}\n",
    "conf/callback/count.yaml": "count: {_target_: theirs.around.Count}\n",
    "conf/algorithm/twice.yaml": "_target_: theirs.around.Twice\n",
    "conf/evaluator/largest.yaml": "largest: {_target_: theirs.around.Largest}\n",
    "conf/explainer/input_gradient.yaml": "input_gradient: {_target_: theirs.around.InputGradient}\n",
    "conf/distillation/follow.yaml": "follow: {_target_: theirs.around.Follow, weight: 0.5}\n",
}
WHERE = ["hydra.searchpath=[pkg://theirs.conf]", "allow_targets=[theirs]"]
SMALL = [
    "model.width=4",
    "data.limit=64",
    "data.batch_size=16",
    "trainer.max_epochs=1",
    "trainer.accelerator=cpu",
    "ood=none",
    "logger=none",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("third")
    for name, text in {**FILES, "__init__.py": ""}.items():
        path = root / "theirs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def command(folder: Path, *words: str) -> subprocess.CompletedProcess:
    return run_command("attnlab.train", *WHERE, *SMALL, f"paths.outputs={folder}/outputs", *words, path=folder)


def result_of(done: subprocess.CompletedProcess) -> dict:
    assert done.returncode == 0 and "Warning" not in done.stderr, done.stderr  # conf/ needs no __init__.py
    return json.loads(Path(done.stdout.strip().splitlines()[-1]).read_text())


def test_a_newcomer_through_every_door(folder: Path) -> None:
    words = ["attention=halve", "attention.halve.divisor=3", "callback=count", "algorithm=twice", "evaluator=largest", "init=constant"]
    first = result_of(command(folder, *words, "explainer=input_gradient"))
    assert first["places"] == {"halve@layer1": "after"}
    assert first["config"]["attention"]["halve"]["module"]["divisor"] == 3.0
    metrics = first["metrics"]
    assert metrics["theirs/largest_logit"] > 0 and metrics["train/loss/negative_ce"] > 0
    assert any(key.startswith("explain/input_gradient/") for key in metrics) or "figures/explanations.png" in first["pictures"]
    assert (folder / "outputs" / "runs" / first["run_id"] / "metrics.csv").read_text().splitlines()[0].count("counted") == 1

    student = result_of(command(folder, "distillation=follow", f"teacher={first['run_id']}", "evaluator=none"))
    assert student["metrics"]["train/loss/follow"] > 0 and "theirs/largest_logit" not in student["metrics"]


def test_what_is_not_allowed_is_refused(folder: Path) -> None:
    refused = command(folder, "attention=halve", "allow_targets=[]")
    assert refused.returncode == 1 and "allow_targets=[theirs] permits it" in refused.stderr
