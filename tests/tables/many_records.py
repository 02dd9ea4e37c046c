"""Records as attnlab.train leaves them, as many as wanted, and the table that they fill: for tests of scale, and to measure with.

`python -m tests.tables.many_records FOLDER 1000` writes FOLDER/table.yaml and FOLDER/outputs/runs/...
"""

import json
import os
import random
import sys
from pathlib import Path

import yaml

from attnlab.config.plan import Plan
from attnlab.tables.plan_cache import plans_of
from attnlab.tables.spec import read_spec

ROWS = ("none", "se", "eca", "cbam", "coord", "position", "rect", "[se,rect]", "[eca,rect]", "[cbam,rect]")
COLUMNS = ("none", "cutout", "maxdropout", "mixup", "cutmix", "dropblock", "droppath", "dropout", "norm_loss", "random_erasing")
HEADS, MEASURES = ("msp", "energy", "knn"), ("auroc", "aupr_in", "aupr_out", "fpr95", "fpr95_id")
PICTURES = {"attention_rect_at_layer2": "attention", "curves": "curves", "ood_scores": "ood_scores", "reliability": "reliability"}


def write_table(path: Path, runs: int) -> str:
    """A table of so many runs: 10 seeds a cell, up to 10 rows and 10 columns."""
    seeds = min(runs, 10)
    rows = min(runs // seeds, len(ROWS))
    columns = runs // seeds // rows
    tree = {
        "title": "Attention and regularisation, digits",
        "paper": {"table": "invented", "runs": 5, "mark": "text"},
        "metric": {"key": "test/acc", "label": "error, %", "direction": "min", "complement": True, "margin": 0.5},
        "common": ["data=digits", "model=resnet18", "model.width=16", "trainer.max_epochs=30", "logger=none"],
        "rows": {name: [f"attention={name}"] for name in ROWS[:rows]},
        "columns": {name: [f"regularizer={name}"] for name in COLUMNS[:columns]},
        "seeds": list(range(seeds)),
        "baseline": "none",
        "published": {name: {"none": 8.0} for name in ROWS[:rows]},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return str(path)


def plans_of_table(table: str) -> list[Plan]:
    spec = read_spec(table)
    cells = [spec.overrides(row, column) for row in spec.rows for column in spec.columns]
    return [plan for group in plans_of(cells, spec.seeds) for plan in group]


def write_record(outputs: Path, plan: Plan, pictures: dict[str, Path] | None = None) -> Path:
    """A finished run's folder. Pictures are links to files that are there."""
    chance = random.Random(plan.address)
    folder, epochs = outputs / "runs" / plan.run_id, plan.full["trainer"]["max_epochs"]
    folder.mkdir(parents=True, exist_ok=True)
    metrics = {"train/loss": chance.random(), "train/loss/ce": chance.random(), "train/acc": chance.uniform(0.95, 1.0)}
    metrics |= {"test/acc": chance.gauss(0.92, 0.004), "test/nll": chance.random(), "test/ece": chance.random()}
    metrics |= {f"ood/{head}/photos/{measure}": chance.random() for head in HEADS for measure in MEASURES}
    names = {"train": 1438, "test": 359, "photos": 1000}
    result = {
        "run_id": plan.run_id, "command": f"python -m attnlab.train {' '.join(plan.overrides)}", "status": "finished", "stage": "figures",
        "config": plan.full, "overrides": list(plan.overrides), "seed": plan.full["seed"], "metrics": metrics,
        "stage_seconds": {"build": 9.0, "fit": 60.0, "test": 0.3, "ood": 1.4, "localisation": 0.3, "figures": 3.0},
        "versions": {"python": "3.11.7", "torch": "2.15.0", "torchvision": "0.29.2", "pytorch-lightning": "2.6.6", "numpy": "2.4.6"},
        "git": {"commit": "0" * 40, "dirty": False}, "started": 1.7e9 + chance.random() * 1e6,
        "places": {"rect@layer2": "after"}, "parameters": 703507, "device": "CPU, 1 threads", "precision": "32",
        "data": {
            "name": "digits", "shape": [1, 16, 16], "classes": [str(number) for number in range(10)], "images": names,
            "digests": {name: f"{count:016x}" for name, count in names.items()}, "mean": [0.305], "std": [0.319],
        },
        "pictures": {f"figures/{name}.png": PICTURES[name] for name in pictures or {}},
        "epochs": epochs, "seconds": 60.0, "images_per_second": 700.0, "finished": 1.7e9 + 2e6,
    }  # fmt: skip
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    rows = ["epoch,train/loss,train/loss/ce,train/acc,val/acc,val/nll,lr,seconds,images_per_second"]
    for epoch in range(epochs):
        loss, accuracy = 2.3 * 0.85**epoch + 0.1 * chance.random(), 0.95 - 0.85 * 0.85**epoch + 0.01 * chance.random()
        rows.append(f"{epoch},{loss!r},{loss!r},{accuracy!r},{accuracy - 0.02!r},{loss + 0.1!r},0.1,{2 + chance.random()!r},700.5")
    (folder / "metrics.csv").write_text("\n".join(rows) + "\n")
    (folder / "train.log").write_text("".join(f"2026-01-01 00:00:00,000 epoch {epoch + 1}/{epochs}\n" for epoch in range(epochs)))
    for name, path in (pictures or {}).items():
        (folder / "figures").mkdir(exist_ok=True)
        os.link(path, folder / "figures" / f"{name}.png")
    return folder


def make_pictures(folder: Path) -> dict[str, Path]:
    """Of the size that attnlab.train's have."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for name, height in zip(PICTURES, (708, 519, 315, 555), strict=True):
        Image.effect_noise((150, height // 8), 60).convert("RGB").resize((1200, height)).save(folder / f"{name}.png")
    return {name: folder / f"{name}.png" for name in PICTURES}


if __name__ == "__main__":
    where, count = Path(sys.argv[1]), int(sys.argv[2])
    files = make_pictures(where / "pictures")
    for wanted in plans_of_table(write_table(where / "table.yaml", count)):
        write_record(where / "outputs", wanted, files)
