"""Sources: where configs come from. Folders and packages of others (hydra.searchpath, --config-dir) are there, and permit nothing.

Imports Hydra: import it where something is composed.
"""

import contextlib
import copy
import dataclasses
import functools
import importlib.util
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import yaml
from hydra._internal import defaults_list
from hydra._internal import hydra as engine
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.utils import get_args_parser
from hydra.core.object_type import ObjectType
from hydra.errors import HydraException

from attnlab.config.overrides import PERMISSIONS
from attnlab.config.targets import ConfigError, config_dir


class Loader(ConfigLoaderImpl):
    """Hydra's loader of configs, that refuses what a file of others says of PERMISSIONS, and a folder that is not there.

    Hydra itself builds whatever `hydra.callbacks`, `hydra.launcher`, `hydra.sweeper` and `hydra.job_logging` name, before any of our checks
    sees a config; so a file says nothing of them. Hydra only warns of a folder that is not there.
    """

    def __init__(self, config_search_path: Any) -> None:
        super().__init__(config_search_path)
        self.repository = Repository(config_search_path)

    def load_configuration(self, *args: Any, **kwargs: Any) -> Any:
        try:
            config = super().load_configuration(*args, **kwargs)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"a config cannot be read: {' '.join(str(error).split())}") from error
        except RecursionError as error:
            raise ConfigError("a config cannot be read: it holds itself") from error
        verbose = config.hydra.verbose
        if not isinstance(verbose, bool | str | Sequence):
            raise ConfigError(f"hydra.verbose={verbose}: must be true, false, or names of loggers")
        return config

    def _process_config_searchpath(self, config_name: Any, parsed_overrides: Any, repo: Any) -> None:
        with warnings.catch_warnings():  # also of a package's folder without `__init__.py`, which Hydra reads all the same
            warnings.filterwarnings("ignore", r"provider=.*path=.* is not\s+available")
            try:
                super()._process_config_searchpath(config_name, parsed_overrides, repo)
            except HydraException as error:
                raise ConfigError(" ".join(str(error).split())) from error
        for source in repo.get_sources():
            if is_of_others(source.provider) and not source.available() and not (source.scheme() == "pkg" and _is_package(source.path)):
                what = "package that Python finds" if source.scheme() == "pkg" else "folder"
                raise ConfigError(f"hydra.searchpath: {source.scheme()}://{source.path}: there is no such {what}")

    def _compose_config_from_defaults_list(self, defaults: list, repo: Any) -> Any:
        """A copy of what the same files gave before; overrides of keys come after it."""
        files = tuple(_Told(default, repo.load_config(default.config_path)) for default in defaults)
        merge = super()._compose_config_from_defaults_list
        return copy.deepcopy(_merged(_Merging(files, lambda: merge(defaults, repo))))

    def _load_single_config(self, default: Any, repo: Any) -> Any:
        found = super()._load_single_config(default, repo)
        if not default.package:  # one that goes into a package was copied into it
            found.config = copy.deepcopy(found.config)
        if is_of_others(found.provider):
            where = f"{found.path.removeprefix('file://')}/{default.config_path}.yaml"
            if default.config_path.startswith("local/"):
                raise ConfigError(f"{where}: a local file is this machine's own and lies in {config_dir() / 'local'}")
            for key in _keys(found):
                if key.lstrip("/").replace("/", ".").partition(".")[0] in PERMISSIONS:
                    raise ConfigError(f"{where}: sets {key}, which counts on the command line alone")
        return found


class Repository(ConfigRepository):
    """Hydra's sources of configs, where a file that has not changed is parsed once in a process: parsing is a third of composing."""

    def __deepcopy__(self, memo: Any) -> "Repository":
        """Hydra copies it for every composition, to give it other sources; its own way copies all that any plugin has registered."""
        copied = copy.copy(self)
        copied.sources = list(self.sources)
        return copied

    def load_config(self, config_path: str) -> Any:
        source = self._find_object_source(config_path, ObjectType.CONFIG)
        if source is not None and source.scheme() == "file":
            file = os.stat(os.path.join(source.path, source._normalize_file_name(config_path)))
            state = file.st_mtime_ns, file.st_size, file.st_ino
        elif source is not None and source.provider == "hydra":  # installed with it
            state = ()
        else:
            return super().load_config(config_path)
        return copy.copy(_parsed(type(source), source.provider, source.path, config_path, *state))


@functools.lru_cache(maxsize=1024)
def _parsed(kind: Callable, provider: str, path: str, config_path: str, *state: int) -> Any:
    """A file's content and defaults list; `state` tells what it was from what it is."""
    alone = ConfigRepository.__new__(ConfigRepository)
    alone.sources = [kind(provider, f"{kind.scheme()}://{path}")]
    return alone.load_config(config_path)


class _Told:
    """One file's part in a composition; equal to another where it is the same file in the same state, for the same package."""

    def __init__(self, default: Any, file: Any) -> None:
        self.content = file.config  # of a file parsed once: the same state is the same object
        state = None if file.provider == "hydra" or file.path.startswith("structured://") else id(self.content)  # what is installed stays
        self.key = default.config_path, default.package, default.primary, file.provider, file.path, state

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Told) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


@dataclasses.dataclass(frozen=True)
class _Merging:
    files: tuple[_Told, ...]
    merge: Callable[[], Any] = dataclasses.field(compare=False)


@functools.lru_cache(maxsize=128)
def _merged(merging: _Merging) -> Any:
    return merging.merge()


def is_of_others(provider: str) -> bool:
    """Whether Hydra has a source from a word on the command line; the others are attnlab, Hydra and installed plugins."""
    return provider == "command-line" or provider.startswith("hydra.searchpath")


def _keys(found: Any) -> Iterator[str]:
    """What a file sets at the top, in whatever package it lies, and which groups its defaults choose for which packages."""
    from omegaconf import DictConfig

    if isinstance(found.config, DictConfig):
        yield from map(str, found.config)
    for default in found.defaults_list or ():
        yield from (str(word) for word in (getattr(default, "group", None), default.package) if word)


def _is_package(name: str) -> bool:
    with contextlib.suppress(ImportError, ValueError):
        spec = importlib.util.find_spec(name)
        return spec is not None and spec.submodule_search_locations is not None
    return False


def check_options(words: Sequence[str]) -> None:
    """ConfigError for an option that Hydra does not know, or without its value; Hydra prints half a page."""

    def refuse(text: str) -> NoReturn:
        raise ConfigError(f"{text}; --help shows what there is")

    parser = get_args_parser()
    parser.error = refuse
    parser.parse_args(list(words))


def _known_choices(
    overrides: Any, defaults: Sequence[Any], self_added: bool, *, make: Callable = defaults_list._create_interpolation_map
) -> Any:
    """What interpolations of a file's defaults refer to. Hydra makes a config of it for every file, a quarter of the time of composing."""
    return make(overrides, defaults, self_added) if any(default.is_interpolation() for default in defaults) else None


@contextlib.contextmanager
def checked_sources() -> Iterator[None]:
    """Inside the block, whatever composes through Hydra does so with `Loader`."""
    before, engine.ConfigLoaderImpl = engine.ConfigLoaderImpl, Loader
    slow, defaults_list._create_interpolation_map = defaults_list._create_interpolation_map, _known_choices
    try:
        yield
    finally:
        engine.ConfigLoaderImpl, defaults_list._create_interpolation_map = before, slow
