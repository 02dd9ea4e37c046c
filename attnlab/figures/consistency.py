"""Does accuracy grow when what a head finds suspicious is turned away?   Legend: N test images, M those and the OOD samples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from attnlab.figures.style import COLOURS, LARGE, QUIET, SMALL, WIDTH, axes_at, canvas, dash, end_labels, fit, text_at

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


def consistency_curves(
    scores: Mapping[str, Mapping[str, Tensor]], correct_N: Tensor, *, path: Path, test: str = "test", most: int = 4
) -> Path | None:
    """Accuracy of what is kept against the share that a head rejects, of the test set mixed with one OOD set, whose samples all count as
    wrong (2404.08476): one panel an OOD set (the first `most`), one line a head. A head that sees what is foreign, or what the network gets
    wrong, gives a rising line; dashed, the best that any score could do.

    scores[head][set] as for `score_histograms`; correct_N (N,) bool, whether the network was right on each test image. The last tenth is
    not drawn: few samples are left. A head with NaN scores of a set has no line there. None, and no file, where there is nothing to draw.
    ValueError: not as many test scores as `correct_N`.
    """
    import numpy as np
    import torch

    from attnlab.ood.consistency import consistency_curve

    correct_N = torch.as_tensor(correct_N).cpu().bool()
    rejected = np.linspace(0, 0.9, 91)
    panels: dict[str, dict[str, np.ndarray]] = {}
    best: dict[str, np.ndarray] = {}
    for head, sets in scores.items():
        if test not in sets:
            continue
        if len(sets[test]) != len(correct_N):
            raise ValueError(f"as many answers as test scores are needed, got {len(correct_N)} for {len(sets[test])} of {head}")
        for name in (name for name in sets if name != test):
            mixed_M = torch.cat([sets[test].detach().cpu().double(), sets[name].detach().cpu().double()])
            right_M = torch.cat([correct_N, torch.zeros(len(sets[name]), dtype=torch.bool)])
            if len(mixed_M) == 0 or mixed_M.isnan().any():
                continue
            panels.setdefault(name, {})[head] = consistency_curve(mixed_M, right_M, fractions=rejected.tolist()).numpy()
            best[name] = consistency_curve((~right_M).double(), right_M, fractions=rejected.tolist()).numpy()
    if not panels:
        return None
    left_out, panels = len(panels) - most, dict(list(panels.items())[:most])

    heads = list(dict.fromkeys(head for lines in panels.values() for head in lines))
    inks = {head: (COLOURS[i % len(COLOURS)], dash(i // len(COLOURS))) for i, head in enumerate(heads)}
    lowest = min(float(line.min()) for lines in panels.values() for line in lines.values())
    columns = min(2, len(panels))
    rows, margin, scale_room, label_room, above, below = math.ceil(len(panels) / columns), 0.1, 0.42, 1.12, 0.42, 0.46
    room = (WIDTH - 2 * margin) / columns
    width, tall = room - scale_room - label_room, max(2.1 if columns == 2 else 2.6, 0.15 * len(heads))
    note = "dashed: the best that any score could do; everything OOD counts as wrong"
    if left_out > 0:
        note += f"; {left_out} more OOD set{'s are' if left_out > 1 else ' is'} not drawn"
    with canvas(path, WIDTH, rows * (above + tall + below) + 0.16) as figure:
        for i, (name, lines) in enumerate(panels.items()):
            left, top = margin + scale_room + (i % columns) * room, above + (i // columns) * (above + tall + below)
            axes = axes_at(figure, left, top, width, tall, xlim=(0, 0.9), ylim=(max(0.0, lowest - 0.03), 1.01))
            text_at(figure, left, top - 0.29, fit(f"{test} + {name}", width + label_room, LARGE, "bold"), fontsize=LARGE, fontweight="bold")
            axes.plot(rejected, best[name], color=QUIET, linewidth=0.9, linestyle=(0, (3, 2)), zorder=2)
            for head, line in lines.items():
                colour, dashes = inks[head]
                axes.plot(rejected, line, color=colour, linestyle=dashes, zorder=3)
            axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8])
            axes.set_xlabel("share rejected", fontsize=SMALL, labelpad=2)
            if i % columns == 0:
                axes.set_ylabel("accuracy of what is kept", fontsize=SMALL)
            ends = [(head, line, inks[head][0]) for head, line in lines.items()]
            end_labels(figure, axes, ends, left=left + width + 0.07, top=top, tall=tall, room=label_room - 0.1)
        text_at(figure, margin + scale_room, figure.get_size_inches()[1] - 0.2, note, fontsize=SMALL, color=QUIET)
    return Path(path)
