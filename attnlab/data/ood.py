"""Out-of-distribution sets, found by name: `data.ood=[photos, mnist, dtd32, ../elsewhere/scans]`.

A name is looked up, in this order, as
1. a set that the training set brings along (`photos`, `heldout`, `clutter`, `ring`, ...);
2. a folder `<ood_root>/<name>` of parquet files, or a file `<ood_root>/<name>.parquet` (`cifar100/test_jpeg75`);
3. a path, if it contains a slash: a parquet file, a folder of parquet files, or a folder of images;
4. another data set of this project (`configs/data/<name>.yaml`) with its defaults.
`data.ood=openood_cifar10` names those of a benchmark of OpenOOD's, by its lists where they are (`attnlab.data.benchmarks`), else by name.
The test split is taken where there is one, else validation, else training. The images are brought to the training set's shape (grey or
RGB, bilinear with antialiasing) in uint8, and are later normalised with its mean and std. All labels are -1.

Legend: N images, C channels, H height, W width.
"""

import difflib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from attnlab.config.targets import config_dir
from attnlab.data import shipped
from attnlab.data.benchmarks import LISTS
from attnlab.data.images import FileSet, ImageSet

if TYPE_CHECKING:
    from attnlab.data.base import ImageData

EVAL_SPLITS = ("test", "val", "train")  # the first there is
GREY = (0.299, 0.587, 0.114)  # ITU-R 601, as Pillow's mode "L"


def resolve(name: str, data: "ImageData") -> ImageSet | FileSet:
    """The images of OOD set `name` in the shape of `data`'s images. ValueError with the nearest names if there is no such set."""
    benchmark, root = data.ood_benchmark, _ood_root(data)
    if benchmark and benchmark.has_lists(
        root
    ):  # the largest centred square, resized: OpenOOD's own on CIFAR; on ImageNet it cuts 224 of 256
        return replace(fit_to(benchmark.read(name, root), data.shape), fit="crop")
    if benchmark:
        _check_benchmark(data)
    own = data.own_ood()
    if name in own:
        return fit_to(own[name](), data.shape)
    if len(data.shape) != 3:
        raise ValueError(f"ood: no set {name!r} for vectors; {data.name} knows {', '.join(own)}")
    for path in _paths(name, data):
        if path.exists():
            return fit_to(read(path), data.shape)
    return fit_to(_configured(name, data), data.shape)


def sources(name: str, data: "ImageData") -> list[Path]:
    """The files or folders that OOD set `name` is read from, as far as they are there."""
    benchmark, root = data.ood_benchmark, _ood_root(data)
    if benchmark and benchmark.has_lists(root):
        return [benchmark.list_of(name, root)]
    if name in data.own_ood():
        return []
    found = next((path for path in _paths(name, data) if path.exists()), None)
    return [found] if found else _other(name, data).sources()


def whose_splits(data: "ImageData") -> str:
    """For the record, of a benchmark's OOD sets: whether they, and the ID test images, are those that OpenOOD lists."""
    benchmark = data.ood_benchmark
    if not benchmark.has_lists(_ood_root(data)):
        return f"splits not OpenOOD's: there is no {LISTS}/{benchmark.name}, the OOD sets were taken by name"
    own = getattr(data, "benchmark", None) == benchmark.name
    return f"OpenOOD v1.5's lists of {benchmark.name}" + ("" if own else "; the ID splits are not OpenOOD's (data=openood has those)")


def _check_benchmark(data: "ImageData") -> None:
    """FileNotFoundError that names all sets of a benchmark without lists that no name leads to, before one of the others is fetched."""
    benchmark, configs = data.ood_benchmark, config_dir() / "data"
    known = [*data.own_ood(), *(path.stem for path in configs.glob("*.yaml"))]
    missing = [name for name in benchmark.sets if name not in known and not any(path.exists() for path in _paths(name, data))]
    if missing:
        root = _ood_root(data)
        looked = f"{root / LISTS / benchmark.name} is not there" if root else "data.ood_root is not set"
        raise FileNotFoundError(
            f"data.ood=openood_{benchmark.name}: {looked}, and no {', '.join(missing)}; {LISTS} and {benchmark.images} of OpenOOD v1.5 go "
            f"into one folder (scripts/download of github.com/Jingkang50/OpenOOD), data.ood_root=FOLDER"
        )


def read(path: Path) -> FileSet:
    """Images at a path without regard to labels: a parquet file, a folder of parquet files, or a folder of images."""
    from attnlab.data.readers import folder as image_folder
    from attnlab.data.readers import parquet

    if path.is_file():
        return parquet.read([path], label_column=None)
    splits = parquet.find_splits(path)
    for split in EVAL_SPLITS:
        if split in splits:
            return parquet.read(splits[split], label_column=None)
    folders = [path / split for split in EVAL_SPLITS if (path / split).is_dir()]
    return image_folder.read(folders[0] if folders else path)


def fit_to(images: ImageSet | FileSet, shape: tuple[int, ...]) -> ImageSet | FileSet:
    """The images at `shape`, labels -1."""
    nowhere = torch.full((len(images),), -1)
    if isinstance(images, FileSet):
        return replace(images, shape=shape, resize=True, to_grey=True, labels=nowhere, raw_boxes=None)
    x = images.images
    if x.ndim == 4:
        x = resized(with_channels(x, shape[0]), shape[1:]).contiguous(memory_format=torch.channels_last)
    return ImageSet(x, nowhere, None, images.classes)


def with_channels(x_NCHW: Tensor, channels: int) -> Tensor:
    """Grey to RGB by repetition, RGB to grey by luminance; uint8."""
    if x_NCHW.shape[1] == channels:
        return x_NCHW
    if x_NCHW.shape[1] == 1:
        return x_NCHW.expand(-1, channels, -1, -1)
    if channels == 1 and x_NCHW.shape[1] == 3:
        grey_N1HW = sum(weight * x_NCHW[:, c : c + 1].float() for c, weight in enumerate(GREY))
        return grey_N1HW.round().to(torch.uint8)
    raise ValueError(f"cannot turn images of {x_NCHW.shape[1]} channels into {channels}")


def resized(x_NCHW: Tensor, size: tuple[int, ...]) -> Tensor:
    """Bilinear, antialiased, uint8 to uint8."""
    if tuple(x_NCHW.shape[2:]) == tuple(size):
        return x_NCHW
    x = torch.nn.functional.interpolate(x_NCHW.float(), size=tuple(size), mode="bilinear", antialias=True)
    return x.round().clamp(0, 255).to(torch.uint8)


def photos(shape: tuple[int, ...], *, num: int = 1000, seed: int = 0) -> ImageSet:
    """Natural-image patches without network: seeded square crops, 16 to 128 pixels wide, of scikit-learn's two sample photographs."""
    pictures = [with_channels(torch.from_numpy(picture).permute(2, 0, 1)[None], shape[0])[0] for picture in shipped.photographs()]
    generator = torch.Generator().manual_seed(seed)
    of_width: dict[int, list[tuple[int, Tensor]]] = {}  # resized together: a tenth of the calls
    for k in range(num):
        picture = pictures[k % len(pictures)]
        u = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
        width = round(16 * 8 ** u[0])  # uniform in log size
        y, x = int(u[1] * (picture.shape[1] - width)), int(u[2] * (picture.shape[2] - width))
        of_width.setdefault(width, []).append((k, picture[:, y : y + width, x : x + width]))
    images = torch.empty((num, *shape), dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    for found in of_width.values():
        rows, patches = zip(*found)
        images[list(rows)] = resized(torch.stack(patches), shape[1:])
    return ImageSet(images, torch.full((num,), -1), None, ("photo",))


def _ood_root(data: "ImageData") -> Path | None:
    if data.ood_root is not None:
        return Path(data.ood_root).expanduser()
    path = getattr(data, "path", None)
    return Path(path).expanduser().resolve().parent if path else None


def _paths(name: str, data: "ImageData") -> list[Path]:
    """Where on disk the name may lie."""
    root, paths = _ood_root(data), []
    if root is not None:
        paths += [root / name, root / f"{name}.parquet"]
    if "/" in name or "\\" in name:
        paths += [Path(name).expanduser(), Path(f"{name}.parquet").expanduser()]
    return paths


def _configured(name: str, data: "ImageData") -> ImageSet | FileSet:
    """The images of another data set of the project, by the name of its yaml."""
    other = _other(name, data)
    try:
        split = next(split for split in EVAL_SPLITS if split in other.own_splits())
        return other.load(split)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"data.ood: {error}; or set data.ood_root to a folder that holds {name}/test.parquet") from error


def _other(name: str, data: "ImageData") -> "ImageData":
    from attnlab.config.build import build
    from attnlab.config.signatures import parameters
    from attnlab.config.targets import locate

    folder = config_dir() / "data"
    file = folder / f"{name}.yaml"
    if "/" in name or "\\" in name or not file.is_file():
        raise ValueError(_unknown(name, data, sorted(path.stem for path in folder.glob("*.yaml"))))
    from omegaconf import OmegaConf

    node = OmegaConf.to_container(OmegaConf.load(file))
    needed = [key for key, parameter in parameters(locate(node["_target_"])).items() if parameter.default is parameter.empty]
    if not set(needed) <= set(node):
        raise ValueError(f"ood: {name!r} needs a path of its own; name the folder instead, as in data.ood=[../folder/name]")
    return build({**node, "root": data.root})


def _unknown(name: str, data: "ImageData", configured: list[str]) -> str:
    root = _ood_root(data)
    beside = [entry.name for entry in root.iterdir() if entry.is_dir()] if root is not None and root.is_dir() else []
    known = sorted({*data.own_ood(), *beside, *configured} - {"parquet", "image_folder", "openood"})
    near = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
    where = f" (looked in {root})" if root is not None else ""
    return f"ood: no set {name!r}{where}; {hint} A path works too, if it contains a slash."
