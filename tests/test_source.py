"""No line of the package runs code that it was given, or writes to the terminal past `terminal.py`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "harness"
FILES = sorted(PACKAGE.rglob("*.py"))

# Modules whose loading runs what a file says, and the names of them that are harmless: pickle's error is caught.
UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
HARMLESS = {"pickle.UnpicklingError"}
UNSAFE_CALLS = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "os.system",
    "os.popen",
    "os.execv",
    "os.execvp",
    "os.spawnl",
    "subprocess.getoutput",
    "subprocess.getstatusoutput",
    "yaml.load",
    "yaml.load_all",
    "yaml.unsafe_load",
    "yaml.full_load",
    "yaml.unsafe_load_all",
    "yaml.full_load_all",
    "torch.hub.load",
    "torch.jit.load",
    "torch.hub.load_state_dict_from_url",
    "load_state_dict_from_url",
    "pandas.read_pickle",
    "pd.read_pickle",
}
YAML_LOADERS = {"Loader", "FullLoader", "UnsafeLoader", "CLoader", "CFullLoader", "CUnsafeLoader"}


def name_of(node: ast.AST) -> str:
    """`torch.hub.load` of such an expression; "" of any other."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{inner}.{node.attr}" if (inner := name_of(node.value)) else ""
    return ""


def says(call: ast.Call, name: str, value: object) -> bool:
    """Whether the call gives this keyword as this constant."""
    return any(k.arg == name and isinstance(k.value, ast.Constant) and k.value.value is value for k in call.keywords)


def faults(source: str) -> Iterator[str]:
    """Every place where this source could run what it reads, as `line: what`."""
    for node in ast.walk(ast.parse(source)):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            if node.module in UNSAFE_MODULES:
                yield from (f"{line}: {name}" for name in names if name not in HARMLESS)
            yield from (f"{line}: {name}" for name in names if name in UNSAFE_CALLS)
        elif isinstance(node, ast.Attribute):
            name = name_of(node)
            if name.partition(".")[0] in UNSAFE_MODULES and name not in HARMLESS:
                yield f"{line}: {name}"
            if name.partition(".")[0] == "yaml" and node.attr in YAML_LOADERS:
                yield f"{line}: {name}"
        elif isinstance(node, ast.Call):
            name = name_of(node.func)
            if name in UNSAFE_CALLS:
                yield f"{line}: {name}"
            if any(k.arg == "shell" for k in node.keywords) and not says(node, "shell", False):
                yield f"{line}: shell"
            if name == "torch.load" and not says(node, "weights_only", True):
                yield f"{line}: torch.load"
            if any(k.arg == "allow_pickle" for k in node.keywords) and not says(node, "allow_pickle", False):
                yield f"{line}: allow_pickle"
            if any(k.arg == "trust_repo" or k.arg == "trust_remote_code" for k in node.keywords):
                yield f"{line}: trusts code from elsewhere"


@pytest.mark.parametrize(
    "source",
    [
        "import pickle\npickle.load(stream)",
        "import pickle\nclass Own(pickle.Unpickler): ...",
        "from pickle import loads",
        "import joblib\njoblib.load(path)",
        "eval(text)",
        "exec(text)",
        "__import__(name)",
        "import os\nos.system(line)",
        "from os import system",
        "subprocess.run(line, shell=True)",
        "subprocess.run(line, shell=flag)",
        "yaml.load(text, Loader=Own)",
        "yaml.load(text, Loader=yaml.UnsafeLoader)",
        "class Own(yaml.FullLoader): ...",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=flag)",
        "torch.hub.load('someone/models', 'net')",
        "from torch.hub import load_state_dict_from_url",
        "np.load(path, allow_pickle=True)",
        "pd.read_pickle(path)",
    ],
)
def test_the_reader_sees_what_runs_code(source: str) -> None:
    assert list(faults(source))


@pytest.mark.parametrize(
    "source",
    [
        "model.eval()",
        "import pickle\ntry: ...\nexcept pickle.UnpicklingError: ...",
        "torch.load(path, map_location='cpu', weights_only=True)",
        "subprocess.run(words, shell=False)",
        "re.compile(text)",
        "yaml.safe_load(text)",
        "class Own(yaml.SafeLoader): ...",
        "np.load(path, allow_pickle=False)",
    ],
)
def test_the_reader_lets_the_rest_pass(source: str) -> None:
    assert not list(faults(source))


def test_nothing_in_the_package_runs_code_from_a_file() -> None:
    found = [f"{path.relative_to(PACKAGE)}:{fault}" for path in FILES for fault in faults(path.read_text("utf-8"))]
    assert not found, found


def test_everything_that_people_read_goes_through_the_terminal() -> None:
    """Only what machines read, and holds no text of anyone else, is written by `sys.stdout.write`."""
    for_machines = {"cli/inspect.py", "benchmarks/data_cost.py", "benchmarks/report_size.py", "model/flops.py"}
    found = []
    for path in FILES:
        place = str(path.relative_to(PACKAGE))
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            name = name_of(node.func) if isinstance(node, ast.Call) else ""
            written = name in ("sys.stdout.write", "sys.stderr.write") and place not in for_machines
            if written or name in ("print", "Console", "rich.print", "typer.echo", "typer.secho", "click.echo"):
                found.append(f"{place}:{node.lineno}: {name}")
    assert not found, found
