"""What travels: wheels and images to the machine with the GPU, figures and records back. Standard library alone."""

import importlib.metadata
import importlib.util
import io
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

PACKAGES = ("hydra-core", "omegaconf", "antlr4-python3-runtime", "pytorch-ood")  # what attnlab needs and that machine has not
LIMIT = 64 * 2**20  # of all that travels
PART = 15 * 2**20  # of one file that comes back
FIGURES, RECORDS, LOG = (
    "figures.json",
    "records",
    "log.txt",
)  # what comes back
KEPT = ("result.json", "metrics.csv", "train.log")  # of a record; checkpoints and scores are too large


def fill(box: Path, images: Path, *, root: Path) -> str:
    """Wheels of PACKAGES in the versions that are installed here, and the images, in `box`. ValueError: more than can travel."""
    for name in ("train.parquet", "test.parquet"):
        if not (images / name).is_file():
            raise SystemExit(f"--bring {images}: there is no {name}; give a Parquet folder of CIFAR-10")
    box.mkdir(exist_ok=True)
    for old in box.glob("*.whl"):
        old.unlink()
    wanted = [f"{name}=={importlib.metadata.version(name)}" for name in PACKAGES]
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(box), *wanted], check=True)
    (box / "cifar10").mkdir(exist_ok=True)
    for name in ("train.parquet", "test.parquet"):
        shutil.copyfile(images / name, box / "cifar10" / name)
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True).stdout.split("\0")
    size = sum(path.stat().st_size for path in (*box.rglob("*"), *(root / name for name in tracked if name)) if path.is_file())
    if size > LIMIT:
        raise SystemExit(f"{box} and the working tree are {size / 2**20:.1f} MiB, over the {LIMIT / 2**20:.0f} that can travel")
    return f"{box}: {', '.join(sorted(path.name for path in box.glob('*.whl')))}, cifar10; {size / 2**20:.1f} MiB with the working tree"


def equip(box: Path, site: Path) -> Path | None:
    """Where this Python lacks the packages: a folder with them, installed from the wheels alone; else None."""
    names = {"hydra-core": "hydra", "pytorch-ood": "pytorch_ood", "antlr4-python3-runtime": "antlr4"}
    if all(importlib.util.find_spec(names.get(name, name)) for name in PACKAGES):
        return None
    wheels = sorted(map(str, box.glob("*.whl")))
    if not wheels:
        raise SystemExit(f"{', '.join(PACKAGES)} are not all installed, and {box} has no wheels; fill it by --bring")
    if not (site / "hydra").exists():
        words = ["-q", "--no-index", "--no-deps", "--no-compile", "--no-cache-dir", "--upgrade", "--target", str(site)]
        subprocess.run([sys.executable, "-m", "pip", "install", *words, *wheels], check=True)
    return site


def pack(out: Path, folder: Path) -> None:
    """All that was found so far as a few files of a size that comes back."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = {path.stem: json.loads(path.read_text()) for path in sorted(out.glob("*.json"))}
    (folder / FIGURES).write_text(json.dumps(figures, indent=1) + "\n")
    if (log := out / LOG).exists():
        (folder / LOG).write_bytes(log.read_bytes()[-(2**20) :])
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for path in sorted(path for name in KEPT for path in (out / "outputs").glob(f"**/runs/*/{name}")):
            archive.add(path, arcname=str(path.relative_to(out)))
    whole = buffer.getvalue()
    for old in folder.glob(f"{RECORDS}.tar.gz.*"):
        old.unlink()
    for number in range(-(-len(whole) // PART)):
        (folder / f"{RECORDS}.tar.gz.{number}").write_bytes(whole[number * PART : (number + 1) * PART])


def unpack(folder: Path, out: Path) -> None:
    """What `pack` left of another machine, where `out` has nothing of its own. tarfile.ReadError: what `pack` does not write."""
    if not (folder / FIGURES).is_file():
        return
    for name, state in json.loads((folder / FIGURES).read_text()).items():
        if not (out / f"{name}.json").exists():
            (out / f"{name}.json").write_text(json.dumps(state, indent=1) + "\n")
    parts = sorted(folder.glob(f"{RECORDS}.tar.gz.*"), key=lambda path: int(path.suffix[1:]))
    if parts:
        with tarfile.open(fileobj=io.BytesIO(b"".join(path.read_bytes() for path in parts)), mode="r:gz") as archive:
            for member in archive.getmembers():
                place = (out / member.name).resolve()
                if not (member.isfile() and place.is_relative_to(out.resolve())):  # extraction filters came with Python 3.11.4
                    raise tarfile.ReadError(f"{member.name!r} would lie outside {out}, or is no plain file")
                if not place.exists() and json_finished(archive, member.name):
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.write_bytes(archive.extractfile(member).read())


def json_finished(archive: tarfile.TarFile, name: str) -> bool:
    """Whether a file belongs to a finished run: one that was interrupted has left its checkpoint behind, and starts afresh."""
    file = archive.extractfile(str(Path(name).with_name("result.json")))
    return file is not None and json.load(file).get("status") == "finished"
