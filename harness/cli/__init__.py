"""The command line: reads arguments, calls one function, prints. `harness --help` has the order of these imports."""

from __future__ import annotations

import atexit
import gc
import sys
import traceback

# isort: off
from harness.cli import studies, maintain, inspect, benchmarks  # noqa: F401 - each brings its commands along

# isort: on
from harness.cli.app import app, err
from harness.cli.terminal import take_warnings
from harness.errors import HarnessError


def main() -> None:
    """Run a command; every error of ours is one short text on stderr and its exit code."""
    take_warnings(err)
    atexit.register(_leave)
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
    except Exception:  # printed here, not by Python: a file's name in it must not steer the terminal
        err.print(traceback.format_exc().rstrip())
        raise SystemExit(1) from None


def _leave() -> None:
    """Spare Python its last look through all that is left, which takes seconds after a study.

    Not where triton is loaded (MLflow's export of a model does that): it would report each of its types as leaked.
    """
    if "triton" not in sys.modules:
        gc.freeze()
