"""A user's mistakes with data: one line that names the file or key, the cause and the way out."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from attnlab.data.base import ImageData, ImageSet
from attnlab.data.cluttered_digits import ClutteredDigits
from attnlab.data.digits import Digits
from attnlab.data.image_folder import ImageFolder
from attnlab.data.parquet import Parquet
from attnlab.data.two_moons import TwoMoons
from tests.data.test_parquet import digits, png, write, write_folder

NAMES = list("abcdefghij")


def fails(data, *words, kind=ValueError):
    with pytest.raises(kind) as caught:
        data.prepare()
    text = str(caught.value)
    assert "\n" not in text and all(word in text for word in words), text


@pytest.fixture
def folder(tmp_path):
    for split, num in (("train", 40), ("test", 20)):
        write(tmp_path / f"{split}.parquet", *digits(split, num), names=NAMES)
    return tmp_path


def parquet(folder, **options):
    return Parquet(path=str(folder), batch_size=10, **options)


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        (Digits, {"batch_size": 0}, "batch_size must be at least 1, got 0"),
        (Digits, {"val": 1.0}, r"val is a fraction .* got 1\.0"),
        (Digits, {"limit": 1}, "limit must be at least 2"),
        (Digits, {"crop": -1}, "crop must be at least 0"),
        (Digits, {"ood": ["photos", "photos"]}, "names a set twice"),
        (Digits, {"ood": ["test"]}, "are splits of this set"),
        (Digits, {"mean": [0.5]}, "give both or neither"),
        (Digits, {"mean": [0.5], "std": [0.0]}, "std must be positive"),
        (Digits, {"holdout": [11]}, r"holdout takes up to 8 different digits of 0\.\.9"),
        (Digits, {"size": 4}, "size must be at least 8"),
        (Digits, {"test": 0.0}, r"test is a fraction in \(0, 1\)"),
        (ClutteredDigits, {"sizes": [50]}, "between 8 and the canvas of 40"),
        (ClutteredDigits, {"fragment": 0}, "fragment must be in"),
        (ClutteredDigits, {"num_train": 2}, "at least 10"),
        (TwoMoons, {"crop": 2}, "two_moons has points"),
        (TwoMoons, {"noise": -0.1}, "at least 0, got -0.1"),
        (Parquet, {"path": "x", "size": 0}, "size must be at least 1"),
        (Parquet, {"path": "x", "fit": "squash"}, "stretch or crop"),
        (Parquet, {"path": "x", "channels": 2}, "channels is 1, 3 or null"),
        (Parquet, {"path": "x", "min_scale": 0.08}, "needs data.size"),
    ],
)
def test_impossible_values(kind, options, words):
    with pytest.raises(ValueError, match=words):
        kind(**options)


def test_demands_on_the_number_of_images():
    fails(Digits(batch_size=2000), "batch_size=2000", "1438 training images", "data.drop_last=false")
    fails(Digits(limit=5000), "limit=5000", "1438 training images")
    fails(Digits(mean=[0.5] * 3, std=[0.5] * 3), "need 1 values")
    fails(Digits(val=0.0001), "val=0.0001")


def test_missing_path(tmp_path):
    fails(parquet(tmp_path / "no"), "data.path", "does not exist", str(tmp_path), kind=FileNotFoundError)
    fails(ImageFolder(path=str(tmp_path / "no")), "data.path", "train/<class>/", kind=FileNotFoundError)


def test_missing_splits(folder, tmp_path):
    (folder / "train.parquet").rename(folder / "other.parquet")
    fails(parquet(folder), "no train.parquet", "there is test.parquet", "data.path")
    (folder / "test.parquet").unlink()
    fails(parquet(folder), "no train.parquet", "no parquet file")
    (folder / "other.parquet").rename(folder / "train.parquet")
    fails(parquet(folder), "no test split")
    fails(parquet(folder, test_file="b.parquet"), "data.test_file", "b.parquet", "train.parquet", kind=FileNotFoundError)
    fails(parquet(folder / "train.parquet"), "is a file", "give the folder")
    fails(ImageFolder(path=str(tmp_path)), "no folder train", "train/<class>/*.png")


def test_missing_columns(folder):
    fails(parquet(folder, image_column="img"), "train.parquet", "no column 'img'", "image, label", "data.image_column")
    fails(parquet(folder, label_column="y"), "no column 'y'", "data.label_column")
    fails(parquet(folder, box_column="box"), "no column 'box'", "data.box_column")
    fails(parquet(folder, image_column="label"), "column 'label' is int64, not image bytes")
    fails(parquet(folder, label_column="image"), "labels must be integers")
    fails(parquet(folder, box_column="label"), "boxes of four numbers")


def test_a_parquet_file_that_is_none(folder):
    (folder / "test.parquet").write_bytes((folder / "test.parquet").read_bytes()[:500])
    fails(parquet(folder), "test.parquet: not a readable parquet file", "fetch it again")
    (folder / "test.parquet").write_bytes(b"")
    fails(parquet(folder), "test.parquet: not a readable parquet file")


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("resident", [None, False])
def test_unreadable_images_name_file_and_row(folder, resident):
    images, labels = digits("test", 20)
    whole = png(images[0])
    for broken in (b"no image", whole[: len(whole) // 2], b"", None)[: None if resident is None else 1]:
        write(folder / "test.parquet", [*images[:7], broken, *images[8:]], labels, names=NAMES)
        data = parquet(folder, resident=resident)
        if resident is None:
            fails(data, "test.parquet row 7: unreadable image", "repair or remove it")
        else:
            for data.num_workers in (0, 1):
                with pytest.raises(ValueError, match=r"^\S+test\.parquet row 7: unreadable image .*remove it$"):
                    list(data.eval_loader("test", "cpu"))


def test_an_unreadable_file(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "train" / "class 4" / "broken.jpg").write_bytes(b"\xff\xd8 no more")
    fails(ImageFolder(path=str(tmp_path), batch_size=10), str(tmp_path / "train" / "class 4" / "broken.jpg"), "unreadable image")


def test_images_of_several_sizes(folder):
    images, labels = digits("train", 40)
    write(folder / "train.parquet", [*images[:-1], np.zeros((9, 8), dtype=np.uint8)], labels, names=NAMES)
    fails(parquet(folder), "train.parquet row 39", "8x9, others are 8x8", "data.size")
    write(folder / "train.parquet", images, labels, names=NAMES)
    write(folder / "test.parquet", [np.zeros((9, 9), dtype=np.uint8)] * 3, [0, 1, 2], names=NAMES)
    fails(parquet(folder), "test images are (1, 9, 9), training images (1, 8, 8)", "data.size")


def test_labels_outside_the_classes(folder):
    images, labels = digits("train", 40)
    for bad in (10, -1):
        write(folder / "train.parquet", images, [*labels[:5], bad, *labels[6:]], names=NAMES)
        fails(parquet(folder), f"train.parquet row 5: label {bad} is outside 0..9 (10 classes)")
    write(folder / "train.parquet", images, [*labels[:5], None, *labels[6:]], names=NAMES)
    fails(parquet(folder), "1 empty labels")
    write(folder / "train.parquet", images, [k % 3 for k in range(40)])
    write(folder / "test.parquet", images, [k % 4 for k in range(40)])
    fails(parquet(folder), "test.parquet row 3: label 3 is outside 0..2")


def test_one_class_only(folder):
    images, _ = digits("train", 40)
    write(folder / "train.parquet", images, [2] * 40, names=NAMES)
    fails(parquet(folder), "all 40 training images are of one class")


def test_empty_splits(folder, tmp_path):
    write(folder / "test.parquet", [], [], names=NAMES, label_type=pa.int64())
    pq.write_table(pq.read_table(folder / "train.parquet").slice(0, 0), folder / "test.parquet")
    fails(parquet(folder), "the test split is empty")
    write_folder(tmp_path / "a", ("train",))
    (tmp_path / "a" / "test").mkdir()
    fails(ImageFolder(path=str(tmp_path / "a")), "test: no images in it")


def test_unknown_class_folder(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "test" / "class X").mkdir()
    fails(ImageFolder(path=str(tmp_path)), "class X: no such class", "class 0, class 1")
    (tmp_path / "b" / "train").mkdir(parents=True)
    fails(ImageFolder(path=str(tmp_path / "b")), "no class folders")


def test_not_a_number():
    class Holes(ImageData):
        name = "holes"

        def load(self, split):
            return ImageSet(torch.tensor([[0.0, 1.0], [float("nan"), 1.0]]), torch.tensor([0, 1]), None, ("a", "b"))

    fails(Holes(), "holes: the train split holds NaN or infinite values")


def test_unknown_ood_sets(folder):
    fails(Digits(ood=["fotos"]), "no set 'fotos'", "did you mean photos")
    fails(Digits(ood=["heldout"]), "no set 'heldout'")
    fails(parquet(folder, ood=["mnistt"]), "no set 'mnistt'", "did you mean mnist", str(folder.parent))
    fails(parquet(folder, ood=["xyzzy"]), "known: ", "photos")
    fails(Digits(ood=["./nowhere/at/all"]), "no set './nowhere/at/all'")
    fails(Digits(ood=["parquet"]), "needs a path of its own")
    fails(TwoMoons(ood=["photos"]), "two_moons knows ring, far")


def test_ood_folder_without_images(folder, tmp_path):
    (tmp_path / "void").mkdir()
    fails(parquet(folder, ood=[str(tmp_path / "void")]), "void: no images in it")


def test_metadata_that_is_no_json(folder):
    table = pq.read_table(folder / "train.parquet")
    for text in ("{", json.dumps({"info": None}), json.dumps([1])):
        pq.write_table(table.replace_schema_metadata({"huggingface": text}), folder / "train.parquet")
        assert parquet(folder).classes == tuple("0123456789")


def test_an_image_can_be_any_format_pillow_reads(tmp_path):
    write_folder(tmp_path)
    image = Image.new("L", (8, 8), 99)
    for number, kind in enumerate(("bmp", "jpg", "webp", "tif")):
        image.save(tmp_path / "train" / "class 1" / f"{number}.{kind}")
    data = ImageFolder(path=str(tmp_path), channels=1, batch_size=10)
    data.prepare()
    assert len(data.image_set("train")) == 24
