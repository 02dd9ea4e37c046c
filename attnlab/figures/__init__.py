"""The pictures a run leaves behind, a file each.

Every function writes one file (the suffix names the format) and returns its path, or None where there is nothing to draw (no images, an
empty history). A picture is written under a temporary name and then renamed, so what is there is whole. 8 inches wide, readable at 800
pixels. Importing them imports neither matplotlib nor numpy: the first picture does.
"""

from attnlab.figures.attention import attention_grid
from attnlab.figures.calibration import reliability, temperature_scaling
from attnlab.figures.consistency import consistency_curves
from attnlab.figures.curves import training_curves
from attnlab.figures.explanations import explanation_grid, explanations_of_one
from attnlab.figures.faithfulness import faithfulness_curves
from attnlab.figures.scores import score_histograms

__all__ = [
    "attention_grid",
    "consistency_curves",
    "explanation_grid",
    "explanations_of_one",
    "faithfulness_curves",
    "reliability",
    "score_histograms",
    "temperature_scaling",
    "training_curves",
]
