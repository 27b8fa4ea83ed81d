"""Rendered cells: labelled microscopy images made by a small model of image formation.

The model places chromatin and cytoplasm as optical density, computes the transmitted light from the density and the
stain (Beer-Lambert), blurs it, lights it unevenly, and adds the noise of a camera that counts photons. Each slide has
its own stain, lamp, focus and exposure; a split must therefore keep slides together.

How difficult the classes are depends only on the physical numbers of `ImageFormation`; no label is ever changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

CLASSES = ("anaphase", "apoptotic", "binucleate", "interphase", "metaphase", "micronucleated")
SLIDES = 120
PER_SLIDE = 12  # two of each phenotype
SIZE = 64  # pixels a side

Field = NDArray[np.float64]  # (SIZE, SIZE)
Random = np.random.Generator


@dataclass(frozen=True)
class ImageFormation:
    """The physical numbers of the microscope and the specimen. Pairs are ranges of uniform draws."""

    # specimen, in pixels (one pixel is about 0.25 micrometres)
    nucleus_radius: tuple[float, float] = (8.5, 12.5)
    axis_ratio: tuple[float, float] = (0.68, 0.98)
    membrane_width: float = 0.9  # edge of a nucleus, from full to no density
    centre_jitter: float = 2.0  # standard deviation of the cell's place in the crop
    chromatin_grain: tuple[float, float] = (1.1, 2.2)  # correlation length of the texture
    chromatin_contrast: tuple[float, float] = (0.15, 0.45)  # relative standard deviation
    micronucleus_radius: tuple[float, float] = (2.3, 4.0)
    neighbours: float = 1.2  # mean number (Poisson) of cells that intrude from the border
    neighbour_distance: tuple[float, float] = (27.0, 38.0)  # between the centres
    debris: float = 0.3  # mean number (Poisson) of small stained grains in the field

    # stain, in optical density; between slides, then between the cells of one slide
    haematoxylin: tuple[float, float, float] = (0.65, 0.70, 0.29)  # Ruifrok and Johnston's directions
    eosin: tuple[float, float, float] = (0.09, 0.95, 0.28)
    stain_direction: float = 0.06  # standard deviation of each component, between slides
    haematoxylin_density: tuple[float, float] = (0.60, 1.15)  # of interphase chromatin
    eosin_density: tuple[float, float] = (0.10, 0.35)  # of cytoplasm
    cell_density: float = 0.16  # relative standard deviation between cells
    condensation: tuple[float, float] = (1.15, 1.9)  # density of mitotic and apoptotic chromatin, relative

    # light and camera
    gradient: float = 0.10  # standard deviation of the illumination's slope, fraction of the mean across the field
    vignetting: tuple[float, float] = (0.0, 0.18)  # loss of light in the corners, fraction
    white_balance: float = 0.05  # standard deviation of each channel's gain, between slides
    blur_in_focus: float = 0.75  # standard deviation of the point-spread function, pixels
    defocus: float = 0.75  # standard deviation of the slide's defocus, in pixels of added blur
    defocus_tilt: float = 0.30  # the same, between the images of a slide
    photons: tuple[float, float] = (250.0, 2500.0)  # white level of a pixel and channel, log-uniform between slides
    read_noise: tuple[float, float] = (2.0, 7.0)  # standard deviation, photons
    white_level: tuple[float, float] = (205.0, 248.0)  # grey value of a clear field


@dataclass(frozen=True)
class RenderedCells:
    """Images (N, 64, 64, 3) uint8, labels and slides (N,) int64, and the names of the labels."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    slides: NDArray[np.int64]
    classes: tuple[str, ...] = CLASSES


_ROWS, _COLUMNS = np.mgrid[0:SIZE, 0:SIZE].astype(np.float64)


def _between(random: Random, limits: tuple[float, float]) -> float:
    return float(random.uniform(*limits))


def _blob(
    random: Random, y: float, x: float, major: float, minor: float, angle: float, *, edge: float, rough: float = 0.05
) -> Field:
    """Return the coverage in [0, 1] of an ellipse with a wavy outline: axes and edge in pixels, angle in radians."""
    dy, dx = _ROWS - y, _COLUMNS - x
    along = (dx * np.cos(angle) + dy * np.sin(angle)) / major
    across = (dy * np.cos(angle) - dx * np.sin(angle)) / minor
    radius = np.sqrt(along * along + across * across)
    outline = np.ones_like(radius)
    if rough:
        theta = np.arctan2(across, along)
        for waves in (2, 3, 5):
            outline += rough * random.normal() / np.sqrt(waves) * np.cos(waves * theta + random.uniform(0, 2 * np.pi))
    distance = (radius - outline) * np.sqrt(major * minor)  # about pixels, positive outside
    return np.asarray(1.0 / (1.0 + np.exp(np.clip(4.0 * distance / edge, -40.0, 40.0))))


@dataclass(frozen=True)
class _Cell:
    """The place of one cell and its amount of stain. `haematoxylin` and `eosin` are changed in place."""

    y: float
    x: float
    angle: float
    stain: float  # relative density of this cell
    texture: Field  # relative density of chromatin, mean 1
    haematoxylin: Field
    eosin: Field

    def at(self, along: float, across: float) -> tuple[float, float]:
        """Return the (y, x) of a point that is given in the cell's own axes."""
        cosine, sine = np.cos(self.angle), np.sin(self.angle)
        return self.y + along * sine + across * cosine, self.x + along * cosine - across * sine

    def add(self, chromatin: Field, density: float) -> None:
        np.maximum(self.haematoxylin, chromatin * density * self.stain * self.texture, out=self.haematoxylin)


def _cytoplasm(random: Random, cell: _Cell, radius: float, density: float, ratio: float = 0.8) -> None:
    major, minor = radius / np.sqrt(ratio), radius * np.sqrt(ratio)
    body = _blob(random, cell.y, cell.x, major, minor, cell.angle, edge=4.0, rough=0.10)
    np.maximum(cell.eosin, body * density * cell.stain, out=cell.eosin)


def _nucleus(
    random: Random, optics: ImageFormation, cell: _Cell, y: float, x: float, radius: float, density: float
) -> None:
    """Add a resting nucleus: textured chromatin and up to three nucleoli."""
    ratio = _between(random, optics.axis_ratio)
    major, minor = radius / np.sqrt(ratio), radius * np.sqrt(ratio)
    angle = cell.angle + random.normal(0, 0.4)
    body = _blob(random, y, x, major, minor, angle, edge=optics.membrane_width * 2)
    for _ in range(random.integers(0, 4)):
        away, turn = radius * 0.55 * np.sqrt(random.random()), random.uniform(0, 2 * np.pi)
        size = random.uniform(1.0, 2.2)
        spot_y, spot_x = y + away * np.sin(turn), x + away * np.cos(turn)
        spot = _blob(random, spot_y, spot_x, size, size, 0.0, edge=1.5, rough=0.0)
        body = body * (1.0 + random.uniform(-0.25, 0.55) * spot)
    cell.add(body, density)


def _interphase(random: Random, optics: ImageFormation, cell: _Cell) -> None:
    radius = _between(random, optics.nucleus_radius)
    _cytoplasm(random, cell, radius * random.uniform(1.5, 2.1), 1.0)
    _nucleus(random, optics, cell, cell.y, cell.x, radius, 1.0)


def _micronucleated(random: Random, optics: ImageFormation, cell: _Cell) -> None:
    """Add a resting nucleus and, next to it, a small one of the same chromatin."""
    radius = _between(random, optics.nucleus_radius)
    _cytoplasm(random, cell, radius * random.uniform(1.5, 2.1), 1.0)
    _nucleus(random, optics, cell, cell.y, cell.x, radius, 1.0)
    small = _between(random, optics.micronucleus_radius)
    away, turn = radius + small + random.uniform(0.3, 3.5), random.uniform(0, 2 * np.pi)
    y, x = cell.y + away * np.sin(turn), cell.x + away * np.cos(turn)
    cell.add(_blob(random, y, x, small, small * random.uniform(0.8, 1.0), turn, edge=1.4), random.uniform(0.85, 1.15))


def _binucleate(random: Random, optics: ImageFormation, cell: _Cell) -> None:
    """Add two resting nuclei in one cytoplasm, touching or a little apart."""
    radius = 0.78 * _between(random, optics.nucleus_radius)
    apart = radius * random.uniform(0.85, 1.35)
    _cytoplasm(random, cell, radius * random.uniform(2.1, 2.6), 1.0, ratio=0.7)
    for side in (-1.0, 1.0):
        y, x = cell.at(side * apart, random.normal(0, 1.0))
        _nucleus(random, optics, cell, y, x, radius * random.uniform(0.88, 1.12), 1.0)


def _plate(random: Random, cell: _Cell, along: float, length: float, width: float, bend: float, density: float) -> None:
    """Add condensed chromosomes across the cell's axis at `along`: a bent bar of overlapping clumps."""
    count = 7
    for place in np.linspace(-1.0, 1.0, count):
        y, x = cell.at(along + bend * place * place + random.normal(0, 0.35), place * length)
        thick = width * random.uniform(0.8, 1.2)
        cell.add(_blob(random, y, x, thick, length / count * 1.9, cell.angle, edge=1.3, rough=0.12), density)


def _metaphase(random: Random, optics: ImageFormation, cell: _Cell) -> None:
    """Add one plate, seen from the side or tilted towards the pole (broader and less dense)."""
    _cytoplasm(random, cell, random.uniform(16.0, 21.0), 0.8, ratio=0.93)
    tilt = random.random() ** 2  # 0 from the side, 1 from the pole
    length = random.uniform(8.0, 11.5)
    density = _between(random, optics.condensation)
    _plate(
        random,
        cell,
        0.0,
        length,
        random.uniform(2.0, 3.0) + 4.0 * tilt,
        random.normal(0, 0.8),
        density * (1.0 - 0.3 * tilt),
    )


def _anaphase(random: Random, optics: ImageFormation, cell: _Cell) -> None:
    """Add two plates that move apart, from early to late anaphase."""
    apart = random.uniform(3.6, 9.5)
    _cytoplasm(random, cell, random.uniform(16.0, 21.0), 0.8, ratio=0.78)
    density, length = _between(random, optics.condensation), random.uniform(6.0, 9.5)
    for side in (-1.0, 1.0):
        _plate(
            random,
            cell,
            side * apart,
            length * random.uniform(0.85, 1.1),
            random.uniform(1.8, 3.2),
            -side * random.uniform(0.0, 2.5),
            density,
        )


def _apoptotic(random: Random, optics: ImageFormation, cell: _Cell) -> None:
    """Add smooth, dense globules in a shrunken cell that takes up more eosin."""
    _cytoplasm(random, cell, random.uniform(10.0, 15.0), random.uniform(1.1, 1.9), ratio=0.9)
    density = _between(random, optics.condensation)
    for _ in range(random.integers(2, 7)):
        away, turn = 7.5 * np.sqrt(random.random()), random.uniform(0, 2 * np.pi)
        radius = random.uniform(1.8, 5.0)
        y, x = cell.y + away * np.sin(turn), cell.x + away * np.cos(turn)
        cell.add(_blob(random, y, x, radius, radius * random.uniform(0.8, 1.0), turn, edge=1.2, rough=0.03), density)


_PHENOTYPES: dict[str, Callable[[Random, ImageFormation, _Cell], None]] = {
    "anaphase": _anaphase,
    "apoptotic": _apoptotic,
    "binucleate": _binucleate,
    "interphase": _interphase,
    "metaphase": _metaphase,
    "micronucleated": _micronucleated,
}


@dataclass(frozen=True)
class _Slide:
    """The physical numbers that all images of one slide share."""

    haematoxylin: Field  # (3,) optical density of red, green, blue at concentration 1
    eosin: Field
    clear: Field  # (3,) relative light of a clear field
    slope: tuple[float, float]  # of the illumination, fraction across the field
    vignetting: float
    defocus: float  # pixels of added blur
    photons: float
    read_noise: float
    white_level: float
    grain: float
    contrast: float


def _slide(random: Random, optics: ImageFormation) -> _Slide:
    def direction(base: tuple[float, float, float]) -> Field:
        vector = np.maximum(np.asarray(base) + random.normal(0, optics.stain_direction, 3), 0.02)
        return np.asarray(vector / np.sqrt(np.sum(vector * vector)))

    low, high = np.log(optics.photons)
    return _Slide(
        haematoxylin=direction(optics.haematoxylin) * _between(random, optics.haematoxylin_density),
        eosin=direction(optics.eosin) * _between(random, optics.eosin_density),
        clear=np.clip(1.0 + random.normal(0, optics.white_balance, 3), 0.8, 1.15),
        slope=(random.normal(0, optics.gradient), random.normal(0, optics.gradient)),
        vignetting=_between(random, optics.vignetting),
        defocus=abs(random.normal(0, optics.defocus)),
        photons=float(np.exp(random.uniform(low, high))),
        read_noise=_between(random, optics.read_noise),
        white_level=_between(random, optics.white_level),
        grain=_between(random, optics.chromatin_grain),
        contrast=_between(random, optics.chromatin_contrast),
    )


def _specimen(random: Random, optics: ImageFormation, slide: _Slide, phenotype: str) -> tuple[Field, Field]:
    """Return the relative concentrations (SIZE, SIZE) of haematoxylin and eosin in one field."""
    noise = gaussian_filter(random.standard_normal((SIZE, SIZE)), slide.grain, mode="wrap")
    texture = np.maximum(1.0 + slide.contrast * noise / noise.std(), 0.1)
    haematoxylin, eosin = np.zeros((SIZE, SIZE)), np.full((SIZE, SIZE), 0.12)

    def cell(y: float, x: float) -> _Cell:
        stain = float(np.exp(random.normal(0, optics.cell_density)))
        return _Cell(y, x, random.uniform(0, 2 * np.pi), stain, texture, haematoxylin, eosin)

    middle = (SIZE - 1) / 2
    for _ in range(random.poisson(optics.neighbours)):
        away, turn = _between(random, optics.neighbour_distance), random.uniform(0, 2 * np.pi)
        kind = CLASSES[random.integers(len(CLASSES))] if random.random() < 0.3 else "interphase"
        _PHENOTYPES[kind](random, optics, cell(middle + away * np.sin(turn), middle + away * np.cos(turn)))
    y, x = np.clip(middle + random.normal(0, optics.centre_jitter, 2), middle - 8, middle + 8)
    target = cell(float(y), float(x))
    for _ in range(random.poisson(optics.debris)):
        radius, y, x = random.uniform(0.8, 2.2), random.uniform(0, SIZE), random.uniform(0, SIZE)
        target.add(_blob(random, y, x, radius, radius, 0.0, edge=1.2), random.uniform(0.3, 1.2))
    _PHENOTYPES[phenotype](random, optics, target)
    return haematoxylin, eosin


def _photograph(
    random: Random, optics: ImageFormation, slide: _Slide, haematoxylin: Field, eosin: Field
) -> NDArray[np.uint8]:
    """Return the camera's image (SIZE, SIZE, 3) of concentrations (SIZE, SIZE)."""
    density = haematoxylin[..., None] * slide.haematoxylin + eosin[..., None] * slide.eosin
    light = np.power(10.0, -density)
    added = slide.defocus + abs(random.normal(0, optics.defocus_tilt))
    sigma = float(np.sqrt(optics.blur_in_focus**2 + added**2))
    light = gaussian_filter(light, (sigma, sigma, 0), mode="nearest")
    v, u = _ROWS / (SIZE - 1) - 0.5, _COLUMNS / (SIZE - 1) - 0.5
    lamp = 1.0 + slide.slope[0] * v + slide.slope[1] * u - slide.vignetting * 2.0 * (u * u + v * v)
    # Expected photons are rounded, so that a different last bit of exp() on another platform changes no random draw.
    expected = np.rint(np.maximum(light * lamp[..., None] * slide.clear, 0.0) * slide.photons)
    counted = random.poisson(expected) + random.normal(0, slide.read_noise, expected.shape)
    return np.asarray(np.clip(np.rint(counted / slide.photons * slide.white_level), 0, 255), dtype=np.uint8)


def render(seed: int = 0, formation: ImageFormation | None = None, slides: int = SLIDES) -> RenderedCells:
    """Render the images of `slides` slides, with two images of each phenotype on each slide.

    The same seed gives the same bytes. Every image has its own random generator, so that the images of a smaller number
    of slides are the first ones of a larger number. All 120 slides take a few seconds on one core.
    """
    optics = formation or ImageFormation()
    images = np.empty((slides * PER_SLIDE, SIZE, SIZE, 3), np.uint8)
    labels = np.empty(slides * PER_SLIDE, np.int64)
    for number in range(slides):
        random = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, number])))
        slide = _slide(random, optics)
        order = random.permutation(np.repeat(np.arange(len(CLASSES)), PER_SLIDE // len(CLASSES)))
        for place, label in enumerate(order):
            own = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, number, place + 1])))
            row = number * PER_SLIDE + place
            images[row] = _photograph(own, optics, slide, *_specimen(own, optics, slide, CLASSES[label]))
            labels[row] = label
    return RenderedCells(images, labels, np.repeat(np.arange(slides), PER_SLIDE).astype(np.int64))
