"""Lens depth over the plane of two moons, beside a Gaussian fit: what the Fermat distance sees that a covariance cannot (2404.08476).

python scripts/two_moons_figure.py                                          writes outputs/two_moons.png, in 10 to 20 s
python scripts/two_moons_figure.py --alpha 3 5 15 --path outputs/powers.pdf
python scripts/two_moons_figure.py --pooled --noise 0.06                    both moons as one class: depth is high in the gap between them
"""

import argparse
from functools import reduce
from pathlib import Path

import torch
from torch import Tensor

from attnlab.ood.lens_depth import fermat_matrix, fermat_to, lens_depth

EDGES = (-1.7, 2.7, -1.25, 1.75)  # left, right, bottom, top of the plane


def two_moons(num: int, noise: float, seed: int) -> list[Tensor]:
    """The points of each moon."""
    from sklearn.datasets import make_moons

    points, moon = make_moons(num, noise=noise, random_state=seed)
    return [torch.from_numpy(points[moon == label]) for label in (0, 1)]


def plane(resolution: int) -> Tensor:
    """(resolution^2, 2) points, row by row from the bottom."""
    left, right, bottom, top = EDGES
    y, x = torch.meshgrid(torch.linspace(bottom, top, resolution), torch.linspace(left, right, resolution), indexing="ij")
    return torch.stack([x, y], -1).flatten(0, 1).double()


def gaussian(points: Tensor, queries: Tensor) -> Tensor:
    """Density of the Gaussian with the points' mean and covariance, relative to its peak: what a Mahalanobis score ranks by."""
    away = queries - points.mean(0)
    return (-0.5 * (away @ torch.linalg.inv(points.T.cov()) * away).sum(1)).exp()


def depth(points: Tensor, queries: Tensor, alpha: float) -> Tensor:
    inner = fermat_matrix(points, alpha=alpha)
    return torch.cat([lens_depth(inner, fermat_to(inner, points, block, alpha=alpha)) for block in queries.split(4096)])


def draw(points: Tensor, fields: dict[str, Tensor], path: Path) -> None:
    """A panel a field: dark where it is high, a bold line at 5% of its peak."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.6 * len(fields), 2.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, field) in zip(figure.subplots(1, len(fields), squeeze=False)[0], fields.items()):
        side = round(len(field) ** 0.5)
        image = (field / field.max()).view(side, side).numpy()
        axes.imshow(image, origin="lower", extent=EDGES, cmap="YlGnBu", vmin=0, vmax=1, interpolation="bilinear", aspect="auto")
        axes.contour(image, levels=[0.05, 0.25, 0.5, 0.75], extent=EDGES, colors="#222222", linewidths=[1.0, 0.4, 0.4, 0.4])
        axes.scatter(*points.T.numpy(), s=1.5, color="#D55E00", linewidths=0)
        axes.set(title=title, xticks=[-1, 0, 1, 2], yticks=[-1, 0, 1], xlim=EDGES[:2], ylim=EDGES[2:])
        axes.tick_params(labelsize=6, length=2)
        axes.title.set_size(10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--alpha", type=float, nargs="+", default=[1.0, 3.0, 7.0], help="powers of the Fermat distance, a panel each")
    parser.add_argument("--num", type=int, default=1000, help="points of the sample")
    parser.add_argument("--noise", type=float, default=0.1, help="their standard deviation around the half circles")
    parser.add_argument("--pooled", action="store_true", help="take both moons for one class")
    parser.add_argument("--resolution", type=int, default=200, help="of the field, a side")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--path", type=Path, default=Path("outputs/two_moons.png"), help="the suffix names the format")
    options = parser.parse_args()

    moons, queries = two_moons(options.num, options.noise, options.seed), plane(options.resolution)
    classes = [torch.cat(moons)] if options.pooled else moons
    fields = {"Gaussian fit": reduce(torch.maximum, [gaussian(points, queries) for points in classes])}
    for alpha in options.alpha:
        fields[f"lens depth, α = {alpha:g}"] = reduce(torch.maximum, [depth(points, queries, alpha) for points in classes])
    draw(torch.cat(moons), fields, options.path)


if __name__ == "__main__":
    main()
