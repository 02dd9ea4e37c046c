"""Localisation: how well the attention maps of placed modules find the objects whose boxes are known."""

from attnlab.evaluation.localisation import localisation_metrics
from attnlab.evaluation.trained import TEST, Trained


class Localisation:
    """`loc/<placed module>/<metric>` over the test images, of every placed module with a `.map`; see `localisation_metrics`.

    Nothing is done for data without boxes, data that are no images, or networks without attention maps.
    """

    takes_label_sets = True

    def run(self, trained: Trained) -> dict[str, float]:
        boxes = trained.data.split(TEST).boxes
        if boxes is None or len(trained.data.shape) != 3:
            return {}
        height, width = trained.data.shape[1:]
        metrics = {}
        for key, maps in trained.maps.items():
            found = localisation_metrics(maps, boxes, height, width, rectangles_B5=trained.rectangles.get(key))
            metrics |= {f"loc/{key}/{name}": value for name, value in found.items()}
        return metrics
