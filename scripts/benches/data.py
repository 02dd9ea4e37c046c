"""The resident loader beside torchvision's DataLoader with the same transforms; the streaming one beside a plain DataLoader of files."""

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benches.common import Options, Table, alternate, random_images

TITLE = "Training batches of 128: images a second"
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


class Pictures(torch.utils.data.Dataset):
    """As torchvision's CIFAR10: an array in memory, a PIL image and the transforms for each item."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, transform: Any) -> None:
        self.array, self.labels, self.transform = images.permute(0, 2, 3, 1).contiguous().numpy(), labels.tolist(), transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.array[index])), self.labels[index]


def rate(loader: Any, device: torch.device, limit: int) -> float:
    """Images a second over at most `limit` images, batches on the device."""
    start, count = time.perf_counter(), 0
    for x, _ in loader:
        x = x.to(device, non_blocking=True)
        count += len(x)
        if count >= limit:
            break
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return count / (time.perf_counter() - start)


def measure(options: Options) -> tuple[dict[str, Any], Table]:
    from torchvision import transforms

    from attnlab.data.loader import ResidentLoader

    device = options.torch_device
    images, labels, what = _images(options)
    common = dict(batch_size=128, mean=MEAN, std=STD, unit=255.0, device=device, shuffle=True, drop_last=True)
    ours = ResidentLoader(images, labels, pad=4, flip=True, **common)
    moves = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
    recipe = [*moves, transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    pictures = Pictures(images, labels, transforms.Compose(recipe))
    workers = min(8, os.cpu_count() or 1)
    plain = torch.utils.data.DataLoader(pictures, 128, shuffle=True, drop_last=True, num_workers=0)
    many = torch.utils.data.DataLoader(pictures, 128, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=True)
    few = 4_000 if options.quick else 12_000
    contestants = {
        "resident": lambda: rate(ours, device, len(images)),
        "DataLoader": lambda: rate(plain, device, few),
        f"DataLoader, {workers} workers": lambda: rate(many, device, few),
    }
    medians = alternate(contestants, rounds=3 if options.quick else 5)
    best = max(value for name, value in medians.items() if name != "resident")
    found: dict[str, Any] = {"images": what, "rates": medians, "resident_over_best_dataloader": medians["resident"] / best}
    table = [[what, "images/s", "of the best DataLoader"]]
    table += [[name, f"{value:,.0f}", f"{value / best:.1f}"] for name, value in medians.items()]

    with tempfile.TemporaryDirectory(prefix="attnlab-bench-") as folder:
        found["files"], rows = _files(Path(folder), options, workers)
    return found, table + rows


def _images(options: Options) -> tuple[torch.Tensor, torch.Tensor, str]:
    if options.data is None:
        return *random_images(10_000 if options.quick else 50_000, (3, 32, 32)), "random images, 3x32x32"
    from attnlab.data.parquet import Parquet

    data = Parquet(path=str(options.data), ood=())
    data.prepare()
    train = data.split("train").in_memory()
    return train.images, train.labels, f"{data.name}, {len(train):,} images"


def _files(folder: Path, options: Options, workers: int) -> tuple[dict[str, float], Table]:
    """JPEG files of 256x256 -> 224x224 tensors: decoding is nearly all of it, so both should be equally fast."""
    from sklearn.datasets import load_sample_images
    from torchvision import datasets, transforms

    from attnlab.data.image_folder import ImageFolder

    _write_files(folder, load_sample_images().images, 400 if options.quick else 1000)
    ours_of = ImageFolder(path=str(folder), size=224, resident=False, num_workers=workers, batch_size=64, mean=MEAN, std=STD, ood=())
    ours_of.prepare()
    device = options.torch_device
    ours = ours_of.train_loader(device)
    recipe = transforms.Compose([transforms.Resize((224, 224)), transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    files = datasets.ImageFolder(folder / "train", recipe)
    options_of = dict(shuffle=True, drop_last=True, num_workers=workers, persistent_workers=True)
    plain = torch.utils.data.DataLoader(files, 64, **options_of)
    contestants = {"streaming": lambda: rate(ours, device, 10**9), "DataLoader": lambda: rate(plain, device, 10**9)}
    medians = alternate(contestants, rounds=3 if options.quick else 15)
    ratio = medians["streaming"] / medians["DataLoader"]
    rows = [["JPEG files, 256x256 to 224x224", "", ""]]
    rows += [["streaming", f"{medians['streaming']:,.0f}", f"{ratio:.2f}"], ["DataLoader", f"{medians['DataLoader']:,.0f}", "1.00"]]
    return {"streaming": medians["streaming"], "dataloader": medians["DataLoader"], "ratio": ratio}, rows


def _write_files(folder: Path, photographs: list, num: int) -> None:
    """`num` JPEG crops of two photographs, in two classes."""
    from PIL import Image

    generator = torch.Generator().manual_seed(0)
    for index in range(num):
        photograph = photographs[index % 2]
        top = int(torch.randint(photograph.shape[0] - 256, (), generator=generator))
        left = int(torch.randint(photograph.shape[1] - 256, (), generator=generator))
        place = folder / ("test" if index < 4 else "train") / f"class_{index % 2}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photograph[top : top + 256, left : left + 256]).save(place / f"{index:05d}.jpg", quality=90)
