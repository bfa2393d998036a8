"""The form of the files: sizes, docstrings, what a module may not contain, and what no text may mention."""

from __future__ import annotations

import ast
import re
import tomllib

import pytest

MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 80

# Files that are longer on purpose, each with the reason.
LONG_FILES: dict[str, str] = {}
# Functions that are longer on purpose, "place:name", each with the reason.
LONG_FUNCTIONS: dict[str, str] = {}

# The project speaks of itself alone: not of the machine it was written on, nor of notes that are not part of
# it. (Letters in brackets keep a pattern from matching its own line.)
ISSUE_OF_A_WARP = "slot|rate|cycle|port|width|queue|order|cost"
FORBIDDEN = {
    "a path of somebody's machine": re.compile(r"(?<![\w.:/-])/(hom[e]|roo[t]|wor[k]|User[s]|mn[t])/\w"),
    "a note outside": re.compile(r"\b(MACHIN[E]|DESIG[N]|RULE[S])\.md\b|\.\./share[d]\b|\bfact[s]/\w"),
    "a package registry": re.compile(r"\bpyp[i]\.(org|python)|pythonhoste[d]"),
    "a task": re.compile(rf"\bthe (issu[e]|contrac[t]|brie[f])\b(?! ({ISSUE_OF_A_WARP}))"),
}

# What an __init__ may hold beside its docstring: lazy public names.
LAZY_NAMES = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign)
LAZY_FUNCTIONS = ("__getattr__", "__dir__")


def report(wrong: list[str]) -> None:
    assert not wrong, "\n".join(wrong)


def test_file_sizes(tree):
    lengths = {source.place: len(source.text.splitlines()) for source in tree.python}
    report(
        [
            f"{place}: {length} lines, the limit is {MAX_FILE_LINES}"
            for place, length in lengths.items()
            if length > MAX_FILE_LINES and place not in LONG_FILES
        ]
    )
    stale = [place for place in LONG_FILES if lengths.get(place, 0) <= MAX_FILE_LINES]
    report([f"{place}: no longer needs its exception" for place in stale])


def test_function_sizes(tree):
    lengths = {
        f"{source.place}:{node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for source in tree.code
        for node in ast.walk(source.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    report(
        [
            f"{place}: {length} lines, the limit is {MAX_FUNCTION_LINES}"
            for place, length in lengths.items()
            if length > MAX_FUNCTION_LINES and place not in LONG_FUNCTIONS
        ]
    )
    stale = [place for place in LONG_FUNCTIONS if lengths.get(place, 0) <= MAX_FUNCTION_LINES]
    report([f"{place}: no longer needs its exception" for place in stale])


def test_every_module_says_what_it_is(tree):
    """The docstring begins with one sentence: the module's line in the map of the project."""
    wrong = []
    for source in tree.python:
        docstring = ast.get_docstring(source.tree) or ""
        first, _, rest = docstring.partition("\n")
        if not first.endswith((".", ":", "`")) or (rest and not rest.startswith("\n")):
            wrong.append(f"{source.place}: the docstring must begin with one line that ends like a sentence")
    report(wrong)


def test_public_classes_say_what_they_are(tree):
    report(
        [
            f"{source.place}:{node.lineno}: class {node.name} has no docstring"
            for source in tree.code
            for node in source.tree.body
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and not ast.get_docstring(node)
        ]
    )


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        (ast.Assert, "assert vanishes under python -O: raise an error"),
        (ast.Global, "global: no module has mutable state"),
    ],
)
def test_statements_that_code_may_not_use(tree, kind, complaint):
    report(
        [
            f"{source.place}:{node.lineno}: {complaint}"
            for source in tree.code
            for node in ast.walk(source.tree)
            if isinstance(node, kind)
        ]
    )


def test_no_relative_or_star_imports(tree):
    report(
        [
            f"{source.place}:{node.lineno}: relative or star import"
            for source in tree.python
            for node in ast.walk(source.tree)
            if isinstance(node, ast.ImportFrom) and (node.level or any(alias.name == "*" for alias in node.names))
        ]
    )


def test_nothing_is_pickled(tree):
    report(
        [
            f"{source.place}:{found.line}: import of {found.module}"
            for source in tree.code
            for found in tree.imports(source)
            if found.module.split(".")[0] in ("pickle", "marshal", "shelve", "dill", "cloudpickle")
        ]
    )


def test_init_files_hold_a_docstring_and_lazy_names(tree):
    def allowed(node: ast.stmt) -> bool:
        if isinstance(node, ast.FunctionDef):
            return node.name in LAZY_FUNCTIONS
        if isinstance(node, ast.If):  # if TYPE_CHECKING: the names for type checkers
            return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        return isinstance(node, LAZY_NAMES)

    report(
        [
            f"{source.place}:{node.lineno}: more than a docstring and lazy names"
            for source in tree.code
            if source.path.name == "__init__.py"
            for node in source.tree.body[1:]
            if not allowed(node)
        ]
    )


def test_every_package_is_packed(tree):
    """Every folder with code is a package, and pyproject.toml lists it."""
    settings = tomllib.loads((tree.root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    folders = {source.path.parent for source in tree.code}
    bare = [folder for folder in folders if not (folder / "__init__.py").is_file()]
    report([f"{folder.relative_to(tree.root)}: no __init__.py" for folder in bare])
    found = [".".join(("birc", *folder.relative_to(tree.root).parts)) for folder in folders]
    assert sorted(settings["packages"]) == sorted(found)


def test_what_no_text_may_mention(tree):
    wrong = []
    for path in tree.texts():
        place = path.relative_to(tree.root)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            found = [what for what, pattern in FORBIDDEN.items() if pattern.search(line)]
            wrong += [f"{place}:{number}: mentions {what}: {line.strip()[:80]}" for what in found]
    report(wrong)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("see /" + "home/me/x", "a path of somebody's machine"),
        ("as DESIGN" + ".md says", "a note outside"),
        ("what the " + "issue asks", "a task"),
    ],
)
def test_the_patterns_match_what_they_forbid(line, what):
    assert FORBIDDEN[what].search(line)


def test_the_patterns_leave_the_machine_its_words():
    assert not any(pattern.search("a warp waits for the " + "issue slot / home row") for pattern in FORBIDDEN.values())
