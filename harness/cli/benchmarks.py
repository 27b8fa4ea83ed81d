"""Commands that measure the harness itself. Each takes minutes to hours."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli.app import Name, app, given, say
from harness.errors import HarnessError


@app.command()
def bench(device: Annotated[str, typer.Option(envvar="HARNESS_DEVICE")] = "cpu") -> None:
    """Time whole sweeps and a plain loop in turns, and check that their losses are equal; write reports/benchmarks."""
    from harness.benchmarks.suite import run

    run(say, device or "cpu")


@app.command("bench-search")
def bench_search(
    name: Name, data: Annotated[str | None, typer.Option(envvar="HARNESS_DATA", help="Folder or CSV of images.")] = None
) -> None:
    """Compare pruning with one epoch for each trial and with no pruning, on a study's images."""
    from harness.benchmarks.pruning import run

    run(say, name, given(data))


@app.command()
def calibrate() -> None:
    """Count how often verdicts are wrong on simulated studies with a known answer; write reports/calibration."""
    from harness.benchmarks import aa_test, calibration, calibration_page
    from harness.benchmarks.task import machine

    counted = calibration.run(say)
    summary = calibration_page.write(calibration.FOLDER, counted, aa_test.run(say, calibration.FOLDER), machine())
    say(summary)


@app.command()
def torture() -> None:
    """Kill and disturb small real studies, and check that nothing is lost."""
    from harness.benchmarks.fault_injection.suite import run

    if faults := run(say):
        raise HarnessError(f"{len(faults)} promises were broken")
