"""Classes by themselves: what a mean over images hides where classes are unequal.   Legend: N images, K classes."""

import torch
from torch import Tensor

from attnlab.evaluation.trained import TEST, Trained


def precision_recall(guessed_N: Tensor, labels_N: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Precision and recall (K,) of every class; 0 where there is nothing to divide by."""
    counts_KK = torch.bincount(labels_N * num_classes + guessed_N, minlength=num_classes**2).view(num_classes, num_classes).double()
    hits_K = counts_KK.diagonal()
    return hits_K / counts_KK.sum(0).clamp_min(1), hits_K / counts_KK.sum(1).clamp_min(1)


class PerClass:
    """On the test images: `per_class/f1_macro`, the mean over classes of F1 = 2 P R / (P + R); `per_class/acc_macro`, the mean recall
    ("balanced accuracy"); `per_class/acc_worst`, the smallest; and `per_class/minority/f1`, `/precision`, `/recall` of the class with the
    fewest training images (the last of equals), what imbalanced classification is judged by (final batch norm, arXiv 2011.06319).

    All in [0, 1]; P and R are 0 where a class is never named, or has no test image.
    """

    def run(self, trained: Trained) -> dict[str, float]:
        logits, labels = trained.logits(TEST)
        num_classes = trained.data.num_classes
        precision_K, recall_K = precision_recall(logits.argmax(1), labels, num_classes)
        both_K = precision_K + recall_K
        f1_K = 2 * precision_K * recall_K / torch.where(both_K > 0, both_K, 1.0)
        counts_K = trained.data.split("train").labels.bincount(minlength=num_classes)
        minority = num_classes - 1 - int(counts_K.flip(0).argmin())
        of_minority = {"f1": f1_K, "precision": precision_K, "recall": recall_K}
        return {
            "per_class/f1_macro": float(f1_K.mean()),
            "per_class/acc_macro": float(recall_K.mean()),
            "per_class/acc_worst": float(recall_K.min()),
            **{f"per_class/minority/{name}": float(value_K[minority]) for name, value_K in of_minority.items()},
        }
