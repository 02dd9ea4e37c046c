"""Classes by themselves against scikit-learn; 99 : 1 of two classes of a larger set; colours on any grey set."""

from types import SimpleNamespace

import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, f1_score, precision_score, recall_score

from attnlab.data.cluttered_digits import ClutteredDigits
from attnlab.data.digits import Digits
from attnlab.evaluation.per_class import PerClass


def metrics(logits: torch.Tensor, labels: torch.Tensor, train: torch.Tensor) -> dict[str, float]:
    data = SimpleNamespace(num_classes=logits.shape[1], split=lambda name: SimpleNamespace(labels=train))
    return PerClass().run(SimpleNamespace(logits=lambda split: (logits, labels), data=data))


def test_equals_scikit_learn() -> None:
    torch.manual_seed(0)
    logits, labels, train = torch.randn(60, 4), torch.randint(0, 4, (60,)), torch.tensor([0] * 9 + [1] * 2 + [2] * 5 + [3] * 7)
    logits[:, 3] = -9.0  # never named
    found, guessed = metrics(logits, labels, train), logits.argmax(1)
    assert found["per_class/f1_macro"] == pytest.approx(f1_score(labels, guessed, average="macro", zero_division=0))
    assert found["per_class/acc_macro"] == pytest.approx(balanced_accuracy_score(labels, guessed))
    assert found["per_class/acc_worst"] == 0
    for name, score in (("f1", f1_score), ("precision", precision_score), ("recall", recall_score)):
        assert found[f"per_class/minority/{name}"] == pytest.approx(score(labels == 1, guessed == 1)), name
    assert metrics(torch.eye(2)[[0, 0, 1]], torch.tensor([0, 0, 1]), torch.tensor([0, 1]))["per_class/f1_macro"] == 1


def test_two_classes_at_99_to_1_and_the_test_images_as_they_are() -> None:
    data = ClutteredDigits(num_train=1500, num_test=200, only=(8, 3), imbalance=99.0, batch_size=16)
    train, whole = data.split("train"), ClutteredDigits(num_train=1500, num_test=200).split("test")
    assert data.classes == ("8", "3") and data.num_classes == 2
    zeros, ones = train.labels.bincount().tolist()
    assert zeros > 100 and ones == max(1, round(zeros / 99))
    test = data.split("test")
    assert test.labels.bincount().tolist() == [int((whole.labels == 8).sum()), int((whole.labels == 3).sum())]
    assert torch.equal(test.images, whole.images[(whole.labels == 8) | (whole.labels == 3)]) and len(test.boxes) == len(test)


def test_only_of_all_classes_in_order_changes_nothing() -> None:
    one, other = Digits(only=tuple(range(10))).split("train"), Digits().split("train")
    assert torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels) and one.classes == other.classes


def test_colours_on_any_grey_set() -> None:
    data = ClutteredDigits(num_train=300, num_test=100, colour_bias=0.9, batch_size=16, ood=("clutter",))
    data.prepare()
    train, grey = data.split("train"), ClutteredDigits(num_train=300, num_test=100).split("train")
    assert data.shape == (3, 40, 40) and len(set(data.mean)) == len(set(data.std)) == 1
    assert int((train.groups == 0).sum()) == 270 and int((data.split("test").groups == 0).sum()) == 50
    brightest = train.images.amax(1)
    assert torch.equal(brightest, grey.images[:, 0]) and torch.equal(train.labels, grey.labels)
    red = train.images[train.groups == 0]
    assert (red[:, 0] >= red[:, 1]).all() and torch.equal(red[:, 1], red[:, 2])
    assert data.split("clutter").shape == (3, 40, 40)


def test_refusals() -> None:
    for options, match in (
        ({"only": (3,)}, "two or more classes"),
        ({"only": (3, 3)}, "each once"),
        ({"colour_bias": -0.1}, "colour_bias is a share"),
    ):
        with pytest.raises(ValueError, match=match):
            Digits(**options)
    with pytest.raises(ValueError, match=r"only=\[0, 10\]: digits has the classes 0\.\.9"):
        Digits(only=(0, 10)).split("train")
    from attnlab.data.two_moons import TwoMoons

    with pytest.raises(ValueError, match="colour_bias is of grey images, and those of two_moons"):
        TwoMoons(colour_bias=0.5).split("train")
