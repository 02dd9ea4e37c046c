"""The data files that scikit-learn ships, read without importing it, which takes a quarter of a second.

N images, H height, W width.
"""

import importlib.util
from pathlib import Path

import numpy as np
from PIL import Image


def folder() -> Path:
    """scikit-learn's own sets. FileNotFoundError: there is no scikit-learn here."""
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the digits and the photographs come with scikit-learn, which is not installed: pip install scikit-learn")
    return Path(spec.origin).parent / "datasets"


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Images (1797, 8, 8) of 0..16 and labels, both fp64: what `sklearn.datasets.load_digits` reads."""
    table_ND = np.loadtxt(folder() / "data" / "digits.csv.gz", delimiter=",")
    return table_ND[:, :-1].reshape(-1, 8, 8), table_ND[:, -1]


def photographs() -> list[np.ndarray]:
    """Two photographs, uint8 (H, W, 3): what `sklearn.datasets.load_sample_images` reads."""
    return [np.array(Image.open(path)) for path in sorted((folder() / "images").glob("*.jpg"))]
