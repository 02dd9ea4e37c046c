"""The words of `python -m attnlab.table`, read: one table's or several's, with the nearest names for what is not understood."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from attnlab.config.overrides import FOREIGN
from attnlab.config.suggest import nearest
from attnlab.config.targets import ConfigError

ACTIONS = ("show", "plan", "run")
ENDINGS = {".txt": "text", ".md": "md", ".csv": "csv", ".tex": "latex", ".html": "html"}
ENDINGS |= dict.fromkeys((".png", ".pdf", ".svg"), "plot")
DETAILS = ("interval", "p")
PICTURES = ("plot", "forest")
FORMATS = tuple(dict.fromkeys((*ENDINGS.values(), *PICTURES)))
KEYS = (
    "table", "action", "format", "out", "overrides", "rows", "columns", "seeds", "sort",
    "paths.outputs", "hydra/launcher", "wandb", "details",
)  # fmt: skip


@dataclass(frozen=True)
class Request:
    """A command line, read."""

    table: str
    action: str
    format: str
    out: Path | None
    overrides: tuple[str, ...]
    rows: tuple[str, ...] | None
    columns: tuple[str, ...] | None
    seeds: tuple[int, ...] | None
    outputs: Path
    launcher: tuple[str, ...]
    wandb: bool = False
    permissions: tuple[str, ...] = ()
    details: tuple[str, ...] = ()
    sort: str | None = None


def read_request(words: Sequence[str]) -> Request:
    """ConfigError with the nearest names for anything that is not understood."""
    given: dict[str, str] = {}
    launcher, permissions = [], []
    for word in words:
        key, sign, value = word.partition("=")
        if sign and key.lstrip("+") in FOREIGN:
            permissions.append(word)
            continue
        if key == "hydra/launcher" or key.lstrip("+").startswith("hydra.launcher."):
            launcher.append(word)
        elif not sign or key not in KEYS:
            hint = f"overrides=[{word}] applies it to every cell" if sign and "." in key else nearest(key, KEYS)
            raise ConfigError(f"unknown key {key}; {hint}")
        elif key in given:
            raise ConfigError(f"{key} is given twice")
        else:
            given[key] = value
    if "table" not in given:
        from attnlab.tables.spec import table_names

        raise ConfigError(f"table=NAME is required; there are {', '.join(table_names())}")
    out = Path(given["out"]) if given.get("out") else None
    if out and out.suffix and out.suffix not in ENDINGS and "format" not in given:
        raise ConfigError(f"out={out}: its ending says no format; use one of {', '.join(ENDINGS)}, or add format={'|'.join(FORMATS)}")
    ending = ENDINGS.get(out.suffix, "text") if out else "text"
    action, style = given.get("action", "show"), given.get("format", ending)
    if style in PICTURES and not (out and ENDINGS.get(out.suffix) == "plot"):
        raise ConfigError(f"format={style}: needs out=FILE.png (or .pdf, .svg)")
    wandb = given.get("wandb", "false")
    for key, value, known in (("action", action, ACTIONS), ("format", style, FORMATS), ("wandb", wandb, ("true", "false"))):
        if value not in known:
            raise ConfigError(f"{key}={value}: must be one of {', '.join(known)}")
    details = tuple(split_list(given.get("details", "")))
    if wrong := [word for word in details if word not in DETAILS]:
        raise ConfigError(f"details={wrong[0]}: must be of {', '.join(DETAILS)}")
    if details and style != "latex":
        raise ConfigError(f"details={','.join(details)}: goes with format=latex; the other formats show them anyway")
    return Request(
        given["table"], action, style, out, tuple(split_list(given.get("overrides", ""))),
        labels(given["rows"]) if "rows" in given else None,
        labels(given["columns"]) if "columns" in given else None,
        read_seeds(given["seeds"]) if "seeds" in given else None, Path(given.get("paths.outputs", "outputs")),
        tuple(launcher), wandb == "true", tuple(permissions), details, given.get("sort"),
    )  # fmt: skip


OWN = ("overrides", "rows", "columns", "seeds", "sort")  # what one table of several may have for itself


def one_each(words: Sequence[str]) -> list[list[str]]:
    """The words of every table of `table=[A,B]`, as a command for it alone has them; `table.A.rows=[..]` is A's in place of `rows=[..]`."""
    given = next((word.partition("=")[2] for word in words if word.startswith("table=")), "")
    own = [(word, *word.removeprefix("table.").partition("=")[0].rpartition(".")[::2]) for word in words if word.startswith("table.")]
    tables = split_list(given) if given.startswith("[") else [given] if given else []
    names = [Path(table).stem if table.endswith((".yaml", ".yml")) else table for table in tables]
    for word, name, key in own:
        if name not in names:
            raise ConfigError(f"{word}: there is no {name!r} among the tables; {nearest(name, names)}")
        if key not in OWN:
            raise ConfigError(f"{word}: of a table alone there are {', '.join(OWN)}")
    if wrong := [name for n, name in enumerate(names) if name in names[:n]]:
        raise ConfigError(f"table: {wrong[0]} is given twice")
    common = [word for word in words if not word.startswith(("table.", "table="))]
    found = []
    for table, name in zip(tables, names, strict=True):
        mine = [f"{key}={word.partition('=')[2]}" for word, whose, key in own if whose == name]
        keys = {word.partition("=")[0] for word in mine}
        found.append([f"table={table}", *(word for word in common if word.partition("=")[0] not in keys), *mine])
    return found or [list(words)]


def split_list(text: str) -> list[str]:
    """`[a=b,c=[d,e]]` -> `a=b`, `c=[d,e]`: commas inside brackets or quotes do not part."""
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter in "[{(":
            depth += 1
        elif letter in "]})":
            depth -= 1
        if letter == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    if depth or quote:
        raise ConfigError(f"{text}: a bracket or a quote is left open")
    return [part.strip() for part in parts if part.strip()]


def labels(text: str) -> tuple[str, ...]:
    """`[a,"b, c"]` -> `a`, `b, c`: a label with a comma stands in quotes."""
    parts = split_list(text)
    return tuple(part[1:-1] if len(part) > 1 and part[0] == part[-1] and part[0] in "'\"" else part for part in parts)


def read_seeds(text: str) -> tuple[int, ...]:
    """`[0,1,2]`, `0,1,2` or `range(3)`."""
    try:
        if text.startswith("range(") and text.endswith(")"):
            seeds = tuple(range(*map(int, text[6:-1].split(","))))
        else:
            seeds = tuple(map(int, split_list(text)))
    except (ValueError, TypeError):
        seeds = ()
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise ConfigError(f"seeds={text}: must be different whole numbers from 0 on, as [0,1,2] or range(3)")
    return seeds


def command_of(words: Sequence[str]) -> str:
    """The command that shows this table again."""
    passing = ("action", "format", "out", "wandb")
    launcher = ("hydra/launcher", "hydra.launcher")
    kept = [word for word in words if word.partition("=")[0] not in passing and not word.lstrip("+").startswith(launcher)]
    return shlex.join(["python", "-m", "attnlab.table", *kept])
