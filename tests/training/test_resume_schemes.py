"""SIGKILL where a scheme keeps state of its own: peers trained beside, labels improved, weights masked and rewound, growing sets."""

from pathlib import Path

import pytest

from tests.training.test_resume import equal, live, plain

COMMON = [
    "logger=none",
    "ood=none",
    "evaluator=none",
    "trainer.accelerator=cpu",
    "trainer.threads=1",
    "trainer.checkpoint_seconds=0",
    "trainer.progress=false",
    "trainer.max_epochs=4",
    "data.limit=64",
    "data.batch_size=16",
    "model.width=4",
    "optimizer.lr=0.05",
    "schedule=cycles",
    "schedule.lengths=[1,1]",
]
SCHEMES = {
    "joint_ensemble": ["algorithm=joint_ensemble", "algorithm.members=2"],
    "label_improvement": [
        "algorithm=label_improvement",
        "algorithm.rounds=[1,1]",
        "algorithm.held_out=0.2",
        "data.label_noise=0.3",
        "callback=[magnitude_pruning,slimming,weight_centring,majority_vote,progressive_stages]",
        "callback.majority_vote.share=0.3",
        "callback.magnitude_pruning.lengths=[1,3]",
        "callback.slimming.prune=0.4",
    ],
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_killed_runs_end_as_the_run_that_was_not(scheme: str, tmp_path: Path) -> None:
    words = [*COMMON, *SCHEMES[scheme]]
    whole = live(tmp_path / "whole", [], words)
    torn = live(tmp_path / "torn", [("step", 6), ("step", 14)], words)
    assert torn["result"]["metrics"] == whole["result"]["metrics"]
    assert plain(torn["ckpt"]["attnlab"]["history"]) == plain(whole["ckpt"]["attnlab"]["history"])
    for part in ("state_dict", "optimizer_states"):
        assert equal(torn["ckpt"][part], whole["ckpt"][part]), part
    assert equal(torn["ckpt"]["attnlab"]["states"], whole["ckpt"]["attnlab"]["states"])
    assert "going on after epoch" in torn["log"]
