"""Loss and accuracy over the epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnlab.figures.style import (
    BLUE,
    COLOURS,
    GREEN,
    INK,
    LARGE,
    QUIET,
    SMALL,
    WIDTH,
    axes_at,
    canvas,
    dash,
    end_labels,
    logarithmic,
    text_at,
    thousands,
)

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes


def training_curves(history: Sequence[Mapping[str, float]], *, path: Path, peak_rate: float | None = None) -> Path | None:
    """Loss (its terms, logarithmic where it spans decades) and accuracy over the epochs, each with a thin axis beneath: the learning rate
    and the images per second.

    history: one mapping an epoch, "epoch" and any of ".../loss", ".../loss/<term>", ".../acc", "lr", "images_per_second"; an epoch that
    comes twice (a resumed run) counts once, the last. peak_rate: the schedule's largest learning rate, which no epoch need end with.
    None, and no file, where there is nothing to draw.
    """
    import numpy as np

    rows = {int(row.get("epoch", i)): row for i, row in enumerate(history)}
    epochs = np.array(sorted(rows))
    keys = list(dict.fromkeys(key for epoch in epochs for key in rows[epoch]))
    lines = {key: np.array([rows[epoch].get(key) for epoch in epochs], dtype=np.float64) for key in keys}  # None becomes NaN
    lines = {key: np.where(np.isfinite(values), values, np.nan) for key, values in lines.items() if np.isfinite(values).any()}
    terms = [key for key in lines if "/loss/" in key]
    for split in {key.split("/loss/")[0] for key in terms}:  # a single term is the loss itself
        if sum(key.startswith(f"{split}/loss/") for key in terms) == 1 and f"{split}/loss" in lines:
            terms = [key for key in terms if not key.startswith(f"{split}/loss/")]
    losses = [key for key in lines if key.endswith("/loss")] + terms
    accuracies = [key for key in lines if key.endswith("/acc")]
    panels = [(losses, "loss", "lr", "learning rate at the end of an epoch"), (accuracies, "accuracy", "images_per_second", "images/s")]
    panels = [panel for panel in panels if panel[0]]
    if not panels:
        return None

    margin, scale_room, strip = 0.1, 0.42, 0.3
    inks = _line_colours(lines, losses + accuracies)
    label_room = 1.12
    width = (WIDTH - 2 * margin) / len(panels) - scale_room - label_room
    tall = max(2.1, 0.15 * max(len(panel[0]) for panel in panels))
    strips = any(panel[2] in lines for panel in panels)
    with canvas(path, WIDTH, 0.42 + tall + strips * (strip + 0.22) + 0.42) as figure:
        for i, (chosen, title, extra, extra_title) in enumerate(panels):
            left = margin + scale_room + i * (WIDTH - 2 * margin) / len(panels)
            axes = axes_at(figure, left, 0.42, width, tall)
            text_at(figure, left, 0.13, title, fontsize=LARGE, fontweight="bold")
            for key in chosen:
                colour, dashes = inks[key]
                thick = 1.1 if "/loss/" in key else 1.7
                axes.plot(epochs, lines[key], color=colour, linestyle=dashes, linewidth=thick, **_marks(lines[key]))
            values = np.concatenate([lines[key] for key in chosen])
            values = values[np.isfinite(values)]
            if title == "loss" and values.min() > 0 and values.max() > 50 * values.min():
                logarithmic(axes, "y", values.min(), values.max())
            elif title == "loss" and values.min() >= 0:
                axes.set_ylim(bottom=0)
            _epoch_axis(axes, epochs)
            ends = [(key, lines[key], inks[key][0]) for key in chosen]
            end_labels(figure, axes, ends, left=left + width + 0.07, top=0.42, tall=tall, room=label_room - 0.1)
            last = axes
            if extra in lines:
                axes.tick_params(labelbottom=False)
                last = axes_at(figure, left, 0.42 + tall + 0.22, width, strip)
                last.plot(epochs, lines[extra], color=QUIET, linewidth=1.0, **_marks(lines[extra]))
                last.set(ylim=(0, 1.15 * max(1e-12, float(np.nanmax(lines[extra])))), yticks=[])
                _epoch_axis(last, epochs)
                most = float(np.nanmax(lines[extra]))
                shown = thousands(round(most)) if most >= 100 else f"{most:.3g}"
                told = f"{extra_title}, at most {shown}"
                if extra == "lr" and peak_rate is not None:
                    told = f"learning rate; the schedule's maximum is {peak_rate:.3g}"
                text_at(figure, left, 0.42 + tall + 0.07, told, fontsize=SMALL, color=QUIET)
            last.set_xlabel("epoch", fontsize=SMALL, labelpad=2)
    return Path(path)


def _line_colours(lines: Mapping[str, Any], chosen: Sequence[str]) -> dict[str, tuple[str, Any]]:
    """Totals in ink, validation in blue, training grey and dashed where both are drawn; the terms take the palette's colours."""
    inks, term = {}, 0
    for key in chosen:
        split, _, rest = key.partition("/")
        if "/" in rest:
            inks[key] = (COLOURS[1 + term % (len(COLOURS) - 1)], dash(term // (len(COLOURS) - 1)))
            term += 1
        elif split == "train":
            inks[key] = (INK if rest == "loss" else QUIET, "-")
        else:
            inks[key] = (BLUE if split in ("val", "test") else GREEN, "-")
    return inks


def _marks(values: np.ndarray) -> dict[str, Any]:
    """Points where there are so few epochs that a line would hide them (or, with one epoch, not show at all)."""
    return {"marker": "o", "markersize": 3.0} if len(values) <= 12 else {}


def _epoch_axis(axes: Axes, epochs: np.ndarray) -> None:
    from matplotlib.ticker import MaxNLocator

    first, final = int(epochs[0]), int(epochs[-1])
    room = 0.5 if first == final else 0.02 * (final - first)
    axes.set_xlim(first - room, final + room)
    if first == final:
        axes.set_xticks([first])
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
