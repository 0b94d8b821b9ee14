"""The house: who may import whom, read from the source."""

import ast
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import ragray

ROOT = Path(ragray.__file__).parent
MAX_LINES = 330
MAX_MODULES = 12

LAYERS: tuple[frozenset[str], ...] = tuple(
    frozenset(layer.split())
    for layer in (
        "errors",
        "jsontext text types",
        "failures interrupts",
        "progress",
        "config",
        "artifact",
        "execute",
        "convert",
        "device models openvino",
        "corpus",
        "examples",
        "embed",
        "index",
        "run",
        "retrieve",
        "generate",
        "train evaluate serve",
        "stages",
        "cluster",
        "api",
        "sample",
        "quickstart",
        "cli",
    )
)
"""A part imports itself and what stands above it; parts of one line never import each other."""
LEVEL = {part: level for level, layer in enumerate(LAYERS) for part in layer}


@dataclass(frozen=True)
class Import:
    """One name that a module imports: where, from which module, and whether importing it does that."""

    line: int
    module: str
    name: str = ""
    at_import: bool = True


@dataclass(frozen=True)
class Module:
    name: str
    path: Path
    tree: ast.Module

    @property
    def part(self) -> str:
        """The first name below ragray: a package or a module of the top level."""
        return self.name.split(".")[1] if "." in self.name else ""

    @property
    def packages(self) -> set[str]:
        """The packages that the module lies in."""
        parts = self.name.split(".")
        return {".".join(parts[:depth]) for depth in range(1, len(parts))}


def module_name(path: Path, root: Path) -> str:
    parts = [root.name, *path.relative_to(root).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules_of(root: Path) -> dict[str, Module]:
    paths = {module_name(path, root): path for path in sorted(root.rglob("*.py"))}
    return {name: Module(name, path, ast.parse(path.read_text(encoding="utf-8"))) for name, path in paths.items()}


def imports_of(tree: ast.AST, at_import: bool = True) -> Iterator[Import]:
    """Yield every import, also those inside functions and those for type checkers only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (Import(node.lineno, alias.name, at_import=at_import) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from (Import(node.lineno, module, alias.name, at_import) for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from imports_of(ast.Module(node.body, []), False)
            yield from imports_of(ast.Module(node.orelse, []), at_import)
        else:
            inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from imports_of(node, at_import and not inside)


def target(found: Import, modules: dict[str, Module]) -> str:
    """Return the module that is meant: `from ragray import artifact` means ragray.artifact."""
    below = f"{found.module}.{found.name}"
    return below if below in modules else found.module


def edges(modules: dict[str, Module]) -> dict[str, set[str]]:
    """Return who runs whom on being imported; a foreign package's `__init__` runs first, one's own has run already."""
    graph: dict[str, set[str]] = {}
    for module in modules.values():
        targets = {target(found, modules) for found in imports_of(module.tree) if found.at_import} & modules.keys()
        packages = {package for name in targets for package in modules[name].packages} - module.packages
        graph[module.name] = targets | packages - {module.name}
    return graph


def cycles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Return the strongly connected components of more than one module (or of one that imports itself)."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        ahead = list(graph[start])
        while ahead:
            node = ahead.pop()
            if node not in seen:
                seen.add(node)
                ahead += graph[node]
        return seen

    reach = {node: reached(node) for node in graph}
    components = {frozenset(one for one in reach[node] if node in reach[one]) for node in graph}
    return sorted((set(component) for component in components if component), key=min)


MODULES = modules_of(ROOT)


def every_import() -> Iterable[tuple[Module, Import]]:
    return ((module, found) for module in MODULES.values() for found in imports_of(module.tree))


def at(module: Module, line: int) -> str:
    return f"{module.path.relative_to(ROOT.parent)}:{line}"


# The tools of this test, tested.


def write_package(root: Path, **sources: str) -> dict[str, Module]:
    for name, source in {"__init__": "", **sources}.items():
        path = root / "pkg" / f"{name.replace('__in__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return modules_of(root / "pkg")


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ({"a": "import pkg.b", "b": "from pkg.c import x", "c": "if True:\n  from pkg import a"}, [{"a", "b", "c"}]),
        ({"a": "import pkg.b", "b": "class B:\n  import pkg.a", "c": "from pkg import a"}, [{"a", "b"}]),
        ({"a": "import pkg.b", "b": "def f():\n  import pkg.a"}, []),
        ({"a": "import pkg.b", "b": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n  import pkg.a"}, []),
        ({"a": "import pkg.b, pkg.c", "b": "import pkg.d", "c": "import pkg.d", "d": ""}, []),
    ],
)
def test_a_cycle_is_found_where_there_is_one(tmp_path: Path, sources: dict[str, str], expected: list[set[str]]) -> None:
    graph = edges(write_package(tmp_path, **sources))
    assert cycles(graph) == [{f"pkg.{name}" for name in component} for component in expected]


def test_importing_a_module_runs_the_packages_around_it(tmp_path: Path) -> None:
    modules = write_package(tmp_path, sub__in____init__="import pkg.a", sub__in__b="", a="import pkg.sub.b")
    assert cycles(edges(modules)) == [{"pkg.a", "pkg.sub"}]


# The rules.


def test_ray_is_imported_in_cluster_alone() -> None:
    users = [(module, found.line) for module, found in every_import() if found.module.split(".")[0] == "ray"]
    assert any(module.part == "cluster" for module, _ in users)
    assert [at(module, line) for module, line in users if module.part != "cluster"] == []


def test_no_module_imports_ray_when_it_is_itself_imported() -> None:
    users = [(module, found) for module, found in every_import() if found.module.split(".")[0] == "ray"]
    assert [at(module, found.line) for module, found in users if found.at_import] == []


def test_torch_is_imported_in_the_engines_alone_of_all_generation() -> None:
    users = [module for module, found in every_import() if found.module.split(".")[0] in ("torch", "transformers")]
    names = {module.name for module in users if module.part == "generate"}
    assert names
    assert [name for name in sorted(names) if not name.startswith("ragray.generate.engines.")] == []


def test_there_are_no_import_cycles() -> None:
    assert cycles(edges(MODULES)) == []


def test_every_part_has_its_place_in_the_order() -> None:
    assert {module.part for module in MODULES.values()} - {""} == set(LEVEL)


def test_parts_import_only_upwards() -> None:
    wrong = []
    for module, found in every_import():
        part = target(found, MODULES).removeprefix("ragray").removeprefix(".").split(".")[0]
        if not module.part or part not in LEVEL or not target(found, MODULES).startswith("ragray."):
            continue
        if part != module.part and LEVEL[part] >= LEVEL[module.part]:
            wrong.append(f"{at(module, found.line)}: {module.part} imports {part}")
    assert wrong == []


def test_imports_are_absolute() -> None:
    assert [at(module, found.line) for module, found in every_import() if found.module.startswith(".")] == []


def test_no_module_takes_a_name_from_the_init_of_a_package_around_it() -> None:
    wrong = [
        at(module, found.line)
        for module, found in every_import()
        if found.at_import and target(found, MODULES) in module.packages
    ]
    assert wrong == []


def test_importing_the_root_package_runs_no_other_module() -> None:
    assert edges(MODULES)["ragray"] == set()


def test_no_module_is_too_long_to_read_at_once() -> None:
    lengths = {at(module, len(module.path.read_text(encoding="utf-8").splitlines())) for module in MODULES.values()}
    assert [place for place in sorted(lengths) if int(place.rpartition(":")[2]) > MAX_LINES] == []


def test_no_folder_holds_more_modules_than_a_screen_shows() -> None:
    """`__init__` aside, which only says what the folder is for."""
    folders = Counter(module.path.parent for module in MODULES.values() if module.path.stem != "__init__")
    assert {str(path.relative_to(ROOT.parent)): n for path, n in folders.items() if n > MAX_MODULES} == {}


def test_every_module_begins_with_a_caption() -> None:
    captions = {name: ast.get_docstring(module.tree) or "" for name, module in MODULES.items()}
    assert [name for name, caption in captions.items() if not caption.partition("\n")[0].endswith(".")] == []


def asserts_on_data(tree: ast.AST) -> Iterator[int]:
    """Yield the lines of asserts that say more than that something of our own is there; what comes from outside gets an error."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert) and not ast.unparse(node.test).endswith(" is not None"):
            yield node.lineno


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("assert self._table is not None", []),
        ("assert isinstance(facts['num_rows'], int)", [1]),
        ("def f(x):\n  assert x > 0", [2]),
        ("raise ValueError", []),
    ],
)
def test_an_assert_on_data_is_found_where_there_is_one(source: str, lines: list[int]) -> None:
    assert list(asserts_on_data(ast.parse(source))) == lines


def test_no_assert_judges_data() -> None:
    assert [at(module, line) for module in MODULES.values() for line in asserts_on_data(module.tree)] == []


PICKLES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}


def unsafe_nodes(tree: ast.AST) -> Iterator[int]:
    """Yield the lines that load or save what may run code when it is read."""
    yield from (found.line for found in imports_of(tree) if found.module.split(".")[0] in PICKLES)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("torch.load", "torch.save"):
            yield node.lineno
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
            yield node.value.lineno


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("import pickle", [1]),
        ("def f():\n  from cloudpickle import loads", [2]),
        ("x = torch.load(path)", [1]),
        ("numpy.load(path, allow_pickle=True)", [1]),
        ("numpy.load(path, allow_pickle=False)", []),
        ("safetensors.torch.load_file(path)", []),
    ],
)
def test_a_pickle_is_found_where_there_is_one(source: str, lines: list[int]) -> None:
    assert list(unsafe_nodes(ast.parse(source))) == lines


def test_nothing_reads_or_writes_a_pickle() -> None:
    assert [at(module, line) for module in MODULES.values() for line in unsafe_nodes(module.tree)] == []
