"""scripts/large_margin_figure.py: two tiny runs, one picture; drawn again without training; cells and names where they belong."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from tests import ROOT

SCRIPT = ROOT / "scripts" / "large_margin_figure.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("large_margin_figure_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_two_runs_and_a_picture(script, tmp_path, monkeypatch, capsys):
    small = ["data.limit=32", "data.batch_size=16", "model.width=4", f"paths.outputs={tmp_path}", "trainer.accelerator=cpu"]
    words = ["figure", "--epochs", "1", "--path", str(tmp_path / "new" / "figure.png"), *small]
    monkeypatch.setattr(sys, "argv", words)
    script.main()
    path = Path(capsys.readouterr().out.splitlines()[-1])
    with Image.open(path) as image:
        image.load()
        assert abs(image.width - 1200) < 20  # cut to what is drawn
    records = sorted(tmp_path.glob("runs/*/result.json"))
    assert len(records) == 2 and sum("large_margin" in str(record) for record in records) == 1
    before, picture = [record.stat().st_mtime_ns for record in records], path.read_bytes()
    script.main()
    assert [record.stat().st_mtime_ns for record in records] == before and path.read_bytes() == picture

    monkeypatch.setattr(sys, "argv", [*words, "model.bottleneck=3"])
    with pytest.raises(SystemExit) as stop:
        script.main()
    assert stop.value.code == 1 and "only 2 features can be drawn, got 3" in capsys.readouterr().err


def test_cells_are_what_the_layer_decides(script):
    """Class 1 right of x = 1, class 0 left of it; rows rise with y."""
    fc = nn.Linear(2, 2)
    with torch.no_grad():
        fc.weight.copy_(torch.tensor([[0.0, 0], [1, 0]]))
        fc.bias.copy_(torch.tensor([0.0, -1]))
    image = script.cells(fc, (0.0, 2.0, -5.0, 5.0), resolution=100)
    assert (image[:, :50] == image[0, 0]).all() and (image[:, 50:] == image[0, -1]).all() and (image[0, 0] != image[0, -1]).any()
    assert image.min() > 0.8 and image.max() <= 1
    with torch.no_grad():
        fc.weight.copy_(torch.tensor([[0.0, 0], [0, 1]]))
        fc.bias.zero_()
    image = script.cells(fc, (0.0, 2.0, -5.0, 5.0), resolution=100)
    assert (image[:50] == image[0, 0]).all() and (image[50:] == image[-1, 0]).all()
