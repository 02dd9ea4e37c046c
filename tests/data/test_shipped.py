"""The sets that scikit-learn ships are what its own loaders read."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits, load_sample_images

from attnlab.data import shipped


def test_digits() -> None:
    images_NHW, labels_N = shipped.digits()
    ours, theirs = (images_NHW, labels_N), (load_digits().images, load_digits().target)
    assert all(np.array_equal(a, b) for a, b in zip(ours, theirs))


def test_photographs() -> None:
    ours, theirs = shipped.photographs(), load_sample_images().images
    assert len(ours) == len(theirs) == 2 and all(np.array_equal(a, b) for a, b in zip(ours, theirs))


def test_scikit_learn_is_not_imported() -> None:
    code = "import sys; from attnlab.data import shipped; shipped.digits(); shipped.photographs(); sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "sklearn" else find(name))
    with pytest.raises(FileNotFoundError, match="pip install scikit-learn"):
        shipped.digits()
