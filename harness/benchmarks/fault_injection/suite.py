"""The whole of `make torture`: fault injection, the long study, and the result in reports/benchmarks/torture.json."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from harness.benchmarks.fault_injection.endurance import SETTLED, endure
from harness.benchmarks.fault_injection.faults import Tally, inject_faults
from harness.benchmarks.fault_injection.sandbox import prepare, run_undisturbed
from harness.benchmarks.task import Say, machine

OUT = Path("reports/benchmarks/torture.json")
KILLS = 50  # least number, over as many studies as needed
# The studies take turns. Nine trials a strategy are enough for the sampler to learn from earlier ones.
REGIMES: dict[str, dict[str, Any]] = {
    "everything": {},
    "two workers": {"workers": 2},
    "TPE": {"trials": 9, "controlled": None, "data_sizes": None, "shifts": None},
}


def run(say: Say, out: Path = OUT, kills: int = KILLS) -> list[str]:
    """Inject faults into studies, run a long one, print and write the result.

    Args:
        say: prints a line.
        out: the JSON file to write.
        kills: least number of kills.

    Returns:
        The promises that were broken, in words.
    """
    began, tally, studies = time.monotonic(), Tally(), 0
    # A shell lets a command in the background ignore SIGINT, nohup lets it ignore SIGHUP, and the studies would inherit
    # this: they would miss a signal that comes before they have handlers.
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) is signal.SIG_IGN:
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        say(machine())
        wanted = {}
        for name, changes in REGIMES.items():
            wanted[name] = run_undisturbed(prepare(folder / f"undisturbed {name}", **changes))
            say(f"an undisturbed study, {name}: {len(wanted[name])} results")
        names = list(REGIMES)
        while (tally.kills < kills or studies < len(names)) and not tally.broken:
            name = names[studies % len(names)]
            inject_faults(prepare(folder / str(studies), **REGIMES[name]), studies, wanted[name], tally)
            studies += 1
            others = sum(tally.injected.values()) - tally.kills
            say(f"study {studies}, {name}: {tally.kills} kills, {others} other faults so far")
        long = endure(folder / "long")
    faults = [*tally.broken, *long.faults()]
    result: dict[str, Any] = {
        "machine": machine(),
        "studies": studies,
        "regimes": list(REGIMES),
        "sessions": tally.sessions,
        "kills": tally.kills,
        "faults": sum(tally.injected.values()) - tally.kills,
        "blows": dict(tally.injected),
        "trials": tally.trials,
        "lost": len(tally.broken),
        "broken_promises": faults,
        "slowest_stop_s": tally.slowest_stop,
        "long_run": long.to_json(),
        "seconds": time.monotonic() - began,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    say(
        f"{tally.kills} kills, {result['faults']} other faults, {tally.sessions} sessions, {tally.trials} trials; "
        f"promises broken: {len(tally.broken)}; the slowest answer to a signal {tally.slowest_stop:.1f} s"
    )
    say(
        f"{long.trials} heads: memory +{long.growth_mb:.0f} MB after the first {SETTLED}, "
        f"{long.first_ms:.0f} ms for a trial at first, {long.last_ms:.0f} ms at last, Ctrl-C {long.stop_seconds:.1f} s"
    )
    for fault in faults:
        say(f"BROKEN: {fault}")
    say(f"written to {out}; {result['seconds'] / 60:.1f} min")
    return faults
