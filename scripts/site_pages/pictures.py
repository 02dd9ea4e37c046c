"""Pictures of the group pages: what a run draws, from a tiny run on cluttered digits that is trained here, and three that need none.

A picture is FOLDER/GROUP.png with its words in GROUP.txt. Nothing of it is committed: images of a data set are drawn where they are.
"""

import contextlib
import shutil
import tempfile
from pathlib import Path

import torch
import yaml

from attnlab.config.compose import compose
from attnlab.config.targets import config_dir, locate
from attnlab.data.cluttered_digits import ClutteredDigits
from attnlab.figures.overlay import coloured, image_at, outline_box
from attnlab.figures.style import COLOURS, LARGE, NORMAL, SMALL, WIDTH, axes_at, canvas, text_at
from attnlab.pipeline.train import train

DATA = {"canvas": 32, "sizes": [20, 26], "num_train": 2400, "num_test": 200}
RUN = ["data=cluttered_digits", *(f"data.{key}={value}".replace(" ", "") for key, value in DATA.items()), "data.batch_size=48"]
RUN += ["model=resnet18", "model.width=8", "attention=rect", "trainer.max_epochs=5", "ood=[msp,energy,knn,mahalanobis]", "logger=none"]
RUN += ["explainer=[gradcam,ig,gradient,attention,random_map]", "evaluator=[ood,calibration,explanations,figures]"]
RUN += ["evaluator.explanations.num_images=5", "evaluator.explanations.num_scored=16", "evaluator.explanations.num_perturbed=8"]
RUN += ["trainer.accelerator=cpu", "trainer.precision=32", "trainer.threads=1"]
OF_RUN = {  # a figure of the run, and what is to be seen in it
    "attention": ("attention_rect_at_layer2", "The map of rectangular attention on test images. The dashed box holds the digit."),
    "ood": ("ood_scores", "Scores of four heads on test images and on foreign ones. The further apart, the better."),
    "explainer": (
        "explanations",
        "Five explainers on the same images, the last of them random. A map must differ from that.",
    ),
    "evaluator": (
        "reliability",
        "Confidence against accuracy. On the diagonal, 80% of what is said with 80% confidence is right.",
    ),
    "callback": ("curves", "What a run records of its epochs. Callbacks act between them, and add columns."),
}


def draw(folder: Path) -> None:
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as outputs:
        plan = compose([*RUN, f"paths.outputs={outputs}"])
        with contextlib.redirect_stdout(None):  # the path of a record that goes with this block
            train(plan)
        figures = next(Path(outputs).glob("runs/*/figures"))
        for group, (name, words) in OF_RUN.items():
            shutil.copy(figures / f"{name}.png", folder / f"{group}.png")
            _say(folder, group, f"{words} Drawn by the run that this site was built with, five short epochs of a narrow network.")
    images = ClutteredDigits(**DATA).load("test")
    _data(images, folder)
    _regularizers(images, folder)
    _schedules(folder)


def _say(folder: Path, group: str, words: str) -> None:
    (folder / f"{group}.txt").write_text(words)


def _data(images, folder: Path) -> None:
    pictures, _ = coloured(images.images[:8])
    with canvas(folder / "data.png", WIDTH, 1.25) as figure:
        for i, picture in enumerate(pictures):
            H, W = images.images.shape[-2:]  # the picture has more
            axes = image_at(figure, 0.1 + i * 0.98, 0.1, 0.9, 0.9, picture, extent=(0, W, H, 0))
            outline_box(axes, images.boxes[i])
            text_at(figure, 0.1 + i * 0.98, 1.04, str(int(images.labels[i])), size=NORMAL)
    _say(folder, "data", "Cluttered digits and the boxes of what is to be found. Computed from scikit-learn's digits, nothing to download.")


def _regularizers(images, folder: Path) -> None:
    """What the network is given by regularisers of images, with the settings of their yamls."""
    x_BCHW = images.images[:8].float() / 255
    shown = {"as they are": x_BCHW}
    for name in ("cutout", "random_erasing", "mixup", "cutmix"):
        node = yaml.safe_load((config_dir() / "regularizer" / f"{name}.yaml").read_text())[name]
        kind, given = locate(node["module"]["_target_"]), {key: value for key, value in node["module"].items() if key != "_target_"}
        torch.manual_seed(3)
        if "writes" in node:
            shown[name] = kind(x_BCHW.shape[1:], num_classes=10, **given).train()(x_BCHW, images.labels[:8])[0]
        else:
            shown[name] = kind(x_BCHW.shape[1:], **given).train()(x_BCHW)
    with canvas(folder / "regularizer.png", WIDTH, 0.9 * len(shown) + 0.1) as figure:
        for row, (name, x) in enumerate(shown.items()):
            text_at(figure, 0.1, 0.1 + row * 0.9 + 0.32, name, size=NORMAL)
            for i, picture in enumerate(coloured((x * 255).byte())[0]):
                H, W = picture.shape[:2]
                image_at(figure, 1.5 + i * 0.81, 0.1 + row * 0.9, 0.76, 0.76, picture, extent=(0, W, H, 0))
    _say(
        folder,
        "regularizer",
        "What the network is given in training. Those regularisers whose place is the input, with the settings of their yamls.",
    )


def _schedules(folder: Path) -> None:
    epochs, steps = 60, 20
    paths = sorted((config_dir() / "schedule").glob("*.yaml"))
    with canvas(folder / "schedule.png", WIDTH, 2.6) as figure:
        axes = axes_at(figure, 0.55, 0.2, WIDTH - 1.9, 1.9)
        for i, path in enumerate(paths):
            node = yaml.safe_load(path.read_text())
            given = {key: value for key, value in node.items() if key != "_target_"}
            schedule = locate(node["_target_"])(**given, total_steps=epochs * steps, steps_per_epoch=steps)
            values = [schedule(step) for step in range(epochs * steps)]
            colour = COLOURS[i % len(COLOURS)]
            axes.plot([step / steps for step in range(epochs * steps)], values, color=colour)
            text_at(figure, WIDTH - 1.2, 0.2 + 0.22 * i, path.stem, color=colour, size=LARGE - 1)
        axes.set(xlim=(0, epochs), ylim=(0, None))
        axes.set_xlabel("epoch", size=SMALL)
        axes.set_ylabel("factor of the learning rate", size=SMALL)
    _say(folder, "schedule", "The schedules over 60 epochs. Each with the settings of its yaml.")
