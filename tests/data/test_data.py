"""The data sets that need no download: digits, cluttered digits, two moons; splits, statistics, out-of-distribution sets, configs."""

import inspect
import types

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from attnlab.config.build import build
from attnlab.config.signatures import complete
from attnlab.config.targets import config_dir, locate
from attnlab.data import ood
from attnlab.data.base import ImageData, ImageSet
from attnlab.data.cluttered_digits import ClutteredDigits
from attnlab.data.digits import Digits
from attnlab.data.protocols import stratified_order
from attnlab.data.two_moons import TwoMoons
from attnlab.data.vision import Cifar10, Mnist, OxfordPet

CONFIGS = sorted(path.stem for path in (config_dir() / "data").glob("*.yaml"))


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_builds_and_repeats_its_signatures_defaults(name):
    node = OmegaConf.to_container(OmegaConf.load(config_dir() / "data" / f"{name}.yaml"))
    parameters = inspect.signature(locate(node["_target_"])).parameters
    given_path = {"path": "somewhere"} if "path" in parameters else {}
    _, short = complete(node | given_path)
    assert set(short) <= {"_target_", "path"}, "the yaml and the signature disagree on a default"
    data = build(node | given_path)
    assert isinstance(data, ImageData)
    for parameter in parameters.values():
        assert parameter.kind is parameter.KEYWORD_ONLY
        assert parameter.default is parameter.empty or isinstance(parameter.default, str | int | float | tuple | None)
    assert data.name == ("openood_cifar10" if name == "openood" else "somewhere" if given_path else name)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(0, 99))
def test_every_prefix_of_a_stratified_order_is_in_proportion(counts, seed):
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    order = stratified_order(labels, seed)
    assert torch.equal(order.sort().values, torch.arange(len(labels)))
    for num in range(1, len(labels) + 1):
        got = torch.bincount(labels[order[:num]], minlength=len(counts))
        # each class holds the rounded number of its images up to a common quantile
        share = torch.tensor(counts) / len(labels)
        assert ((got - share * num).abs() <= 0.5 + share * len(counts) / 2 + 1e-4).all()


def test_digits():
    data = Digits()
    data.prepare()
    train, test = data.image_set("train"), data.image_set("test")
    assert data.shape == (1, 16, 16) and data.num_classes == 10 and len(train) + len(test) == 1797 and len(test) == 359
    assert train.images.dtype == torch.uint8 and train.images.is_contiguous(memory_format=torch.channels_last)
    assert test.images.max() > 200
    counts = torch.bincount(test.labels)
    assert counts.min() >= 34 and counts.max() <= 38
    assert data.splits == ("train", "test", "photos") and data.has("photos") and not data.has("val")
    pixels = train.images.double() / 255
    torch.testing.assert_close(torch.tensor(data.mean).double(), pixels.mean((0, 2, 3)))
    torch.testing.assert_close(torch.tensor(data.std).double(), pixels.std((0, 2, 3), correction=0))
    x = torch.cat([x for x, _ in data.eval_loader("train", "cpu")])
    assert abs(x.mean()) < 1e-4 and abs(x.std() - 1) < 1e-3
    assert torch.equal(x, data.normalise(train.images))
    assert data.describe()["images"] == {"train": 1438, "test": 359, "photos": 1000}


def test_digits_of_other_seeds_have_the_same_test_images():
    first, second = Digits(seed=0), Digits(seed=1)
    assert torch.equal(first.image_set("test").images, second.image_set("test").images)
    one, other = (next(iter(data.train_loader("cpu")))[1] for data in (first, second))
    assert not torch.equal(one, other)
    assert not torch.equal(first.image_set("test").images, Digits(split_seed=1).image_set("test").images)


def test_held_out_classes():
    data = Digits(holdout=[0, 4], ood=["heldout", "photos"])
    data.prepare()
    assert data.classes == ("1", "2", "3", "5", "6", "7", "8", "9") and data.num_classes == 8
    heldout = data.image_set("heldout")
    assert len(heldout) == 178 + 181 and (heldout.labels == -1).all()
    whole = {bytes(image.numpy().tobytes()) for image in heldout.images}
    assert not whole & {bytes(image.numpy().tobytes()) for image in data.image_set("train").images}
    everything = Digits().image_set("test")
    kept = (everything.labels != 0) & (everything.labels != 4)
    assert torch.equal(data.image_set("test").images, everything.images[kept])


def test_validation_and_limit():
    data = Digits(val=0.1, limit=500)
    train, val = data.image_set("train"), data.image_set("val")
    assert len(val) == 144 and len(train) == 500 and data.splits[:3] == ("train", "val", "test")
    counts = torch.bincount(train.labels)
    assert counts.min() >= 48 and counts.max() <= 52
    rows = {image.numpy().tobytes() for image in train.images}
    assert not rows & {image.numpy().tobytes() for image in val.images}
    assert rows < {image.numpy().tobytes() for image in Digits(val=0.1).image_set("train").images}


def test_photos_are_natural_patches_in_the_sets_shape():
    for data in (Digits(size=12), ClutteredDigits(num_train=20, num_test=20)):
        photos = data.image_set("photos")
        assert photos.shape == data.shape and len(photos) == 1000 and (photos.labels == -1).all()
        assert torch.equal(photos.images, data.image_set("photos").images)
        assert photos.images.float().std((1, 2, 3)).mean() > 5


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 12, 20)])
def test_photos_are_those_of_a_loop(shape):
    """Resized a width together: what cropping, turning grey and resizing one after another gives."""
    from sklearn.datasets import load_sample_images

    pictures = [torch.tensor(picture).permute(2, 0, 1)[None] for picture in load_sample_images().images]
    generator, expected = torch.Generator().manual_seed(3), []
    for k in range(60):
        picture, u = pictures[k % 2], torch.rand(3, generator=generator, dtype=torch.float64).tolist()
        width = round(16 * 8 ** u[0])
        y, x = int(u[1] * (picture.shape[2] - width)), int(u[2] * (picture.shape[3] - width))
        expected.append(ood.resized(ood.with_channels(picture[:, :, y : y + width, x : x + width], shape[0]), shape[1:]))
    found = ood.photos(shape, num=60, seed=3).images
    assert torch.equal(found, torch.cat(expected)) and found.is_contiguous(memory_format=torch.channels_last)


def test_a_sample_of_a_split():
    sample = Digits().image_set("test", 20)
    assert len(sample) == 20 and torch.equal(torch.bincount(sample.labels), torch.full((10,), 2))


@pytest.fixture(scope="module")
def cluttered():
    data = ClutteredDigits(num_train=300, num_test=200)
    data.prepare()
    return data


def test_cluttered_digits(cluttered):
    train, test = cluttered.image_set("train"), cluttered.image_set("test")
    assert cluttered.shape == (1, 40, 40) and len(train) == 300 and len(test) == 200
    again = ClutteredDigits(num_train=300, num_test=200, seed=9)
    assert torch.equal(again.image_set("train").images, train.images) and torch.equal(again.image_set("test").boxes, test.boxes)
    x0, y0, x1, y1 = train.boxes.T
    assert (x0 >= 0).all() and (y0 >= 0).all() and (x1 <= 40).all() and (y1 <= 40).all()
    assert (x1 - x0).min() >= 4 and (y1 - y0).max() > 22 and (y1 - y0).min() <= 14
    assert set(train.labels.tolist()) == set(range(10))
    clutter = cluttered.image_set("clutter")
    assert clutter.boxes is None and 0 < clutter.images.float().mean() < test.images.float().mean()


def test_boxes_hold_exactly_the_digits_ink():
    images = ClutteredDigits(num_train=60, num_test=10, num_fragments=0).image_set("train")
    for image, box in zip(images.images[:, 0], images.boxes.int().tolist()):
        rows, columns = image.nonzero().T
        assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_no_test_digit_is_in_a_training_canvas():
    """Without clutter a canvas cut to its box is one enlarged digit: none occurs in both splits."""
    data = ClutteredDigits(num_train=2000, num_test=400, num_fragments=0, sizes=[14])
    ink = []
    for split in ("train", "test"):
        images = data.image_set(split)
        boxes = images.boxes.int().tolist()
        ink.append({image[y0:y1, x0:x1].numpy().tobytes() for image, (x0, y0, x1, y1) in zip(images.images[:, 0], boxes)})
    assert len(ink[0]) > 800 and not ink[0] & ink[1]


def test_two_moons():
    data = TwoMoons()
    data.prepare()
    assert data.shape == (2,) and data.num_classes == 2 and data.image_set("train").images.dtype == torch.float32
    x, y = next(iter(data.train_loader("cpu")))
    assert x.shape == (128, 2) and x.dtype == torch.float32 and set(y.tolist()) == {0, 1}
    train = data.image_set("train").images
    for name in ("ring", "far"):
        points = data.image_set(name).images
        assert len(points) == 1000 and torch.cdist(points, train).amin(1).min() > 0.9
    assert not torch.equal(data.image_set("test").images, train)


def test_streaming_by_option_gives_the_same_batches():
    resident, stream = Digits(flip=True), Digits(flip=True, resident=False, num_workers=0)
    for (x, y), (want_x, want_y) in zip(stream.train_loader("cpu"), resident.train_loader("cpu"), strict=True):
        assert torch.equal(x, want_x) and torch.equal(y, want_y)


# Out-of-distribution sets and downloads, with torchvision's part played by a stand-in.


def stand_in(shape, num=40):
    images = torch.randint(0, 256, (num, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return types.SimpleNamespace(data=images, targets=[k % 10 for k in range(num)], classes=[f"class {k}" for k in range(10)])


def test_another_data_set_as_ood_in_the_training_sets_shape(monkeypatch):
    found = stand_in((32, 32, 3))
    monkeypatch.setattr(Cifar10, "fetch", lambda self, split, download: found)
    data = Digits(ood=["cifar10"])
    data.prepare()
    images = data.image_set("cifar10")
    assert images.shape == (1, 16, 16) and len(images) == 40 and (images.labels == -1).all()
    grey = (found.data.double() * torch.tensor([0.299, 0.587, 0.114])).sum(3).round()
    want = torch.nn.functional.interpolate(grey[:, None], (16, 16), mode="bilinear", antialias=True)
    assert (images.images - want).abs().max() <= 1


def test_grey_sets_become_coloured(monkeypatch):
    monkeypatch.setattr(Cifar10, "fetch", lambda self, split, download: stand_in((32, 32, 3)))
    monkeypatch.setattr(Mnist, "fetch", lambda self, split, download: stand_in((28, 28)))
    data = Cifar10(ood=["mnist"], batch_size=16)
    data.prepare()
    images = data.image_set("mnist").images
    assert images.shape == (40, 3, 32, 32) and torch.equal(images[:, 0], images[:, 2])
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_offline_the_message_says_what_to_put_where(monkeypatch, tmp_path):
    def fetch(self, split, download):
        raise ConnectionError("no route to host") if download else RuntimeError("Dataset not found or corrupted.")

    for kind, file in ((Cifar10, "cifar-10-python.tar.gz"), (OxfordPet, "images.tar.gz")):
        monkeypatch.setattr(kind, "fetch", fetch)
        with pytest.raises(FileNotFoundError, match=f"no route to host.*{file}"):
            kind(root=str(tmp_path)).prepare()
    with pytest.raises(FileNotFoundError, match=r"download=false.*cifar-10"):
        Cifar10(root=str(tmp_path), download=False).prepare()
    with pytest.raises(FileNotFoundError, match=r"no route.*data.ood_root.*cifar10/test.parquet"):
        Digits(root=str(tmp_path), ood=["cifar10"]).prepare()


def test_oxford_pet_reads_torchvisions_folder(tmp_path, monkeypatch):
    import numpy as np
    from PIL import Image

    folder = tmp_path / "oxford-iiit-pet"
    (folder / "images").mkdir(parents=True)
    (folder / "annotations" / "trimaps").mkdir(parents=True)
    for split, num in (("trainval", 4), ("test", 2)):
        lines = []
        for k in range(num):
            trimap = np.full((40, 60), 2, dtype=np.uint8)
            trimap[10:20, 15:45] = 1
            Image.fromarray(trimap).save(folder / "annotations" / "trimaps" / f"{split}_{k}.png")
            Image.fromarray(np.full((40, 60, 3), 40 * k, dtype=np.uint8)).save(folder / "images" / f"{split}_{k}.jpg")
            lines.append(f"{split}_{k} {k % 2 + 1} 1 1\n")
        (folder / "annotations" / f"{split}.txt").write_text("".join(lines))
    monkeypatch.setattr(OxfordPet, "fetch", lambda self, split, download: types.SimpleNamespace(classes=["a", "b"]))
    data = OxfordPet(root=str(tmp_path), size=20, batch_size=2)
    data.prepare()
    assert data.shape == (3, 20, 20) and len(data.image_set("train")) == 4
    torch.testing.assert_close(data.image_set("test").boxes, torch.tensor([[5.0, 5.0, 15.0, 10.0]] * 2))


# A third party's data set: a subclass, and nothing else.


def test_a_data_set_of_ones_own():
    class Noise(ImageData):
        name = "noise"

        def load(self, split):
            images = torch.randint(0, 256, (20, 3, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(len(split)))
            return ImageSet(images, torch.arange(20) % 2, None, ("even", "odd"))

    data = Noise(batch_size=5)
    data.prepare()
    assert [x.shape for x, _ in data.train_loader("cpu")] == [(5, 3, 6, 6)] * 4
