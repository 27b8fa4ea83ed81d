"""The section with the recommended configuration and the lines of code to use it again."""

from __future__ import annotations

from typing import Any

import yaml

from harness.analysis.study_data import StudyData
from harness.analysis.verdict import Basis
from harness.analysis.wording import config_text, rate
from harness.config.parameters import PARAMETERS, idle, label
from harness.config.trial import TrialConfig
from harness.report.section import Section

_HEADINGS: dict[Basis, str] = {
    "better": "Recommended",
    "cheaper": "Recommended",
    "only_one": "Best configuration",
    "better_bet": "The better bet, not decided",
    "guessing": "Best so far, not told from guessing",
}


def recommendation_section(data: StudyData) -> Section:
    """Show the recommended configuration and how to use it. The section is always made; it is empty without one."""
    values = {"recommendation": recommendation(data)}
    return Section("recommendation", "Recommended", template="recommendation", values=values)


def recommendation(data: StudyData) -> dict[str, Any] | None:
    """Return the recommended configuration as rows of a table and as lines for a study file and for Python."""
    chosen = data.summary["recommendation"]
    if chosen is None:
        return None
    config = chosen["config"]
    off = idle(config)
    names = [name for name in (*PARAMETERS, "epochs") if config.get(name) is not None and name not in off]
    rows = [(label(name), config_text(name, config[name])) for name in names]
    run = data.state.by_id.get(chosen["trial_id"] or "")
    if run is not None and run.l2 is not None:
        rows.append(("L2 strength, chosen on validation", rate(run.l2)))
    return {
        "strategy": chosen["strategy"],
        "heading": _HEADINGS[chosen["basis"]],
        "rows": rows,
        "model": chosen["model"],
        "paste": _try_lines(chosen["strategy"], config),
        "tracking": data.study_json.get("tracking_uri") or "sqlite:///runs/mlflow.db",
    }


def _try_lines(strategy: str, config: dict[str, Any]) -> str:
    """Write the configuration as an entry under `try:` of a study file, without the values that are defaults."""
    defaults = TrialConfig(
        strategy="fine_tuning", backbone="", unfreeze_depth=-1, head_lr=0.0, backbone_lr=None
    ).to_json()
    kept = {"strategy": strategy}
    kept |= {k: v for k, v in config.items() if k in PARAMETERS and v is not None and v != defaults[k]}
    if strategy == "feature_extraction":
        kept.pop("unfreeze_depth", None)
    return "try:\n  - " + yaml.safe_dump(kept, sort_keys=False).strip().replace("\n", "\n    ")
