"""The command line: reads arguments, calls one function, prints. `harness --help` has the order of these imports."""

from __future__ import annotations

import sys

# isort: off
from harness.cli import studies, keeping, looking, measuring  # noqa: F401 - each brings its commands along

# isort: on
from harness.cli.app import app, err
from harness.errors import HarnessError


def main() -> None:
    """Run a command; every error of ours is one short text on stderr and its exit code."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    try:
        app()
    except HarnessError as error:
        if debug:
            raise
        err.print(f"harness: {error}", markup=False, highlight=False)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
