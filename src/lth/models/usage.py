"""How a module's code uses a parameter: as a factor of a product, elementwise, or unknown.

The source code of the module's methods is analysed, because no input is available with which the module could be run.
An expression of parameters and constants, such as `self.weight * self.mask`, counts as the parameter.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from torch import nn

PRODUCT, ELEMENTWISE, UNKNOWN, FACT = "product", "elementwise", "unknown", "fact"
PRODUCTS = re.compile(r"_*(\w*linear|\w*matmul|\w*mm|mv|conv(_transpose)?\dd|(opt_)?einsum|tensordot|multi_dot|outer"
                      r"|bilinear|embedding(_bag)?)")  # fmt: skip
ELEMENTWISE_CALLS = re.compile(
    r"(add|sub|mul|multiply|div|true_divide|cat|concat|concatenate|stack|where|lerp|addcmul|maximum|minimum)_?"
    r"|\w+_norm"
)
FACTS = {"shape", "size", "dtype", "device", "ndim", "dim", "numel", "requires_grad", "grad", "is_cuda", "layout"}
READERS = {"len", "range", "isinstance", "hasattr", "print", "getattr"}
NOT_RUN = re.compile(
    r"__init__|_?reset_.*|_?init(ialize)?_.*|_init|initialize|extra_repr|__repr__"
)  # methods that are not part of a forward pass


@cache
def usage(kind: type[nn.Module], attribute: str) -> str:
    """How the methods of this class use `self.ATTRIBUTE`: PRODUCT, ELEMENTWISE or UNKNOWN."""
    uses = {use for tree in _sources(kind, attribute) for use in _Method(tree).uses(attribute)}
    if PRODUCT in uses:
        return PRODUCT
    return ELEMENTWISE if uses == {ELEMENTWISE} else UNKNOWN


def _sources(kind: type[nn.Module], attribute: str) -> Iterator[ast.FunctionDef]:
    """The parsed methods that name the attribute and may be part of the forward pass."""
    methods: dict[str, Any] = {}
    for base in kind.__mro__[: kind.__mro__.index(nn.Module)]:
        methods = {**vars(base), **methods}
    for name, method in methods.items():
        function = inspect.unwrap(method) if callable(method) else None
        if inspect.isfunction(function) and not NOT_RUN.fullmatch(name) and attribute in function.__code__.co_names:
            tree = _parsed(function)
            if isinstance(tree, ast.FunctionDef) and tree.args.args:
                yield tree


def _parsed(function: Callable[..., Any]) -> ast.stmt | None:
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    except (OSError, TypeError, SyntaxError, IndexError):  # defined without a file, or rewritten
        return None


class _Method:
    """A parsed method, the parent of each of its nodes, and the local names that depend on the input."""

    def __init__(self, tree: ast.FunctionDef) -> None:
        self.tree = tree
        self.self_name, *inputs = [part.arg for part in ast.walk(tree.args) if isinstance(part, ast.arg)]
        self.parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
        self.given, before = {*inputs}, None
        while before != self.given:
            before = {*self.given}
            for node in ast.walk(tree):
                if (value := _value(node)) is not None and self._reads_input(value):
                    self.given |= _targets(node)

    def _reads_input(self, node: ast.AST, but: ast.AST | None = None) -> bool:
        inside = {*ast.walk(but)} if but else set[ast.AST]()
        return any(isinstance(n, ast.Name) and n.id in self.given for n in ast.walk(node) if n not in inside)

    def uses(self, attribute: str) -> Iterator[str]:
        """The uses of `self.ATTRIBUTE`, including those under local names."""
        places = [node for node in ast.walk(self.tree) if self._is_read(node, attribute)]
        followed: set[str] = set()
        while places:
            use = self._use(places.pop())
            if isinstance(use, str):
                yield use
            elif use is not None:
                names = _targets(use)
                if not names or names & self.given:
                    yield UNKNOWN
                new = names - followed - self.given
                followed |= new
                places += [n for n in ast.walk(self.tree) if isinstance(n, ast.Name) and n.id in new and _is_load(n)]

    def _is_read(self, node: ast.AST, attribute: str) -> bool:
        owned = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == self.self_name
        return owned and node.attr == attribute and _is_load(node)  # pyright: ignore[reportAttributeAccessIssue]

    def _use(self, node: ast.AST) -> str | ast.AST | None:
        """How a value is used: a use, the assignment that names it, or None if only properties such as its shape are
        read.
        """
        value = node  # the expression that stands for the parameter; `node` may be a list or an argument around it
        while True:
            parent = self.parents[node]
            if isinstance(parent, ast.List | ast.Tuple | ast.Starred | ast.keyword):
                node = parent
                continue
            if isinstance(parent, ast.Attribute) and parent.attr in FACTS:
                return None
            if isinstance(parent, ast.Compare | ast.If | ast.While | ast.Assert | ast.BoolOp):
                return None
            if isinstance(parent, ast.Subscript) and node is parent.slice:
                return None
            if isinstance(parent, ast.BinOp | ast.AugAssign) and (use := self._use_in_operation(parent, value)):
                return use
            if isinstance(parent, ast.Call) and (use := self._use_in_call(parent, node, value)):
                return use if use != FACT else None
            if _value(parent) is not None:
                return parent
            if isinstance(parent, ast.stmt):
                return UNKNOWN
            node = value = parent

    def _use_in_operation(self, operation: ast.BinOp | ast.AugAssign, value: ast.AST) -> str | None:
        if isinstance(operation.op, ast.MatMult):
            return PRODUCT
        return ELEMENTWISE if self._reads_input(operation, value) else None

    def _use_in_call(self, call: ast.Call, node: ast.AST, value: ast.AST) -> str | None:
        """How a call uses a value; None if its result still stands for the parameter, as that of view or to."""
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        if PRODUCTS.fullmatch(name):
            return _place_in_product(call, node, name)
        if name in READERS:
            return FACT
        if ELEMENTWISE_CALLS.fullmatch(name) and self._reads_input(call, value):
            return ELEMENTWISE
        if node is call.func:
            return None
        if isinstance(call.func, ast.Name):
            return UNKNOWN  # a function of the user
        is_own_method = isinstance(call.func, ast.Attribute) and getattr(call.func.value, "id", "") == self.self_name
        return UNKNOWN if is_own_method or self._reads_input(call, value) else None


def _place_in_product(call: ast.Call, node: ast.AST, name: str) -> str:
    """Return whether an argument of a product is a factor, the input, or the added bias."""
    place = next((place for place, argument in enumerate(call.args) if argument is node), None)
    if getattr(node, "arg", "") == "bias" or (place == 2 and name.startswith(("linear", "conv"))):
        return ELEMENTWISE
    if place == 0 and name in ("addmm", "baddbmm", "addbmm"):
        return ELEMENTWISE
    return UNKNOWN if place == 0 and name.startswith(("linear", "conv")) else PRODUCT


def _value(node: ast.AST) -> ast.AST | None:
    """The value that an assignment or a loop binds."""
    if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign | ast.NamedExpr):
        return node.value
    return node.iter if isinstance(node, ast.For | ast.comprehension) else None


def _targets(node: Any) -> set[str]:
    """The local names that an assignment or a loop binds."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return {n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name) and not _is_load(n)}


def _is_load(node: Any) -> bool:
    return isinstance(node.ctx, ast.Load)
