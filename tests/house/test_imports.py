"""Who may import whom: the layers, no cycles, no imports in functions, one door a foreign library."""

from __future__ import annotations

import graphlib
import sys
import tomllib

RUNTIME = "birc.runtime"
IR = "birc.compiler.ir"
IMPORTER = "birc.compiler.importer"
PASSES = "birc.compiler.passes"
CODEGEN = "birc.codegen"
DRIVER = "birc.compiler"  # what stands in compiler/ itself sees all layers
CLI = "birc.cli"

# A layer and the layers it may import, besides itself.
LAYERS = {
    RUNTIME: (),
    IR: (RUNTIME,),
    IMPORTER: (RUNTIME, IR),
    PASSES: (RUNTIME, IR),
    CODEGEN: (RUNTIME, IR),
    DRIVER: (RUNTIME, IR, IMPORTER, PASSES, CODEGEN),
    CLI: (RUNTIME, IR, IMPORTER, PASSES, CODEGEN, DRIVER),
}

# A foreign library and the modules (or packages) that may import it.
DOORS = {
    "numpy": ("birc",),
    "ml_dtypes": ("birc",),
    "safetensors": (RUNTIME, "birc.compiler.ir.files"),
    "onnx": (IMPORTER, "birc.runtime.host"),
    "google": (IMPORTER,),  # protobuf, the form that ONNX files have
    "islpy": ("birc.compiler.ir.polyhedra",),
    "networkx": ("birc.compiler.ir.topology",),
    "typer": (CLI,),
    "rich": (CLI,),
    "ortools": (PASSES,),
    "onnxruntime": ("birc.compiler.importer.reference",),
}

# Modules that import a heavy library only when a model needs it, and which.
ON_DEMAND = {"birc.runtime.host": ("onnx",)}


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def layer(module: str) -> str:
    """The innermost layer that a module belongs to."""
    return max((name for name in LAYERS if within(module, name)), key=len)


def distributions(tree) -> tuple[set[str], set[str]]:
    """The required distributions of the project, and the optional ones."""
    project = tomllib.loads((tree.root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = (line for lines in project["optional-dependencies"].values() for line in lines)
    required = {line.split(">")[0] for line in project["dependencies"]}
    return required, {line.split(">")[0] for line in extras} - required


def test_layers(tree):
    wrong = [
        f"{source.place}:{found.line}: {layer(source.module)} may not import {found.module}"
        for source in tree.code
        for found in tree.imports(source)
        if within(found.module, "birc")
        and layer(found.module) not in (layer(source.module), *LAYERS[layer(source.module)])
    ]
    assert not wrong, "\n".join(wrong)


def test_the_layers_themselves_are_ordered():
    order = list(LAYERS)
    assert all(order.index(lower) < order.index(name) for name, lowers in LAYERS.items() for lower in lowers)


def test_no_cycles(tree):
    graph = {
        source.module: {found.module for found in tree.imports(source) if found.module in tree.modules}
        for source in tree.code
    }
    graphlib.TopologicalSorter(graph).prepare()


def test_imports_of_the_project_exist(tree):
    packages = {module.rsplit(".", 1)[0] for module in tree.modules}
    missing = [
        f"{source.place}:{found.line}: there is no module {found.module}"
        for source in tree.python
        for found in tree.imports(source)
        if within(found.module, "birc") and found.module not in tree.modules.keys() | packages
    ]
    assert not missing, "\n".join(missing)


def test_no_imports_inside_functions(tree):
    _, optional = distributions(tree)
    wrong = [
        f"{source.place}:{found.line}: import of {found.module} inside a function"
        for source in tree.code
        for found in tree.imports(source)
        if found.in_function and found.module.split(".")[0] not in (*optional, *ON_DEMAND.get(source.module, ()))
    ]
    assert not wrong, "\n".join(wrong)


def test_foreign_libraries_enter_by_their_door(tree):
    wrong = []
    for source in tree.code:
        for found in tree.imports(source):
            library = found.module.split(".")[0]
            if library == "birc" or library in sys.stdlib_module_names:
                continue
            if not any(within(source.module, door) for door in DOORS.get(library, ())):
                wrong.append(f"{source.place}:{found.line}: {library} has no door here")
    assert not wrong, "\n".join(wrong)


def test_every_library_with_a_door_is_declared(tree):
    required, optional = distributions(tree)
    names = {"protobuf" if library == "google" else library for library in DOORS}
    assert names <= required | optional


def test_folders_are_never_imported_by_their_bare_name(tree):
    bare = ("cli", "codegen", "compiler", "runtime")
    wrong = [
        f"{source.place}:{found.line}: import birc.{found.module}, not {found.module}"
        for source in tree.python
        for found in tree.imports(source)
        if found.module.split(".")[0] in bare
    ]
    assert not wrong, "\n".join(wrong)


def test_the_runtime_needs_no_compiler_library(tree):
    """A package runs with numpy, ml_dtypes and safetensors; host calls ask for more when used."""
    allowed = {"birc", "numpy", "ml_dtypes", "safetensors", *sys.stdlib_module_names}
    wrong = [
        f"{source.place}:{found.line}: {found.module}"
        for source in tree.code
        if within(source.module, RUNTIME)
        for found in tree.imports(source)
        if not found.in_function and found.module.split(".")[0] not in allowed
    ]
    assert not wrong, "\n".join(wrong)
