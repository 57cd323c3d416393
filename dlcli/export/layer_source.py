"""The source of the dlcli layers that a model holds, as one file that needs Keras alone."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras

FILE = "layers.py"

_PACKAGE = "dlcli"

_HEADER = '''"""Layers of {model}, copied from dlcli {version} (Apache-2.0). Import it before Keras loads the model."""

from __future__ import annotations
'''


def registered_names(config: Any, package: str = _PACKAGE) -> set[str]:
    """Names of a package's registered classes in a model's configuration: `dlcli>Attention`."""
    names = {str(value.get("registered_name")) for value in _values(config)}
    return {name for name in names if name.startswith(f"{package}>")}


def layer_source(names: set[str], model: str, version: str) -> str:
    """One module with the classes of these registered names and all that they use.

    Args:
        names: as `registered_names` gives them.
        model: what the file is for, for its docstring.
        version: of dlcli.
    """
    pieces = _Pieces()
    for name in sorted(names):
        cls = keras.saving.get_registered_object(name)
        if cls is None:
            raise ValueError(f"Expected a registered class. Received: {name}")
        pieces.add(cls.__module__, cls.__name__)
    header = _HEADER.format(model=model, version=version)
    return f"{header}\n{pieces.imports()}\n\n\n" + "\n\n\n".join(pieces.sources) + "\n"


@dataclass
class _Module:
    """A module's top level."""

    source: str
    defined: dict[str, ast.stmt] = field(default_factory=dict)
    """Name -> the statement that defines it."""
    imported: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    """Name -> the import as `from MODULE import NAME as ALIAS`; of `import x` the name is empty."""

    @classmethod
    def of(cls, name: str) -> _Module:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise ValueError(f"Expected a module with a source. Received: {name}")
        source = Path(spec.origin).read_text(encoding="utf-8")
        module = cls(source)
        for node in ast.parse(source).body:
            module._note(node)
        return module

    def _note(self, node: ast.stmt) -> None:
        if isinstance(node, ast.Import):
            for each in node.names:
                self.imported[each.asname or each.name] = (each.name, "", each.asname or "")
        elif isinstance(node, ast.ImportFrom):
            for each in node.names:
                self.imported[each.asname or each.name] = (node.module or "", each.name, each.asname or "")
        elif isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            self.defined[node.name] = node
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                self.defined.update(dict.fromkeys(_names(target), node))


class _Pieces:
    """Definitions in an order in which each stands behind what it uses."""

    def __init__(self) -> None:
        self.sources: list[str] = []
        self._modules: dict[str, _Module] = {}
        self._done: dict[str, str] = {}
        self._imports: set[tuple[str, str, str]] = set()

    def add(self, module_name: str, name: str) -> None:
        """Adds what a module defines under this name, behind everything that it uses."""
        if name in self._done:
            if self._done[name] != module_name:
                raise ValueError(
                    f"Expected each name once. Received: {name} in {self._done[name]} and in {module_name}"
                )
            return
        module = self._modules.get(module_name) or _Module.of(module_name)
        self._modules[module_name] = module
        self._done[name] = module_name
        node = module.defined[name]
        source, node = _without_foreign_methods(module.source, node)
        for used in sorted(_names(node) - {name}):
            if used in module.defined:
                self.add(module_name, used)
            elif used in module.imported:
                origin, member, alias = module.imported[used]
                if origin.split(".")[0] == _PACKAGE:
                    self.add(origin, member)
                else:
                    self._imports.add((origin, member, alias))
        if source not in self.sources:  # of `A, B = 1, 2` both names have the same
            self.sources.append(source)

    def imports(self) -> str:
        """The import lines: Python's own first, then Keras and NumPy."""
        own = {each for each in self._imports if each[0].split(".")[0] in _STANDARD}
        blocks = ["\n".join(_import_lines(part)) for part in (own, self._imports - own)]
        return "\n\n".join(block for block in blocks if block)


_STANDARD = {"collections", "functools", "math", "typing", "dataclasses", "json", "itertools", "contextlib"}


def _import_lines(imports: set[tuple[str, str, str]]) -> Iterator[str]:
    for module in sorted({each[0] for each in imports}):
        members = sorted(each[1:] for each in imports if each[0] == module)
        for _, alias in (each for each in members if not each[0]):
            yield f"import {module}" + (f" as {alias}" if alias else "")
        named = [name + (f" as {alias}" if alias else "") for name, alias in members if name]
        if named:
            yield f"from {module} import {', '.join(named)}"


def _names(node: ast.AST) -> set[str]:
    """Every name that code or an annotation reads."""
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


def _without_foreign_methods(source: str, node: ast.stmt) -> tuple[str, ast.stmt]:
    """The text of a definition; of a class without the methods that import from the rest of dlcli.

    `Tokens.tokenizer` is one: it makes an object of the data package, which the network never asks for.
    """
    lines = source.splitlines()
    first = _first_line(node)
    last = node.end_lineno or first
    if not isinstance(node, ast.ClassDef):
        return "\n".join(lines[first - 1 : last]), node
    foreign = [each for each in node.body if _imports_package(each)]
    dropped = {number for each in foreign for number in range(_first_line(each), (each.end_lineno or 0) + 2)}
    kept = [lines[number - 1] for number in range(first, last + 1) if number not in dropped]
    text = "\n".join(kept).rstrip()
    return text, ast.parse(text).body[0]


def _first_line(node: ast.stmt) -> int:
    decorators = getattr(node, "decorator_list", [])
    return min([node.lineno, *(each.lineno for each in decorators)])


def _imports_package(node: ast.stmt) -> bool:
    return any(
        isinstance(each, ast.ImportFrom) and (each.module or "").split(".")[0] == _PACKAGE
        for each in ast.walk(node)
    )


def _values(value: Any) -> Iterator[dict[str, Any]]:
    """Every dict inside a configuration."""
    if isinstance(value, dict):
        yield value
        for each in value.values():
            yield from _values(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _values(each)


@contextmanager
def layers_beside(folder: Path) -> Iterator[None]:
    """Inside, the classes of a folder's layers.py stand in the place of dlcli's own, as in a program without dlcli."""
    path = folder / FILE
    if not path.is_file():
        yield
        return
    known = keras.saving.get_custom_objects()
    kept = dict(known)
    spec = importlib.util.spec_from_file_location("exported_layers", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"Expected a Python file. Received: {path}")
    try:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
        yield
    finally:
        known.clear()
        known.update(kept)
