"""Compose: from a list of overrides to a checked Plan through Hydra, and Hydra's errors in one line each."""

import contextlib
import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from attnlab.config.checks import check
from attnlab.config.groups import GROUPS, LAYERS
from attnlab.config.overrides import check_choices, check_inside
from attnlab.config.plan import Options, Plan
from attnlab.config.suggest import nearest
from attnlab.config.targets import ConfigError, config_dir, group_choices

# options of Hydra that take the next word as their value
OPTIONS_WITH_VALUE = (
    "--cfg",
    "-c",
    "--package",
    "-p",
    "--config-path",
    "-cp",
    "--config-name",
    "-cn",
    "--config-dir",
    "-cd",
    "--info",
    "-i",
)
OPTIONS_WITH_VALUE += ("--experimental-rerun",)


def loosen(arguments: Sequence[str]) -> list[str]:
    """`a.b=1` and `+a.b=1` become `++a.b=1`: Hydra takes keys that only a signature knows; `check` refuses those that nothing knows.

    `+experiment=NAME`, an older spelling, becomes `experiment=NAME`. ConfigError for a word that is neither an override nor an option.
    """
    check_choices(arguments)  # before Hydra, whose defaults refer to choices; `check` sees those of a sweep's jobs
    found = []
    for before, text in zip(["", *arguments], arguments):
        if re.match(r"--?[A-Za-z_][\w.]*=", text) and text.partition("=")[0] not in OPTIONS_WITH_VALUE:
            raise ConfigError(f"{text}: write it without dashes: {text.lstrip('-')}")
        if "=" not in text and not text.startswith(("-", "~")) and before not in OPTIONS_WITH_VALUE:
            raise ConfigError(f"{text!r} is no override; write key=value, in quotes where a value has spaces")
        if "=" in text and not text.startswith("-"):
            check_inside(text)
        text = re.sub(rf"^\+?(({'|'.join(LAYERS)})=)(\[?)", lambda found: f"{'+' if found[3] else ''}{found[1]}{found[3]}", text)
        found.append(re.sub(r"^\+?(?!hydra\.)(?=[A-Za-z_]\w*(\.[\w-]+)+=)", "++", text))
    return found


def options_last(words: Sequence[str]) -> list[str]:
    """The overrides, then the options: Hydra takes `-m seed=0,1` and `seed=0,1 -m`, but no option between two overrides."""
    is_option = [word.startswith("-") or before in OPTIONS_WITH_VALUE for before, word in zip(["", *words], words)]
    return [*(word for word, option in zip(words, is_option) if not option), *(word for word, option in zip(words, is_option) if option)]


def typed(override: str) -> str:
    """An override as a person types it: without what `loosen` put before it."""
    return override.removeprefix("++")


def unresolved(words: Any) -> list[str]:
    """Overrides as they were typed, of a list in Hydra's own config (`hydra.overrides.task`), where iterating resolves a `${...}`."""
    from omegaconf import OmegaConf

    return OmegaConf.to_container(words, resolve=False)


def words_alone(hydra: Any, overrides: Iterable[str]) -> list[str]:
    """The words of a command that is one run: its overrides, and what of the command of a whole sweep (`hydra`: its config's own part) it
    needs to find the same configs."""
    folders = [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]
    searched = [text for text in unresolved(hydra.overrides.hydra) if text.lstrip("+").startswith("hydra.searchpath=")]
    return ["--config-name", hydra.job.config_name, *(word for path in folders for word in ("--config-dir", path)), *searched, *overrides]


def compose(overrides: Sequence[str] = (), *, config_name: str = "train") -> Plan:
    """The checked plan of a list of overrides, without running anything: `compose(["model=resnet18", "seed=1"]).run_id`."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        with composing():
            cfg = hydra.compose(config_name, overrides=loosen(overrides), return_hydra_config=True)
            return check(without_hydra(cfg), choices=cfg.hydra.runtime.choices, overrides=overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error)) from error


@contextlib.contextmanager
def composing() -> Iterator[None]:
    """Hydra set up for our configs and, with no rights, for those of the folders that overrides name."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    from attnlab.config.sources import checked_sources

    GlobalHydra.instance().clear()
    with checked_sources(), hydra.initialize_config_dir(str(config_dir().resolve()), **hydra_version()):
        yield


def without_hydra(cfg: Any) -> Any:
    """A composed config without Hydra's own part; `check` takes it."""
    from omegaconf import OmegaConf, open_dict

    job = OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"])
    with open_dict(job):
        return job


def hydra_version() -> dict[str, str]:
    """`version_base` is needed before Hydra 1.4 and deprecated from it on."""
    import hydra

    return {"version_base": "1.3"} if tuple(map(int, hydra.__version__.split(".")[:2])) < (1, 4) else {}


def explain(error: BaseException) -> str:
    """Hydra's and OmegaConf's messages as one line with key and remedy."""

    text = " ".join(str(error).split()).split(" See https://hydra.cc")[0]
    if (word := getattr(error, "override", None)) and " while evaluating " not in text:
        advice = "close brackets and quotes; put a value with letters beyond ASCII or with signs in quotes: key='\"value\"'"
        return f"{typed(word)}: cannot be read as key=value; {advice}"
    if found := re.search(r"Could not (?:find|load) '([^']*)'", text):
        group, _, choice = found[1].partition("/") if not found[1].startswith("hydra/") else found[1].rpartition("/")
        if choice and group and not group.startswith("hydra"):
            known = group_choices(group)
            near = nearest(choice, known) if known else f"{group} is no group"
            return f"{group}={choice}: there is no such {group}; {near}"
        options = re.search(r"Available options in '[^']*':(.*?)Config search path", text)
        known = f"; known: {', '.join(options[1].split())}" if options else ""
        return f"{group}={choice}: there is no such choice{known}"
    if found := re.match(r"Interpolation key '([^']*)' not found full_key: (\S+)", text):
        return f"{found[2]}: refers to a key that is not there: {found[1]}"
    if found := re.search(r"Error resolving interpolation '([^']*)', possible interpolation keys: (.*)", text):
        deleted = [name for name in re.findall(r"\$\{(\w+)\}", found[1]) if name not in re.split(r"[,\s]+", found[2])]
        return f"{', '.join(deleted)}: missing; it cannot be deleted" if deleted else text
    if (found := re.search(r"Could not override '([^']*)'", text)) and found[1] in LAYERS:
        return f"{found[1]}: there is no file of configs/{found[1]} to choose"
    if (found := re.search(r"Could not override '([^']*)'", text)) and found[1] in GROUPS:
        return f"{found[1]}: must name a file of configs/{found[1]}; what is in it has keys of its own, such as {found[1]}.KEY=VALUE"
    if found := re.search(r"Could not override '([^']*)'", text):
        node, path = getattr(error.__cause__, "parent_node", None), found[1].rpartition(".")[0]
        beside = list(map(str, node)) if path and node else _top_level()  # of hydra.launcher.partion: the launcher's own keys
        return f"unknown key {found[1]}; {nearest(found[1].removeprefix(f'{path}.'), beside, prefix=f'{path}.' if path and node else '')}"
    if found := re.search(r"Could not delete.*?'([^']*)'|Could not delete from config\. '?(\S+?)'? does not exist", text):
        return f"~{found[1] or found[2]}: there is nothing to delete under that key"
    return text.split(" Config search path:")[0]


def _top_level() -> list[str]:
    return [*GROUPS, *LAYERS, *(field.name for field in dataclasses.fields(Options))]
