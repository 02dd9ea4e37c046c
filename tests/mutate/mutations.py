"""Mutations of a module's syntax tree: one small wrong change at a time, as a slip of the hand or of the mind would make it."""

import ast
import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

BINARY = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip
COMPARE = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt), ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,), ast.In: (ast.NotIn,), ast.NotIn: (ast.In,),
}  # fmt: skip
PAIRS = (
    "sum mean", "min max", "amin amax", "argmin argmax", "minimum maximum", "cummin cummax", "sin cos", "floor ceil", "zeros ones",
    "zeros_like ones_like", "new_zeros new_ones", "any all", "std var", "triu tril", "rand randn", "rand_like randn_like", "exp log",
    "softmax log_softmax", "logsumexp sum", "sigmoid tanh", "sqrt square", "rsqrt sqrt", "avg_pool2d max_pool2d",
)  # fmt: skip
BUILTINS = {"min", "max", "any", "all"}  # of the pairs, what a bare name may be
SWAPS = {one: other for pair in reversed(PAIRS) for one, other in (pair.split(), pair.split()[::-1])}
DROPPED = {"detach", "abs", "sqrt", "square", "clamp", "clamp_min", "clamp_max", "relu", "exp", "log", "sign", "normalize", "softplus",
           "flip", "reciprocal", "nan_to_num", "roll", "fliplr", "cumsum", "argsort", "sort", "stop_gradient", "T", "mT"}  # fmt: skip
UNSEEN_KEYWORDS = {"device", "memory_format", "non_blocking", "inplace", "strict"}  # a CPU, speed, a check of lengths
KNOWN_DEFAULTS = {
    ("normalize", "dim", 1),
    ("interpolate", "align_corners", False),
    ("interpolate", "mode", "nearest"),
    ("kaiming_normal_", "nonlinearity", "relu"),
}  # torch's own: relu is leaky_relu of slope 0
UNSEEN_FUNCTIONS = {"__repr__", "extra_repr"}
UNSEEN_OBJECTS = {"log", "warnings"}  # messages


@dataclass(frozen=True)
class Mutation:
    """One change: `apply()` makes it in the tree that it was found in, for good."""

    line: int
    before: str  # the source line, stripped
    after: str  # the same line as it becomes
    holder: Any  # the list or node that holds what is replaced
    key: Any
    value: Any

    def apply(self) -> None:
        if isinstance(self.holder, list):
            self.holder[self.key] = self.value
        else:
            setattr(self.holder, self.key, self.value)


def mutations(source: str, defaults: Mapping[str, Any] | None = None) -> tuple[ast.Module, list[Mutation]]:
    """The tree and all that can be mutated in it. `defaults` (name: value) are constructor defaults that a yaml says again: left out."""
    tree, lines = ast.parse(source), source.splitlines()
    found = []
    for node, holder, key in _places(tree, defaults or {}):
        for new in (*_changed(node), *([ast.UnaryOp(ast.Not(), node)] if key == "test" and _is_plain(node) else ())):
            ast.fix_missing_locations(ast.copy_location(new, node))
            line = lines[node.lineno - 1]
            end = node.end_col_offset if node.end_lineno == node.lineno else len(line)
            after = f"{line[: node.col_offset]}{ast.unparse(new)}{line[end:]}".strip()
            found.append(Mutation(node.lineno, line.strip(), after, holder, key, new))
    return tree, sorted(found, key=lambda mutation: mutation.line)


def _places(node: ast.AST, defaults: Mapping[str, Any]) -> Iterator[tuple[ast.AST, Any, Any]]:
    """Every node that may change, with what holds it; not annotations, messages, decorators, docstrings, defaults of the yaml."""
    for name, value in ast.iter_fields(node):
        if name in _left_out(node):
            continue
        for key, child, holder in [(i, c, value) for i, c in enumerate(value)] if isinstance(value, list) else [(name, value, node)]:
            if not isinstance(child, ast.AST) or _unseen(child):
                continue
            if isinstance(node, ast.arguments) and name in ("defaults", "kw_defaults") and _is_default(node, name, key, defaults):
                continue
            if isinstance(child, (ast.expr, ast.stmt)):
                yield child, holder, key
            yield from _places(child, defaults)


def _left_out(node: ast.AST) -> tuple[str, ...]:
    if isinstance(node, ast.Assert):
        return ("msg",)
    if isinstance(node, ast.keyword) and node.arg in UNSEEN_KEYWORDS:
        return ("value",)
    return ("annotation", "returns", "decorator_list", "bases", "type_comment", "ctx", "ops", "op", "slice" if _is_type(node) else "")


def _is_type(node: ast.AST) -> bool:
    return isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in ("Literal", "dict", "list", "tuple")


def _unseen(node: ast.AST) -> bool:
    if isinstance(node, (ast.Raise, ast.JoinedStr, ast.Import, ast.ImportFrom)):
        return True
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return node.name in UNSEEN_FUNCTIONS
    if isinstance(node, ast.If):
        return ast.unparse(node.test).endswith("TYPE_CHECKING")
    if isinstance(node, ast.Assign):
        return ast.unparse(node.targets[0]) == "__all__"
    if isinstance(node, ast.Expr):
        called = node.value
        if isinstance(called, ast.Constant):
            return True
        return isinstance(called, ast.Call) and ast.unparse(called.func).split(".")[0] in UNSEEN_OBJECTS
    return False


def _is_default(node: ast.arguments, field: str, key: int, defaults: Mapping[str, Any]) -> bool:
    positional = [*node.posonlyargs, *node.args]
    arg = node.kwonlyargs[key] if field == "kw_defaults" else positional[len(positional) - len(node.defaults) + key]
    value = getattr(node, field)[key]
    try:
        return arg.arg in defaults and defaults[arg.arg] == ast.literal_eval(value)
    except ValueError:
        return False


def _with(node: ast.AST, **fields: Any) -> Any:
    """A copy that differs in these fields."""
    new = copy.copy(node)
    for name, value in fields.items():
        setattr(new, name, value)
    return new


def _changed(node: ast.AST) -> Iterator[ast.AST]:
    """What stands for the node in each of its mutants."""
    if isinstance(node, ast.BinOp) and type(node.op) in BINARY and not (_is_text(node.left) or _is_text(node.right)):
        yield _with(node, op=BINARY[type(node.op)]())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.Not, ast.Invert)):
        yield copy.copy(node.operand)
    elif isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            yield from (_with(node, ops=[*node.ops[:i], other(), *node.ops[i + 1 :]]) for other in COMPARE[type(op)])
    elif isinstance(node, ast.BoolOp):
        yield _with(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
    elif isinstance(node, ast.Constant):
        yield from _constants(node)
    elif isinstance(node, ast.Call):
        yield from _calls(node)
    elif isinstance(node, ast.Attribute) and node.attr in ("T", "mT"):
        yield copy.copy(node.value)
    elif isinstance(node, ast.AugAssign):
        yield ast.Pass()
        if type(node.op) in BINARY:
            yield _with(node, op=BINARY[type(node.op)]())
    elif isinstance(node, ast.Expr) or (isinstance(node, ast.Assign) and isinstance(node.targets[0], (ast.Attribute, ast.Subscript))):
        yield ast.Pass()


def _is_plain(test: ast.AST) -> bool:
    """A condition that none of the changes to operators turns round."""
    return isinstance(test, (ast.Name, ast.Attribute, ast.Call, ast.Subscript))


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _constants(node: ast.Constant) -> Iterator[ast.AST]:
    if isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node.value, int):
        yield ast.Constant(node.value + 1)
    elif isinstance(node.value, float):
        yield ast.Constant(2 * node.value if node.value else 1.0)


def _calls(node: ast.Call) -> Iterator[ast.AST]:
    function = node.func
    name = function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""
    if isinstance(function, ast.Attribute) and name in SWAPS:
        yield _with(node, func=_with(function, attr=SWAPS[name]))
    elif isinstance(function, ast.Name) and name in BUILTINS:
        yield _with(node, func=_with(function, id=SWAPS[name]))
    if isinstance(function, ast.Attribute) and name in DROPPED:
        of_module = isinstance(function.value, ast.Name) and function.value.id in ("torch", "F", "math", "np")
        if not of_module:
            yield copy.copy(function.value)
        elif node.args:
            yield copy.copy(node.args[0])
    if name in ("maximum", "minimum") and len(node.args) == 2:
        yield ast.BinOp(node.args[0], ast.Add(), node.args[1])
    if name == "where" and len(node.args) == 3:
        yield _with(node, args=[node.args[0], node.args[2], node.args[1]])
    for i, keyword in enumerate(node.keywords):
        value = keyword.value.value if isinstance(keyword.value, ast.Constant) else ...
        if keyword.arg is not None and keyword.arg not in UNSEEN_KEYWORDS and (name, keyword.arg, value) not in KNOWN_DEFAULTS:
            yield _with(node, keywords=[*node.keywords[:i], *node.keywords[i + 1 :]])
        if isinstance(keyword.value, ast.Constant) and keyword.value.value in ("mean", "sum"):
            other = ast.Constant(SWAPS[keyword.value.value])
            yield _with(node, keywords=[*node.keywords[:i], _with(keyword, value=other), *node.keywords[i + 1 :]])
