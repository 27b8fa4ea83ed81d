"""How names and numbers are written on the page and in the terminal, and what is removed from a text that is shown.

One file, so that a number looks the same in a sentence, a table, a figure and a log.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from harness.config.parameters import PARAMETERS
from harness.results.metrics import METRICS
from harness.safe_text import escape_controls, masked

MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"

STRATEGY = {
    "feature_extraction": "feature extraction",
    "fine_tuning": "fine-tuning",
    "from_scratch": "training from scratch",
}
STATE = {
    "complete": "complete",
    "pruned": "pruned",
    "diverged": "diverged",
    "out_of_memory": "out of memory",
    "failed": "failed",
}
SHIFT = {
    "": "as they are",
    "blur": "blur",
    "noise": "noise",
    "brightness": "brightness",
    "stain": "stain",
    "jpeg": "JPEG",
}
TOO_FEW = "too few test images to say"
FULL_SCALE = {"dtype": "of the stored type", "minmax": "each image's own range", "used": "the training images' range"}
FRAMES = {"max": "the maximum of all", "mean": "the mean of all", "each": "each is an image"}

_ESCAPE = r"\\(?:x[0-9a-f]{2}|u[0-9a-f]{4})"  # an escaped control character (see harness.safe_text) is no path
# An absolute path: a slash, a home or a drive, then two segments or more. The slashes of a URL do not count.
_PATH = re.compile(
    rf"(?<![\w:/.])(?!{_ESCAPE})(?:~|[A-Za-z]:)?"
    r"[\\/](?:[^\s\\/'\",;:<>|()\[\]]+[\\/])+(?=[^\s\\/'\",;:<>|()\[\]]*)"
)
_FILE_ADDRESS = re.compile(r"\b(?:file:/+|sqlite:(?:/{4,}|/{3}(?=[A-Za-z]:|~)))[^\s'\",;<>|()\[\]]*[\\/]")
_ROOT_PATH = re.compile(rf"(?!{_ESCAPE})(?:~|[A-Za-z]:)?[\\/][^\\/\n]+")  # a whole text that is a path of one segment


def capital(text: str) -> str:
    """Return the text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def shortened(name: str, length: int) -> str:
    """Return the name, cut to `length` characters with an ellipsis at the end if it is longer."""
    return name if len(name) <= length else name[: length - 1] + "\N{HORIZONTAL ELLIPSIS}"


def listed(words: Iterable[str], last: str = "and") -> str:
    """Join words: `a, b and c`."""
    *head, tail = list(words)
    return f"{', '.join(head)} {last} {tail}" if head else tail


def count(number: int, noun: str, plural: str | None = None) -> str:
    """Write a number with its noun: `1 seed`, `3 seeds`, `1,440 images`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def test_images(number: int, groups: int | None) -> str:
    """Write the size of the test split: `288 test images in 24 groups`."""
    return f"{number:,} test images" if groups is None else f"{number:,} test images in {groups:,} groups"


def unit(objective: str) -> str:
    """Return the unit of a difference: `points of balanced accuracy`, `nats of log-loss`, `of AUROC`."""
    metric = METRICS[objective]
    return f"{metric.unit} of {metric.label}".lstrip()


def difference(value: float, objective: str, signed: bool = False) -> str:
    """Write a difference without its unit: in percentage points with one decimal, or with three decimals."""
    percent = METRICS[objective].in_percent
    text = f"{value * 100:.1f}" if percent else f"{value:.3f}"
    if float(text) == 0:
        text = text.lstrip("-")
    elif signed and value > 0:
        text = f"+{text}"
    return text.replace("-", MINUS)


def points(value: float, objective: str) -> str:
    """Write a difference with `points` if the objective is in percent: `0.5 points`, or `0.005`."""
    return difference(value, objective) + (" points" if METRICS[objective].in_percent else "")


def interval(ends: Sequence[float], objective: str) -> str:
    """Write the ends of a 95 % interval: `0.5 to 5.3`; TOO_FEW if it says nothing."""
    return TOO_FEW if says_nothing(ends, objective) else " to ".join(difference(end, objective) for end in ends)


def gap(mean: float, ends: Sequence[float], objective: str) -> str:
    """Write a difference and its 95 % interval: `+2.9 (0.5 to 5.3)`."""
    return f"{difference(mean, objective, signed=True)} ({interval(ends, objective)})"


def says_nothing(ends: Sequence[float], objective: str) -> bool:
    """Whether an interval spans more than half of what the metric can be."""
    low, high = METRICS[objective].bounds
    return ends[1] - ends[0] > (high - low) / 2


def level(value: float | None, objective: str) -> str:
    """Write a score: `83.1 %`, or `0.831`; a dash if there is none."""
    if value is None or value != value:
        return DASH
    if METRICS[objective].in_percent:
        return f"{value * 100:.1f} %".replace("-", MINUS)
    return f"{value:.3f}".replace("-", MINUS)


def levels(ends: Sequence[float], objective: str) -> str:
    """Write the 95 % interval of a score: `79.0 % to 87.2 %`; TOO_FEW if it says nothing."""
    return TOO_FEW if says_nothing(ends, objective) else " to ".join(level(end, objective) for end in ends)


def probability(value: float) -> str:
    """Write a probability: `about 87 %`. Never 0 % or 100 %, which would be certainty: `more than 99 %`."""
    text = probability_short(value)
    signs = {">": "more than", "<": "less than"}
    return f"{signs[text[0]]}{text[1:]}" if text[0] in signs else f"about {text}"


def probability_short(value: float) -> str:
    """Write a probability for a table: `87 %`, `> 99 %`, `< 1 %`."""
    if value > 0.99:
        return "> 99 %"
    return "< 1 %" if value < 0.01 else f"{value * 100:.0f} %"


def rate(value: float | None) -> str:
    """Write a learning rate or another small number: `3.2e-4`; a dash if there is none."""
    if value is None or value != value:
        return DASH
    if value == 0 or 0.1 <= abs(value) < 1000:
        return f"{value:.3g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def duration(seconds: float | None) -> str:
    """Write a duration: `0.8 s`, `42 s`, `12 min`, `3 h 05 min`; a dash if there is none."""
    if seconds is None or seconds != seconds:
        return DASH
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 119.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def times(ratio: float) -> str:
    """Write a ratio: `5.3 times`, `42 times`."""
    return f"{ratio:.1f} times" if ratio < 9.95 else f"{ratio:.0f} times"


def redact(text: str) -> str:
    """Remove absolute paths (their last part stays), passwords in addresses and control characters from a text."""
    text = masked(text)
    if _ROOT_PATH.fullmatch(text):
        return "…/" + escape_controls(re.split(r"[\\/]", text)[-1])
    text = _FILE_ADDRESS.sub("…/", text)
    return escape_controls(_PATH.sub("…/", text))


def redact_all(value: Any) -> Any:
    """Apply `redact` to every string inside a JSON value, including keys."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {redact_all(key): redact_all(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact_all(item) for item in value]
    return value


def share(value: float | None) -> str:
    """Write a share in [0, 1]: `100 %`, `74 %`, `0.03 %`; a dash if there is none."""
    if value is None or value != value:
        return DASH
    return f"{value * 100:.2g} %" if value < 0.0995 else f"{value * 100:.0f} %"


def config_text(name: str, value: Any) -> str:
    """Write the value of a parameter; a dash if there is none."""
    if value is None or value != value:
        return DASH
    if name in PARAMETERS and PARAMETERS[name].kind == "float":
        return rate(float(value))
    return str(int(value)) if isinstance(value, float) else str(value)
