"""Help: every key of what is chosen, with its type, its value and a line on it; and one topic in full. Imports no component."""

import re
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attnlab.config.compose import composing, explain, loosen, without_hydra
from attnlab.config.described import Described, Parameter, described, options_of
from attnlab.config.groups import GROUPS, KEYS, LAYERS, having
from attnlab.config.suggest import nearest
from attnlab.config.targets import ConfigError, config_dir, group_choices

HEAD = """attnlab: train, test and record one run (or, with -m, a sweep of them)

  python -m attnlab.train model=resnet18 attention=rect        run, or show the record if it is there
  python -m attnlab.train -m seed=0,1,2 attention=none,rect    a sweep; repeat it to resume it
  python -m attnlab.train ... check=true                       try every part on one batch
  python -m attnlab.train places [group=choice ...]            the places of a model, with the shapes there
  python -m attnlab.train --help TOPIC                         a group (attention), a choice (attention.rect) or a key, in full
  python -m attnlab.train model=vgg16 --help                   the keys of other choices
  Other commands: attnlab.evaluate, attnlab.table, attnlab.runs. Also: --version, --cfg job (the whole configuration as yaml), --hydra-help
  In bash, completion for attnlab-train: eval "$(attnlab-train -sc install=bash)"
"""
Row = tuple[str, str, str, str]  # key, value, type in words, what it means
PLACED = {"at": "the place or places, by name, glob or kind: layer3, layer*, {type: norm}", "how": "after | before | replace"}
PLACED |= {"reads": "other places, or target, whose values it is given", "writes": "[target]: it hands on changed labels"}


def help_text(words: Sequence[str]) -> str:
    """What `--help` answers to a command line. ConfigError for a topic or a choice that there is not."""
    topics = [word for word in words if "=" not in word and not word.startswith("-")]
    tree, choices = _composed([word for word in words if word not in topics and word not in ("-h", "--help", "-m", "--multirun")])
    return "\n".join(_topic(topics[0], tree, choices) if topics else _everything(tree, choices))


def _composed(words: Sequence[str]) -> tuple[dict[str, Any], Mapping[str, Any]]:
    import hydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        with composing():
            cfg = hydra.compose("train", overrides=loosen(words), return_hydra_config=True)
            return OmegaConf.to_container(without_hydra(cfg)), cfg.hydra.runtime.choices
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error)) from error


# ---- everything ----------------------------------------------------------------------------------------------------------------------


def _everything(tree: Mapping[str, Any], choices: Mapping[str, Any]) -> Iterator[str]:
    yield HEAD
    yield f"== Groups (group=choice; lists: {' '.join(having(several=True))}, such as ood=[msp,knn]) =="
    for name in [*GROUPS, *LAYERS]:
        if known := group_choices(name):
            yield _wrapped(f"{name}: ", ", ".join(known))
    yield "\n== Keys (key=value) of what is chosen: value now, type, meaning =="
    for group in GROUPS:
        found = nodes(group, tree, choices)
        for title, doc, rows in found:
            yield f"\n{title}  {_first_sentence(doc.doc)}".rstrip()
            yield from _lines(rows)
        if not found:
            yield f"\n{group}=none"
    yield "\nthe run"
    yield from _lines(_option_rows(tree))


def _option_rows(tree: Mapping[str, Any]) -> list[Row]:
    known, notes = options_of("attnlab.config.plan", "Options"), _comments(config_dir() / "train.yaml")
    rows = []
    for name, parameter in known.parameters.items():
        value, key = (tree[name].get("outputs"), "paths.outputs") if name == "paths" else (tree.get(name), name)
        rows.append((key, _shown(value), "a text" if name == "paths" else parameter.type, notes.get(key.rpartition(".")[2], "")))
    return rows


def nodes(group: str, tree: Mapping[str, Any], choices: Mapping[str, Any]) -> list[tuple[str, Described, list[Row]]]:
    """Title, description and rows of every component that is chosen of a group; what a yaml alone holds of `tree` will do."""
    chosen = tree.get(group) or {}
    if not GROUPS[group].several:
        if "_target_" not in chosen:
            return []
        choice = str(choices.get(group))
        about = described(str(chosen["_target_"]))
        if group == "optimizer":
            words = f"{chosen['_target_']}, whose other parameters are keys, too; optimizer.groups.NAME.lr: of one component"
            about = Described(words, about.parameters)
        return [(f"{group}={choice}", about, _rows(group, chosen, about, _comments(config_dir() / group / f"{choice}.yaml")))]
    return [_component(group, name, entry) for name, entry in chosen.items()]


def _component(group: str, name: str, entry: Mapping[str, Any]) -> tuple[str, Described, list[Row]]:
    where, notes = f"{group}.{name}", _comments(config_dir() / group / f"{name}.yaml")
    if not GROUPS[group].placed:
        about = described(str(entry.get("_target_", "")))
        return where, about, _rows(where, entry, about, notes)
    kind = "penalty" if "penalty" in entry else "module"
    about = described(str(entry[kind].get("_target_", "")))
    own = {key: entry.get(key, "after" if key == "how" else None) for key in PLACED} if kind == "module" else {}
    rows = [(f"{where}.{key}", _shown(value), "", notes.get(key) or PLACED[key]) for key, value in own.items() if value or key == "at"]
    short = {key: value for key, value in entry.items() if key not in (*KEYS, kind)}  # attention.rect.sharpness=5
    return where, about, rows + _rows(where, {**entry[kind], **short}, about, notes)


def _rows(where: str, node: Mapping[str, Any], about: Described, notes: Mapping[str, str]) -> list[Row]:
    rows = []
    for key in [*about.parameters, *(key for key in node if key not in about.parameters and not key.startswith("_"))]:
        parameter = about.parameters.get(key) or Parameter(key, "", None)
        value = _shown(node[key]) if key in node else _plain(parameter.default)
        rows.append((f"{where}.{key}", value, parameter.type, notes.get(key) or about.line_of(key)))
    return rows


# ---- one topic -----------------------------------------------------------------------------------------------------------------------


def _topic(word: str, tree: Mapping[str, Any], choices: Mapping[str, Any]) -> Iterator[str]:
    group, _, rest = word.partition(".")
    if group not in GROUPS:
        options = {key: row for key, *row in _option_rows(tree)}
        word = "paths.outputs" if word == "paths" else word
        if word not in options:
            raise ConfigError(f"--help {word}: there is no such group or key; {nearest(word, list({**GROUPS, **options}))}")
        yield from _lines([(word, *options[word])])
        return
    if not rest:
        yield f"{group}={'[a,b]' if GROUPS[group].several else 'NAME'}, one of:\n"
        yield from (f"  {name:<22} {_first_sentence(described(_target(group, name)).doc)}".rstrip() for name in group_choices(group))
        yield f"\n--help {group}.NAME tells of one."
        return
    choice, _, key = rest.partition(".")
    if choice not in group_choices(group):
        for title, about, rows in nodes(group, tree, choices):
            if found := [row for row in rows if row[0] == word]:
                yield f"{title}  {_first_sentence(about.doc)}".rstrip()
                yield from _lines(found)
                return
        raise ConfigError(f"--help {word}: there is no such choice or key of {group}; {nearest(rest, group_choices(group))}")
    tree, choices = _composed([f"{group}={choice}"])
    for title, about, rows in nodes(group, tree, choices):
        if key:
            rows = [row for row in rows if row[0] == word]
            if not rows:
                raise ConfigError(f"--help {word}: {group}.{choice} has no key {key}; {nearest(key, list(about.parameters))}")
        else:
            yield f"{title}: {_target(group, choice)}\n"
            yield textwrap.indent(about.doc, "  ") + "\n"
        yield from _lines(rows)


def _target(group: str, choice: str) -> str:
    found = re.search(r"_target_: *([\w.]+)", (config_dir() / group / f"{choice}.yaml").read_text())
    return found[1] if found else ""


# ---- words ---------------------------------------------------------------------------------------------------------------------------


def _comments(path: Path) -> dict[str, str]:
    """What stands behind the keys of a yaml."""
    if not path.is_file():
        return {}
    found: dict[str, str] = {}
    for key, note in re.findall(r"(?m)^\s*(\w+):[^#\n]*#\s*(.+)$", path.read_text()):
        found.setdefault(key, note)
    return found


def _shown(value: Any) -> str:
    """A value as an override writes it."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_shown(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_shown, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def _plain(default: str | None) -> str:
    """A Python default as an override writes it."""
    if default is None:
        return "(required)"
    return {"None": "null", "True": "true", "False": "false", "()": "[]", "field(default_factory=list)": "[]"}.get(
        default, default.strip("'")
    )


def _first_sentence(doc: str) -> str:
    text = " ".join(doc.split("\n\n")[0].split())
    return re.split(r"(?<=[\w)\]`*])(?:[.;] |(?<=.{20}): )", text, maxsplit=1)[0].rstrip(".")


def _lines(rows: Sequence[Row]) -> Iterator[str]:
    """Aligned, a key a line; what is too long for the terminal ends in an ellipsis."""
    width = max(shutil.get_terminal_size((140, 24)).columns, 100)
    first, second = (min(max((len(row[i]) for row in rows), default=0), most) for i, most in ((0, 44), (1, 22)))
    for key, value, kind, note in rows:
        note = "" if {*note.split(" | ")} == {*kind.split(" | ")} else note
        line = f"  {key:<{first}}  {value:<{second}}  {kind}{': ' if kind and note else ''}{note}".rstrip()
        yield line if len(line) <= width or len(rows) == 1 else line[: width - 1].rstrip() + "…"


def _wrapped(head: str, text: str) -> str:
    width = max(shutil.get_terminal_size((140, 24)).columns, 100)
    return textwrap.fill(text, width, initial_indent=head, subsequent_indent="    ", break_on_hyphens=False, break_long_words=False)
