"""Gaze: do the strongest units of a layer look where people look?   Legend: N images, C units, h, w of a map, n strongest units."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from attnlab.config.suggest import nearest
from attnlab.evaluation.trained import TEST, Trained
from attnlab.placement.places import matches


def agreement(map_NChw: Tensor, boxes_N4: Tensor, height: int, width: int, *, units: int, sigma: float) -> dict[str, Tensor]:
    """Of the `units` units with the largest maximum, the share (N,) whose maximum lies in the box, `hits`; and what a random place would
    score: `uniform` over the cells of the map, or drawn about the centre of the image, `centre`, normal with `sigma` in image sides.

    A cell lies in a box where its centre ((j + 0.5) W / w, (i + 0.5) H / h) does; boxes (N, 4) are x0, y0, x1, y1 in pixels.
    """
    h, w = map_NChw.shape[2:]
    y_h, x_w = ((torch.arange(size, device=map_NChw.device) + 0.5) / size for size in (h, w))
    x0, y0, x1, y1 = (edge_N[:, None, None] for edge_N in boxes_N4.to(map_NChw.device).unbind(1))
    column, row = x_w[None, None] * width, y_h[None, :, None] * height
    inside_Nl = ((column >= x0) & (column < x1) & (row >= y0) & (row < y1)).flatten(1).double()
    weight_l = torch.exp(-((x_w[None] - 0.5) ** 2 + (y_h[:, None] - 0.5) ** 2) / (2 * sigma**2)).flatten().double()
    size_NC, place_NC = map_NChw.flatten(2).max(2)
    strongest_Nn = size_NC.topk(min(units, size_NC.shape[1])).indices
    hits_N = inside_Nl.gather(1, place_NC.gather(1, strongest_Nn)).mean(1)
    return {"hits": hits_N, "uniform": inside_Nl.mean(1), "centre": inside_Nl @ (weight_l / weight_l.sum())}


class Gaze:
    """`gaze/<place>/hits`, the mean over test images of the share of a layer's strongest units whose maximum lies in the image's box, and
    `uniform`, `centre`, what random places score; `z_uniform`, `z_centre`, the mean difference over its standard error across images.

    Our reading of Cadoni et al., "From early biological models to CNNs: do they look where humans look?" (ICPR 2020), who compare the
    places that maximise units with human fixations. Fixations are not at hand: the box of the object stands for them. Established: maxima
    of single units, compared with random places; ours: hits of a region instead of distances of point sets, chance in closed form, and
    the chance about the centre, without which any centred object is looked at.

    Args:
        at: globs over places that give maps. units: n, >= 1. sigma: > 0, of the places about the centre, in image sides. num: images, >= 2.

    Raises ValueError: out of range; test images without boxes; no place that matches; an ensemble.
    """

    def __init__(self, *, at: Sequence[str] = ("layer*",), units: int = 10, sigma: float = 0.25, num: int = 1000) -> None:
        if units < 1 or num < 2 or not sigma > 0:
            raise ValueError(f"units must be at least 1, num at least 2 and sigma above 0, got {units}, {num} and {sigma}")
        self.at, self.units, self.sigma, self.num = [at] if isinstance(at, str) else list(at), units, sigma, num

    def run(self, trained: Trained) -> dict[str, float]:
        backbone = getattr(trained.network, "backbone", None)
        if backbone is None:
            raise ValueError(f"gaze looks into the layers of one network, and this is a {type(trained.network).__name__}")
        _, images = trained.choice(TEST, self.num, seed=trained.seed)
        known = images.boxes is not None and ~images.boxes.isnan().any(1)
        if images.boxes is None or not known.any():
            raise ValueError("gaze compares maxima of units with boxes, and the test images have none; use data=cluttered_digits, say")
        images = images.subset(known.nonzero()[:, 0])
        modules = {name: one for name, one in backbone.named_modules() if name}
        for pattern in self.at:
            if not matches(pattern, list(modules)):
                raise ValueError(f"gaze.at: no place matches {pattern!r}; {nearest(pattern, modules)}")
        names = list(dict.fromkeys(name for pattern in self.at for name in matches(pattern, list(modules))))
        parts: dict[str, list[dict[str, Tensor]]] = {name: [] for name in names}
        boxes: list[Tensor] = []

        def watch(name: str) -> torch.utils.hooks.RemovableHandle:
            def hook(module: nn.Module, args: tuple, output: Tensor) -> None:
                if output.ndim != 4:
                    raise ValueError(f"gaze.at: {name} gives no maps; name places before the pooling")
                size = images.images.shape[2:]
                parts[name].append(agreement(output.float(), boxes[-1], *size, units=self.units, sigma=self.sigma))

            return modules[name].register_forward_hook(hook)

        handles = [watch(name) for name in names]
        chunk = trained.data.eval_batch_size
        try:
            with torch.no_grad(), trained.settings.autocast():
                for pixels, part in zip(images.images.split(chunk), images.boxes.split(chunk)):
                    boxes.append(part)
                    trained.network(trained.data.normalise(pixels).to(trained.settings.device))
        finally:
            for handle in handles:
                handle.remove()
        found = {}
        for name in names:
            values = {key: torch.cat([one[key] for one in parts[name]]) for key in ("hits", "uniform", "centre")}
            found |= {f"gaze/{name}/{key}": float(value_N.mean()) for key, value_N in values.items()}
            for chance in ("uniform", "centre"):
                gap_N = values["hits"] - values[chance]
                found[f"gaze/{name}/z_{chance}"] = float(gap_N.mean() / (gap_N.std() / len(gap_N) ** 0.5).clamp_min(1e-12))
        return found
