"""Short runs of many kinds as digests of their final weights and metrics: a change of code that should change no number changes none.

    python scripts/digests.py --out before.json            in the checkout as it was
    python scripts/digests.py --out after.json --against before.json

On the CPU, one thread, fp32 unless the run says otherwise. Exit code 1 where a run of both differs.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from attnlab.config.result import read_result

COMMON = {
    "logger": "none", "trainer.accelerator": "cpu", "trainer.precision": "32", "trainer.threads": "1", "trainer.max_epochs": "2",
    "trainer.progress": "false", "data.limit": "256", "data.batch_size": "32", "model.width": "8", "ood": "[msp,knn]",
}  # fmt: skip
RUNS = {
    "maxdropout": ["regularizer=maxdropout", "attention=rect"],
    "mixup": ["regularizer=[mixup,cutout]"],
    "large_margin": ["loss=large_margin", "model.bottleneck=8", "trainer.gradient_clip=1"],
    "ltpa": ["model=vgg_ltpa", "model.width=4", "attention=ltpa", "data.size=32"],
    "advanced_dropout": ["regularizer=advanced_dropout", "optimizer.groups.advanced_dropout.lr=1e-4"],
    "streaming": ["data.resident=false", "data.num_workers=1", "regularizer=random_erasing"],
    "ddp": ["trainer=ddp", "trainer.devices=2"],
    "dropblock": ["regularizer=[dropblock,droppath,norm_loss]", "schedule=multistep"],
    "noisy_copies": ["regularizer=noisy_copies", "loss=large_margin", "model.bottleneck=8", "trainer.gradient_clip=1"],
    "bf16": ["trainer.precision=bf16-mixed", "data.val=0.2", "attention=[se,cbam]", "regularizer=cutmix"],
    "sam": ["algorithm=sam", "callback=[ema,swa]"],
}


def digest(name: str, folder: Path) -> dict[str, str]:
    """Run it, and hash what it came to."""
    words = dict(word.split("=", 1) for word in RUNS[name])
    command = [*(f"{key}={value}" for key, value in {**COMMON, **words}.items()), f"paths.outputs={folder}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}
    done = subprocess.run([sys.executable, "-m", "attnlab.train", *command], capture_output=True, text=True, env=environment)
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1]}
    path = Path(done.stdout.strip().splitlines()[-1])
    state = torch.load(path.parent / "last.ckpt", weights_only=True, map_location="cpu")["state_dict"]
    weights = hashlib.sha256()
    for key in sorted(state):
        weights.update(key.encode())
        weights.update(state[key].contiguous().flatten().view(torch.uint8).numpy().tobytes())
    metrics = {
        key: value
        for key, value in read_result(path.parent).result["metrics"].items()
        if key.startswith(("train/", "val/", "test/", "ood/"))
    }
    return {"weights": weights.hexdigest()[:16], "metrics": hashlib.sha256(json.dumps(metrics, sort_keys=True).encode()).hexdigest()[:16]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--only", nargs="*", choices=list(RUNS), default=list(RUNS))
    options = parser.parse_args()
    before = json.loads(options.against.read_text()) if options.against else {}
    found, differing = {}, 0
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only:
            found[name] = digest(name, Path(folder) / name)
            same = "" if name not in before else "equal" if before[name] == found[name] else "DIFFERS"
            differing += same == "DIFFERS"
            print(f"{name:<18} {' '.join(found[name].values())}  {same}", flush=True)
            options.out.write_text(json.dumps(found, indent=1) + "\n")
    return int(bool(differing))


if __name__ == "__main__":
    sys.exit(main())
