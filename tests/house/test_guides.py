"""README and CONTRIBUTING: the map is whole, what they name is there, links resolve, the tour runs."""

from __future__ import annotations

import importlib.util
import re
import shutil
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
GUIDES = ("README.md", "CONTRIBUTING.md")
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")
NAMED_FILE = re.compile(r"`([\w.-]+(?:/[\w.-]+)*/?)`")
NAMED_MODULE = re.compile(r"from (birc[\w.]*) import ([\w, ]+)")
WHATEVER = "NAME"  # stands for a name in recipes
HANDMADE_PAGES = sorted(path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")))


def read(place: str) -> str:
    return (ROOT / place).read_text(encoding="utf-8")


def tour() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tour", ROOT / "docs" / "tour.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_map_names_every_folder_with_code():
    settings = tomllib.loads(read("pyproject.toml"))["tool"]["setuptools"]
    folders = {name.removeprefix("birc.").replace(".", "/") for name in settings["packages"]}
    folders |= {"tests", "docs", "examples", "benchmarks"}
    mapped = set(re.findall(r"^\| `([\w/]+)/` \|", read("README.md"), re.MULTILINE))
    assert mapped == folders


@pytest.mark.parametrize("page", HANDMADE_PAGES)
def test_links_resolve(page: str):
    targets = [target for target in LINK.findall(read(page)) if "://" not in target]
    missing = [target for target in targets if not (ROOT / page).parent.joinpath(target).exists()]
    assert not missing


@pytest.mark.parametrize("guide", GUIDES)
def test_named_files_exist(guide: str):
    places = [name for name in NAMED_FILE.findall(read(guide)) if "/" in name and WHATEVER not in name]
    missing = [place for place in places if not (ROOT / place).exists()]
    assert len(places) > 5
    assert not missing


def test_every_recipe_names_its_files_and_its_tests():
    recipes = re.split(r"^### ", read("CONTRIBUTING.md").split("## House rules")[0], flags=re.MULTILINE)[1:]
    assert len(recipes) >= 6
    for recipe in recipes:
        files = [name for name in NAMED_FILE.findall(recipe) if "/" in name]
        assert any(name.startswith("tests/") for name in files), recipe.partition("\n")[0]
        assert any(not name.startswith("tests/") for name in files), recipe.partition("\n")[0]


@pytest.mark.parametrize("module_and_names", NAMED_MODULE.findall(read("README.md")), ids=lambda pair: pair[0])
def test_the_python_of_the_readme_imports(module_and_names: tuple[str, str]):
    module, names = module_and_names
    loaded = importlib.import_module(module)
    assert all(hasattr(loaded, name.strip()) for name in names.split(","))


def test_make_targets_of_the_readme_exist():
    targets = set(re.findall(r"^(\w+):", read("Makefile"), re.MULTILINE))
    assert set(re.findall(r"\bmake (\w+)\b +#", read("README.md"))) <= targets


@pytest.mark.skipif(shutil.which("bash") is None, reason="the commands are for a shell")
def test_the_commands_of_the_tour_run(tmp_path: Path):
    module = tour()
    module.prepare(tmp_path)
    blocks = module.blocks(read("README.md"))
    assert len(blocks) > 4 and all(blocks)
    for command in (command for block in blocks for command in block):
        assert module.run(command, tmp_path), command
