"""Pages of what people import: a page a package, whose entries Sphinx's autodoc reads from signatures and docstrings."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import ModuleType

from site_pages.docstrings import inline, restructured
from site_pages.groups import table, toctree

# page: what it is for; the packages or modules that it shows
PAGES = {
    "placement": ("Modules at places of any network", ["attnlab.placement", "attnlab.network"]),
    "metrics": ("OOD ranking, calibration, selective prediction", ["attnlab.metrics"]),
    "attention": ("Attention modules", ["attnlab.attention", "attnlab.convolutions"]),
    "regularizers": ("Regularisers of values, images and weights", ["attnlab.regularizers", "attnlab.heads"]),
    "losses": ("Losses", ["attnlab.losses"]),
    "distillation": ("Terms that follow a teacher", ["attnlab.distillation"]),
    "ood": ("OOD heads, lens depth, banks of features", ["attnlab.ood"]),
    "explainers": ("Maps of what a prediction rests on", ["attnlab.explainers"]),
    "evaluation": ("Evaluators, scores of explanations", ["attnlab.evaluation"]),
    "training": ("What acts around the forward pass", ["attnlab.algorithms", "attnlab.callbacks", "attnlab.training"]),
    "backbones": ("Networks and how their weights start", ["attnlab.backbones", "attnlab.initialisation"]),
    "pruning": ("Pruning, and smaller networks from it", ["attnlab.pruning"]),
    "data": ("Images and their boxes", ["attnlab.data"]),
    "runs": (
        "Runs from Python",
        ["attnlab.pipeline.load", "attnlab.evaluate", "attnlab.loggers", "attnlab.sweeps.local", "attnlab.sweeps.workers"],
    ),
}


def pages() -> dict[str, str]:
    """Text by file name."""
    shown: dict[str, str] = {}
    found = {name: "\n".join(_page(name, words, packages, shown)) + "\n" for name, (words, packages) in PAGES.items()}
    return {"index": "\n".join(_index(shown)) + "\n", **found}


def _index(shown: dict[str, str]) -> Iterator[str]:
    import attnlab

    yield from ["API", "===", "", *restructured(attnlab.__doc__ or ""), ""]
    rows = []
    for name in sorted(attnlab.WHERE):
        full = f"{attnlab.WHERE[name]}.{name}"
        assert full in shown, f"attnlab.{name} has no entry in the API pages"
        rows.append([f":py:obj:`attnlab.{name} <{full}>`", inline(_first(getattr(attnlab, name)))])
    yield from [*table(["from attnlab import", "what it is"], rows), ""]
    yield from [
        *table(["page", "what is in it"], [[f":doc:`{name}`", words] for name, (words, _) in PAGES.items()]),
        "",
        *toctree([*PAGES]),
    ]


def _page(name: str, words: str, packages: list[str], shown: dict[str, str]) -> Iterator[str]:
    yield from [f"{name}", "=" * len(name), "", f"{words}.", ""]
    for package in packages:
        for module in _modules(package):
            objects = [key for key, value in vars(module).items() if _own(key, value, module)]
            if not objects:
                continue
            yield from [f".. py:module:: {module.__name__}", "", module.__name__, "-" * len(module.__name__), ""]
            yield from [*restructured(module.__doc__ or ""), ""]
            for key in objects:
                shown[f"{module.__name__}.{key}"] = name
                kind = "autoclass" if inspect.isclass(getattr(module, key)) else "autofunction"
                yield from [f".. {kind}:: {module.__name__}.{key}", *["   :members:"] * (kind == "autoclass"), ""]


def _modules(name: str) -> Iterator[ModuleType]:
    module = importlib.import_module(name)
    yield module
    for one in sorted(pkgutil.iter_modules(getattr(module, "__path__", [])), key=lambda one: one.name):
        yield from _modules(f"{name}.{one.name}")


def _own(name: str, value: object, module: ModuleType) -> bool:
    """A public class or function that this module defines and describes."""
    public = not name.startswith("_") and (inspect.isclass(value) or inspect.isfunction(value))
    return public and value.__module__ == module.__name__ and value.__name__ == name and bool(value.__doc__)


def _first(thing: object) -> str:
    return " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split()).partition(". ")[0].rstrip(".")
