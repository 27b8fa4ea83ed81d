"""The command line: each command reads its arguments, calls one function and prints.

`harness --help` lists the commands in the order of these imports.
"""

from __future__ import annotations

import atexit
import gc
import sys
import traceback

# isort: off
from harness.cli import studies, data, maintain, inspect, benchmarks  # noqa: F401 - importing a module registers its commands

# isort: on
from harness.cli.app import app, err
from harness.cli.terminal import replace_missing_characters, take_warnings
from harness.errors import HarnessError


def main() -> None:
    """Run a command. A HarnessError is printed as one short text on stderr, and sets the exit code."""
    replace_missing_characters()
    take_warnings(err)
    atexit.register(_skip_last_collection)
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    try:
        app()
    except HarnessError as error:
        err.print(traceback.format_exc().rstrip() if debug else f"harness: {error}")
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except Exception:  # printed here, not by Python, so that control characters in it are escaped
        err.print(traceback.format_exc().rstrip())
        raise SystemExit(1) from None


def _skip_last_collection() -> None:
    """Skip Python's last garbage collection, which takes seconds after a study.

    It is not skipped if triton is loaded, as MLflow's export of a model does: triton would report its types as leaked.
    """
    if "triton" not in sys.modules:
        gc.freeze()
