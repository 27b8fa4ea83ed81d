"""`make torture` from its first blow to `reports/benchmarks/torture.json`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from harness.benchmarks.fault_injection.endurance import SETTLED, endure
from harness.benchmarks.fault_injection.faults import Tally, torture
from harness.benchmarks.fault_injection.sandbox import prepare, undisturbed
from harness.benchmarks.task import Say, machine

OUT = Path("reports/benchmarks/torture.json")
KILLS = 50  # at the least, over as many studies as that takes


def run(say: Say, out: Path = OUT, kills: int = KILLS) -> list[str]:
    """Kill, disturb and outlast studies; print and write what came of it. Returns the promises that were broken."""
    began, tally, studies = time.monotonic(), Tally(), 0
    with TemporaryDirectory() as name:
        folder = Path(name)
        wanted = undisturbed(prepare(folder / "undisturbed"))
        say(f"{machine()}; an undisturbed study: {len(wanted)} results")
        while tally.kills < kills and not tally.faults:
            torture(prepare(folder / str(studies)), studies, wanted, tally)
            studies += 1
            say(f"study {studies}: {tally.kills} kills, {sum(tally.blows.values()) - tally.kills} other faults so far")
        long = endure(folder / "long")
    faults = [*tally.faults, *long.faults()]
    result: dict[str, Any] = {
        "machine": machine(),
        "studies": studies,
        "sessions": tally.sessions,
        "kills": tally.kills,
        "faults": sum(tally.blows.values()) - tally.kills,
        "blows": dict(tally.blows),
        "trials": tally.trials,
        "lost": len(tally.faults),
        "broken_promises": faults,
        "slowest_stop_s": tally.slowest_stop,
        "long_run": long.to_json(),
        "seconds": time.monotonic() - began,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    say(
        f"{tally.kills} kills, {result['faults']} other faults, {tally.sessions} sessions, {tally.trials} trials; "
        f"promises broken: {len(tally.faults)}; the slowest answer to a signal {tally.slowest_stop:.1f} s"
    )
    say(
        f"{long.trials} heads: memory +{long.growth_mb:.0f} MB after the first {SETTLED}, "
        f"{long.first_ms:.0f} ms a trial at first, {long.last_ms:.0f} at last, Ctrl-C {long.stop_seconds:.1f} s"
    )
    for fault in faults:
        say(f"BROKEN: {fault}")
    say(f"written to {out}; {result['seconds'] / 60:.1f} min")
    return faults
