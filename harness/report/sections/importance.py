"""The section on parameter importance in the search, by two of Optuna's evaluators."""

from __future__ import annotations

import seaborn as sns

from harness.analysis import wording
from harness.analysis.study_data import StudyData
from harness.report import style
from harness.report.section import Section
from harness.report.style import Picture, drawing, picture

METHODS = {  # the evaluators of importance; the line break keeps the titles within the narrow figures
    "ped_anova": "PED-ANOVA:\nwhat separates the best of {} trials",
    "fanova": "fANOVA:\nwhat explains the spread of {} trials",
}


def importance_section(data: StudyData) -> Section | None:
    """Show the parameter importances; None if none are stored."""
    pictures = [
        importances(
            found["shares"],
            f"{strategy}-{method}",
            f"{wording.capital(wording.STRATEGY[strategy])}, {METHODS[method].format(found['trials'])}",
        )
        for strategy, methods in data.importance.items()
        for method, found in methods.items()
        if found.get("shares")  # files of an older form have none
    ]
    note = "The two methods answer different questions, and both see correlations only."
    return Section("importance", "What the search found to matter", pictures, note) if pictures else None


def importances(values: dict[str, float], key: str, title: str) -> Picture:
    """Draw one strategy's parameter importances by one evaluator as bars; all importances add up to one."""
    ranked = sorted(values.items(), key=lambda item: item[1], reverse=True)[:8]
    with drawing(360, 74 + 26 * len(ranked)) as (figure, axes):
        names = [name for name, _ in ranked]
        shares = [value for _, value in ranked]
        sns.barplot(x=shares, y=names, ax=axes, color=style.MUTED, saturation=1, width=0.55)
        for index, share in enumerate(shares):
            axes.annotate(f"{share:.2f}", (share, index), (5, 0), textcoords="offset points", va="center", fontsize=11)
        axes.set(xlabel="", ylabel="", xticks=[], xlim=(0, max([*shares, 0.01]) * 1.18))
        axes.grid(visible=False)
        axes.spines["bottom"].set_visible(False)
        axes.tick_params(labelcolor=style.INK)
        axes.set_title(title)
        described = ", ".join(f"{name} {value:.2f}" for name, value in ranked)
        return picture(figure, f"importance-{key}", f"{' '.join(title.split())}: {described}.")
