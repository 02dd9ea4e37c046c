"""Targets: what a `_target_` names, and which ones a config may name. ConfigError, the one-line message to a user, is here too.

`_target_` is the registry. A config is data and must not be able to run anything, so it may name components alone:

    of attnlab      classes of the packages in COMPONENTS, and functions of those in FUNCTIONS, in the very module that defines them
    of a library    what LIBRARIES says: subclasses of its base class, or any class where there is none
    of a package in `allow_targets=[mypkg]`  the classes and functions that the package defines
"""

import importlib
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attnlab.config.suggest import nearest


def group_choices(group: str) -> list[str]:
    folder = config_dir() / group
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))


def group_names() -> list[str]:
    return sorted(path.name for path in config_dir().iterdir() if path.is_dir() and path.name != "hydra")


COMPONENTS = (
    "attnlab.data",
    "attnlab.backbones",
    "attnlab.initialisation",
    "attnlab.attention",
    "attnlab.regularizers",
    "attnlab.convolutions",
    "attnlab.heads",
    "attnlab.losses",
    "attnlab.distillation",
    "attnlab.algorithms",
    "attnlab.callbacks",
    "attnlab.ood",
    "attnlab.evaluation",
    "attnlab.explainers",
    "attnlab.loggers",
    "attnlab.training.settings",
    "attnlab.training.schedules",
    "attnlab.sweeps.local",
    "attnlab.sweeps.workers",
    "attnlab.sweeps.search",
    "attnlab.sweeps.pruners",
)
FUNCTIONS = ("attnlab.backbones", "attnlab.training.schedules")
LIBRARIES = {
    "torch.nn": "torch.nn.Module",
    "torch.optim": "torch.optim.Optimizer",
    "torchvision.ops": "torch.nn.Module",
    "torchvision.transforms": "torch.nn.Module",
    "timm.layers": "torch.nn.Module",
    "pytorch_ood.detector": None,
    "pytorch_ood.loss": None,
}


class ConfigError(ValueError):
    """A mistake in the configuration; its text is the one line the user sees."""


def config_dir() -> Path:
    """The folder of the yamls: inside the package in an installed wheel, beside it in a checkout."""
    package = Path(__file__).parents[1]
    return next(folder for folder in (package / "configs", package.parent / "configs") if (folder / "train.yaml").exists())


def locate(target: str, *, allow: Sequence[str] = (), where: str = "") -> Any:
    """The component that `package.module.Name` names, if a config may name it. ConfigError otherwise, with the nearest names."""

    here = f"{where}: " if where else ""
    package = next((package for package in (*COMPONENTS, *LIBRARIES, *allow) if _inside(target, package)), None)
    if package is None:
        raise ConfigError(f"{here}{target!r} is outside the packages of components; {_remedy(target)}")
    module_name, _, name = target.rpartition(".")
    if not module_name or any(part.startswith("_") for part in target.split(".")):
        raise ConfigError(f"{here}{target!r}: write _target_ as package.module.Name, without private names")
    try:
        module = sys.modules.get(module_name) or importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and not module_name.startswith(error.name):
            raise ConfigError(f"{here}{target} needs the package {error.name!r}: pip install {error.name}") from error
        raise ConfigError(f"{here}there is no module {module_name!r}; write _target_ as package.module.Name") from error
    try:
        found = getattr(module, name)
    except AttributeError:
        own = [key for key, value in vars(module).items() if not key.startswith("_") and not _refusal(value, module_name, package)]
        raise ConfigError(f"{here}{module_name} has no {name!r}; {nearest(name, own)}") from None
    if refusal := _refusal(found, module_name, package):
        raise ConfigError(f"{here}{target} {refusal}")
    return found


def _inside(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def _refusal(found: Any, module: str, package: str) -> str:
    """Why an object of `module` is no component that a config may name; empty if it is one."""
    functions = package not in LIBRARIES and (package in FUNCTIONS or package not in COMPONENTS)
    if not (inspect.isclass(found) or (functions and inspect.isfunction(found))):
        return f"is no class{' or function' if functions else ''}"
    defined = found.__module__
    if package in COMPONENTS:
        return "" if defined == module else f"is defined elsewhere ({defined}); name it where it is defined"
    top = package.partition(".")[0]
    if not _inside(defined, top):
        return f"is no component of {top}: it is defined in {defined}"
    base = LIBRARIES.get(package)
    if base and not issubclass(found, locate_base(base)):
        return f"is no {base.rpartition('.')[2]}; of {package} a config may name only those"
    return ""


def locate_base(base: str) -> type:
    """The class of a dotted name that stands in this code."""
    module, _, name = base.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _remedy(target: str) -> str:
    top = target.partition(".")[0]
    if top == "attnlab":
        return f"those of attnlab are {', '.join(package.removeprefix('attnlab.') for package in COMPONENTS)}"
    if top in sys.stdlib_module_names:
        return "Python's own modules hold none"
    return f"allow_targets=[{top}] permits it"


def check_allowed(allow: Sequence[str]) -> None:
    """`allow_targets` names packages of others: of Python itself and of attnlab it permits nothing more."""
    for package in allow:
        top = package.partition(".")[0]
        if not package or top in sys.stdlib_module_names or top == "attnlab":
            raise ConfigError(f"allow_targets={package!r}: must be a package of components, neither of Python's own nor of attnlab")
