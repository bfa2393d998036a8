"""The source tree as the house rules see it: which files there are, and what each imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE_FOLDERS = ("cli", "codegen", "compiler", "runtime")
SCRIPT_FOLDERS = ("tests", "examples", "benchmarks", "docs")
TEXT_SUFFIXES = frozenset({".py", ".toml", ".md", ".txt", ".yml", ".yaml", ".test", ".html", ".cfg", ""})
SKIPPED_FOLDERS = frozenset({"build", "dist", "__pycache__", "node_modules"})


@dataclass(frozen=True)
class Import:
    """One imported module: its full dotted name, the line, and whether it stands inside a function."""

    module: str
    line: int
    in_function: bool


@dataclass(frozen=True)
class Source:
    """One Python file."""

    path: Path

    @property
    def place(self) -> str:
        """The path from the root of the repository."""
        return self.path.relative_to(ROOT).as_posix()

    @property
    def module(self) -> str:
        """The name under which it is imported."""
        parts = self.path.relative_to(ROOT).with_suffix("").parts
        return ".".join(("birc", *parts)).removesuffix(".__init__")

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.place)


class SourceTree:
    """All Python files of the repository, and its other texts."""

    def __init__(self) -> None:
        self.code = _sources(CODE_FOLDERS)
        self.scripts = _sources(SCRIPT_FOLDERS)
        self.modules = {source.module: source for source in self.code}

    @property
    def root(self) -> Path:
        return ROOT

    @property
    def python(self) -> tuple[Source, ...]:
        return (*self.code, *self.scripts)

    def texts(self) -> Iterator[Path]:
        """Every text file that a reader of the repository sees, without the licence."""
        for path in _files(ROOT, None):
            if path.suffix in TEXT_SUFFIXES and path.name not in ("LICENSE", "py.typed"):
                yield path

    def imports(self, source: Source) -> tuple[Import, ...]:
        """What a file imports, also under TYPE_CHECKING and inside functions."""
        return tuple(self._imports(source.tree, in_function=False))

    def _imports(self, node: ast.AST, *, in_function: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from (Import(alias.name, child.lineno, in_function) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                origin = child.module or ""
                names = (self._target(origin, alias.name) for alias in child.names)
                yield from (Import(name, child.lineno, in_function) for name in names)
            else:
                inside = in_function or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                yield from self._imports(child, in_function=inside)

    def _target(self, origin: str, name: str) -> str:
        """`from a.b import c` imports the module a.b.c if there is one, else a.b."""
        whole = f"{origin}.{name}"
        return whole if whole in self.modules else origin


def _sources(folders: tuple[str, ...]) -> tuple[Source, ...]:
    return tuple(Source(path) for folder in folders for path in _files(ROOT / folder, ".py"))


def _files(folder: Path, suffix: str | None) -> list[Path]:
    """The files below a folder, sorted, without what tools leave there."""
    found: list[Path] = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        hidden = path.name.startswith(".") and path.name not in (".ci", ".gitignore")
        if hidden or path.name in SKIPPED_FOLDERS or path.name.endswith(".egg-info"):
            continue
        if path.is_dir():
            found += _files(path, suffix)
        elif suffix is None or path.suffix == suffix:
            found.append(path)
    return found


@pytest.fixture(scope="session")
def tree() -> SourceTree:
    return SourceTree()
