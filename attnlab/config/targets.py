"""Targets: what a `_target_` names, and which ones a config may name. ConfigError, the one-line message to a user, is here too.

`_target_` is the registry. Which packages a config may name is limited (a config is data, and must not be able to run anything):
`ALLOWED`, extended by `allow_targets=[mypkg]`.
"""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attnlab.config.suggest import nearest


def group_choices(group: str) -> list[str]:
    folder = config_dir() / group
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))


def group_names() -> list[str]:
    return sorted(path.name for path in config_dir().iterdir() if path.is_dir() and path.name != "hydra")


LIBRARIES = ("torch.nn", "torch.optim", "torchvision.ops", "torchvision.transforms", "timm.layers", "pytorch_ood")

ALLOWED = ("attnlab", *LIBRARIES)


class ConfigError(ValueError):
    """A mistake in the configuration; its text is the one line the user sees."""


def config_dir() -> Path:
    """The folder of the yamls: inside the package in an installed wheel, beside it in a checkout."""
    package = Path(__file__).parents[1]
    return next(folder for folder in (package / "configs", package.parent / "configs") if (folder / "train.yaml").exists())


def locate(target: str, *, allow: Sequence[str] = (), where: str = "") -> Any:
    """The object that `package.module.name` names, if its package is allowed. ConfigError otherwise, with the nearest names."""

    packages = (*ALLOWED, *allow)
    if not any(target == package or target.startswith(package + ".") for package in packages):
        top = target.partition(".")[0]
        raise ConfigError(f"{where}: {target!r} is outside the allowed packages ({', '.join(packages)}); allow_targets=[{top}] permits it")
    module_name, _, name = target.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and not module_name.startswith(error.name):
            raise ConfigError(f"{where}: {target} needs the package {error.name!r}: pip install {error.name}") from error
        raise ConfigError(f"{where}: there is no module {module_name!r}; write _target_ as package.module.Name") from error
    try:
        return getattr(module, name)
    except AttributeError:
        own = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise ConfigError(f"{where}: {module_name} has no {name!r}; {nearest(name, own)}") from None
