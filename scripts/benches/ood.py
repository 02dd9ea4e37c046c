"""OOD heads from one bank: lens depth beside a plain numpy statement of its formula, kNN and Mahalanobis beside pytorch-ood's own."""

import statistics
import time
from typing import Any

import numpy as np
import torch

from benches.common import Options, Table, alternate, seconds

TITLE = "OOD heads (features of dimension 25)"
DIM = 25


def numpy_fermat_matrix(points_ND: np.ndarray, alpha: float) -> np.ndarray:
    """Shortest paths over |q_i - q_j|^alpha by Floyd and Warshall, one vectorised minimum a centre."""
    gram = points_ND @ points_ND.T
    square = np.diag(gram)
    path_NN = np.maximum(square[:, None] + square[None] - 2 * gram, 0) ** (alpha / 2)
    for k in range(len(path_NN)):
        np.minimum(path_NN, path_NN[:, k : k + 1] + path_NN[k : k + 1], out=path_NN)
    return path_NN


def numpy_lens_depth(points_ND: np.ndarray, inner_NN: np.ndarray, queries_PD: np.ndarray, alpha: float) -> np.ndarray:
    """LD(x) = share of pairs i < j with max(D(x, q_i), D(x, q_j)) <= D(q_i, q_j), one query after another, each vectorised over pairs."""
    upper = np.triu_indices(len(points_ND), 1)
    depth_P = np.empty(len(queries_PD))
    for p, x_D in enumerate(queries_PD):
        edge_N = (((x_D - points_ND) ** 2).sum(1)) ** (alpha / 2)
        to_N = (edge_N[:, None] + inner_NN).min(0)
        depth_P[p] = (np.maximum(to_N[:, None], to_N[None]) <= inner_NN)[upper].mean()
    return depth_P


def measure(options: Options) -> tuple[dict[str, Any], Table]:
    from attnlab.ood.lens_depth import LensDepth, fermat_matrix, fermat_to, lens_depth

    device = options.torch_device
    generator = torch.Generator().manual_seed(0)
    table: Table = [["", "seconds", "beside", "ratio"]]
    found: dict[str, Any] = {"dim": DIM}

    # one class, as the formula is stated: N centres, P queries
    num, queries, few = 500, 2000, 40
    centres_ND = torch.randn(num, DIM, generator=generator, dtype=torch.float64)
    points_PD = torch.randn(queries, DIM, generator=generator, dtype=torch.float64)
    inner_NN = numpy_fermat_matrix(centres_ND.numpy(), 7.0)

    def ours() -> float:
        centres, points = centres_ND.to(device), points_PD.to(device)
        inner = fermat_matrix(centres, alpha=7.0)
        return seconds(lambda: lens_depth(inner, fermat_to(inner, centres, points, alpha=7.0)), device) / queries

    def plain() -> float:
        start = time.perf_counter()
        numpy_lens_depth(centres_ND.numpy(), inner_NN, points_PD[:few].numpy(), 7.0)
        return (time.perf_counter() - start) / few

    pair = alternate({"ours": ours, "numpy": plain}, rounds=3 if options.quick else 9)
    ours_inner_NN = fermat_matrix(centres_ND, alpha=7.0)
    ours_P = lens_depth(ours_inner_NN, fermat_to(ours_inner_NN, centres_ND, points_PD[:few], alpha=7.0))
    theirs_P = numpy_lens_depth(centres_ND.numpy(), inner_NN, points_PD[:few].numpy(), 7.0)
    found["lens_depth_query"] = {
        "attnlab_us": pair["ours"] * 1e6,
        "numpy_us": pair["numpy"] * 1e6,
        "ratio": pair["numpy"] / pair["ours"],
        "largest_difference_in_pairs": float(np.abs(ours_P.numpy() - theirs_P).max() * num * (num - 1) / 2),
    }
    name = f"lens depth, a query, N={num}"
    table.append([name, f"{pair['ours']:.6f}", f"numpy {pair['numpy']:.4f}", f"{pair['numpy'] / pair['ours']:.0f} times faster"])

    # the whole head: 10 classes
    images, classes = (2000 if options.quick else 10_000), 10
    train = _bank(classes * 2000, classes, generator, device)
    test = _bank(images, classes, generator, device)
    sizes = (500, 1500) if device.type == "cuda" else (500,)
    for num_centers in sizes:
        head = LensDepth(alpha=7.0, num_centers=num_centers, reduction="random")
        fit = seconds(lambda head=head: head.fit(train), device)
        score = statistics.median(seconds(lambda head=head: head.score(test), device) for _ in range(1 if options.quick else 3))
        found[f"lens_depth_{images}x{classes}x{num_centers}"] = {"fit_seconds": fit, "score_seconds": score}
        table.append([f"lens depth, {images:,} images x {classes} classes x {num_centers} centres", f"{score:.2f}", f"fit {fit:.2f}", ""])

    for name, ours_head, theirs in _rivals():
        ours_head.fit(train)
        theirs.fit_features(train.features, train.labels)
        contestants = {
            "ours": lambda head=ours_head: seconds(lambda: head.score(test), device),
            "theirs": lambda head=theirs: seconds(lambda: head.predict_features(test.features), device),
        }
        pair = alternate(contestants, rounds=3 if options.quick else 25)
        ratio = pair["theirs"] / pair["ours"]
        found[name] = {"attnlab_seconds": pair["ours"], "pytorch_ood_seconds": pair["theirs"], "ratio": ratio}
        words = [f"{name}, {images:,} of {classes * 2000:,}", f"{pair['ours']:.3f}", f"pytorch-ood {pair['theirs']:.3f}"]
        table.append([*words, f"{ratio:.2f} times as fast"])
    return found, table


def _bank(num: int, classes: int, generator: torch.Generator, device: torch.device) -> Any:
    """Clouds around random class means."""
    from attnlab.ood.bank import Bank

    means = 3 * torch.randn(classes, DIM, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(num) % classes
    features = means[labels] + torch.randn(num, DIM, generator=generator)
    return Bank(features.to(device), (features @ means.T).to(device), labels.to(device))


def _rivals() -> list[tuple[str, Any, Any]]:
    from pytorch_ood import detector

    from attnlab.ood.knn import KNN
    from attnlab.ood.mahalanobis import Mahalanobis

    return [
        ("kNN, k=50", KNN(k=50), detector.KNN(None, k=50, normalize=True)),
        ("Mahalanobis", Mahalanobis(), detector.Mahalanobis(None)),
    ]
