"""An engineer with a network of her own, trained elsewhere: its accuracy, its OOD scores, and training on from it."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.roles.conftest import block

Command = Callable[..., tuple[list[str], str]]
SMALL = ["trainer.accelerator=cpu", "evaluator=ood", "trainer.precision=32", "data.batch_size=4"]


@pytest.fixture
def hers(tmp_path: Path) -> torch.nn.Module:
    """her.pth, a timm resnet18 of three classes, and birds/ beside it."""
    import timm

    draw = np.random.default_rng(0)
    for split, num in (("train", 4), ("test", 5)):
        for label, name in enumerate(("cat", "dog", "owl")):
            folder = tmp_path / "birds" / split / name
            folder.mkdir(parents=True)
            for i in range(num):
                Image.fromarray((draw.integers(0, 80, (32, 32, 3)) + 80 * label).astype("uint8")).save(folder / f"{i}.png")
    torch.manual_seed(0)
    network = timm.create_model("resnet18", num_classes=3).eval()
    torch.save(network.state_dict(), tmp_path / "her.pth")
    return network


def by_hand(network: torch.nn.Module, folder: Path) -> float:
    """The mean probability of the true classes over the test images, by a plain loop."""
    read = {
        split: [(np.asarray(Image.open(path)) / 255, path.parent.name) for path in sorted((folder / "birds" / split).rglob("*.png"))]
        for split in ("train", "test")
    }
    pixels = np.concatenate([image.reshape(-1, 3) for image, _ in read["train"]])
    x = torch.tensor(np.stack([(image - pixels.mean(0)) / pixels.std(0) for image, _ in read["test"]])).float().permute(0, 3, 1, 2)
    labels = torch.tensor([("cat", "dog", "owl").index(name) for _, name in read["test"]])
    with torch.no_grad():
        return float(torch.nn.functional.cross_entropy(network(x), labels))


def test_her_network_is_asked_by_the_commands_of_the_readme(hers: torch.nn.Module, tmp_path: Path, command: Command) -> None:
    evaluate, show = block("role: engineer").replace("\\\n", "").splitlines()
    out, said = command(evaluate, *SMALL)
    result = json.loads(Path(out[-1]).read_text())
    assert result["metrics"]["test/nll"] == pytest.approx(by_hand(hers, tmp_path), rel=1e-4)
    assert {key.split("/")[1] for key in result["metrics"] if key.startswith("ood/")} == {"msp", "knn", "mahalanobis"}
    assert "images are normalised by mean [" in said and "test/acc" in said and result["weights"]["file"] == "her.pth"
    shown, _ = command(show)
    assert shown[0].endswith("finished") and shown[0].startswith("birds-resnet18-weights-")


def test_the_same_in_python(hers: torch.nn.Module, tmp_path: Path, command: Command, capsys: pytest.CaptureFixture) -> None:
    from safetensors.torch import save_file

    code = block("role: engineer in python").replace('mahalanobis]"]', f'mahalanobis]", *{SMALL}]')
    save_file(hers.state_dict(), tmp_path / "her.safetensors")
    exec(compile(code.replace("her.pth", "her.safetensors"), "own.py", "exec"), {})
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert metrics["test/nll"] == pytest.approx(by_hand(hers, tmp_path), rel=1e-4)
    assert {key.split("/")[1] for key in metrics if key.startswith("ood/")} == {"msp", "knn", "mahalanobis"}


def test_what_does_not_fit_is_named(hers: torch.nn.Module, tmp_path: Path) -> None:
    from attnlab.backbones.timm_model import timm_model
    from attnlab.records.weights import put_weights, read_weights

    state = hers.state_dict()
    ours = timm_model(3, (3, 32, 32), name="resnet18")
    wrapped = {f"module.{name}": value for name, value in state.items()}
    torch.save({"epoch": 3, "model": wrapped}, tmp_path / "wrapped.pth")
    put_weights(ours, read_weights(tmp_path / "wrapped.pth", where="weights=x"), where="weights=x")
    assert torch.equal(ours.fc.weight, state["fc.weight"])
    wrong = {**state, "fc.weight": torch.zeros(7, 512), "extra": torch.zeros(1)}
    del wrong["conv1.weight"]
    told = "weights=x: does not fit the network, of 122 tensors: 1 of another shape (fc.weight 7x512, here 3x512); "
    with pytest.raises(ValueError, match=re.escape(told + "1 missing (conv1.weight); 1 left over (extra)")):
        put_weights(ours, wrong, where="weights=x")
    with pytest.raises(ValueError, match=r"weights=none\.pth: there is no such file"):
        read_weights("none.pth", where="weights=none.pth")


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_efficientnet"])
def test_the_classifier_of_a_file_is_kept_or_named(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As training from `model.weights`: whatever timm calls its classifier."""
    import timm

    from attnlab.backbones.timm_model import timm_model

    theirs = timm.create_model(name, num_classes=3).eval()
    torch.save(theirs.state_dict(), tmp_path / "her.pth")
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    ours = timm_model(3, (3, 64, 64), name=name, weights=str(tmp_path / "her.pth")).eval()
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x))
    with caplog.at_level("WARNING", logger="attnlab"):
        timm_model(4, (3, 64, 64), name=name, weights=str(tmp_path / "her.pth"))
    assert "fc, of 4 classes, starts afresh: the one of" in caplog.text and "is of 3 classes" in caplog.text
