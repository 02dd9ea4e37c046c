"""Transductive smoothing: classify test images by a few labelled ones, features having been averaged over a graph of them all.

Legend: N images (labelled ones first), D features, K classes.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from attnlab.evaluation.trained import TEST, Trained
from attnlab.ood.bank import pooled

MOST = 2000  # test images: the graph has N^2 edges


def smoothing(features_ND: Tensor, *, neighbours: int = 10, alpha: float = 0.5, power: int = 3) -> Tensor:
    """The graph filter (N, N) of simplified graph convolution over cosine neighbours (Hu et al., arXiv 2001.09849):

    S_ij = cos(f_i, f_j) for i != j where either is among the other's k nearest, else 0;   (alpha I + D^-1/2 S D^-1/2)^power
    """
    unit_ND = F.normalize(features_ND, dim=1)
    similarity_NN = (unit_ND @ unit_ND.T).fill_diagonal_(0)
    nearest_Nk = similarity_NN.topk(min(neighbours, len(unit_ND) - 1), dim=1).indices
    near_NN = torch.zeros_like(similarity_NN, dtype=torch.bool).scatter_(1, nearest_Nk, True)
    edges_NN = similarity_NN * (near_NN | near_NN.T)
    degree_N = edges_NN.sum(1).clamp_min(1e-12)  # cosines below 0 can leave none
    filter_NN = edges_NN / (degree_N[:, None] * degree_N).sqrt()
    return torch.linalg.matrix_power(filter_NN + alpha * torch.eye(len(filter_NN)).to(filter_NN), power)


def centred(features_ND: Tensor) -> Tensor:
    """Minus the mean of the set, then of length 1."""
    return F.normalize(features_ND - features_ND.mean(0), dim=1)


class Transductive:
    """`transductive/acc` and `transductive/acc_unsmoothed`: accuracy on test images of a logistic regression on `shots` labelled training
    images a class, on features smoothed over the graph of both sets, and on the same features as they are (arXiv 2001.09849).

    Labelled and test features are each centred on their own mean and normalised; the filter is of the features as they are. It says how
    well classes cluster: test images help one another, so the figure is of this set of test images, of at most 2,000 of them (stratified).

    Args:
        shots: labelled images a class. neighbours, alpha, power: of `smoothing`; the paper's.

    Raises ValueError: a value below 1; no features. Differs from the paper in: the classes are those that the network was trained on, so
    this is a measure of its features, not of few-shot learning (our reading); classes keep their proportions; the regression is solved
    to convergence by L-BFGS, weight decay 5e-6.
    """

    def __init__(self, *, shots: int = 5, neighbours: int = 10, alpha: float = 0.5, power: int = 3) -> None:
        if min(shots, neighbours, power) < 1:
            raise ValueError(f"shots, neighbours and power must be at least 1, got {shots}, {neighbours} and {power}")
        if not alpha >= 0:
            raise ValueError(f"alpha must be at least 0, got {alpha}")
        self.shots, self.options = shots, {"neighbours": neighbours, "alpha": alpha, "power": power}

    def run(self, trained: Trained) -> dict[str, float]:
        data, device = trained.data, trained.settings.device
        _, support = trained.choice("train", self.shots * data.num_classes, seed=trained.seed)
        _, query = trained.choice(TEST, MOST, seed=trained.seed)
        banks = [trained.extract([(data.normalise(images.images).to(device), images.labels)]) for images in (support, query)]
        sets = [pooled(bank, "transductive").double().cpu() for bank in banks]
        labels, wanted = (bank.labels.cpu() for bank in banks)
        plain_ND = torch.cat([centred(one) for one in sets])
        found = {}
        for name, features_ND in (("acc", smoothing(torch.cat(sets), **self.options) @ plain_ND), ("acc_unsmoothed", plain_ND)):
            weight = regression(features_ND[: len(labels)], labels, num_classes=data.num_classes)
            predicted = (features_ND[len(labels) :] @ weight[:-1] + weight[-1]).argmax(1)
            found[f"transductive/{name}"] = float((predicted == wanted).double().mean())
        return found


def regression(features_ND: Tensor, labels_N: Tensor, *, num_classes: int, decay: float = 5e-6) -> Tensor:
    """Weights (D + 1, K) of a multinomial logistic regression, bias last: mean cross-entropy + decay / 2 |w|^2, from 0."""
    weight = torch.zeros(features_ND.shape[1] + 1, num_classes, dtype=features_ND.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight], max_iter=500, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(features_ND @ weight[:-1] + weight[-1], labels_N) + decay / 2 * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return weight.detach()
