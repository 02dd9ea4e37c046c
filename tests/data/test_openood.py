"""OpenOOD's benchmarks: near and far sets by one name, by lists of files or by name, and whose splits the record says they are."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attnlab.data.benchmarks import BENCHMARKS
from attnlab.data.image_folder import ImageFolder
from attnlab.data.openood import OpenOOD
from attnlab.data.readers import listed
from tests.data.test_parquet import write

SHADES = {"cifar10": 0, "cifar100": 40, "tin": 80, "mnist": 120, "svhn": 160, "texture": 200, "places365": 240}


def picture(path: Path, shade: int, size: tuple[int, int] = (8, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size[1], size[0], 3), shade, "uint8")).save(path)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """Lists and images as OpenOOD's script leaves them: of every set two listed images of its own shade, and one that is not listed."""
    lists = tmp_path / "openood" / "benchmark_imglist" / "cifar10"
    lists.mkdir(parents=True)
    for name, shade in SHADES.items():
        folder = tmp_path / "openood" / "images_classic" / name / "test"
        for k in range(3):
            picture(folder / f"{k}.png", shade + k, size=(8, 8) if name != "tin" else (16, 8))
        (lists / f"test_{name}.txt").write_text(f"{name}/test/1.png -1\n{name}/test/0.png -1\n")
    for split, num in (("train", 3), ("val", 1), ("test", 2)):
        rows = [(f"cifar10/{split}/{animal}/{k}.png", label) for label, animal in ((0, "cat"), (1, "ant")) for k in range(num)]
        for path, label in rows:
            picture(tmp_path / "openood" / "images_classic" / path, 10 + label)
        (lists / f"{split}_cifar10.txt").write_text("".join(f"{path} {label}\n" for path, label in rows))
    return tmp_path / "openood"


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    for split, label, k in ((split, label, k) for split in ("train", "test") for label in "ab" for k in range(3)):
        picture(tmp_path / "birds" / split / label / f"{k}.png", 60 + 9 * k)
    return tmp_path / "birds"


def test_the_groups_are_openoods() -> None:
    """As openood/evaluation_api/datasets.py and configs/datasets/*_ood.yml of v1.5 have them."""
    assert BENCHMARKS["openood_cifar10"].groups == {"near": ("cifar100", "tin"), "far": ("mnist", "svhn", "texture", "places365")}
    assert BENCHMARKS["openood_cifar100"].groups == {"near": ("cifar10", "tin"), "far": ("mnist", "svhn", "texture", "places365")}
    for name in ("openood_imagenet200", "openood_imagenet"):
        of = BENCHMARKS[name]
        assert of.groups == {"near": ("ssb_hard", "ninco"), "far": ("inaturalist", "textures", "openimage_o")}
        assert str(of.list_of("ninco", Path("D"))) == f"D/benchmark_imglist/{of.name}/test_ninco.txt"
        assert [of.folder_of(one, Path("D")).name for one in ("ninco", "textures")] == ["images_largescale", "images_classic"]


def test_by_its_lists(disk: Path, birds: Path) -> None:
    data = ImageFolder(path=str(birds), batch_size=2, ood="openood_cifar10", ood_root=str(disk))
    data.prepare()
    assert data.ood == ("cifar100", "tin", "mnist", "svhn", "texture", "places365")
    for name in data.ood:
        images = data.image_set(name)
        assert images.images[:, 0, 0, 0].tolist() == [SHADES[name] + 1, SHADES[name]] and images.labels.tolist() == [-1, -1]
        assert images.shape == data.shape == (3, 8, 8)  # the list's order; of tin the middle of 16 x 8
    assert data.describe()["ood_splits"] == "OpenOOD v1.5's lists of cifar10; the ID splits are not OpenOOD's (data=openood has those)"
    before = data.stamp()
    (disk / "benchmark_imglist" / "cifar10" / "test_mnist.txt").write_text("mnist/test/2.png -1\n")
    again = ImageFolder(path=str(birds), batch_size=2, ood="openood_cifar10", ood_root=str(disk))
    assert again.image_set("mnist").images[:, 0, 0, 0].tolist() == [122] and again.stamp() != before
    assert ImageFolder(path=str(birds), batch_size=2, ood=["mnist"], ood_root=str(disk)).ood_groups == {}


def test_the_largest_centred_square(disk: Path, birds: Path) -> None:
    wide = np.zeros((8, 24, 3), "uint8")
    wide[:, 8:16] = 255
    Image.fromarray(wide).save(disk / "images_classic" / "svhn" / "test" / "0.png")
    data = ImageFolder(path=str(birds), batch_size=2, ood="openood_cifar10", ood_root=str(disk))
    assert data.image_set("svhn").images[1].unique().tolist() == [255]


def test_openoods_own_id_splits(disk: Path) -> None:
    data = OpenOOD(path=str(disk), size=8, batch_size=2)
    data.prepare()
    assert data.classes == ("cat", "ant") and {name: len(data.split(name)) for name in ("train", "val", "test")} == {
        "train": 6, "val": 2, "test": 4,
    }  # fmt: skip
    assert data.split("test").labels.tolist() == [0, 0, 1, 1] and data.describe()["ood_splits"] == "OpenOOD v1.5's lists of cifar10"
    other = OpenOOD(path=str(disk), size=8, batch_size=2, benchmark="cifar100")
    with pytest.raises(
        FileNotFoundError, match=r"cifar100/train_cifar100.txt is not there; fetch it with scripts/download of OpenOOD v1\.5"
    ):
        other.prepare()


def test_classes_have_names_only_where_folders_tell_them(tmp_path: Path) -> None:
    for path in ("a/0.png", "a/1.png", "b/2.png"):
        picture(tmp_path / path, 0)
    for text, classes in {
        "a/0.png 0\nb/2.png 1": ("a", "b"),
        "a/0.png 0\na/1.png 1": ("0", "1"),
        "a/0.png 0\na/1.png 1\nb/2.png 0": ("0", "1"),
        "a/0.png 0\nb/2.png 2": ("a", "1", "b"),
    }.items():
        (tmp_path / "list.txt").write_text(text)
        assert listed.read(tmp_path / "list.txt", tmp_path, labelled=True).classes == classes


def test_by_name_where_there_are_no_lists(birds: Path) -> None:
    sets = ("cifar100", "tin", "mnist", "svhn", "texture", "places365")
    for name in sets:
        write(birds.parent / f"{name}.parquet", [np.zeros((8, 8, 3), "uint8")] * 2, [0, 0], names=["x"])
    data = ImageFolder(path=str(birds), batch_size=2, ood="openood_cifar10")
    data.prepare()
    assert data.describe()["ood_splits"].startswith("splits not OpenOOD's: there is no benchmark_imglist/cifar10")


def test_what_is_missing_is_named_at_once(disk: Path, birds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attnlab.data.vision.Cifar100.fetch", lambda *_: 1 / 0)  # nothing is downloaded first
    data = ImageFolder(path=str(birds), batch_size=2, ood="openood_cifar10")
    told = re.escape("data.ood=openood_cifar10: ") + r".*benchmark_imglist/cifar10 is not there, and no tin, texture, places365; "
    with pytest.raises(FileNotFoundError, match=told + r".*go into one folder .*, data\.ood_root=FOLDER$"):
        data.prepare()
    lists = disk / "benchmark_imglist" / "cifar10"
    for text, words in {
        "": "test_tin.txt: names no images",
        "tin/test/9.png -1": "test_tin.txt line 1: ",
        "../../birds/test/a/0.png -1": "test_tin.txt line 1: ../../birds/test/a/0.png leads out of ",
        "/etc/passwd -1": "line 1: /etc/passwd leads out of ",
    }.items():
        (lists / "test_tin.txt").write_text(text)
        with pytest.raises((FileNotFoundError, ValueError), match=re.escape(words)):
            ImageFolder(path=str(birds), batch_size=2, ood="openood_cifar10", ood_root=str(disk)).prepare()
    (lists / "test_tin.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"test_tin\.txt is not there; fetch it with scripts/download of OpenOOD"):
        ImageFolder(path=str(birds), batch_size=2, ood="openood_cifar10", ood_root=str(disk)).prepare()
    (lists / "train_cifar10.txt").write_text("cifar10/train/cat/0.png cat")
    with pytest.raises(ValueError, match=r"line 1: 'cat' is no label; 0, 1, 2 \.\.\. are"):
        OpenOOD(path=str(disk), size=8).prepare()


def test_a_run_has_means_of_the_groups(disk: Path, run) -> None:
    told = run(
        "data=openood", f"data.path={disk}", "data.size=16", "data.batch_size=4", "trainer.max_epochs=1", "~data.limit", "evaluator=ood"
    )
    metrics = told["metrics"]
    for group, sets in BENCHMARKS["openood_cifar10"].groups.items():
        for metric in ("auroc", "fpr95"):
            values = [metrics[f"ood/msp/{name}/{metric}"] for name in sets]
            assert metrics[f"ood/msp/{group}/{metric}"] == pytest.approx(sum(values) / len(values))
    assert told["config"]["data"]["ood"] == "openood_cifar10" and told["data"]["ood_splits"] == "OpenOOD v1.5's lists of cifar10"


def test_a_wrong_name_is_one_line() -> None:
    from attnlab.config.compose import compose
    from attnlab.config.targets import ConfigError

    with pytest.raises(
        ConfigError, match=r"data\.ood=openood_cifar: must be a list, each a text or one of openood_cifar10, openood_cifar100"
    ):
        compose(["data.ood=openood_cifar"])
    assert compose(["data.ood=openood_cifar10"]).full["data"]["ood"] == "openood_cifar10"
    assert compose(["data.ood=[photos]"]).address == compose([]).address
