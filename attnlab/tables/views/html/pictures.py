"""The page's pictures: a few of each cell, made smaller and put into the page, as many as its size allows."""

import base64
import contextlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from attnlab.records.pictures import Picture
from attnlab.tables import cache as table_cache
from attnlab.tables.model import Table
from attnlab.tables.views.html.files import RunFolder

PICTURES_PER_CELL = 3
EARLY = ("ood_scores", "attention", "explanation")  # kinds that come before another seed's attention
SHARED = ("explanation", "faithfulness")  # kinds that show all that a run was asked for, so that the cells it fills share them
CAPTIONS = {
    "ood_scores": "Scores of the OOD heads",
    "attention": "Attention",
    "explanation": "Explanations",
    "faithfulness": "Deletion and insertion",
    "reliability": "Reliability",
    "calibration": "Reliability before and after temperature scaling",
    "consistency": "Consistency of the OOD heads",
}
PICTURE_BUDGET = 6 << 20  # bytes of all pictures before base64
PICTURE_PIXELS = 40_000_000  # a file with more is not opened
PICTURE_WIDTH = 880
ENCODING = {"quality": 80, "method": 2}


def choose_pictures(table: Table, folders: Mapping[tuple[str, str], Sequence[RunFolder]]) -> tuple[dict, dict[tuple[str, str], int]]:
    """A few pictures a cell as (caption, file, data URI, width, height), first every cell's first, while the budget lasts.

    And how many each cell has besides. Those of `shared_pictures` are in none.
    """
    apart = set(_shared(table, folders))
    wanted, there = {}, {}
    for key in table.cells:
        whole = [one for one in folders[key] if one.run.status == "finished" and one.pictures]
        # one seed's scores and attention show the most; another seed's attention comes next
        first = [(one, picture) for one in whole[:1] for picture in one.pictures if picture.path not in apart]
        rest = [(one, picture) for one in whole[1:] for picture in one.pictures if picture.kind == "attention"]
        early = [pair for pair in first if pair[1].kind in EARLY]
        wanted[key] = [*early, *rest[:1], *(pair for pair in first if pair not in early)]
        there[key] = sum(len(one.pictures) for one in whole)
    chosen: dict[tuple[str, str], list] = {key: [] for key in table.cells}
    cache: dict[Path, tuple[str, int, int] | None] = {}
    spent = 0
    for turn in range(PICTURES_PER_CELL):
        for key, pictures in wanted.items():
            if turn >= len(pictures) or spent >= PICTURE_BUDGET:
                continue
            one, picture = pictures[turn]
            path = picture.path
            if path not in cache:
                cache[path] = embed(path)
            if cache[path]:
                chosen[key].append((_caption(picture, one.run.seed), path, *cache[path]))
                spent += len(cache[path][0]) * 3 // 4
    return chosen, {key: there[key] - len(chosen[key]) for key in table.cells}


def shared_pictures(table: Table, folders: Mapping[tuple[str, str], Sequence[RunFolder]]) -> list[tuple[str, list[tuple]]]:
    """Pictures that several cells share, once: the same images under every explainer, say. Columns in words, and pictures as in a cell."""
    found: dict[tuple[str, ...], list[tuple]] = {}
    for path, (one, picture, columns) in _shared(table, folders).items():
        if len(found.get(columns, ())) < PICTURES_PER_CELL and (made := embed(path)):
            found.setdefault(columns, []).append((_caption(picture, one.run.seed), path, *made))
    return [(", ".join(columns) if len(columns) < len(table.columns) else "", pictures) for columns, pictures in found.items()]


def candidates(
    table: Table, folders: Mapping[tuple[str, str], Sequence[RunFolder]]
) -> tuple[list[tuple[str, Path]], dict[tuple[str, str], list[tuple[str, str, Path]]]]:
    """All that could be shown: pictures that cells share, (caption, file); of every cell's first finished seed, (kind, caption, file)."""
    apart = _shared(table, folders)
    common = [(_caption(picture, one.run.seed), path) for path, (one, picture, _) in apart.items()]
    own = {}
    for key in table.cells:
        first = [one for one in folders[key] if one.run.status == "finished" and one.pictures][:1]
        own[key] = [(p.kind, _caption(p, one.run.seed), p.path) for one in first for p in one.pictures if p.path not in apart]
    return common, own


def _shared(table: Table, folders: Mapping[tuple[str, str], Sequence[RunFolder]]) -> dict[Path, tuple[RunFolder, Picture, tuple[str, ...]]]:
    """Of every cell's first finished seed the pictures of SHARED kinds that another cell has as well, narrow ones first."""
    cells: dict[Path, list[tuple[str, str]]] = {}
    of: dict[Path, tuple[RunFolder, Picture]] = {}
    for key in table.cells:
        for one in [one for one in folders[key] if one.run.status == "finished" and one.pictures][:1]:
            for picture in one.pictures:
                if picture.kind in SHARED:
                    cells.setdefault(picture.path, []).append(key)
                    of[picture.path] = one, picture
    several = [path for path, keys in cells.items() if len(keys) > 1]
    several.sort(key=lambda path: path.stem != "explanations_of_one")
    return {path: (*of[path], tuple(dict.fromkeys(column for _, column in cells[path]))) for path in several}


def embed(path: Path, width: int = PICTURE_WIDTH) -> tuple[str, int, int] | None:
    """A picture as (data URI, width, height), no wider than `width`; None for a file that is no picture, or too large a one.

    Decoding and encoding are nearly all the work of a page, so what comes out is kept for the next time.
    """
    try:
        state = path.stat()
    except OSError:
        return None
    made_of = [str(path.resolve()), state.st_mtime_ns, state.st_size, width, ENCODING]
    kept = table_cache.cache_dir("pictures") / f"{table_cache.digest(made_of)}.json"
    with contextlib.suppress(ValueError, TypeError):  # none there, or damaged
        uri, *size = json.loads(table_cache.read(kept) or "null")
        across, down = map(int, size)
        return uri, across, down
    made = _shrunk(path, width)
    if made:
        table_cache.write(kept, json.dumps(made).encode())
    return made


def _shrunk(path: Path, width: int) -> tuple[str, int, int] | None:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as opened:
            if opened.width * opened.height > PICTURE_PIXELS:
                return None
            picture = opened.convert("RGB")
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError):
        return None
    picture.thumbnail((width, 2 * width), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    try:
        picture.save(buffer, "WEBP", **ENCODING)
        kind = "webp"
    except (OSError, KeyError):  # a Pillow built without it
        buffer = io.BytesIO()
        picture.quantize(128).save(buffer, "PNG", optimize=True)
        kind = "png"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}", *picture.size


def _caption(picture: Picture, seed: int) -> str:
    parts = [CAPTIONS.get(picture.kind), picture.subject.removeprefix("of ")]
    return f"{' of '.join(filter(None, parts))}, seed {seed}"
