"""Images that have changed on disk under a finished run, or under one that is streamed."""

import dataclasses
import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from attnlab.config.targets import ConfigError
from attnlab.data.parquet import Parquet
from attnlab.data.readers import folder as folder_reader
from attnlab.records.lookup import finished
from tests.conftest import QUICK

COUNT = {"train": 40, "test": 12}
BASE = [*QUICK, "trainer.max_epochs=1", "model.width=4", "ood=none", "data.batch_size=8", "evaluator=none"]


def picture(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (8, 8), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write_parquet(folder: Path, split: str, *, other: int | None = None) -> None:
    """`other`: the row that is another picture, of the same number of bytes where that can be."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"bytes": picture(1000 + k if k == other else k), "path": None} for k in range(COUNT[split])]
    table = pyarrow.table({"image": rows, "label": [k % 2 for k in range(COUNT[split])]})
    pyarrow.parquet.write_table(table, folder / f"{split}.parquet")


def write_folder(folder: Path, split: str, *, other: int | None = None) -> None:
    for k in range(COUNT[split]):
        path = folder / split / str(k % 2) / f"{k:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(1000 + k if k == other else k))


WRITERS = {"parquet": write_parquet, "image_folder": write_folder}


@pytest.mark.parametrize("resident", ["true", "false"])
@pytest.mark.parametrize("kind", WRITERS)
def test_a_finished_run_repeated_on_changed_images(
    kind: str, resident: str, run: Callable[..., dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder, write = tmp_path / "images", WRITERS[kind]
    for split in COUNT:
        write(folder, split)
    words = [f"data={kind}", f"data.path={folder}", f"data.resident={resident}", "data.num_workers=0"]
    first = run(*words, base=BASE)
    digests = first["data"]["digests"]
    assert set(digests) == {"train", "test"} and all(digest.startswith("stored:") == (resident == "false") for digest in digests.values())
    plan = first["plan"]
    with monkeypatch.context() as patch:  # nothing is read
        patch.setattr(Parquet, "describe", None)
        assert finished(plan)[1]["metrics"] == first["metrics"]
    for split in COUNT:  # written anew, the same
        write(folder, split)
    assert finished(plan)
    write(folder, "test", other=3)
    with pytest.raises(
        ConfigError, match=r"data: the test images are not those of .*result\.json \(digest \w+, now \w+\); .*force=true"
    ) as caught:
        run(*words, base=BASE)
    assert "\n" not in str(caught.value)
    again = run(*words, "force=true", base=BASE)
    assert again["data"]["digests"]["test"] != digests["test"] and again["data"]["digests"]["train"] == digests["train"]
    os.rename(folder, tmp_path / "away")
    assert finished(plan)  # nothing to compare with


def test_a_streamed_run_that_goes_on_looks_at_its_images(run: Callable[..., dict], tmp_path: Path) -> None:
    folder = tmp_path / "images"
    for split in COUNT:
        write_parquet(folder, split)
    words = ["data=parquet", f"data.path={folder}", "data.num_workers=0"]
    first = run(*words, "data.resident=false", base=BASE)
    (first["folder"] / "result.json").unlink()
    assert run(*words, "data.resident=true", base=BASE)["metrics"]["test/acc"] == first["metrics"]["test/acc"]  # of another kind: no word
    (first["folder"] / "result.json").unlink()
    write_parquet(folder, "train", other=5)
    with pytest.raises(ConfigError, match=r"data: the train images are not those of .*last\.ckpt"):
        run(*words, "data.resident=false", base=BASE)


def test_of_more_files_than_can_be_read_a_list_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path, "train")
    images = folder_reader.read(tmp_path / "train", ("0", "1"))
    whole = images.digest()
    monkeypatch.setattr(folder_reader, "READ", 100)
    listed = images.digest()
    assert whole.startswith("stored:") and listed.startswith("listed:")
    assert images.subset(images.labels.argsort(stable=True)[:-1]).digest() != listed
    assert dataclasses.replace(images, labels=1 - images.labels).digest() != listed
    path = tmp_path / "train" / "0" / "000.png"
    path.write_bytes(path.read_bytes() + b"\0")
    assert images.digest() != listed
