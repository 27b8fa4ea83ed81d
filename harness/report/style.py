"""The style of the figures: matplotlib figures are drawn in the page's colours and written as small inline SVG.

Each colour below corresponds to a CSS variable. A figure is drawn once, in the light colours. When it is written as
SVG, each colour is replaced by its variable, so the page decides between light and dark. Text stays text, in the page's
font. Style attributes become plain SVG attributes, because a strict Content-Security-Policy forbids inline styles.
"""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

INK, MUTED, LINE, SURFACE, ZONE = "#1c2026", "#5b6470", "#d9dde2", "#fefefe", "#e8ebee"
STRATEGY = {"feature_extraction": "#0b6cae", "fine_tuning": "#c65102", "from_scratch": "#12805c"}
MARKER = {"feature_extraction": "o", "fine_tuning": "D", "from_scratch": "^"}
STEPS = ("#f3f1f9", "#e2ddf1", "#cdc5e7", "#b5a9db", "#9a8bcd", "#7f6dbd", "#6551a9", "#4c388e", "#35236d")

VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    LINE: "--line",
    SURFACE: "--surface",
    ZONE: "--zone",
    **{colour: f"--{name.replace('_', '-')}" for name, colour in STRATEGY.items()},
    **{colour: f"--step{index}" for index, colour in enumerate(STEPS)},
}
DENSE = 1500  # marks of a figure; if there are more, they are stored as pixels
FEW = 20  # marks of one artist that stay vector shapes in such a figure
PIXELS = 144  # pixels stored for an inch, which is 72 CSS pixels
# Marks that are stored as pixels are small, so that dense regions stand out, and of few colours, which takes few bytes.
DUST: dict[str, Any] = {"s": 9, "lw": 0, "antialiased": False}

_SVG, _XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
_DROPPED = {"font-family", "text-align"}
_RC: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "text.parse_math": False,  # the name of a class may be `$x$`
    "axes.formatter.use_mathtext": False,
    "font.size": 12,
    "axes.titlesize": 12,
    "axes.labelsize": 12,
    "xtick.labelsize": 11.5,
    "ytick.labelsize": 11.5,
    "axes.titlelocation": "left",
    "axes.titlecolor": MUTED,
    "axes.titlepad": 9,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINE,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "text.color": INK,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.linewidth": 1,
    "lines.solid_capstyle": "round",
    "figure.dpi": 72,
}


@dataclass(frozen=True)
class Picture:
    """A figure as inline SVG, with its alternative text for screen readers."""

    svg: str
    alt: str


@contextmanager
def drawing(width: int, height: int) -> Iterator[tuple[Figure, Axes]]:
    """Open a figure of this size in CSS pixels with one set of axes, in the style of the page."""
    with sns.axes_style("white"), rc_context(_RC):
        engine = ConstrainedLayoutEngine(w_pad=2 / 72, h_pad=2 / 72)
        figure = Figure(figsize=(width / 72, height / 72), layout=engine)
        yield figure, figure.subplots()


def picture(figure: Figure, key: str, alt: str) -> Picture:
    """Return the figure as inline SVG. Call it inside `drawing`, because it needs its settings.

    Args:
        key: prefix of every identifier in the SVG; it must be unique on the page.
        alt: what the figure shows, for screen readers.
    """
    marks = [artist for axes in figure.axes for artist in axes.collections if isinstance(artist, PathCollection)]
    counts = [np.asarray(artist.get_offsets()).shape[0] for artist in marks]
    if sum(counts) > DENSE:
        for artist, count in zip(marks, counts, strict=True):
            artist.set_rasterized(count > FEW)  # a single ringed mark stays a vector shape
    return Picture(_inline(_svg(figure), key, alt), alt)


def _svg(figure: Figure) -> str:
    """Return what `savefig` writes, in half the time: `savefig` draws a figure twice, first only for the layout."""
    canvas = FigureCanvasSVG(figure)  # text must be measured by the canvas that draws it
    engine = figure.get_layout_engine()
    assert engine is not None  # set by `drawing`
    engine.execute(figure)
    figure.set_layout_engine("none")  # otherwise the layout would be computed again
    figure.set_dpi(PIXELS)
    stream = io.StringIO()
    canvas.print_svg(stream, metadata={"Date": None, "Creator": None})  # type: ignore[no-untyped-call]
    return stream.getvalue()


def _inline(text: str, key: str, alt: str) -> str:
    """Turn matplotlib's SVG file into an element of a page: without header and styles, with prefixed identifiers."""
    root = ET.fromstring(text)  # noqa: S314 - written by matplotlib just before
    prefix = f"{key}-"
    for parent in root.iter():
        for child in list(parent):
            if child.tag in (f"{_SVG}metadata", f"{_SVG}style"):
                parent.remove(child)
    used = {element.get(f"{_XLINK}href", "").lstrip("#") for element in root.iter()}
    used |= {element.get("clip-path", "")[5:-1] for element in root.iter()}
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        for declaration in element.attrib.pop("style", "").split(";"):
            name, _, value = declaration.partition(":")
            if (name := name.strip()) and name not in _DROPPED:
                element.set(name, _variable(value.strip()))
        if href := element.attrib.pop(f"{_XLINK}href", None):
            element.set("href", f"#{prefix}{href[1:]}" if href.startswith("#") else href)
        if clip := element.get("clip-path"):
            element.set("clip-path", f"url(#{prefix}{clip[5:-1]})")
        if (name := element.attrib.pop("id", "")) in used and name:
            element.set("id", prefix + name)
        if path := element.get("d"):
            element.set("d", " ".join(path.split()))
        if element.get("transform", "").startswith("rotate(-0 "):
            del element.attrib["transform"]
        if not (element.tag == "text" and element.text):
            element.text = None
        element.tail = None
    width, height = (root.get("viewBox") or "0 0 0 0").split()[2:]
    root.attrib = {
        "viewBox": f"0 0 {width} {height}",
        "width": width,
        "height": height,
        "role": "img",
        "aria-label": alt,
    }
    return ET.tostring(root, encoding="unicode", short_empty_elements=True)


def _variable(value: str) -> str:
    """Return the CSS variable of a colour; any other value stays."""
    name = VARIABLES.get(value)
    return f"var({name})" if name else value


def step(share: float) -> str:
    """Return the colour of a share in [0, 1] on the sequential scale."""
    return STEPS[min(int(share * len(STEPS)), len(STEPS) - 1)]
