"""The pictures: every odd input gives a whole file or none, texts stay on the canvas and off each other, nothing global changes."""

import math
import subprocess
import sys
import warnings
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from attnlab import figures
from attnlab.figures import style

HEADS = ["msp", "max_logit", "energy", "odin", "knn", "mahalanobis", "vim", "react"]


@pytest.fixture
def drawn(monkeypatch):
    """The figures drawn, kept by their file's name."""
    kept, savefig = {}, Figure.savefig

    def keep(self, path, **options):
        savefig(self, path, **options)
        kept[Path(path).name.split(".")[1]] = self

    monkeypatch.setattr(Figure, "savefig", keep)
    return kept


def texts_of(figure) -> list[tuple[str, object]]:
    """Every text that is drawn and where: matplotlib also keeps labels of ticks outside the axes."""
    found = list(figure.texts)
    for axes in figure.axes:
        found += axes.texts
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            found += [axis.label, *(tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high)]
    renderer = figure.canvas.get_renderer()
    return [(text.get_text(), text.get_window_extent(renderer)) for text in found if text.get_visible() and text.get_text().strip()]


def check(path: Path, drawn) -> list[str]:
    """The file is whole, all texts lie on the canvas and do not run into each other. Returns the texts."""
    with Image.open(path) as image:
        image.load()
        assert 400 < image.width <= 1200
    assert not [other.name for other in path.parent.iterdir() if other.name.endswith(".tmp")]
    figure = drawn[path.stem]
    texts = texts_of(figure)
    corners = np.array([box.extents for _, box in texts])
    assert corners.min() >= -0.5 and (corners[:, 2:].max(0) <= figure.bbox.size + 0.5).all(), [text for text, _ in texts]
    across = np.minimum(corners[:, None, 2], corners[:, 2]) - np.maximum(corners[:, None, 0], corners[:, 0])
    up = np.minimum(corners[:, None, 3], corners[:, 3]) - np.maximum(corners[:, None, 1], corners[:, 1])
    touching = np.argwhere(np.triu((across > 1) & (up > 4), 1))  # 4 pixels: a descender may reach into the line beneath
    assert not len(touching), [(texts[i][0], texts[j][0]) for i, j in touching]
    return [text for text, _ in texts]


# -- attention


def rectangles(number: int) -> torch.Tensor:
    return torch.tensor([[0.2, -0.1, 0.8, 0.5, 0.4]]).repeat(number, 1)


@pytest.mark.parametrize(
    ("number", "channels", "high", "wide"), [(16, 1, 16, 16), (16, 3, 32, 48), (1, 3, 224, 224), (9, 1, 8, 40), (2, 4, 20, 10)]
)
def test_attention_grid(tmp_path, drawn, number, channels, high, wide):
    torch.manual_seed(0)
    images = torch.randint(0, 256, (number, channels, high, wide), dtype=torch.uint8)
    boxes = torch.tensor([[1.0, 1.0, 5.0, 6.0]]).repeat(number, 1)
    boxes[0] = math.nan
    titles = [
        ("a very long class name indeed" if i % 3 else "$x_1$") + ("\nAmerican Staffordshire Terrier" if i % 2 else "\ncat")
        for i in range(number)
    ]
    path = figures.attention_grid(
        images,
        torch.rand(number, 1, 4, 5),
        path=tmp_path / "new" / "grid.png",
        rectangles_N5=rectangles(number),
        boxes_N4=boxes,
        titles=titles,
        correct=[i % 2 == 0 for i in range(number)],
    )
    texts = check(path, drawn)
    assert "$x_1$" in texts and "true box" in texts and sum(text.startswith("✗ ") for text in texts) == number // 2
    pictures = [axes for axes in drawn["grid"].axes if axes.images]
    assert len(pictures) == 2 * number + 1
    assert [len(axes.patches) for axes in pictures[1 : 2 * number : 2]] == [1] + [2] * (number - 1)


def test_attention_rectangle_is_where_it_says(tmp_path, drawn):
    """A rectangle of the whole map's width and half its height, turned by a right angle, over a picture of 20 x 10 pixels."""
    rectangle = torch.tensor([[0.0, 0.0, 1.0, 2.0, math.pi / 2]])
    figures.attention_grid(torch.zeros(1, 1, 10, 20).byte(), torch.rand(1, 1, 2, 2), path=tmp_path / "one.png", rectangles_N5=rectangle)
    (patch,) = drawn["one"].axes[1].patches
    corners = patch.get_xy()
    assert np.allclose([corners[:, 0].min(), corners[:, 0].max()], [0, 20], atol=1e-5)
    assert np.allclose([corners[:, 1].min(), corners[:, 1].max()], [2.5, 7.5], atol=1e-5)


def test_attention_colours_follow_the_map(tmp_path, drawn):
    """On a black image the left half, with attention 1, is bright; the right half, with none, stays black."""
    maps = torch.tensor([[[[1.0, 1.0, 0.0, 0.0]]]]).repeat(2, 1, 4, 1)
    figures.attention_grid(torch.zeros(2, 3, 8, 8).byte(), maps, path=tmp_path / "map.png")
    overlay = drawn["map"].axes[1].images[0].get_array()
    size = overlay.shape[0]
    assert overlay[size // 2, size // 8].max() > 0.5 and overlay[size // 2, -size // 8].max() < 0.02


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0, math.nan])
def test_attention_constant_maps(tmp_path, drawn, value):
    path = figures.attention_grid(
        torch.zeros(3, 1, 8, 8).byte(), torch.full((3, 1, 2, 2), value), path=tmp_path / "flat.png", correct=[True, False, True]
    )
    assert "✗ wrong" in check(path, drawn)


def test_no_pictures_without_images(tmp_path):
    assert figures.attention_grid(torch.rand(4, 2), torch.rand(4, 1, 1, 1), path=tmp_path / "no.png") is None
    assert figures.attention_grid(torch.zeros(0, 1, 8, 8).byte(), torch.rand(0, 1, 2, 2), path=tmp_path / "no.png") is None
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="3 maps for 4 images"):
        figures.attention_grid(torch.zeros(4, 1, 8, 8).byte(), torch.rand(3, 1, 2, 2), path=tmp_path / "no.png")


# -- scores


def scores_for(num_heads: int, num_sets: int, *, long: bool = False):
    generator = torch.Generator().manual_seed(0)
    names = [f"{'an_uncommonly_long_name_for_a_data_set_' if long else 'set'}{i}" for i in range(num_sets)]
    heads = HEADS[:num_heads] if not long else [f"{head}_with_a_long_name_too" for head in HEADS[:num_heads]]
    scores = {
        head: {
            "test": torch.randn(300, generator=generator),
            **{name: torch.randn(80, generator=generator) + i % 4 for i, name in enumerate(names)},
        }
        for head in heads
    }
    return scores, {head: {name: 0.5 + 0.01 * i for i, name in enumerate(names)} for head in heads}


@pytest.mark.parametrize(("num_heads", "num_sets", "long"), [(1, 1, False), (3, 1, True), (5, 5, False), (2, 20, True), (2, 0, False)])
def test_score_histograms(tmp_path, drawn, num_heads, num_sets, long):
    scores, auroc = scores_for(num_heads, num_sets, long=long)
    texts = check(figures.score_histograms(scores, path=tmp_path / "scores.png", auroc=auroc), drawn)
    assert sum("AUROC" in text for text in texts) == (num_heads if num_sets else 0)
    assert texts.count("test") == math.ceil(num_heads / min(num_heads, 4 if num_heads != 5 else 3))
    if num_sets == 1:
        assert texts.count("AUROC 0.500") == num_heads
    if num_heads == 1:
        assert not any("AUROC" in text for text in check(figures.score_histograms(scores, path=tmp_path / "without.png"), drawn))


def test_score_histograms_of_certain_and_of_narrow_scores(tmp_path, drawn):
    """Probabilities near 1 are spread out on a logit scale; long numbers close together have two ticks with room."""
    normal = torch.randn(400, generator=torch.Generator().manual_seed(0)).double()
    certain = {"test": -torch.sigmoid(3 * normal + 7), "far": -torch.sigmoid(3 * normal + 1)}
    narrow = {"test": -0.1002 + 1e-5 * normal, "far": -0.10015 + 1e-5 * normal}
    tailed = {"test": torch.cat([normal, torch.full((6,), 1e6)]), "far": normal + 1}
    scores = {"msp": certain, "odin": narrow, "mahalanobis": tailed, "energy": {"test": normal, "far": normal}}
    auroc = {head: {"far": 0.5} for head in scores}
    texts = check(figures.score_histograms(scores, path=tmp_path / "certain.png", auroc=auroc), drawn)
    assert texts.count("AUROC 0.500; logit scale") == 1 and any(text in ("1.5% beyond", "1.7% beyond", "2% beyond") for text in texts)
    panels = drawn["certain"].axes
    counts = np.histogram(np.log10(((1 + certain["test"]) / -certain["test"]).numpy()), 61)[0]
    assert (counts > 0).sum() > 30 and panels[0].get_xlim()[0] < -2
    assert all(len(panel.get_xticks()) >= 2 for panel in panels)


def test_score_histograms_of_odd_scores(tmp_path, drawn):
    normal = torch.randn(200, generator=torch.Generator().manual_seed(1))
    scores = {
        "far": {"test": normal, "far": normal * 1e9, "inf": torch.full((9,), math.inf)},
        "flat": {"test": torch.ones(5), "far": torch.ones(3)},
        "nan": {"test": normal, "far": torch.full((4,), math.nan), "inf": torch.tensor([math.nan, 1.0])},
        "none": {"far": normal},
        "bf16": {"test": normal.bfloat16(), "far": normal.double().requires_grad_()},
        "huge": {"test": normal * 1e30, "far": normal * 1e30},
    }
    texts = check(figures.score_histograms(scores, path=tmp_path / "odd.png", auroc={"far": {"far": 0.5, "inf": None}}), drawn)
    assert "far" in texts and "none" not in texts and "100% beyond" in texts and "no scores" in texts
    assert figures.score_histograms({"none": {"far": normal}}, path=tmp_path / "no.png") is None and not (tmp_path / "no.png").exists()
    assert figures.score_histograms({}, path=tmp_path / "no.png") is None


# -- consistency


@pytest.mark.parametrize(("num_heads", "num_sets", "long"), [(1, 1, False), (8, 2, False), (3, 4, True), (5, 20, True)])
def test_consistency(tmp_path, drawn, num_heads, num_sets, long):
    scores, _ = scores_for(num_heads, num_sets, long=long)
    right = torch.rand(300, generator=torch.Generator().manual_seed(2)) < 0.9
    texts = check(figures.consistency_curves(scores, right, path=tmp_path / "kept.png"), drawn)
    panels = drawn["kept"].axes
    assert len(panels) == min(num_sets, 4) and all(len(axes.lines) == num_heads + 1 for axes in panels)
    assert any("16 more OOD sets are not drawn" in text for text in texts) == (num_sets == 20)
    best, *lines = (line.get_ydata() for line in panels[0].lines)
    assert all((line <= best + 1e-12).all() for line in lines)
    assert all(line[0] == pytest.approx(int(right.sum()) / 380) for line in (best, *lines))


def test_consistency_is_what_its_axes_say(tmp_path, drawn):
    """Ten test images of which one is wrong and suspicious, ten foreign ones: half rejected, nine right ones and one wrong are kept."""
    scores = {"head": {"test": torch.arange(10.0), "far": torch.arange(10.0) + 9.5}}
    figures.consistency_curves(scores, torch.arange(10) < 9, path=tmp_path / "hand.png")
    best, line = drawn["hand"].axes[0].lines
    at = {round(x, 2): y for x, y in zip(*line.get_data())}
    assert (at[0.0], at[0.5], at[0.9]) == (0.45, 0.9, 1.0)
    assert dict(zip(best.get_xdata().round(2), best.get_ydata()))[0.55] == 1.0


def test_consistency_of_odd_scores(tmp_path, drawn):
    right = torch.tensor([True, False, True, True])
    fine = torch.tensor([0.0, math.inf, -math.inf, 1.0])
    scores = {
        "inf": {"test": fine, "far": fine, "nan": fine},
        "nan": {"test": fine, "far": torch.tensor([math.nan, 1.0])},
        "flat": {"test": torch.zeros(4).bfloat16(), "far": torch.zeros(2)},
        "none": {"far": fine},
    }
    texts = check(figures.consistency_curves(scores, right, path=tmp_path / "odd.png"), drawn)
    assert {"test + far", "test + nan"} <= set(texts) and not any(text.startswith(("nan ", "none ")) for text in texts)
    for nothing in ({}, {"none": {"far": fine}}, {"alone": {"test": fine}}):
        assert figures.consistency_curves(nothing, right, path=tmp_path / "no.png") is None
    with pytest.raises(ValueError, match="got 3 for 4 of inf"):
        figures.consistency_curves(scores, right[:3], path=tmp_path / "no.png")
    assert not (tmp_path / "no.png").exists()


# -- curves


def history_of(epochs: int, terms=("ce", "compact")) -> list[dict]:
    return [
        {
            "epoch": epoch,
            "train/loss": 2.0 / (epoch + 1),
            **{f"train/loss/{term}": 1.0 / (epoch + 1 + i) for i, term in enumerate(terms)},
            "train/acc": 1 - 0.5 / (epoch + 1),
            "val/acc": 0.9 - 0.4 / (epoch + 1) if epoch % 2 == 0 else None,
            "lr": 0.1 / (epoch + 1),
            "images_per_second": 2500.0,
        }
        for epoch in range(epochs)
    ]


@pytest.mark.parametrize("epochs", [1, 2, 200])
@pytest.mark.parametrize("terms", [("ce",), ("ce", "rect@layer3 with a long name", *(f"term{i}" for i in range(12)))])
def test_training_curves(tmp_path, drawn, epochs, terms):
    texts = check(figures.training_curves(history_of(epochs, terms), path=tmp_path / "curves.png", peak_rate=0.7), drawn)
    assert any("the schedule's maximum is 0.7" in text for text in texts)
    assert {"loss", "accuracy", "epoch"} <= set(texts)
    assert any(text.startswith("ce ") for text in texts) == (len(terms) > 1)  # a single term is the loss itself
    assert not any("mathdefault" in text for text in texts)


def test_training_curves_of_odd_histories(tmp_path, drawn):
    rows = history_of(4)
    rows[1]["train/loss"], rows[2]["train/loss/ce"] = math.nan, math.inf
    twice = [*rows[:3], {**rows[2], "val/acc": 0.123}, *rows[3:]]
    texts = check(figures.training_curves(twice, path=tmp_path / "a.png"), drawn)
    assert "val 0.123" in texts  # the epoch came twice, the last counts; epoch 3 has no val/acc
    assert check(figures.training_curves([{"epoch": 5, "val/acc": 0.5}], path=tmp_path / "b.png"), drawn)
    assert check(
        figures.training_curves([{"epoch": e, "train/loss": 10.0 ** (-2 * e), "lr": 0.0} for e in range(5)], path=tmp_path / "c.png"), drawn
    )
    assert check(figures.training_curves([{"epoch": e, "train/loss": -1.0 - e} for e in range(3)], path=tmp_path / "d.png"), drawn)
    for nothing in ([], [{"epoch": 0, "lr": 0.1}], [{"epoch": 0, "train/loss": math.nan}]):
        assert figures.training_curves(nothing, path=tmp_path / "no.png") is None
    assert not (tmp_path / "no.png").exists()


# -- calibration


def slow_ece(logits, labels, bins=15):
    """Guo et al. (1706.04599), one image after another."""
    inside = [[] for _ in range(bins)]
    for row, label in zip(logits.double().softmax(1), labels):
        confidence, guess = row.max(0)
        for b in range(bins):
            if b / bins < confidence <= (b + 1) / bins:
                inside[b].append((float(confidence), float(guess == label)))
    return sum(abs(sum(c for c, _ in one) - sum(r for _, r in one)) for one in inside) / len(labels)


def test_reliability(tmp_path, drawn):
    generator = torch.Generator().manual_seed(0)
    logits, labels = 3 * torch.randn(400, 10, generator=generator), torch.randint(0, 10, (400,), generator=generator)
    labels[:300] = logits[:300].argmax(1)
    labels[-7:] = -1
    texts = check(figures.reliability(logits, labels, path=tmp_path / "calibration.png"), drawn)
    assert f"ECE {slow_ece(logits[:-7], labels[:-7]):.3f}" in texts and "393 images" in texts


def test_reliability_of_few_images(tmp_path, drawn):
    check(figures.reliability(torch.tensor([[0.0, 500.0]]), torch.tensor([1]), path=tmp_path / "one.png"), drawn)
    check(figures.reliability(torch.zeros(3, 2), torch.tensor([0, 1, 1]), path=tmp_path / "even.png"), drawn)
    assert figures.reliability(torch.zeros(3, 2), torch.full((3,), -1), path=tmp_path / "no.png") is None
    assert figures.reliability(torch.zeros(0, 2), torch.zeros(0), path=tmp_path / "no.png") is None


def test_temperature_scaling_is_two_diagrams(tmp_path, drawn):
    generator = torch.Generator().manual_seed(0)
    logits, labels = 3 * torch.randn(400, 10, generator=generator), torch.randint(0, 10, (400,), generator=generator)
    texts = check(figures.temperature_scaling(logits, labels, 7.25, path=tmp_path / "scaled.png"), drawn)
    assert {"before, T = 1", "after, T = 7.25"} <= set(texts)
    assert {f"ECE {slow_ece(logits / t, labels):.3f}" for t in (1, 7.25)} <= set(texts)
    assert figures.temperature_scaling(logits, -torch.ones(400), 2.0, path=tmp_path / "no.png") is None


# -- explanations


@pytest.mark.parametrize(
    ("number", "channels", "high", "wide", "methods"), [(8, 1, 16, 16, 1), (8, 3, 32, 48, 3), (1, 3, 64, 64, 2), (3, 1, 8, 40, 4)]
)
def test_explanation_grid(tmp_path, drawn, number, channels, high, wide, methods):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (number, channels, high, wide), generator=generator, dtype=torch.uint8)
    names = ["gradcam", "smooth_taylor", "a_method_with_a_very_long_name", "rise"][:methods]
    maps = {name: 10.0**i * torch.randn(number, 1, 5, 6, generator=generator) for i, name in enumerate(names)}
    boxes = torch.tensor([[1.0, 2.0, 6.0, 7.0]]).repeat(number, 1)
    boxes[0] = math.nan
    texts = check(
        figures.explanation_grid(
            images,
            maps,
            path=tmp_path / "grid.png",
            boxes_N4=boxes,
            titles=[f"American Staffordshire Terrier {i}\n→ cat" for i in range(number)],
            correct=[i % 2 == 0 for i in range(number)],
            notes={names[0]: ["IoU 0.25"] * number},
        ),
        drawn,
    )
    assert {"gradcam", "image", "relevance 0", "max"} <= set(texts) and ("true box" in texts) == (number > 1)
    assert texts.count("IoU 0.25") == number and sum(text == "→ cat" for text in texts) == number


def test_explanations_of_one(tmp_path, drawn):
    images, maps = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8), torch.randn(3, 1, 8, 8)
    texts = check(
        figures.explanations_of_one(
            images,
            {"ig": maps, "attention/rect@layer2": maps, "sobel": maps},
            path=tmp_path / "one.png",
            titles=["7\n→ 1", "5\n→ 5", "4\n→ 4"],
            correct=[False, True, True],
            notes={"ig": ["del. 0.11", "del. 0.22", "del. 0.33"]},
            signed={"ig"},
        ),
        drawn,
    )
    assert {"ig", "rect@layer2", "sobel", "5 → 5", "del. 0.22", "−", "+", "relevance 0"} <= set(texts) and "7 → 1" not in texts


def test_signed_colours_keep_their_order_in_grey():
    from attnlab.figures.overlay import signed_colours, signed_share

    rgb = signed_colours()(torch.linspace(0, 1, 101).numpy())[:, :3]
    grey = rgb @ [0.299, 0.587, 0.114]
    assert (grey[1:] > grey[:-1]).all() and grey[-1] - grey[0] > 0.6
    share = signed_share(torch.tensor([[-1.0, 0.5], [0.0, 1.0]]).numpy())
    assert share.tolist() == [[-1.0, 0.5], [0.0, 1.0]] and not signed_share(torch.zeros(2, 2).numpy()).any()


def test_faithfulness_curves(tmp_path, drawn):
    curves = {f"method{i}": {kind: torch.rand(4, 9) * (i + 1) / 9 for kind in ("deletion", "insertion")} for i in range(8)}
    curves["alone"] = {kind: torch.full((1, 9), 0.25) for kind in ("deletion", "insertion")}
    texts = check(figures.faithfulness_curves(curves, path=tmp_path / "curves.png"), drawn)
    assert {"deletion", "insertion", "alone 0.250", "lower is better, probability of the class", "higher is better"} <= set(texts)
    assert figures.faithfulness_curves({}, path=tmp_path / "no.png") is None


def test_explanations_without_extras(tmp_path, drawn):
    images, maps = torch.zeros(2, 1, 8, 8).byte(), torch.zeros(2, 1, 2, 2)
    texts = check(figures.explanation_grid(images, {"flat": maps, "nan": maps * math.nan}, path=tmp_path / "plain.png"), drawn)
    assert sorted(texts) == ["flat", "image", "max", "nan", "relevance 0"]
    for nothing in (
        {"images": torch.rand(2, 3), "maps": {"a": maps}},
        {"images": images[:0], "maps": {"a": maps[:0]}},
        {"images": images, "maps": {}},
    ):
        assert figures.explanation_grid(nothing["images"], nothing["maps"], path=tmp_path / "no.png") is None
    with pytest.raises(ValueError, match="got 1 maps of a for 2 images"):
        figures.explanation_grid(images, {"a": maps[:1]}, path=tmp_path / "no.png")


# -- house style


def test_a_picture_that_fails_leaves_the_old_one(tmp_path, monkeypatch):
    path = figures.training_curves(history_of(2), path=tmp_path / "curves.png")
    before = path.read_bytes()

    def full(self, path, **_):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", full)
    with pytest.raises(OSError, match="No space"):
        figures.training_curves(history_of(3), path=path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_formats_repeat_byte_for_byte_and_change_nothing_global(tmp_path):
    settings, filters = dict(matplotlib.rcParams), list(warnings.filters)
    for name in ("a.png", "a.svg"):
        figures.training_curves(history_of(2), path=tmp_path / name)
    again = figures.training_curves(history_of(2), path=tmp_path / "b.png")
    assert again.read_bytes() == (tmp_path / "a.png").read_bytes()
    assert b"<svg" in (tmp_path / "a.svg").read_bytes()
    assert dict(matplotlib.rcParams) == settings and list(warnings.filters) == filters


def test_importing_the_pictures_imports_nothing_heavy():
    code = "import sys, attnlab.figures; print([name for name in ('matplotlib', 'numpy', 'torch') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_names_in_any_script(tmp_path, drawn):
    """No warning (they are errors here) where the font has no glyph."""
    path = figures.attention_grid(
        torch.zeros(1, 1, 8, 8).byte(), torch.rand(1, 1, 2, 2), path=tmp_path / "g.png", titles=["犬 собака $ % {x}"]
    )
    check(path, drawn)
    scores, _ = scores_for(1, 1)
    scores["犬"] = {**scores.pop("msp"), "猫": torch.zeros(3)}
    check(figures.score_histograms(scores, path=tmp_path / "s.png"), drawn)


def test_fit_keeps_both_ends():
    assert style.fit("short", 1.0, 8) == "short"
    fitted = style.fit("American Staffordshire Terrier", 0.9, 7)
    assert fitted.startswith("Amer") and fitted.endswith("rier") and "…" in fitted
    assert style.inches(fitted, 7) <= 0.9 and style.fit("", 1, 8) == ""
