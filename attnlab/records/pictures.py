"""The pictures of a run, each with its kind as result.json states it: `pictures: {"figures/reliability.png": "reliability"}`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

KINDS = ("curves", "ood_scores", "consistency", "reliability", "calibration", "attention", "explanation", "faithfulness")


@dataclass(frozen=True)
class Picture:
    """A file below a run's folder. kind: one of KINDS, or empty where the record does not state one of them."""

    path: Path
    kind: str

    @property
    def subject(self) -> str:
        """What it shows of its kind: `rect at layer3` of figures/attention_rect_at_layer3.png; empty where its kind is all there is."""
        stem, prefix = self.path.stem, f"{self.kind}_" if self.kind else ""
        return stem.removeprefix(prefix).replace("_at_", " at ").replace("_", " ") if stem.startswith(prefix) else ""


def pictures_of(folder: Path, result: Mapping[str, Any]) -> tuple[Picture, ...]:
    """Every PNG of the folder's `figures`, by name, and whatever else the record names within the folder; nothing outside it."""
    stated = result.get("pictures")
    stated = stated if isinstance(stated, dict) else {}
    kinds = {folder / name: kind for name, kind in stated.items() if _is_within(name)}
    paths = {path for path in kinds if path.is_file()} | set((folder / "figures").glob("*.png"))
    paths = {path for path in paths if path.resolve().is_relative_to(folder.resolve())}  # links may lead anywhere
    return tuple(Picture(path, kinds[path] if kinds.get(path) in KINDS else "") for path in sorted(paths))


def _is_within(name: str) -> bool:
    """A record may come from somebody else: its paths lead to pictures of its own folder, or nowhere."""
    path = PurePosixPath(name)
    return path.suffix == ".png" and not path.is_absolute() and ".." not in path.parts
