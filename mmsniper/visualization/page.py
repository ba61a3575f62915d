"""A page of HTML that stands alone: its pictures are in it, and it loads nothing."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray

from mmsniper.chips import NEGATIVE, ScalePyramid
from mmsniper.visualization.chips import CROWD, INVALID, VALID, ChipView
from mmsniper.visualization.false_positives import FINDER, FalsePositive
from mmsniper.visualization.figure import BAD, GOOD, IGNORED, MISSED, level_colour
from mmsniper.visualization.picture import as_picture

TEMPLATE = 'report.html'
_QUALITY = 80  # of JPEG
_SMALLER = 0.8  # a picture that takes too many bytes is made this much smaller, again and again
_LEAST_SIDE = 64  # px; nothing would be seen in less
_NAMED = 400  # boxes of a layer that say what they are; each costs 100 bytes

Box = tuple[float, float, float, float]
Outline = Sequence[float]
"""A box, or the four corners of a rotated one."""


@dataclass(frozen=True)
class Layer:
    """Boxes that are drawn alike, over a picture.

    Args:
        key (str): What the page shows and hides together.
        colour (str): Of the lines.
        boxes (Sequence[Outline]): xyxy, or the corners of rotated ones, in the units of the scene's
            window.
        texts (Sequence[str]): What each box is, told where the mouse is. Defaults to (), nothing.
        dashed (bool): Dashed lines. Defaults to False.
        wide (bool): Thick lines and a tint, for chips. Defaults to False.
        dots (bool): Only the centres, for proposals. Defaults to False.
    """

    key: str
    colour: str
    boxes: Sequence[Outline]
    texts: Sequence[str] = ()
    dashed: bool = False
    wide: bool = False
    dots: bool = False

    @property
    def path(self) -> str:
        """All boxes as one SVG path: scenes have thousands."""
        if self.dots:
            return ''.join(
                f'M{(x0 + x1) / 2:.7g} {(y0 + y1) / 2:.7g}h0' for x0, y0, x1, y1 in self.boxes
            )
        return ''.join(map(_outline, self.boxes))

    @property
    def named(self) -> list[tuple[str, str, str, str, str]]:
        """Left, top, width, height and text of the boxes that say what they are."""
        return [
            (f'{x0:.7g}', f'{y0:.7g}', f'{x1 - x0:.7g}', f'{y1 - y0:.7g}', text)
            for (x0, y0, x1, y1), text in zip(map(_around, self.boxes[:_NAMED]), self.texts)
        ]


def _outline(box: Outline) -> str:
    """A box as a part of an SVG path."""
    if len(box) == 4:
        x0, y0, x1, y1 = box
        return f'M{x0:.7g} {y0:.7g}H{x1:.7g}V{y1:.7g}H{x0:.7g}Z'
    return 'M' + 'L'.join(f'{x:.7g} {y:.7g}' for x, y in zip(box[::2], box[1::2])) + 'Z'


def _around(box: Outline) -> Outline:
    """The upright box around a box."""
    x, y = box[::2], box[1::2]
    return min(x), min(y), max(x), max(y)


@dataclass(frozen=True)
class Scene:
    """A picture with boxes over it.

    Args:
        picture (str): A ``data:`` address, see :func:`jpeg_uri`.
        frame (Box): Where the picture lies, xyxy.
        window (Box): What is shown, xyxy, in the same units; it may reach beyond the picture.
        layers (Sequence[Layer]): The boxes, later ones above earlier ones. Defaults to ().
        title (str): Below the picture. Defaults to ''.
        lines (Sequence[str]): Below that. Defaults to ().
    """

    picture: str
    frame: Box
    window: Box
    layers: Sequence[Layer] = field(default_factory=tuple)
    title: str = ''
    lines: Sequence[str] = ()


def jpeg_uri(picture: NDArray, max_side: int, max_bytes: int) -> str:
    """A picture as a ``data:`` address of a JPEG.

    Args:
        picture (np.ndarray): Any image, see :func:`as_picture`.
        max_side (int): Longer side, px.
        max_bytes (int): The picture is made smaller until the JPEG has at most so many bytes.
    """
    small = as_picture(picture, max_side)
    while True:
        _, code = cv2.imencode('.jpg', small, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        side = int(max(small.shape[:2]) * _SMALLER)
        if len(code) <= max_bytes or side < _LEAST_SIDE:
            return 'data:image/jpeg;base64,' + base64.b64encode(code.tobytes()).decode('ascii')
        small = as_picture(small, side)


_OF_STATE = (
    (INVALID, 'nowhere', BAD, True),
    (CROWD, 'ignored', IGNORED, True),
    (VALID, 'learned', GOOD, False),
)


def chip_scene(
    view: ChipView,
    pyramid: ScalePyramid,
    max_side: int,
    max_bytes: int,
    limits: tuple[float, float] | None = None,
) -> Scene:
    """What the network sees of a chip.

    Args:
        view (ChipView): The chip.
        pyramid (ScalePyramid): Its pyramid.
        max_side, max_bytes (int): Of the picture, see :func:`jpeg_uri`.
        limits (tuple[float, float] | None): What is black and white, see :func:`as_picture`.
            Defaults to None, that of the chip.
    """
    height, width = view.image.shape[:2]
    layers, counts = [], {}
    for state, key, colour, dashed in _OF_STATE:
        boxes = view.boxes[view.states == state].tolist()
        counts[key] = len(boxes)
        names = [name for name, s in zip(view.names, view.states.tolist()) if s == state]
        layers.append(Layer(key, colour, boxes, names, dashed))
    side = float(pyramid.chip_size)
    negative = 'negative, ' if view.kind == NEGATIVE else ''
    return Scene(
        jpeg_uri(as_picture(view.image, None, limits), max_side, max_bytes),
        (0, 0, width, height),
        (0, 0, max(side, width), max(side, height)),
        layers,
        f'{negative}level {view.level}, ×{view.scale:.2g}',
        [f'{counts["learned"]} learned, {counts["nowhere"]} left alone'],
    )


def chip_layers(
    boxes: NDArray, levels: NDArray, negative: NDArray, pyramid: ScalePyramid
) -> list[Layer]:
    """The chips of an image, a layer for each level, coarse to fine, and one of negative ones.

    Args:
        boxes (np.ndarray): (n, 4) xyxy, original px.
        levels (np.ndarray): (n,) level of each chip.
        negative (np.ndarray): (n,) bool.
        pyramid (ScalePyramid): The pyramid.
    """
    layers = []
    for level in range(pyramid.num_levels)[::-1]:
        mine = boxes[(levels == level) & ~negative].tolist()
        layers.append(Layer(f'level-{level}', level_colour(level), mine, wide=True))
    mine = boxes[negative].tolist()
    layers.append(Layer('negative', BAD, mine, dashed=True, wide=True))
    return layers


def false_positive_scene(found: FalsePositive, max_side: int, max_bytes: int) -> Scene:
    """A wrong detection in its surroundings, with what is truly there.

    Args:
        found (FalsePositive): The detection.
        max_side, max_bytes (int): Of the picture, see :func:`jpeg_uri`.
    """
    names, same = list(found.names), found.same_class.tolist()
    layers = [
        Layer('crowd', IGNORED, found.crowds.tolist(), dashed=True),
        Layer(
            'other-class',
            MISSED,
            found.objects[~found.same_class].tolist(),
            [name for name, is_same in zip(names, same) if not is_same],
            dashed=True,
        ),
        Layer(
            'same-class',
            GOOD,
            found.objects[found.same_class].tolist(),
            [name for name, is_same in zip(names, same) if is_same],
        ),
        Layer('finder', FINDER, found.finder.tolist()),
        Layer('wrong', BAD, [found.box.tolist()]),
    ]
    where = found.where
    picture = jpeg_uri(where.picture, max_side, max_bytes)
    return Scene(picture, where.frame, where.window, layers, found.title, found.lines)


def render(content: dict[str, Any]) -> str:
    """The page, as text that can be written in UTF-8. What comes from outside is escaped.

    Args:
        content (dict): The variables of the template ``report.html``.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(TEMPLATE).render(content)
    # Names of files and classes may have surrogates, which no text file can.
    return page.encode('utf-8', 'backslashreplace').decode('utf-8')
