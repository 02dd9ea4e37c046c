"""SIGKILL where callbacks and an algorithm keep state of their own: masks, radii, frozen zeros, an averaged teacher, unknown labels."""

from pathlib import Path

from tests.training.test_resume import equal, live, plain

WORDS = [
    "logger=none",
    "ood=none",
    "evaluator=none",
    "trainer.accelerator=cpu",
    "trainer.threads=1",
    "trainer.checkpoint_seconds=0",
    "trainer.progress=false",
    "trainer.max_epochs=4",
    "data.limit=64",
    "data.labels=32",
    "data.batch_size=16",
    "data.val=0.2",
    "model.width=4",
    "optimizer.lr=0.05",
    "algorithm=lc_mt",
    "algorithm.clustering_start=0.2",
    "callback=[projection,channel_propagation,ema]",
    "callback.projection.freeze=0.6",
]


def test_killed_runs_end_as_the_run_that_was_not(tmp_path: Path) -> None:
    whole = live(tmp_path / "whole", [], WORDS)
    torn = live(tmp_path / "torn", [("step", 6), ("step", 14)], WORDS)
    assert torn["result"]["metrics"] == whole["result"]["metrics"]
    assert plain(torn["ckpt"]["attnlab"]["history"]) == plain(whole["ckpt"]["attnlab"]["history"])
    for part in ("state_dict", "optimizer_states"):
        assert equal(torn["ckpt"][part], whole["ckpt"][part]), part
    states = whole["ckpt"]["attnlab"]["states"]
    assert equal(torn["ckpt"]["attnlab"]["states"], states)
    assert {"algorithm", "callback.projection", "callback.channel_propagation"} <= states.keys()
    assert states["callback.projection"]["kept"] and "going on after epoch" in torn["log"]
    masks = states["callback.channel_propagation"]["masks"].values()
    assert any((mask == 0).any() for mask in masks)
