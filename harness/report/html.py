"""The frame of every page: the template environment, style and script inline, and the policy that allows only them."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from harness.analysis import wording
from harness.results.metrics import METRICS
from harness.safe_text import escape_controls


def fill(template: str, *, styles: Sequence[str] = ("report.css",), script: str = "report.js", **values: Any) -> str:
    """Return a page as HTML. It loads nothing, and its policy allows only the script whose hash it contains.

    Args:
        template: file in templates/ that fills the blocks of page.html.
        styles: CSS files in templates/, joined in this order.
        script: JavaScript file in templates/.
        values: for the template, beside the labels and metrics that every page gets.
    """
    css, code = "".join(_asset(name) for name in styles), _asset(script)
    return (
        _environment()
        .get_template(template)
        .render(
            policy=policy(css, code),
            css=Markup(css),  # noqa: S704 - files of this package
            script=Markup(code),  # noqa: S704 - a file of this package
            metrics=METRICS,
            labels=wording.STRATEGY,
            states=wording.STATE,
            count=wording.count,
            **values,
        )
    )


def policy(css: str, script: str) -> str:
    """Return the Content-Security-Policy of a page with this one style and this one script."""
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{_digest(css)}'; script-src 'sha256-{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("harness.report"),
        autoescape=True,
        finalize=_escape_value,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "level": wording.level,
        "levels": wording.levels,
        "duration": wording.duration,
        "times": wording.times,
        "probability": wording.probability,
        "capital": wording.capital,
        "svg": lambda picture: Markup(picture.svg),  # noqa: S704 - written and escaped by ElementTree
    }
    return environment


def _escape_value(value: Any) -> Any:
    """Escape control characters in a value before HTML is escaped. `Markup` is made only in this package."""
    return escape_controls(value) if isinstance(value, str) and not isinstance(value, Markup) else value


@cache
def _asset(name: str) -> str:
    return (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
