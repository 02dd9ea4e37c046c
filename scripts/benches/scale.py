"""Memory and time as the work grows: centres of lens depth, images of a data set. Each size in a process of its own."""

import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benches.common import Options, Table, seconds

TITLE = "Scale"
SCRIPTS = Path(__file__).resolve().parents[1]
EPOCH_SECONDS = 30  # an epoch is measured for that long at most


def measure(options: Options) -> tuple[dict[str, Any], Table]:
    found: dict[str, Any] = {}
    table: Table = [["lens depth, 1,000 queries, 10 classes", "fitting, s", "scoring, s", "memory, MiB", ""]]
    for num in (100, 500, 1500, *([] if options.quick else [5000])):
        found[f"{num} centres"] = row = _child(["centres", str(num)], options)
        table.append([f"{num:,} centres", f"{row['fit_seconds']:.2f}", f"{row['seconds']:.2f}", f"{row['mebibytes']:,.0f}", ""])
    table.append(["JPEG images in Parquet, crop 4, flip, batch 128", "ready, s", "images/s", "memory, MiB", ""])
    sizes = [(10**3, 32), (10**4, 32), (10**5, 32), *([] if options.quick else [(10**6, 32), (10**6, 64)])]
    with tempfile.TemporaryDirectory(prefix="attnlab-bench-") as folder:
        for num, size in sizes:
            _write(Path(folder, "images"), num, size)
            found[f"{num} images of {size}"] = row = _child(["images", str(Path(folder, "images"))], options)
            words = [f"{row['ready_seconds']:.1f}", f"{row['images_per_second']:,.0f}", f"{row['mebibytes']:,.0f}", row["how"]]
            table.append([f"{num:,} of 3x{size}x{size}", *words])
    return found, table


def _child(words: list[str], options: Options) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-m", "benches.scale", *words, options.device], cwd=SCRIPTS, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def _write(folder: Path, num: int, size: int) -> None:
    """`num` JPEG crops of two photographs in two classes, of which 10,000 are different."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image
    from sklearn.datasets import load_sample_images

    photographs, generator = load_sample_images().images, torch.Generator().manual_seed(0)
    corners = torch.rand(min(num, 10_000), 2, generator=generator).tolist()
    encoded = []
    for k, (down, right) in enumerate(corners):
        photograph = photographs[k % 2]
        top, left = int(down * (photograph.shape[0] - size)), int(right * (photograph.shape[1] - size))
        buffer = io.BytesIO()
        Image.fromarray(photograph[top : top + size, left : left + size]).save(buffer, "jpeg", quality=90)
        encoded.append(buffer.getvalue())
    folder.mkdir(exist_ok=True)
    for split, count in (("train", num), ("test", 100)):
        images = pa.array([encoded[k % len(encoded)] for k in range(count)], type=pa.large_binary())
        pq.write_table(pa.table({"image": images, "label": pa.array([k % 2 for k in range(count)])}), folder / f"{split}.parquet")


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def centres(num: str, options: Options) -> dict[str, float]:
    from attnlab.ood.fermat import fast
    from attnlab.ood.lens_depth import LensDepth
    from benches.ood import _bank

    generator, device = torch.Generator().manual_seed(0), options.torch_device
    train, test = _bank(10 * int(num) + 10, 10, generator, device), _bank(1000, 10, generator, device)
    fast(device)  # the loops are compiled once a process, whatever the size
    before, head = peak(), LensDepth(num_centers=int(num), reduction="random")
    fit = seconds(lambda: head.fit(train), device)
    return {"fit_seconds": fit, "seconds": seconds(lambda: head.score(test), device), "mebibytes": peak() - before}


def images(folder: str, options: Options) -> dict[str, Any]:
    from attnlab.data.loader import ResidentLoader
    from attnlab.data.parquet import Parquet

    before, start = peak(), time.perf_counter()
    data = Parquet(path=folder, ood=(), crop=4, flip=True)
    data.prepare()
    loader = data.train_loader(options.torch_device)
    ready = time.perf_counter()
    count = 0
    for x, _ in loader:
        count += len(x)
        if time.perf_counter() - ready > EPOCH_SECONDS:
            break
    rate = count / (time.perf_counter() - ready)
    how = "resident" if isinstance(loader, ResidentLoader) else "streamed"
    return {"ready_seconds": ready - start, "images_per_second": rate, "mebibytes": peak() - before, "how": how}


if __name__ == "__main__":
    work = {"centres": centres, "images": images}[sys.argv[1]]
    print(json.dumps(work(sys.argv[2], Options(device=sys.argv[3]))))
