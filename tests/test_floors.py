"""Imports go down the floors only, in no circle; and what must not stand in the package does not."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "harness"
FLOORS = {
    "errors": 1, "files": 1, "config": 2, "data": 3, "model": 3, "results": 3,
    "training": 4, "search": 4, "tracking": 4, "report": 4,
    "study": 5, "terminal": 6, "progress": 6, "cli": 6, "__main__": 7,
    "bench": 6,
}  # fmt: skip
ALLOWED_BESIDE = {
    ("files", "errors"), ("results", "config"), ("progress", "cli"), ("cli", "progress"), ("cli", "bench"),
    ("cli", "terminal"), ("progress", "terminal"), ("tracking", "report"),
}  # fmt: skip


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


@pytest.mark.parametrize(
    ("rooms", "library", "only"),
    [
        (("report", "results"), "torch", ()),
        (("report",), "optuna", ()),
        (("report",), "mlflow", ()),
        (("config",), "torch", ()),
        (
            ("model", "training"),
            "torchvision",
            ("model/torchvision_models.py", "model/torchvision_weights.py"),
        ),
        (
            None,
            "mlflow",
            (
                "tracking/mlflow_bridge.py",
                "tracking/mlflow_store.py",
                "tracking/mlflow_models.py",
                "bench/plain.py",  # the other side of the benchmark
            ),
        ),
    ],
)
def test_libraries_stay_in_their_rooms(rooms: tuple[str, ...] | None, library: str, only: tuple[str, ...]) -> None:
    for path in FILES:
        relative = path.relative_to(PACKAGE)
        if str(relative) in only or (rooms is not None and relative.parts[0] not in rooms):
            continue
        found = [line for line, module in imports(path) if module == library or module.startswith(library + ".")]
        assert not found, f"{relative}:{found} imports {library}"


def test_only_search_asks_optuna_for_values() -> None:
    users = [p for p in FILES if re.search(r"\.suggest_", p.read_text(encoding="utf-8"))]
    assert [str(p.relative_to(PACKAGE)) for p in users] == ["search/optuna_params.py"]


@pytest.mark.parametrize(
    "word", [r"\bpickle\.loads?\(", r"(?<![\w.])eval\(", r"shell=True", r"yaml\.load\(", r"(?<![\w.])exec\("]
)
def test_nothing_in_the_package_runs_code_it_was_given(word: str) -> None:
    faults = [str(p) for p in FILES if re.search(word, p.read_text(encoding="utf-8"))]
    assert not faults
