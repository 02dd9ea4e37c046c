"""Parquet files and image folders, written on the fly."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from attnlab.data.digits import Digits
from attnlab.data.image_folder import ImageFolder
from attnlab.data.parquet import Parquet

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def write(path, images, labels, *, names=None, boxes=None, plain=False, label_type=None):
    """A parquet file in Hugging Face's layout."""
    encoded = [image if isinstance(image, bytes | None) else png(image) for image in images]
    columns = {
        "image": pa.array(encoded if plain else [{"bytes": b, "path": None} for b in encoded]),
        "label": pa.array(labels, type=label_type),
    }
    if boxes is not None:
        columns["box"] = pa.array(boxes, type=pa.list_(pa.float32()))
    table = pa.table(columns)
    if names:
        features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def digits(split, num):
    images = Digits(size=8).image_set(split, num)
    return images.images[:, 0].numpy(), images.labels.tolist()


@pytest.fixture
def folder(tmp_path):
    for split, num in (("train", 60), ("test", 30)):
        write(tmp_path / "mine" / f"{split}.parquet", *digits(split, num), names=[f"digit {k}" for k in range(10)])
    return tmp_path / "mine"


@pytest.mark.parametrize("plain", [False, True])
def test_pixels_labels_and_names_come_back(folder, plain):
    write(folder / "train.parquet", *digits("train", 60), plain=plain, names=list("abcdefghij"))
    data = Parquet(path=str(folder), batch_size=20)
    data.prepare()
    images, labels = digits("train", 60)
    assert torch.equal(data.image_set("train").images[:, 0], torch.from_numpy(images))
    assert data.image_set("train").labels.tolist() == labels and data.classes == tuple("abcdefghij")
    assert data.shape == (1, 8, 8) and data.name == "mine" and data.splits == ("train", "test")
    assert data.image_set("train").images.is_contiguous(memory_format=torch.channels_last)


def test_shards_subfolder_and_validation_file(tmp_path):
    images, labels = digits("train", 60)
    write(tmp_path / "data" / "train-00000-of-00002.parquet", images[:25], labels[:25])
    write(tmp_path / "data" / "train-00001-of-00002.parquet", images[25:], labels[25:])
    write(tmp_path / "data" / "validation-00000-of-00001.parquet", images[:20], labels[:20])
    write(tmp_path / "data" / "test-00000-of-00001.parquet", *digits("test", 30))
    data = Parquet(path=str(tmp_path), batch_size=10)
    data.prepare()
    assert torch.equal(data.image_set("train").images[:, 0], torch.from_numpy(images))
    assert data.splits == ("train", "val", "test") and data.classes == tuple("0123456789")
    assert len(data.image_set("val")) == 20


def test_a_chosen_test_file(folder):
    write(folder / "test_noisy.parquet", *digits("test", 20))
    data = Parquet(path=str(folder), batch_size=20, test_file="test_noisy.parquet")
    assert len(data.image_set("test")) == 20 and len(Parquet(path=str(folder)).image_set("test")) == 30


def coloured(height, width):
    y, x = np.mgrid[:height, :width]
    return np.stack([y * 255 // height, x * 255 // width, 0 * x], -1).astype(np.uint8)


@pytest.mark.parametrize("fit", ["stretch", "crop"])
def test_sizes_and_boxes(tmp_path, fit):
    pictures = [coloured(40, 60), coloured(60, 40), coloured(30, 30)]
    boxes = [[15.0, 10.0, 45.0, 30.0], [10.0, 15.0, 30.0, 45.0], None]
    for split in ("train", "test"):
        write(tmp_path / f"{split}.parquet", pictures, [0, 1, 0], boxes=boxes)
    data = Parquet(path=str(tmp_path), size=20, fit=fit, box_column="box", batch_size=2)
    data.prepare()
    assert data.shape == (3, 20, 20)
    got = data.image_set("test").boxes
    wide = [5.0, 5.0, 15.0, 15.0] if fit == "stretch" else [2.5, 5.0, 17.5, 15.0]
    assert got[0].tolist() == wide and got[1].tolist() == (wide if fit == "stretch" else [5.0, 2.5, 15.0, 17.5])
    assert got[2].isnan().all()
    image = data.image_set("test").images[0].float()  # the ramps of the original, over the part that is kept
    left = 0 if fit == "stretch" else 1 / 6
    assert abs(image[1, 10, 0] / 255 - left) < 0.05 and abs(image[0, 0, 10] / 255) < 0.05
    streamed = Parquet(path=str(tmp_path), size=20, fit=fit, box_column="box", batch_size=2, resident=False)
    torch.testing.assert_close(streamed.split("test").boxes, got, equal_nan=True)


def test_streaming_equals_resident(folder):
    options = dict(path=str(folder), batch_size=16, crop=1, flip=True)
    resident, stream = Parquet(**options), Parquet(**options, resident=False)
    loaders = resident.train_loader("cpu"), stream.train_loader("cpu")
    for epoch in (0, 3):
        for loader in loaders:
            loader.set_epoch(epoch)
        for (x, y), (want_x, want_y) in zip(*loaders, strict=True):
            assert torch.equal(x, want_x) and torch.equal(y, want_y)


def test_what_does_not_fit_is_streamed_and_says_so(folder, monkeypatch, caplog):
    from attnlab.data import memory
    from attnlab.data.loader import ResidentLoader
    from attnlab.data.stream import StreamLoader

    data = Parquet(path=str(folder), batch_size=4)
    data.prepare()
    assert isinstance(data.train_loader("cpu"), ResidentLoader)
    monkeypatch.setattr(memory, "RESIDENT_LIMIT", 100)
    data = Parquet(path=str(folder), batch_size=4)
    with caplog.at_level("INFO", logger="attnlab"):
        data.prepare()
    assert isinstance(data.train_loader("cpu"), StreamLoader)
    assert "so they are decoded every epoch (data.resident=true keeps them)" in caplog.text


def test_random_resized_crops_do_not_depend_on_the_workers(tmp_path):
    for split in ("train", "test"):
        write(tmp_path / f"{split}.parquet", [coloured(30 + k, 40) for k in range(12)], [k % 2 for k in range(12)])
    epochs = {}
    for num_workers in (0, 1, 2):
        data = Parquet(path=str(tmp_path), size=16, min_scale=0.2, batch_size=4, num_workers=num_workers)
        data.prepare()
        loader = data.train_loader("cpu")
        state = torch.get_rng_state()
        for epoch in (0, 1):
            loader.set_epoch(epoch)
            epochs[num_workers, epoch] = torch.cat([x for x, _ in loader])
        assert torch.equal(torch.get_rng_state(), state)
        assert len(data.image_set("test")) == 12 and len(list(data.eval_loader("train", "cpu"))) == 1
    for epoch in (0, 1):
        assert torch.equal(epochs[0, epoch], epochs[1, epoch]) and torch.equal(epochs[0, epoch], epochs[2, epoch])
    assert not torch.equal(epochs[0, 0], epochs[0, 1])


def test_ood_by_name_by_file_and_by_path(folder, tmp_path):
    write(tmp_path / "other" / "val.parquet", [coloured(12, 10)] * 7, [3] * 7)
    write(tmp_path / "other" / "test_b.parquet", [coloured(12, 10)] * 5, [3] * 5)
    Image.fromarray(coloured(9, 9)).save(tmp_path / "scan.png")
    data = Parquet(path=str(folder), batch_size=16, ood=["other", "other/test_b", "photos", str(tmp_path / "other")])
    data.prepare()
    assert [len(data.image_set(name)) for name in data.ood] == [7, 5, 1000, 7]
    assert all(data.image_set(name).shape == (1, 8, 8) and data.image_set(name).labels.unique().tolist() == [-1] for name in data.ood)
    (tmp_path / "scans" / "deep").mkdir(parents=True)
    (tmp_path / "scan.png").rename(tmp_path / "scans" / "deep" / "a.PNG")
    data = Digits(ood=[str(tmp_path / "scans"), "other"], ood_root=str(tmp_path))
    data.prepare()
    assert len(data.image_set(data.ood[0])) == 1 and data.image_set("other").shape == (1, 16, 16)


def write_folder(root, splits=("train", "test")):
    for split in splits:
        images, labels = digits("train" if split == "train" else "test", 20)
        for k, (image, label) in enumerate(zip(images, labels)):
            place = root / split / f"class {label}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place / f"{k:03}.png")


def test_image_folder(tmp_path):
    write_folder(tmp_path, ("train", "val", "test"))
    data = ImageFolder(path=str(tmp_path), batch_size=10)
    data.prepare()
    assert data.classes == tuple(f"class {k}" for k in range(10)) and data.shape == (1, 8, 8)
    assert data.splits == ("train", "val", "test")
    images, labels = digits("test", 20)
    order = sorted(range(20), key=lambda k: labels[k])
    assert torch.equal(data.image_set("test").images[:, 0], torch.from_numpy(images[order]))
    assert data.image_set("test").labels.tolist() == sorted(labels)


def test_mixed_colours_and_sizes(tmp_path):
    write_folder(tmp_path)
    Image.fromarray(coloured(8, 8)).save(tmp_path / "train" / "class 3" / "z.png")
    with pytest.raises(ValueError, match=r"z\.png: image is in colour.*data.channels"):
        ImageFolder(path=str(tmp_path)).prepare()
    assert ImageFolder(path=str(tmp_path), channels=1, batch_size=10).shape == (1, 8, 8)
    data = ImageFolder(path=str(tmp_path), channels=3, batch_size=10)
    data.prepare()
    assert data.shape == (3, 8, 8) and data.image_set("test").shape == (3, 8, 8)


def test_many_images_load_fast(tmp_path):
    """A few thousand small images a second on any machine: nothing here is quadratic."""
    image = png(np.zeros((8, 8), dtype=np.uint8))
    write(tmp_path / "train.parquet", [image] * 3000, [k % 2 for k in range(3000)])
    write(tmp_path / "test.parquet", [image] * 10, [k % 2 for k in range(10)])
    data = Parquet(path=str(tmp_path))
    data.prepare()
    assert len(data.image_set("train")) == 3000 and data.std == (1.0,)
