"""Imports go down the floors only, in no circle; and what must not stand in the package does not."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "harness"
FLOORS = {
    "errors": 1,
    "atomic": 1,
    "safe_text": 1,
    "seeds": 1,
    "stop_signals": 1,
    "thread_waiting": 1,
    "config": 2,
    "data": 3,
    "model": 3,
    "results": 3,
    "training": 4,
    "search": 4,
    "tracking": 4,
    "analysis": 4,
    "report": 5,
    "study": 6,
    "doctor": 7,
    "benchmarks": 7,
    "cli": 8,
    "__main__": 9,
}
ALLOWED_BESIDE = {
    ("atomic", "errors"),  # a full disk is an error of its own
    ("tracking", "analysis"),  # a run's tags say the verdict in the words of the page
}
MOST_FILES = 25  # in one folder


def imports(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.lineno, node.module
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def floor_of(module: str) -> str:
    return module.split(".")[1]


FILES = sorted(PACKAGE.rglob("*.py"))


def test_every_import_goes_down() -> None:
    faults = []
    for path in FILES:
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        for line, module in imports(path):
            if not module.startswith("harness.") or floor_of(module) == room:
                continue
            other = floor_of(module)
            if FLOORS[other] >= FLOORS[room] and (room, other) not in ALLOWED_BESIDE:
                faults.append(f"{path.relative_to(PACKAGE)}:{line} imports {module}")
    assert not faults, faults


def test_no_file_imports_itself_in_a_circle() -> None:
    graph: dict[str, set[str]] = {}
    names = {
        ".".join(("harness", *p.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): p for p in FILES
    }
    for name, path in names.items():
        graph[name] = {m for _, m in imports(path) if m in names and m != name}
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, f"circle: {' -> '.join((*above[above.index(name) :], name))}"
        if name in done:
            return
        for other in sorted(graph[name]):
            if not name.startswith(other + "."):  # a package's __init__ may gather its files
                visit(other, (*above, name))
        done.add(name)

    for name in sorted(graph):
        visit(name, ())


# Which folders may import a library; the two other sides of the benchmarks are what users would write by hand.
LIBRARIES = {
    "optuna": ("search", "benchmarks/bookkeeping.py", "benchmarks/pruning.py"),
    "mlflow": ("tracking", "benchmarks/baseline_loop.py"),
    "torch": ("training", "model", "data", "tracking", "study", "doctor/rebuild.py", "benchmarks"),
    "torchvision": ("model/torchvision_models.py", "model/torchvision_weights.py", "data/sources/torchvision.py"),
    "timm": ("model/timm_models.py", "model/timm_weights.py", "model/timm_source.py"),
    "huggingface_hub": ("model/timm_weights.py",),
    "matplotlib": ("report", "benchmarks/report_size.py"),
    "seaborn": ("report",),
    "jinja2": ("report/html.py",),
    "typer": ("cli",),
    "pydantic": ("config",),
}


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_is_imported_in_its_folders_only(library: str) -> None:
    faults = []
    for path in FILES:
        relative = path.relative_to(PACKAGE).as_posix()
        if any(relative == place or relative.startswith(f"{place}/") for place in LIBRARIES[library]):
            continue
        faults += [f"{relative}:{line}" for line, module in imports(path) if module.split(".")[0] == library]
    assert not faults, faults


def test_a_verdict_is_reached_without_the_page() -> None:
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in (PACKAGE / "study").rglob("*.py")
        if any(module.startswith("harness.report") for _, module in imports(path))
    }
    assert users == {"study/coordinator.py"}  # writes the page when all is decided


def test_no_folder_holds_more_files_than_one_can_look_over() -> None:
    counts = {path.parent: len(list(path.parent.glob("*.py"))) for path in FILES}
    assert {str(folder): count for folder, count in counts.items() if count > MOST_FILES} == {}


def test_no_event_is_read_through_a_string_key_outside_results() -> None:
    faults = []
    for path in FILES:
        if path.relative_to(PACKAGE).parts[0] == "results":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            # event.data["…"] and event.data.get("…"): what an event holds has a type, so it has attributes
            key = node.slice if isinstance(node, ast.Subscript) else None
            held = node.value if isinstance(node, ast.Subscript) else None
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
                key, held = (node.args[0] if node.args else None), node.func.value
            if (
                isinstance(held, ast.Attribute)
                and held.attr == "data"
                and isinstance(key, ast.Constant)
                and isinstance(key.value, str)
            ):
                faults.append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
    assert not faults, faults


def test_only_search_asks_optuna_for_values() -> None:
    users = [p for p in FILES if re.search(r"\.suggest_", p.read_text(encoding="utf-8"))]
    assert [str(p.relative_to(PACKAGE)) for p in users] == ["search/optuna_params.py"]


@pytest.mark.parametrize(
    "word", [r"\bpickle\.loads?\(", r"(?<![\w.])eval\(", r"shell=True", r"yaml\.load\(", r"(?<![\w.])exec\("]
)
def test_nothing_in_the_package_runs_code_it_was_given(word: str) -> None:
    faults = [str(p) for p in FILES if re.search(word, p.read_text(encoding="utf-8"))]
    assert not faults
