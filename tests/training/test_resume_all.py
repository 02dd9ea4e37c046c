"""Every algorithm and every callback, stopped in the middle of an epoch and gone on with: bit for bit the run that was not.

Ctrl-C in this process, where `test_resume*.py` kill: there a few words stand for all kinds of ends, here every yaml has its turn.
"""

import json
import re
from pathlib import Path

import pytest
import torch

from attnlab.config.compose import compose
from attnlab.config.targets import group_choices
from attnlab.pipeline.train import train
from attnlab.training.epoch import Batch, EpochSums
from attnlab.training.learner import Learner
from tests.training import test_resume, test_resume_schemes, test_resume_state
from tests.training.test_resume import equal, plain

COMMON = [
    "logger=none",
    "ood=none",
    "evaluator=none",
    "trainer.accelerator=cpu",
    "trainer.threads=1",
    "trainer.precision=32",
    "trainer.checkpoint_seconds=0",
    "trainer.progress=false",
    "trainer.max_epochs=3",
    "data.size=8",
    "data.limit=48",
    "data.batch_size=16",
    "data.test=0.05",
    "model.width=4",
    "optimizer.lr=0.05",
]
STOP = 7  # steps of nine: in the last epoch, after what happens at half of training
CASES = {
    "mltp": ["algorithm=mltp", "schedule=cycles", "callback=[snapshots,rank_shrinkage]"],
    "glico": ["algorithm=glico", "algorithm.code=4", "algorithm.start=0.2", "callback=[activation_density]"],
    "on_manifold": ["algorithm=on_manifold", "algorithm.steps=2", "algorithm.start=0.2", "callback=[layer_removal,best]", "data.val=0.2"],
    "adversarial_training": [
        "algorithm=adversarial_training",
        "algorithm.steps=1",
        "callback=[hardware_ranking,early_stop]",
        "callback.hardware_ranking.cost=multiply_adds",
        "callback.hardware_ranking.prune=0.5",
        "data.val=0.2",
    ],
    "population_gradient": ["algorithm=population_gradient", "algorithm.population=2", "callback=[norm_loss_step,swa]"],
    "transformation_regression": ["algorithm=transformation_regression", "callback=mc_dropout", "regularizer=dropout"],
    "lrp_guided": ["algorithm=lrp_guided"],
    "bayesian_abn": ["attention=abn", "attention.abn.dropout=0.5", "regularizer=dropout", "callback=bayesian_abn"],
    "mean_teacher": ["algorithm=mean_teacher", "data.labels=20", "callback=majority_vote"],
    "supervised": ["algorithm=supervised", "distillation=[dml,oskd]", "callback=progressive_stages"],
}
KILLED = [test_resume.HARD, test_resume_state.WORDS, *test_resume_schemes.SCHEMES.values()]  # those of the other files


@pytest.mark.parametrize("group", ["algorithm", "callback"])
def test_every_one_has_its_turn(group: str) -> None:
    words = [word for case in (*CASES.values(), *KILLED) for word in case if word.startswith(f"{group}=")]
    named = {name for word in words for name in re.findall(r"\w+", word.partition("=")[2])}
    assert set(group_choices(group)) - {"none"} == named, "add it to a case"


@pytest.mark.parametrize("case", CASES)
def test_stopped_runs_end_as_the_run_that_was_not(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Learner.step

    def stopping(self: Learner, batch: Batch, totals: EpochSums, **options: object) -> object:
        if totals.steps == STOP:
            raise KeyboardInterrupt
        return step(self, batch, totals, **options)

    ends = []
    for name in ("whole", "torn"):
        plan = compose([*COMMON, *CASES[case], f"paths.outputs={tmp_path / name}"])
        if name == "torn":
            with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
                patch.setattr(Learner, "step", stopping)
                train(plan)
        train(plan)
        (path,) = (tmp_path / name).glob("runs/*/last.ckpt")
        tests = json.loads((path.parent / "result.json").read_text())["metrics"]
        ends.append({**torch.load(path, weights_only=True), "tests": {key: tests[key] for key in tests if key.startswith("test/")}})
    whole, torn = ends
    assert "going on after epoch 2" in (path.parent / "train.log").read_text()
    for part in ("state_dict", "optimizer_states", "tests"):
        assert equal(torn[part], whole[part]), part
    assert equal(torn["attnlab"]["states"], whole["attnlab"]["states"])
    assert plain(torn["attnlab"]["history"]) == plain(whole["attnlab"]["history"])
