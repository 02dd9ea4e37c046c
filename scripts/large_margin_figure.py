"""What the large-margin loss does to features (2405.18499): two networks with a bottleneck of 2, softmax beside large margin.

python scripts/large_margin_figure.py                                        writes outputs/large_margin.png
python scripts/large_margin_figure.py --delta-dist 3 --epochs 40 seed=1      any override of attnlab.train may follow, for both
python scripts/large_margin_figure.py --parquet DIR --epochs 8               other images (Fashion-MNIST, say), from local parquet files

Settings: ResNet-18 of width 16, SGD .02 (at .1 the 2-d bottleneck dies under the margin), one cycle over 20 epochs, the data's batch size
and crop; the loss has the paper's radius 0.5, distance 1.5 and weights, but momentum 0.9 for .99, as means that remember 100 steps would be
those of the beginning in a run of 440. Seed 0, not chosen; digits take about 100 s of one CPU thread. Accuracies of 359 test images and one
seed compare nothing: the picture is about where the classes lie. Both networks are ordinary runs under outputs/runs: repeat the command to
go on after a stop, or to draw again without training.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from attnlab.terminal import console, one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COMMON = ["model=resnet18", "model.width=16", "model.bottleneck=2", "optimizer.lr=0.02", "data.ood=[]", "ood=none", "logger=none"]
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#B5578D", "#C98500", "#56B4E9", "#8C564B", "#444444", "#8A8D00", "#7A5CC9")


@dataclass(frozen=True)
class Plane:
    """What a network makes of the test images: 2-d features, labels, the classes' names, the final layer, the accuracy."""

    features_N2: Tensor
    labels_N: Tensor
    classes: tuple[str, ...]
    fc: nn.Linear
    accuracy: float


def plane_of(overrides: list[str]) -> Plane:
    """Train a run, or find it, and pass the test images through its network."""
    from attnlab.config.compose import compose
    from attnlab.ood.extract import extract
    from attnlab.pipeline.factory import make_data, make_settings
    from attnlab.pipeline.reevaluate import FinishedRun
    from attnlab.pipeline.train import train
    from attnlab.records.lookup import record_of

    plan = compose(overrides)
    train(plan)
    record, data, settings = record_of(plan), make_data(plan), make_settings(plan)
    stored = record.result()
    network = FinishedRun(record.folder, plan, stored).network(data).to(settings.device)
    with settings.autocast():
        bank = extract(network, data.eval_loader("test", settings.device))
    if bank.features.shape[1] != 2:
        raise ValueError(f"model.bottleneck: only 2 features can be drawn, got {bank.features.shape[1]}")
    return Plane(bank.features.cpu(), bank.labels.cpu(), data.classes, network.fc.cpu(), stored["metrics"]["test/acc"])


def draw(planes: dict[str, Plane], path: Path) -> None:
    """A panel a network, both its axes of one scale: every test image, its class's colour; behind, the cells where that class wins."""
    from attnlab.figures.style import FAINT, LARGE, QUIET, SMALL, axes_at, canvas, text_at

    side, margin, top = 3.8, 0.13, 0.45
    note = "features of the test images, a bottleneck of 2; pale: the class that the final layer gives to each point"
    with canvas(path, 2 * side + 3 * margin, top + side + 0.3) as figure:
        for i, (title, plane) in enumerate(planes.items()):
            left = margin + i * (side + margin)
            axes = axes_at(figure, left, top, side, side, xticks=[], yticks=[])
            axes.spines[:].set(visible=True, color=FAINT)
            text_at(figure, left, 0.13, f"{title}, test accuracy {plane.accuracy:.3f}", fontsize=LARGE, fontweight="bold")
            low_2, high_2 = (plane.features_N2.double().quantile(share, 0) for share in (0.002, 0.998))
            centre_2, reach = (low_2 + high_2) / 2, max(1e-6, 0.62 * float((high_2 - low_2).max()))
            (left_edge, bottom_edge), (right_edge, top_edge) = (centre_2 - reach).tolist(), (centre_2 + reach).tolist()
            edges = (left_edge, right_edge, bottom_edge, top_edge)
            axes.imshow(cells(plane.fc, edges).numpy(), origin="lower", extent=edges, aspect="equal", interpolation="nearest", zorder=0)
            order_N = torch.randperm(len(plane.labels_N), generator=torch.Generator().manual_seed(0))  # no class lies on top
            inks = [COLOURS[label % len(COLOURS)] for label in plane.labels_N[order_N].tolist()]
            size = min(9.0, max(1.0, 4000 / len(order_N)))
            axes.scatter(*plane.features_N2[order_N].T.numpy(), s=size, color=inks, linewidths=0, alpha=0.85, zorder=2)
            axes.set(xlim=edges[:2], ylim=edges[2:])
            name_clouds(axes, plane, centre_2, reach)
        text_at(figure, margin, top + side + 0.1, note, fontsize=SMALL, color=QUIET)


def cells(fc: nn.Linear, edges: tuple[float, float, float, float], resolution: int = 600) -> Tensor:
    """(resolution, resolution, 3): the class that `fc` gives to each point of the plane, in a pale colour."""
    left, right, bottom, top = edges
    y, x = torch.meshgrid(torch.linspace(bottom, top, resolution), torch.linspace(left, right, resolution), indexing="ij")
    with torch.no_grad():
        winner = fc(torch.stack([x, y], -1)).argmax(-1)
    palette = torch.tensor([[int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in COLOURS])
    return 1 - 0.13 * (1 - palette[winner % len(COLOURS)])


def name_clouds(axes: "Axes", plane: Plane, centre_2: Tensor, reach: float) -> None:
    """Each class's name at the outer end of its cloud."""
    from matplotlib.patheffects import withStroke

    look = {"ha": "center", "va": "center", "fontweight": "bold", "path_effects": [withStroke(linewidth=2.5, foreground="white")]}
    for label, name in enumerate(plane.classes):
        mine_M2 = plane.features_N2[plane.labels_N == label].double()
        if not len(mine_M2):
            continue
        middle_2 = mine_M2.median(0).values
        outwards_2 = nn.functional.normalize(middle_2 - centre_2, dim=0)
        end_2 = middle_2 + outwards_2 * (((mine_M2 - middle_2) @ outwards_2).quantile(0.95) + 0.07 * reach)
        end_2 = torch.minimum(torch.maximum(end_2, centre_2 - 0.95 * reach), centre_2 + 0.95 * reach)
        axes.text(*end_2.tolist(), name, color=COLOURS[label % len(COLOURS)], zorder=4, **look)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="data set, a file of configs/data (default: digits)")
    parser.add_argument("--parquet", metavar="DIR", help="data=parquet from this folder instead")
    parser.add_argument("--delta-dist", type=float, default=1.5, help="distance that class means keep from the boundaries (default: 1.5)")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--path", type=Path, default=Path("outputs/large_margin.png"), help="the suffix names the format")
    parser.add_argument("overrides", nargs="*", help="of attnlab.train, for both runs: seed=1 data.limit=20000 paths.outputs=DIR")
    options = parser.parse_intermixed_args()

    console()
    data = ["data=parquet", f"data.path={options.parquet}"] if options.parquet else [f"data={options.data}"]
    common = [*data, *COMMON, f"trainer.max_epochs={options.epochs}"]
    margin = ["loss=large_margin", f"loss.delta_dist={options.delta_dist}", "loss.momentum=0.9"]
    with one_line():
        planes = {title: plane_of([*common, *loss, *options.overrides]) for title, loss in (("softmax", []), ("large margin", margin))}
        draw(planes, options.path)
    print(options.path)


if __name__ == "__main__":
    main()
