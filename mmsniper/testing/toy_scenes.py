"""Toy scenes: textured pictures with clusters of small labelled shapes and unlabelled look-alikes.

Classes differ by shape only, so that small objects need resolution. A look-alike is a shape with a
quarter missing, away from small objects: a training on chips around objects never sees one.
In rotated scenes shapes are elongated and lie at any angle.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

CLASSES: tuple[str, ...] = ('disc', 'ring', 'square', 'cross')
SPLITS: tuple[str, ...] = ('train', 'val')

SMALL_SIZES = (10.0, 40.0)
MEDIUM_SIZES = (36.0, 120.0)
LARGE_SIZES = (110.0, 400.0)
CLUSTER_SIDE = 150.0
"""Side of the square that holds a cluster, px: a 256 px chip at factor 1.5 sees 170 px."""
CLEARANCE = 250.0
"""No look-alike is nearer to a labelled small object (gap between boxes along one axis, px)."""
BOX_GAP = 4.0
"""Least gap between any two boxes of a scene, px: nothing occludes anything."""
EMPTY_SHARE = 0.05
"""Share of the scenes without any labelled object."""
ELONGATIONS = (1.5, 4.0)
"""Length to width of the shapes in rotated scenes."""

_TRIES = 200


@dataclass(frozen=True, eq=False)
class ToyObject:
    """One drawn shape.

    Attributes:
        label (int): Index into :data:`CLASSES`; of a look-alike, the class it resembles.
        corners (np.ndarray): (4, 2) of the tight rectangle around ``polygon`` in original px, one
            after the other. It lies at the shape's own angle, which in scenes that are not rotated
            is 0.
        polygon (np.ndarray): (k, 2) outline in original px. A ring is one closed line through both
            circles (even-odd rule), as COCO's polygon format has no holes.
        lookalike (bool): Whether the shape has a quarter missing and is left unlabelled.
    """

    label: int
    corners: np.ndarray
    polygon: np.ndarray
    lookalike: bool = False

    @property
    def box(self) -> np.ndarray:
        """(4,) xyxy in original px, exactly the extent of ``corners``."""
        return np.concatenate([self.corners.min(axis=0), self.corners.max(axis=0)])

    @property
    def size(self) -> float:
        """Square root of the area of the rectangle, original px."""
        sides = np.linalg.norm(np.diff(self.corners[:3], axis=0), axis=1)
        return float(np.sqrt(sides.prod()))


@dataclass(frozen=True, eq=False)
class ToyScene:
    """What is where in a scene; :func:`render_scene` makes the picture.

    Attributes:
        width (int): Image width, px.
        height (int): Image height, px.
        objects (tuple[ToyObject, ...]): Labelled shapes and look-alikes. Boxes are disjoint.
        entropy (tuple[int, ...]): Seed of the scene's random numbers.
    """

    width: int
    height: int
    objects: tuple[ToyObject, ...]
    entropy: tuple[int, ...]

    @property
    def labelled(self) -> tuple[ToyObject, ...]:
        """The objects with annotations."""
        return tuple(o for o in self.objects if not o.lookalike)

    @property
    def lookalikes(self) -> tuple[ToyObject, ...]:
        """The hard negatives."""
        return tuple(o for o in self.objects if o.lookalike)


def _arc(start: float, stop: float, radius: float, points: int) -> np.ndarray:
    angles = np.linspace(start, stop, points)
    return radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _disc(rng: np.random.Generator, points: int, lookalike: bool) -> np.ndarray:
    if not lookalike:
        return _arc(0, 2 * np.pi, 1.0, points + 1)[:-1]
    gap = rng.uniform(0, 2 * np.pi)
    return np.vstack([_arc(gap + np.pi / 4, gap + 7 * np.pi / 4, 1.0, points), [0, 0]])


def _ring(rng: np.random.Generator, points: int, lookalike: bool) -> np.ndarray:
    hole = rng.uniform(0.48, 0.6)
    start, stop = 0.0, 2 * np.pi
    if lookalike:
        gap = rng.uniform(0, 2 * np.pi)
        start, stop = gap + np.pi / 4, gap + 2 * np.pi - np.pi / 4
    return np.vstack([_arc(start, stop, 1.0, points + 1), _arc(stop, start, hole, points + 1)])


def _square(rng: np.random.Generator, points: int, lookalike: bool) -> np.ndarray:
    first = [(1, 0), (0, 0), (0, 1)] if lookalike else [(1, 1)]
    return np.array([*first, (-1, 1), (-1, -1), (1, -1)], dtype=float)


def _cross(rng: np.random.Generator, points: int, lookalike: bool) -> np.ndarray:
    t = rng.uniform(0.3, 0.38)
    right = [(t, t)] if lookalike else [(1, -t), (1, t), (t, t)]
    others = [(t, 1), (-t, 1), (-t, t), (-1, t), (-1, -t), (-t, -t), (-t, -1), (t, -1), (t, -t)]
    return np.array([*right, *others], dtype=float)


def _turned(points: np.ndarray, angle: float) -> np.ndarray:
    """Points (n, 2) turned around the origin, by radians."""
    cos, sin = np.cos(angle), np.sin(angle)
    return points @ np.array([[cos, sin], [-sin, cos]])


_OUTLINES = {'disc': _disc, 'ring': _ring, 'square': _square, 'cross': _cross}


def _unit_outline(
    rng: np.random.Generator, name: str, extent: float, lookalike: bool, tilt: float
) -> np.ndarray:
    """(k, 2) outline around the origin, about 2 wide, of a shape that will be ``extent`` px wide.

    What has corners is turned by at most ``tilt`` degrees, and of a look-alike by quarter turns
    too, so that any quarter may lack.
    """
    # Enough corners for a chord to stay within 0.1 px of its circle; a multiple of 4, so that
    # the polygon of a full circle touches its box on all four sides.
    points = 4 * int(np.clip(np.ceil(extent / 4), 6, 24))
    outline = _OUTLINES[name](rng, points, lookalike)
    if name in ('disc', 'ring'):
        return outline
    angle = np.radians(rng.uniform(-tilt, tilt))
    return _turned(outline, angle + (rng.integers(4) * np.pi / 2 if lookalike else 0.0))


def _of_size(outline: np.ndarray, size: float) -> np.ndarray:
    """The outline with a bounding box that starts at (0, 0) and has this size."""
    outline = outline - outline.min(axis=0)
    return outline * (size / np.sqrt(np.prod(outline.max(axis=0))))


def shape_outline(
    rng: np.random.Generator, name: str, size: float, lookalike: bool = False
) -> np.ndarray:
    """The outline of one shape.

    Args:
        rng (np.random.Generator): Source of its proportions and rotation.
        name (str): One of :data:`CLASSES`.
        size (float): Square root of the area of the outline's bounding box, px.
        lookalike (bool): Leave a quarter of the shape out. Defaults to False.

    Returns:
        np.ndarray: (k, 2) closed polygon whose bounding box starts at (0, 0).
    """
    outline = _unit_outline(rng, name, size, lookalike, tilt=20.0)
    return _of_size(outline * [np.exp(rng.uniform(-1, 1) * np.log(1.25)), 1.0], size)


def rotated_outline(
    rng: np.random.Generator, name: str, size: float, lookalike: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The outline of one elongated shape at any angle, and the rectangle around it.

    Args:
        rng (np.random.Generator): Source of its proportions and rotation.
        name (str): One of :data:`CLASSES`.
        size (float): Square root of the area of the rectangle, px.
        lookalike (bool): Leave a quarter of the shape out. Defaults to False.

    Returns:
        tuple[np.ndarray, np.ndarray]: (k, 2) closed polygon, and (4, 2) corners of the rectangle
        that encloses it tightly at its own angle, whose first side is ``ELONGATIONS`` times as long
        as its second. The bounding box of the rectangle starts at (0, 0).
    """
    length = size * np.sqrt(ELONGATIONS[1])
    outline = _unit_outline(rng, name, length, lookalike, tilt=0.0)
    elongation = np.exp(rng.uniform(*np.log(ELONGATIONS)))
    outline = _of_size(outline / np.ptp(outline, axis=0) * [elongation, 1.0], size)
    corners = outline.max(axis=0) * [(0, 0), (1, 0), (1, 1), (0, 1)]
    angle = rng.uniform(0, np.pi)
    outline, corners = _turned(outline, angle), _turned(corners, angle)
    start = corners.min(axis=0)
    return outline - start, corners - start


def box_gaps(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Distances of boxes (n, 4) from a box (4,), along the wider axis; negative if they overlap."""
    return np.maximum(boxes[:, :2] - box[2:], box[:2] - boxes[:, 2:]).max(axis=1)


class _Planner:
    """Places shapes into one scene, one after the other, without overlaps."""

    def __init__(self, rng: np.random.Generator, width: int, height: int, rotated: bool) -> None:
        self.rng = rng
        self.rotated = rotated
        self.bounds = np.array([width, height], dtype=float)
        self.objects: list[ToyObject] = []

    def boxes(self, lookalike: bool | None = None, below: float = np.inf) -> np.ndarray:
        """(n, 4) boxes so far of objects smaller than ``below``: all, labelled or look-alikes."""
        objects = (o for o in self.objects if lookalike in (None, o.lookalike))
        chosen = [o.box for o in objects if o.size < below]
        return np.array(chosen, dtype=float).reshape(-1, 4)

    def add(self, sizes: tuple[float, float], area: np.ndarray, lookalike: bool = False) -> None:
        """Put one shape fully inside ``area`` (xyxy), or leave it out where there is no room."""
        limit = 0.45 * self.bounds.min()
        size = np.exp(self.rng.uniform(*np.log(np.minimum(sizes, limit))))
        label = int(self.rng.integers(len(CLASSES)))
        if self.rotated:
            outline, corners = rotated_outline(self.rng, CLASSES[label], size, lookalike)
        else:
            outline = shape_outline(self.rng, CLASSES[label], size, lookalike)
            corners = outline.max(axis=0) * [(0, 0), (1, 0), (1, 1), (0, 1)]
        extent = corners.max(axis=0)
        low = np.maximum(area[:2], 2.0)
        high = np.minimum(area[2:], self.bounds - 2.0) - extent
        if (high < low).any():
            return
        others = self.boxes()
        avoid = self.boxes(False, SMALL_SIZES[1]) if lookalike else np.empty((0, 4))
        for corner in self.rng.uniform(low, high, (_TRIES, 2)):
            box = np.concatenate([corner, corner + extent])
            free = (box_gaps(box, others) >= BOX_GAP).all()
            if free and (box_gaps(box, avoid) >= CLEARANCE).all():
                self.objects.append(ToyObject(label, corners + corner, outline + corner, lookalike))
                return

    def square_at(self, centre: np.ndarray, side: float) -> np.ndarray:
        """Square around ``centre``, pushed into the image."""
        low = np.clip(centre - side / 2, 0.0, np.maximum(self.bounds - side, 0.0))
        return np.concatenate([low, np.minimum(low + side, self.bounds)])

    def add_labelled(self) -> None:
        """Clusters of small objects, medium ones around them, then large ones anywhere."""
        rng = self.rng
        centres: list[np.ndarray] = []
        for _ in range(rng.choice([1, 2, 3], p=[0.4, 0.4, 0.2])):
            if centres:  # near an earlier one: the rest of the picture stays free of objects
                angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(150, 300)
                centre = centres[0] + distance * np.array([np.cos(angle), np.sin(angle)])
            else:
                centre = rng.uniform(0, 1, 2) * self.bounds
            area = self.square_at(centre, CLUSTER_SIDE)
            centres.append((area[:2] + area[2:]) / 2)
            for _ in range(rng.integers(3, 7)):
                self.add(SMALL_SIZES, area)
        for _ in range(rng.integers(1, 4)):
            near = centres[rng.integers(len(centres))]
            self.add(MEDIUM_SIZES, self.square_at(near, 2.6 * CLUSTER_SIDE))
        for _ in range(rng.choice([0, 1, 2], p=[0.25, 0.55, 0.2])):
            self.add(LARGE_SIZES, np.array([0, 0, *self.bounds]))

    def add_lookalikes(self) -> None:
        """Clusters that look like those of labelled objects, as far from them as there is room."""
        rng = self.rng
        for _ in range(rng.choice([1, 2], p=[0.65, 0.35])):
            area = self._far_area()
            if area is None:
                return
            for _ in range(rng.integers(2, 5)):
                self.add(SMALL_SIZES, area, lookalike=True)
            if rng.uniform() < 0.5:
                around = self.square_at((area[:2] + area[2:]) / 2, 2 * CLUSTER_SIDE)
                self.add(MEDIUM_SIZES, around, lookalike=True)

    def _far_area(self) -> np.ndarray | None:
        """Square for a cluster, ``CLEARANCE`` off all small objects and far off medium ones."""
        small = self.boxes(lookalike=False, below=SMALL_SIZES[1])
        medium = self.boxes(lookalike=False, below=MEDIUM_SIZES[1])
        lookalikes = self.boxes(lookalike=True)
        centres = self.rng.uniform(0, 1, (_TRIES, 2)) * self.bounds
        areas = [self.square_at(centre, CLUSTER_SIDE) for centre in centres]
        areas = [area for area in areas if (box_gaps(area, small) >= CLEARANCE).all()]
        areas = [area for area in areas if (box_gaps(area, lookalikes) >= 50).all()]
        gaps = [box_gaps(area, medium).min(initial=CLEARANCE) for area in areas]
        return areas[np.argmax(gaps)] if areas else None


def plan_scene(
    seed: int, split: str, index: int, sides: tuple[int, int] = (800, 1200), rotated: bool = False
) -> ToyScene:
    """Decide what is where in one scene; equal arguments give equal scenes.

    Args:
        seed (int): Seed of the data set.
        split (str): One of :data:`SPLITS`: splits share no scene.
        index (int): Index of the scene in its split.
        sides (tuple[int, int]): Smallest and largest width and height of the image, px. Defaults to
            (800, 1200).
        rotated (bool): Whether shapes are elongated and lie at any angle. Defaults to False.

    Returns:
        ToyScene: The plan.
    """
    if split not in SPLITS:
        raise ValueError(f'split must be one of {", ".join(SPLITS)}, got {split!r}')
    entropy = (int(seed), SPLITS.index(split), int(index))
    rng = np.random.default_rng([*entropy, 0])
    width, height = (int(side) for side in rng.integers(sides[0], sides[1] + 1, 2))
    planner = _Planner(rng, width, height, rotated)
    if rng.uniform() >= EMPTY_SHARE:
        planner.add_labelled()
    planner.add_lookalikes()
    return ToyScene(width, height, tuple(planner.objects), entropy)


def shape_coverage(polygon: np.ndarray, width: int, height: int) -> tuple[np.ndarray, int, int]:
    """How much of each pixel a polygon covers.

    Args:
        polygon (np.ndarray): (k, 2) outline in image px (pixel i spans [i, i + 1]).
        width (int): Image width, px.
        height (int): Image height, px.

    Returns:
        tuple[np.ndarray, int, int]: Coverage in [0, 1], float32, of the patch of pixels that the
        polygon touches, and the patch's left and top pixel.
    """
    left, top = np.maximum(np.floor(polygon.min(axis=0)), 0).astype(int)
    right, bottom = np.minimum(np.ceil(polygon.max(axis=0)), [width, height]).astype(int)
    factor = 8 if max(right - left, bottom - top) <= 128 else 4
    fine = np.zeros(((bottom - top) * factor, (right - left) * factor), np.uint8)
    # OpenCV's integer coordinates are pixel centres, ours are pixel corners.
    corners = (polygon - [left, top]) * factor - 0.5
    cv2.fillPoly(fine, [np.round(corners * 256).astype(np.int32)], 255, cv2.LINE_8, 8)
    patch = cv2.resize(fine, (int(right - left), int(bottom - top)), interpolation=cv2.INTER_AREA)
    return patch.astype(np.float32) / 255, int(left), int(top)


def _fractal_noise(
    rng: np.random.Generator, width: int, height: int, cell: float, octaves: int
) -> np.ndarray:
    """(height, width) float32 noise with zero mean, unit variance and detail down to small px."""
    field = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        step = cell / 2**octave
        grid = rng.standard_normal((int(height / step) + 3, int(width / step) + 3), np.float32)
        detail: np.ndarray = cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
        field += detail / 1.6**octave
    return (field - field.mean()) / max(float(field.std()), 1e-6)


def _slope(
    rng: np.random.Generator, width: int, height: int, dtype: type[np.floating] = np.float64
) -> np.ndarray:
    """(height, width) values of about -1 to 1 that rise in a random direction."""
    angle = rng.uniform(0, 2 * np.pi)
    x, y = (np.linspace(-1, 1, side, dtype=dtype) for side in (width, height))
    return x * np.cos(angle) + y[:, None] * np.sin(angle)


def _colour(rng: np.random.Generator, *ranges: tuple[float, float]) -> np.ndarray:
    """(3,) BGR in 0-255, drawn from ranges of hue (degrees), saturation and value (0-1)."""
    hue, saturation, value = (rng.uniform(*limits) for limits in ranges)
    hsv = np.array([[[hue % 360, saturation, value]]], np.float32)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0, 0] * 255


def _background(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """(height, width, 3) float32: two blended dull colours, brightness texture, a gradient."""
    blend = _fractal_noise(rng, width, height, rng.uniform(120, 320), 4)
    blend = cv2.merge([1 / (1 + np.exp(-2 * blend))] * 3)
    hue, value = rng.uniform(0, 360), rng.uniform(0.38, 0.74)
    one = _colour(rng, (hue, hue), (0.12, 0.4), (value - 0.12, value))
    two = _colour(rng, (hue - 70, hue + 70), (0.08, 0.35), (value, value + 0.12))
    image = one * blend + two * (1 - blend)
    texture = _fractal_noise(rng, width, height, rng.uniform(16, 48), 4) * rng.uniform(5, 10)
    texture += _slope(rng, width, height, np.float32).astype(np.float32) * rng.uniform(0, 22)
    return image + texture[..., None]


def _draw_clutter(rng: np.random.Generator, image: np.ndarray) -> None:
    """Soft blotches, winding lines and specks: detail that belongs to no class."""
    bounds = np.array(image.shape[1::-1])
    for _ in range(rng.integers(3, 8)):
        _draw_blotch(rng, image)
    mean = np.array(cv2.mean(image)[:3])
    for _ in range(rng.integers(3, 9)):
        steps = rng.normal(0, 0.35, 24).cumsum() + rng.uniform(0, 2 * np.pi)
        walk = np.cumsum(np.stack([np.cos(steps), np.sin(steps)], 1), 0) * rng.uniform(10, 40)
        line = ((walk + rng.uniform(0, 1, 2) * bounds) * 16).astype(np.int32)
        shade = np.clip(mean + rng.uniform(-55, 55), 0, 255)
        cv2.polylines(image, [line], False, shade.tolist(), int(rng.integers(1, 4)), cv2.LINE_8, 4)
    for _ in range(rng.integers(30, 90)):
        centre = (rng.uniform(0, 1, 2) * bounds).astype(int)
        shade = np.clip(image[centre[1], centre[0]] + rng.uniform(-60, 60), 0, 255)
        cv2.circle(image, centre.tolist(), int(rng.integers(1, 3)), shade.tolist(), -1)


def _draw_blotch(rng: np.random.Generator, image: np.ndarray) -> None:
    centre = (rng.uniform(0, 1, 2) * image.shape[1::-1]).astype(int)
    axes = rng.uniform(40, 160, 2).astype(int)
    left, top = np.maximum(centre - 2 * axes, 0)
    right, bottom = np.minimum(centre + 2 * axes, image.shape[1::-1])
    x = (np.arange(left, right, dtype=np.float32) - centre[0]) / axes[0]
    y = (np.arange(top, bottom, dtype=np.float32) - centre[1]) / axes[1]
    weight = np.exp(-2 * (x[None] ** 2 + y[:, None] ** 2)) * rng.uniform(-45, 45)
    image[top:bottom, left:right] += weight[..., None]


def _object_colour(rng: np.random.Generator, behind: np.ndarray) -> np.ndarray:
    """A random colour that stands out from the mean colour behind the object (BGR, 0-255)."""
    weights = np.array([0.114, 0.587, 0.299])
    for _ in range(_TRIES):
        colour = _colour(rng, (0, 360), (0.2, 0.8), (0.2, 0.95))
        if abs((colour - behind) @ weights) > 40 and np.abs(colour - behind).max() > 75:
            break
    return colour


def _draw_object(rng: np.random.Generator, image: np.ndarray, item: ToyObject) -> None:
    coverage, left, top = shape_coverage(item.polygon, image.shape[1], image.shape[0])
    height, width = coverage.shape
    patch = image[top : top + height, left : left + width]
    fill = np.broadcast_to(_object_colour(rng, np.array(cv2.mean(patch)[:3])), patch.shape)
    shading = _slope(rng, width, height) * rng.uniform(4, 16)
    grain = _fractal_noise(rng, width, height, max(4.0, item.size / 6), 2) * rng.uniform(3, 9)
    fill = fill + (shading + grain)[..., None]
    patch += coverage[..., None] * (fill - patch)


def render_scene(scene: ToyScene) -> np.ndarray:
    """Draw a scene, always the same: (height, width, 3) uint8, BGR."""
    rng = np.random.default_rng([*scene.entropy, 1])
    image = np.ascontiguousarray(_background(rng, scene.width, scene.height), np.float32)
    _draw_clutter(rng, image)
    for item in scene.objects:
        _draw_object(rng, image, item)
    sensor = rng.standard_normal(image.shape, np.float32) * np.float32(rng.uniform(3, 6))
    return np.clip(np.rint(image + sensor), 0, 255).astype(np.uint8)
