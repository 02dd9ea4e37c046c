"""Source: parameters, types, defaults and docstrings of a target of ours, read from its file: nothing is imported, so help is quick."""

import ast
import functools
import re
from dataclasses import dataclass, field
from pathlib import Path

from attnlab.config.signatures import GIVEN
from attnlab.config.targets import COMPONENTS

ROOT = Path(__file__).parents[2]
WORDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text", "Path": "a text", "None": "null"}
WORDS |= {"Any": "anything", "dict": "keys with values", "list": "a list", "tuple": "a list"}


@dataclass(frozen=True)
class Parameter:
    """type: in words. default: as Python writes it, or None where there is none. note: what stands behind it in the file."""

    name: str
    type: str
    default: str | None
    note: str = ""


@dataclass(frozen=True)
class Described:
    doc: str = ""
    parameters: dict[str, Parameter] = field(default_factory=dict)

    def line_of(self, name: str) -> str:
        """What the docstring says of a parameter: behind `name:`, or behind its name and two spaces in a list."""
        own = self.parameters[name].note if name in self.parameters else ""
        for pattern in (rf"(?m)\b{name}(?:, \w+)*:\s+(.+(?:\n(?!\s*\n|\s*[\w, ]+:\s).*)*)", rf"(?m)^\s*{name}  +(\S.*)$"):
            if found := re.search(pattern, self.doc):
                text = " ".join(found[1].split())
                return re.split(r"(?<=[^.][^.])\.(?: |$)|; \w+: | \w+(?:, \w+)*: ", text, maxsplit=1)[0]
        return own


def described(target: str) -> Described:
    """What `attnlab.package.module.Name` says of itself; empty for a target of others."""
    module, _, name = target.rpartition(".")
    if not target.startswith(COMPONENTS) or not _path(module).is_file():
        return Described()
    return _described(module, name)


@functools.cache
def options_of(module: str, name: str) -> Described:
    """The same of any class of attnlab's."""
    return _described(module, name)


def _path(module: str) -> Path:
    return ROOT.joinpath(*module.split(".")).with_suffix(".py")


@functools.cache
def _parsed(module: str) -> tuple[ast.Module, list[str]]:
    text = _path(module).read_text(encoding="utf-8")
    return ast.parse(text), text.splitlines()


def _find(module: str, name: str) -> tuple[str, ast.AST] | None:
    """The definition of a name in a module of ours, or where the module imports it from."""
    if not module.startswith("attnlab") or not _path(module).is_file():
        return None
    for node in _parsed(module)[0].body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return module, node
        if isinstance(node, ast.Assign) and any(isinstance(one, ast.Name) and one.id == name for one in node.targets):
            return module, node.value
        if isinstance(node, ast.ImportFrom) and any((alias.asname or alias.name) == name for alias in node.names):
            return _find(str(node.module), next(alias.name for alias in node.names if (alias.asname or alias.name) == name))
    return None


def _described(module: str, name: str) -> Described:
    found = _find(module, name)
    if found is None:
        return Described()
    module, node = found
    if isinstance(node, ast.FunctionDef):
        return Described(ast.get_docstring(node) or "", _of_call(module, node))
    if not isinstance(node, ast.ClassDef):
        return Described()
    bases = [_described(module, base.id) for base in node.bases if isinstance(base, ast.Name)]
    doc = "\n\n".join(filter(None, [ast.get_docstring(node), *(base.doc for base in bases)]))
    own = next((item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"), None)
    if own:
        return Described(doc, _of_call(module, own))
    inherited = {key: value for base in reversed(bases) for key, value in base.parameters.items()}
    return Described(doc, inherited | (_fields(module, node) if node.decorator_list else {}))


def _of_call(module: str, node: ast.FunctionDef) -> dict[str, Parameter]:
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    positional = len(node.args.posonlyargs) + len(node.args.args)
    defaults = [*[None] * (positional - len(node.args.defaults)), *node.args.defaults, *node.args.kw_defaults]
    given = {"self", *GIVEN}
    return {
        one.arg: _parameter(module, one.arg, one.annotation, default, one.lineno)
        for one, default in zip(arguments, defaults, strict=True)
        if one.arg not in given
    }


def _fields(module: str, node: ast.ClassDef) -> dict[str, Parameter]:
    """Of a dataclass."""
    found = {}
    for item in node.body:
        if not (isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)) or "ClassVar" in ast.unparse(item.annotation):
            continue
        if not item.target.id.startswith("_") and "init=False" not in ast.unparse(item.value or item.annotation):
            found[item.target.id] = _parameter(module, item.target.id, item.annotation, item.value, item.lineno)
    return found


def _parameter(module: str, name: str, annotation: ast.AST | None, default: ast.AST | None, line: int) -> Parameter:
    note = _parsed(module)[1][line - 1].partition("  # ")[2]
    return Parameter(name, words_of(module, annotation), ast.unparse(default) if default else None, note)


def words_of(module: str, node: ast.AST | None) -> str:
    """A type annotation in a user's words."""
    if node is None:
        return "anything"
    if isinstance(node, ast.Constant):
        return words_of(module, ast.parse(node.value, mode="eval").body) if isinstance(node.value, str) else WORDS.get(str(node.value), "")
    if isinstance(node, ast.BinOp):
        return f"{words_of(module, node.left)} or {words_of(module, node.right)}"
    if isinstance(node, ast.Subscript):
        outer = ast.unparse(node.value)
        inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if outer == "Literal":
            return " | ".join(str(one.value).lower() if isinstance(one.value, bool) else str(one.value) for one in inner)
        if outer in ("list", "tuple", "Sequence"):
            return f"a list, each {words_of(module, inner[0])}"
        return "keys with values" if outer in ("dict", "Mapping") else outer
    name = ast.unparse(node)
    if name in WORDS:
        return WORDS[name]
    alias = _find(module, name)
    return words_of(alias[0], alias[1]) if alias and isinstance(alias[1], ast.Subscript | ast.BinOp) else name
