"""The contact sheet: images of every class as the model will see them, each with an augmented view beside it.

A wrong channel, an inverted image or a black one is seen at a glance, before anything is trained.
"""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from harness.atomic import atomic_write
from harness.data.understanding.sheet_images import COLUMNS, NearStrip, Picture, Strip
from harness.errors import ConfigError

SUFFIXES = (".png", ".html")
_MOST_CLASSES = 60  # on a PNG sheet, which is one picture


def check_sheet(path: Path) -> None:
    """Check the name of a sheet before anything is read.

    Raises:
        ConfigError: its suffix is neither .png nor .html, or its folder does not exist.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"--sheet must name a file that ends in .png or .html, but got {path.name!r}")
    if not path.parent.is_dir():
        raise ConfigError(f"the folder of --sheet must exist, but there is no {path.parent}")


def write_sheet(path: Path, title: str, lines: list[str], strips: list[Strip], near: list[NearStrip]) -> None:
    """Write the sheet as one PNG or one HTML file without links to others.

    Args:
        title: heading.
        lines: sentences below it: the overview and its warnings.
        near: pairs of near duplicates; only the HTML sheet shows them.
    """
    page = _html(title, lines, strips, near).encode() if path.suffix.lower() == ".html" else _png(title, strips)
    atomic_write(path, page)


def _png(title: str, strips: list[Strip]) -> bytes:
    shown = strips[:_MOST_CLASSES]
    figure = Figure(figsize=(2.1 * COLUMNS + 1.8, 1.1 * len(shown) + 0.8), dpi=110, layout="constrained")
    figure.suptitle(f"{title} (left), and one augmented view (right)", fontsize=11, x=0.01, ha="left", parse_math=False)
    axes = figure.subplots(len(shown), COLUMNS, squeeze=False)
    for row, strip in zip(axes, shown, strict=True):
        for axis in row:
            axis.set_axis_off()
        for axis, (plain, view, _) in zip(row, strip.images, strict=False):
            line = np.full((len(plain), max(len(plain) // 32, 1), 3), 255, np.uint8)
            axis.imshow(np.hstack([plain, line, view]), interpolation="nearest")
        row[0].text(
            -0.05,
            0.5,
            f"{_short(strip.name)}\n{strip.count:,}",
            transform=row[0].transAxes,
            ha="right",
            va="center",
            fontsize=8,
            parse_math=False,
        )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:23]}…"


def _html(title: str, lines: list[str], strips: list[Strip], near: list[NearStrip]) -> str:
    body = [f"<h1>{html.escape(title)}</h1>", *(f"<p>{html.escape(line)}</p>" for line in lines)]
    body.append(
        "<p class=note>Each image is shown as the model will see it: decoded, resized and, to its right, as one "
        "augmented view.</p>"
    )
    for strip in strips:
        cells = "".join(
            f"<figure><img alt='' src='{_url(plain)}'><img alt='' src='{_url(view)}'>"
            f"<figcaption>{html.escape(name)}</figcaption></figure>"
            for plain, view, name in strip.images
        )
        body.append(f"<h2>{html.escape(strip.name)} <small>{strip.count:,} images</small></h2><div>{cells}</div>")
    if near:
        body.append("<h2>Images that show nearly the same</h2><div>")
        body += [
            f"<figure><img alt='' src='{_url(pair.first[0])}'><img alt='' src='{_url(pair.second[0])}'>"
            f"<figcaption>{html.escape(pair.first[1])}<br>{html.escape(pair.second[1])}"
            f"<br>similarity {pair.similarity:.2f}</figcaption></figure>"
            for pair in near
        ]
        body.append("</div>")
    return _PAGE.format(title=html.escape(title), body="\n".join(body))


def _url(picture: Picture) -> str:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format="PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title><style>
:root {{ color-scheme: light dark; }}
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem; }}
h1 {{ font-size: 1.4rem; }} h2 {{ font-size: 1.05rem; margin: 1.5rem 0 .4rem; }}
small, .note, figcaption {{ opacity: .75; font-weight: normal; }}
div {{ display: flex; flex-wrap: wrap; gap: .75rem; }}
figure {{ margin: 0; }} figcaption {{ font-size: .75rem; max-width: 13rem; overflow-wrap: anywhere; }}
img {{ width: 6.25rem; image-rendering: auto; margin-right: 2px; }}
</style></head><body>
{body}
</body></html>
"""
