"""A COCO annotation file, checked: what is wrong in it, and what of it training uses."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from os import PathLike, fspath
from typing import Any
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray

from mmsniper.utils.garbage import no_garbage_collection
from mmsniper.utils.missing_files import GIT_LFS
from mmsniper.utils.words import numbered

_LARGEST = 2**31 - 1  # of sizes and coordinates, px
_FAR = 0.1  # a box leaves its image by far if it does so by this part of the image's side
_TOO_LARGE = 1.5  # a mask's area is at most that of its box
_TOO_SMALL = 0.01  # few masks fill so little of their box, and not most of a file
_FEW = 3  # so many boxes may leave by far without the whole file being refused
_OFTEN = 0.01  # from this part of a file on, annotations that repeat others are no accident
_PERCENT = 100.0


@dataclass(frozen=True, eq=False)
class CocoFile:
    """A COCO detection file without structural faults, its numbers as arrays.

    n is the number of annotations, m that of images; the entries are those of the file, in its
    order.

    Attributes:
        name (str): The file, for messages.
        images, annotations, categories (list[dict]): The entries.
        width, height: Of the images, original px, int32, shape (m,).
        image: Index into ``images`` of every annotation, int64, shape (n,).
        category: Index into ``categories`` of every annotation, int64, shape (n,).
        boxes: ``[x, y, width, height]``, original px, float64, shape (n, 4).
        area: float64, shape (n,); width times height where the file has none.
        crowd, ignored: What ``iscrowd`` and ``ignore`` say, bool, shape (n,).
        warnings (tuple[str, ...]): What looks wrong, but is not enough to refuse the file.
        plain (bool): Whether it is UTF-8 without a byte order mark. Another one is read for
            training, but pycocotools cannot evaluate on it.
    """

    name: str
    images: list[dict]
    annotations: list[dict]
    categories: list[dict]
    width: NDArray[np.int32]
    height: NDArray[np.int32]
    image: NDArray[np.int64]
    category: NDArray[np.int64]
    boxes: NDArray[np.float64]
    area: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    warnings: tuple[str, ...] = ()
    plain: bool = True

    @classmethod
    def read(
        cls, source: str | PathLike | Mapping[str, Any], name: str | None = None, test: bool = False
    ) -> CocoFile:
        """Read and check a file.

        Args:
            source (str | PathLike | dict): The JSON file (with a byte order mark or without), or
                what is in it. Its entries are kept, not copied.
            name (str | None): What messages call it. Defaults to None, the path.
            test (bool): The file may do without annotations, as that of a test set does. Defaults
                to False.

        Raises:
            OSError: If there is no such file.
            ValueError: If it is not JSON or not COCO's format, or if its boxes are clearly not
                ``[x, y, width, height]`` in pixels. The message names the file, the entry, the
                field, what was expected and the fix.

        Example:
            >>> file = CocoFile.read(dict(
            ...     images=[dict(id=1, file_name='a.jpg', width=64, height=48)],
            ...     annotations=[dict(id=1, image_id=1, category_id=7, bbox=[4, 4, 20, 20])],
            ...     categories=[dict(id=7, name='cat')]))
            >>> file.class_names, file.area.tolist()
            (('cat',), [400.0])
        """
        if isinstance(source, Mapping):
            return _Reader(name or 'the COCO dict', source, test).file()
        name = name or fspath(source)
        with no_garbage_collection():
            content, plain = _load(source, name)
            return replace(_Reader(name, content, test).file(), plain=plain)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the categories, in the order of the file, doubled ones too."""
        return tuple(category['name'] for category in self.categories)

    def describe(self, annotation: int) -> str:
        """What messages call an annotation: its id, its image's id and file."""
        return _annotation_name(
            self.annotations[annotation], annotation, self.images[self.image[annotation]]
        )

    def use(
        self, classes: Sequence[str] | None = None, filter_cfg: Mapping[str, Any] | None = None
    ) -> CocoUse:
        """What MMDetection's ``CocoDataset`` takes of the file.

        Args:
            classes (Sequence[str] | None): The names in ``metainfo``. Defaults to None, all of the
                file.
            filter_cfg (dict | None): ``min_size`` and ``filter_empty_gt``, as of the data set; None
                if it is one for tests, which filters no images. Defaults to None.

        Returns:
            CocoUse: The images and annotations that are used, and why the others are not.

        Raises:
            ValueError: If ``classes`` is a string.
        """
        if isinstance(classes, str):
            raise ValueError(
                f"classes in metainfo is the string {classes!r}: write ('{classes}',), with the "
                f'comma'
            )
        names = self.class_names
        wanted = set(names if classes is None else classes)
        known = np.array([name in wanted for name in names], bool)
        in_class = known[self.category]
        reasons: dict[str, NDArray[np.int64]] = {}
        open_ = np.ones(len(self.boxes), bool)
        for reason, mask in (('of a category that is not in metainfo', ~in_class), *self._faults()):
            reasons[reason] = np.flatnonzero(open_ & mask)
            open_ = open_ & ~mask
        images, image_reasons = self._images_kept(in_class, dict(filter_cfg or {}))
        reasons[_IN_IMAGES_LEFT_OUT] = np.flatnonzero(open_ & ~images[self.image])
        reasons = {reason: found for reason, found in reasons.items() if len(found)}
        return CocoUse(self, images, open_ & images[self.image], reasons, image_reasons, classes)

    def _faults(self) -> Iterator[tuple[str, NDArray[np.bool_]]]:
        """MMDetection's reasons to leave out an annotation of a class in metainfo."""
        x, y, w, h = self.boxes.T
        right, bottom = self.width[self.image], self.height[self.image]
        inner_w = np.minimum(x + w, right) - np.maximum(x, 0)
        inner_h = np.minimum(y + h, bottom) - np.maximum(y, 0)
        yield _MARKED, self.ignored
        yield _NEGATIVE, (w < 0) | (h < 0)
        yield _THIN, (w < 1) | (h < 1)
        # As MMDetection multiplies them: the product of tiny sides is 0 as well.
        yield _OUTSIDE, np.maximum(inner_w, 0) * np.maximum(inner_h, 0) == 0
        yield _NEGATIVE_AREA, self.area < 0
        yield _NO_AREA, self.area <= 0

    def _images_kept(
        self, in_class: NDArray[np.bool_], rules: Mapping[str, Any]
    ) -> tuple[NDArray[np.bool_], dict[str, int]]:
        kept, reasons = np.ones(len(self.images), bool), {}
        with_class = np.zeros(len(self.images), bool)
        with_class[self.image[in_class]] = True
        min_size = rules.get('min_size', 0)
        if not _is_number(min_size):
            raise ValueError(f'min_size in filter_cfg must be a number of px, got {min_size!r}')
        for reason, mask in (
            (f'narrower than {min_size} px', np.minimum(self.width, self.height) < min_size),
            (
                'without an annotation of a class in metainfo',
                ~with_class if rules.get('filter_empty_gt', False) else ~kept,
            ),
        ):
            if count := int((kept & mask).sum()):
                reasons[reason] = count
            kept = kept & ~mask
        return kept, reasons

    def complete(self) -> None:
        """Write into the entries what MMDetection needs: areas, whole numbers as image sizes."""
        for image, width, height in zip(self.images, self.width.tolist(), self.height.tolist()):
            image['width'], image['height'] = width, height
        for annotation, area in zip(self.annotations, self.area.tolist()):
            if annotation.get('area') is None:
                annotation['area'] = area

    def check_masks(self, used: NDArray[np.bool_], polygons_only: bool = False) -> None:
        """Check that annotations have masks that can be loaded.

        Args:
            used (NDArray[np.bool_]): Which annotations, shape (n,), as ``CocoUse.annotations``.
            polygons_only (bool): Masks stay polygons (``LoadAnnotations(poly2mask=False)``), so
                that RLE cannot be loaded except for crowds. Defaults to False.

        Raises:
            ValueError: If one has none, or one that is neither polygons nor RLE; the message names
                the annotation.
        """
        for k in np.flatnonzero(used).tolist():
            value, i = self.annotations[k].get('segmentation'), int(self.image[k])
            wrong = _mask_fault(value, int(self.height[i]), int(self.width[i]))
            if wrong is None and polygons_only and isinstance(value, dict) and not self.crowd[k]:
                wrong = (
                    'is RLE, which LoadAnnotations(poly2mask=False) would turn into an ignored '
                    'region: load masks with poly2mask=True, or convert it to polygons'
                )
            if wrong:
                raise ValueError(
                    f"{self.name}: {self.describe(k)}: 'segmentation' {wrong}. Masks are loaded "
                    f'(with_mask=True), so each annotation needs one: correct the annotation or '
                    f'remove it'
                )


_IN_IMAGES_LEFT_OUT = 'in images that are left out'
_MARKED = "marked 'ignore'"
_NEGATIVE = 'of negative width or height'
_THIN = 'of less than 1 px in width or height'
_OUTSIDE = 'outside of their image'
_NEGATIVE_AREA = 'of negative area'
_NO_AREA = 'of area 0'

# What to do about those that are left out by mistake, most likely.
_FIXES = {
    _NEGATIVE: 'bbox must be [x, y, width, height]; these look like corners in another order',
    _THIN: 'bbox must be [x, y, width, height] in pixels of the image',
    _OUTSIDE: "width and height of the image entry must be the picture's",
    _NEGATIVE_AREA: "write width x height as 'area' where it is negative",
    _NO_AREA: "write width x height as 'area' where it is 0",
}


@dataclass(frozen=True, eq=False)
class CocoUse:
    """What is used of a :class:`CocoFile`; ``str()`` says it in one line.

    Attributes:
        file (CocoFile): The file.
        images: Which images are kept, bool, shape (m,).
        annotations: Which annotations become boxes, crowds included, bool, shape (n,).
        left_out (dict[str, NDArray[np.int64]]): Which annotations are not used, by reason.
        images_left_out (dict[str, int]): How many images are left out, by reason.
        classes (Sequence[str] | None): The names in metainfo; None for all of the file.
    """

    file: CocoFile
    images: NDArray[np.bool_]
    annotations: NDArray[np.bool_]
    left_out: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    images_left_out: Mapping[str, int] = field(default_factory=dict)
    classes: Sequence[str] | None = None

    def __str__(self) -> str:
        crowds = int((self.annotations & self.file.crowd).sum())
        parts = [f'{int(self.annotations.sum()):,} used']
        parts[0] += f' ({crowds:,} of them crowds)' if crowds else ''
        parts += [f'{len(found):,} {reason}' for reason, found in self.left_out.items()]
        images = [f'{count:,} left out, {why}' for why, count in self.images_left_out.items()]
        return (
            f'{numbered(len(self.annotations), "annotation")}: {", ".join(parts)}; '
            f'{numbered(len(self.images), "image")}: {", ".join(images) or "all used"}'
        )

    @property
    def fixes(self) -> list[str]:
        """What to do about annotations that are left out by a mistake, most likely."""
        return [
            f'{reason}, the first is {self.file.describe(found[0])}: {_FIXES[reason]}'
            for reason, found in self.left_out.items()
            if reason in _FIXES
        ]

    @property
    def is_suspicious(self) -> bool:
        """Whether something is left out by a mistake, most likely."""
        return bool(self.fixes or _IN_IMAGES_LEFT_OUT in self.left_out)

    def messages(self) -> Iterator[tuple[bool, str]]:
        """What to tell of the file: whether it is a warning, and the text; the line comes last."""
        for warning in self.file.warnings:
            yield True, f'{self.file.name}: {warning}'
        fixes = ''.join(f'. Annotations {fix}' for fix in self.fixes)
        yield self.is_suspicious, f'{self.file.name}: {self}{fixes}'

    def check_training(self) -> None:
        """Check that something is left to train on.

        Raises:
            ValueError: If not; the message names the file and says why.
        """
        file, classes = self.file, self.classes
        if not file.images:
            raise ValueError(f"{file.name} has no image: the list 'images' is empty")
        # A file of images without objects may be one of several, if such images are kept.
        objects = self.annotations & ~file.crowd
        nothing = not self.images.any() or (len(file.annotations) and not objects.any())
        if nothing and classes is not None and not set(classes) & set(file.class_names):
            raise ValueError(_no_class_message(file, classes))
        if nothing:
            fixes = ''.join(f'. Annotations {fix}' for fix in self.fixes)
            if self.annotations.any():
                fixes += '. Crowds are regions that are ignored: write iscrowd=0 for objects'
            raise ValueError(f'nothing of {file.name} is left to train on: {self}{fixes}')


def nearest_name(name: str, names: Sequence[str]) -> str | None:
    """The name that was meant by one that is not among them; None if none is like it.

    Example:
        >>> nearest_name('Disc', ('ring', 'disc')), nearest_name('rnig', ('ring', 'disc'))
        ('disc', 'ring')
    """
    plain = {_plain(other): other for other in reversed(names)}
    close = get_close_matches(_plain(name), plain, n=1, cutoff=0.6)
    return plain[close[0]] if close else None


def _plain(name: str) -> str:
    return ' '.join(
        normalize('NFC', str(name)).casefold().replace('_', ' ').replace('-', ' ').split()
    )


def _no_class_message(file: CocoFile, classes: Sequence[str]) -> str:
    names = file.class_names
    meant = [(name, nearest_name(name, names)) for name in classes]
    close = [f'{theirs!r} for {mine!r}' for mine, theirs in meant if theirs]
    if close and all(theirs and _plain(mine) == _plain(theirs) for mine, theirs in meant):
        why = '. They differ in case or blanks only: write them as the file does'
    else:
        why = f'. Is it {", ".join(close)}?' if close else ''
    return (
        f'no class in metainfo is one of {file.name}: metainfo has {listed(classes, 20)}, the file '
        f'has {listed(names, 20)}{why}'
    )


def listed(names: Iterable[str], most: int = 8) -> str:
    """Names as a message has them, so many at most.

    Example:
        >>> listed(['disc', 'ring', 'cross'], 2), listed([])
        ("'disc', 'ring' and 1 more", 'none')
    """
    names = [repr(name) for name in names]
    more = f' and {len(names) - most} more' if len(names) > most else ''
    return ', '.join(names[:most]) + more or 'none'


def _load(path: str | PathLike, name: str) -> tuple[Any, bool]:
    """What is in a JSON file, and whether it is UTF-8 without a byte order mark."""
    with open(path, 'rb') as file:
        data = file.read()
    try:
        # From bytes it knows UTF-8 with a byte order mark, and UTF-16.
        return json.loads(data), json.detect_encoding(data) == 'utf-8'
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{name} is not a JSON file: {_not_json(data) or error}') from None


# What is no JSON file, by its first bytes.
_NO_JSON = (
    (b'\x1f\x8b', 'it is compressed by gzip: unpack it'),
    (b'PK\3\4', 'it is a ZIP archive: unpack it'),
    (GIT_LFS, 'it is a pointer of Git LFS: fetch it, git lfs pull'),
    (b'<?xml', 'it is an XML file: VOC data are read by XMLDataset'),
    (b'<', 'it is a web page or an XML file: download it again'),
)


def _not_json(data: bytes) -> str:
    """What a file is that is not JSON; '' if that is not known."""
    if not data.strip(b'\0 \t\r\n'):
        return 'it is empty' if not data.strip(b'\0') else 'it has white space only'
    for start, what in _NO_JSON:
        if data.lstrip().startswith(start):
            return what
    try:
        lines = data.decode().splitlines()
    except UnicodeDecodeError as error:
        line = 1 + data.count(b'\n', 0, error.start)
        return f'it is not in UTF-8 (byte {error.start}, line {line}): save it as UTF-8'
    try:
        if len(lines) > 1 and all(isinstance(json.loads(line), dict) for line in lines[:2]):
            return 'it has a JSON text in each line (JSON lines): COCO is one dict'
    except ValueError:
        pass
    return ''


def _shown(value: Any) -> str:
    text = 'null' if value is None else repr(value)
    return text if len(text) <= 80 else f'{text[:77]}...'


def _image_name(image: Mapping[str, Any], k: int) -> str:
    called = f'image {_shown(image["id"])}' if image.get('id') is not None else f'images[{k}]'
    file = image.get('file_name')
    return f'{called} ({file})' if isinstance(file, str) and file else called


def _annotation_name(
    annotation: Mapping[str, Any], k: int, image: Mapping[str, Any] | None = None
) -> str:
    known = annotation.get('id') is not None
    called = f'annotation {_shown(annotation["id"])}' if known else f'annotations[{k}]'
    if image is not None:
        return f'{called} of {_image_name(image, 0)}'
    of = annotation.get('image_id')
    return called if of is None else f'{called} of image {_shown(of)}'


def _category_name(category: Mapping[str, Any], k: int) -> str:
    return f'categories[{k}]'


_NAMED: Mapping[str, Callable[[Mapping[str, Any], int], str]] = {
    'images': _image_name,
    'annotations': _annotation_name,
    'categories': _category_name,
}
_LISTS = {
    'images': 'id, file_name, width, height',
    'annotations': 'id, image_id, category_id, bbox',
    'categories': 'id, name',
}


# What other files hold, by keys that theirs have: of the file, or of its entries.
_OTHER_FORMATS = (
    ({'score', 'category_id'}, 'results of a detector, not annotations'),
    ({'caption'}, 'captions, without boxes: take the instances file'),
    ({'segments_info'}, 'a panoptic file, without boxes: take the instances file'),
    ({'_via_settings'}, 'a project of VGG VIA: export it as COCO'),
    ({'regions', 'filename'}, 'annotations of VGG VIA: export them as COCO'),
    ({'shapes', 'imagePath'}, 'one image of labelme: convert the folder to COCO'),
    ({'data_list'}, "MMDetection's own format: read it by BaseDetDataset, not by CocoDataset"),
    ({'features'}, 'GeoJSON: convert it to COCO'),
    ({'data', 'annotations'}, 'an export of Label Studio in its own format: export it as COCO'),
    ({'item', 'annotations'}, 'Darwin JSON of V7: export it as COCO'),
    ({'objects', 'size'}, 'one image of Supervisely: export it as COCO'),
    ({'instances', 'metadata'}, 'SuperAnnotate in its own format: export it as COCO'),
    ({'samples'}, 'a data set of FiftyOne: export it as fiftyone.types.COCODetectionDataset'),
)


def _looks_like(content: Any) -> str:
    """What a file is that is not COCO's, as the end of a sentence; '' if that is not known."""
    entries = content
    if isinstance(content, Mapping):
        first = next(iter(content.values()), None)
        entries = content.get('annotations') or [first]
    first = entries[0] if isinstance(entries, Sequence) and len(entries) else None
    for place in (content, first):
        if isinstance(place, Mapping):
            for keys, what in _OTHER_FORMATS:
                if keys <= set(place):
                    return f'. It looks like {what}'
    return ''


def _is_id(value: Any) -> bool:
    return isinstance(value, (int, str)) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and abs(value) <= _LARGEST  # not NaN, not infinite


def _is_side(value: Any) -> bool:
    return _is_number(value) and value == int(value) > 0


def _is_area(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value is None or (number and abs(value) <= float(_LARGEST) ** 2)


def _is_flag(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and value in (0, 1))


def _is_box(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 4 and all(map(_is_number, value))


class _Reader:
    """The checks of one file. Each runs over all entries at once, and looks for the culprit after.

    Args:
        name (str): The file, for messages.
        content (Any): What is in it.
        test (bool): As for :meth:`CocoFile.read`.
    """

    def __init__(self, name: str, content: Any, test: bool) -> None:
        self.name, self.content, self.test = name, content, test
        self.entries: dict[str, list[dict]] = {}

    def file(self) -> CocoFile:
        """The file, checked."""
        for key in _LISTS:
            self.entries[key] = self._entries(key)
        images, annotations = self.entries['images'], self.entries['annotations']
        image_index = self._ids('images')
        self._values('images', 'file_name', lambda v: isinstance(v, str) and bool(v), 'a file name')
        width, height = (
            np.array(
                self._values('images', key, _is_side, 'a positive whole number of pixels'), np.int32
            )
            for key in ('width', 'height')
        )
        self._values('categories', 'name', lambda v: isinstance(v, str), 'the name of the class')
        category_index = self._ids('categories')
        self._ids('annotations')
        image = self._references('image_id', image_index, 'images')
        category = self._references('category_id', category_index, 'categories')
        boxes = self._boxes()
        areas = self._values('annotations', 'area', _is_area, 'a number, or to be left out')
        area = np.array([math.nan if v is None else v for v in areas], np.float64)
        area = np.where(np.isnan(area), boxes[:, 2] * boxes[:, 3], area)
        crowd, ignored = (
            np.array(self._values('annotations', key, _is_flag, '0 or 1')).astype(bool)
            for key in ('iscrowd', 'ignore')
        )
        file = CocoFile(
            self.name,
            images,
            annotations,
            self.entries['categories'],
            *(width, height, image, category, boxes, area, crowd, ignored),
        )
        return replace(file, warnings=tuple(_suspicions(file)))

    def _entries(self, key: str) -> list[dict]:
        """The list of that name."""
        if not isinstance(self.content, Mapping):
            kind = type(self.content).__name__
            raise ValueError(
                f'{self.name} holds a {kind} instead of a COCO dict with the lists '
                f'{", ".join(map(repr, _LISTS))}{_looks_like(self.content)}'
            )
        entries = self.content.get(key)
        if self.test and key == 'annotations' and entries is None:
            return []
        if not isinstance(entries, list):
            got = f'it has {listed([str(k) for k in self.content])}'
            got = f'{key!r} is {_shown(entries)}' if key in self.content else got
            raise ValueError(
                f'{self.name} has no list {key!r} ({got}): a COCO detection file has the lists '
                + ', '.join(f'{name!r} (of {fields})' for name, fields in _LISTS.items())
                + _looks_like(self.content)
            )
        for k, entry in enumerate(entries):
            if not isinstance(entry, dict):
                raise ValueError(
                    f'{self.name}: {key}[{k}] is {_shown(entry)}, expected a dict with '
                    f'{_LISTS[key]}'
                )
        return entries

    def _fault(self, key: str, k: int, field_: str, expected: str) -> ValueError:
        """The error of one entry."""
        entry = self.entries[key][k]
        image = None
        if key == 'annotations':
            image = next(
                (i for i in self.entries['images'] if i['id'] == entry.get('image_id')), None
            )
            what = _annotation_name(entry, k, image)
        else:
            what = _NAMED[key](entry, k)
        if field_ in entry:
            got, fix = f'{field_!r} is {_shown(entry[field_])}', 'correct it'
        else:
            got, fix = f'has no {field_!r}', 'add it' + _looks_like(self.content)
        return ValueError(f'{self.name}: {what}: {got}, expected {expected}: {fix}')

    def _values(
        self, key: str, field_: str, is_good: Callable[[Any], bool], expected: str
    ) -> list[Any]:
        """The values of a field, null for those without one, all of them good."""
        values = [entry.get(field_) for entry in self.entries[key]]
        try:
            good = all(map(is_good, set(values)))
        except TypeError:  # a list or dict among them
            good = False
        if not good:
            k = next(k for k, value in enumerate(values) if not is_good(value))
            raise self._fault(key, k, field_, expected)
        return values

    def _ids(self, key: str) -> dict[Any, int]:
        """Index of every id."""
        ids = self._values(key, 'id', _is_id, 'a whole number or text that no other entry has')
        index = dict(zip(reversed(ids), reversed(range(len(ids)))))  # the first of several wins
        if len(index) < len(ids):
            second = next(k for k, id_ in enumerate(ids) if index[id_] != k)
            first = index[ids[second]]
            name, entries = _NAMED[key], self.entries[key]
            raise ValueError(
                f'{self.name}: the id {_shown(ids[second])} occurs twice in {key!r}, as '
                f'{name(entries[first], first)} and {key}[{second}], '
                f'{name(entries[second], second)}: number the {key} anew, without doubled ids'
            )
        return index

    def _references(self, field_: str, index: Mapping[Any, int], key: str) -> NDArray[np.int64]:
        """Index of the image or category that each annotation names."""
        annotations = self.entries['annotations']
        try:
            found = [index[annotation[field_]] for annotation in annotations]
        except (KeyError, TypeError):  # TypeError: a list
            k = next(k for k, a in enumerate(annotations) if not _is_among(a.get(field_), index))
            value = annotations[k].get(field_)
            alike = [id_ for id_ in index if str(id_) == str(value)]
            expected = f'the id of one of the {len(index)} {key}'
            expected += f', which have it as {_shown(alike[0])}' if alike else ''
            fault = self._fault('annotations', k, field_, expected)
            if field_ in annotations[k] and not alike:
                fault = ValueError(f'{fault}, or remove the annotation, or add the missing entry')
            raise fault from None
        return np.array(found, np.int64)

    def _boxes(self) -> NDArray[np.float64]:
        """Boxes of shape (n, 4)."""
        annotations = self.entries['annotations']
        if not annotations:
            return np.zeros((0, 4))
        try:
            # Without a dtype, so that text and null stay visible in it.
            found = np.array([annotation.get('bbox') for annotation in annotations])
            good = found.dtype.kind in 'iuf' and found.shape == (len(annotations), 4)
        except (ValueError, OverflowError):  # ragged
            good = False
        # As floats: the least whole number has no absolute value of its own type.
        boxes = found.astype(np.float64) if good else None
        if boxes is None or not (np.abs(boxes) <= _LARGEST).all():
            wrong = (k for k, a in enumerate(annotations) if not _is_box(a.get('bbox')))
            k = next(wrong)
            expected = '[x, y, width, height], four numbers in pixels'
            fault = self._fault('annotations', k, 'bbox', expected)
            raise ValueError(
                f'{fault}, or remove the annotation ({1 + sum(1 for _ in wrong):,} such)'
            )
        return boxes


def _is_among(value: Any, index: Mapping[Any, int]) -> bool:
    try:
        return value in index
    except TypeError:  # a list
        return False


def _suspicions(file: CocoFile) -> Iterator[str]:
    """What looks as if the boxes were something else than [x, y, width, height] in pixels.

    Raises:
        ValueError: If they clearly are.
    """
    if not len(file.boxes):
        return
    boxes, sides = file.boxes, np.stack([file.width, file.height], axis=1)[file.image]

    def first(mask: NDArray[np.bool_]) -> str:
        k = int(np.flatnonzero(mask)[0])
        w, h = sides[k].tolist()
        box = _shown([float(f'{v:.6g}') for v in boxes[k].tolist()])
        return f'the first is {box} in {w}x{h} px, {file.describe(k)}'

    some = (boxes != 0).any(axis=1)
    relative = some & ((boxes >= 0) & (boxes <= 1)).all(axis=1) & (sides > 1).all(axis=1)
    if relative.any():
        what = f'{int(relative.sum()):,} of {len(boxes):,} boxes lie within 0..1; {first(relative)}'
        if relative.sum() == some.sum():
            raise ValueError(
                f'{file.name}: {what}: these are parts of the image, as in YOLO files; COCO wants '
                f'[x, y, width, height] in pixels, x and y of the upper left corner: multiply by '
                f'the size of the image'
            )
        yield f'{what}: are these parts of the image instead of pixels?'

    negative = np.any(boxes[:, 2:] < 0, axis=1)
    if negative.any():
        yield (
            f'{int(negative.sum()):,} of {len(boxes):,} boxes have a negative width or height and '
            f'are left out; {first(negative)}: they look like corners in another order than '
            f'[x, y, width, height]'
        )
    yield from _outside(file, boxes, sides, first)
    yield from _odd_areas(file, boxes)
    yield from _listed_twice(file)
    yield from _doubled(file)
    end = (boxes[:, :2] + boxes[:, 2:]).max()
    if len(boxes) >= 20 and 0 < end <= _PERCENT and (sides > 3 * _PERCENT).all():
        yield (
            f'no box reaches beyond {_PERCENT:g} px from the upper left corner, in images of at '
            f'least {sides.min()} px: are these percents of the image instead of pixels?'
        )


def _outside(
    file: CocoFile,
    boxes: NDArray[np.float64],
    sides: NDArray[np.int32],
    first: Callable[[NDArray[np.bool_]], str],
) -> Iterator[str]:
    """The part of :func:`_suspicions` on boxes that leave their image."""
    end = boxes[:, :2] + boxes[:, 2:]
    far = np.any((end - sides > _FAR * sides) | (boxes[:, :2] < -_FAR * sides), axis=1)
    if not far.any():
        return
    starts_inside = np.all(boxes[:, :2] >= -1, axis=1)
    is_last = (boxes[:, 2:] > boxes[:, :2]) & (boxes[:, 2:] <= sides + 1)
    corners = np.all(is_last, axis=1) & starts_inside
    what = f'{int(far.sum()):,} of {len(boxes):,} boxes leave their image by far; {first(far)}'
    if corners.mean() >= 0.95 and far.sum() >= max(_FEW, 0.1 * len(boxes)):
        raise ValueError(
            f'{file.name}: {what}. Read as [x1, y1, x2, y2], {corners.mean():.0%} of all boxes fit '
            f'into their image: these are corners; COCO wants [x, y, width, height]. Write '
            f'[x1, y1, x2 - x1, y2 - y1]'
        )
    turned = np.all(end <= sides[:, ::-1] + 1, axis=1) & starts_inside
    if corners[far].all():
        why = 'all of these fit if read as [x1, y1, x2, y2]: are they corners?'
    elif turned[far].all() and (sides[:, 0] != sides[:, 1]).any():
        why = 'all of these fit if width and height of the image are exchanged: are they?'
    else:
        why = (
            'are they [x, y, width, height] in pixels, and are width and height of the images '
            'those of the files?'
        )
    yield f'{what}: {why}'


def _odd_areas(file: CocoFile, boxes: NDArray[np.float64]) -> Iterator[str]:
    """The part of :func:`_suspicions` on areas that the objects of their boxes cannot have."""

    def first(odd: NDArray[np.bool_]) -> str:
        k = int(np.flatnonzero(odd)[0])
        w, h = boxes[k, 2:].tolist()
        return f'the first is {file.area[k]:g} of a box of {w:g}x{h:g} px, {file.describe(k)}'

    # Some count the pixels of both edges.
    beyond = file.area > _TOO_LARGE * (boxes[:, 2:] + 1).prod(axis=1)
    beyond &= (boxes[:, 2:] > 0).all(axis=1)
    if beyond.any():
        yield (
            f"{int(beyond.sum()):,} of {len(boxes):,} annotations have an 'area' far larger than "
            f"their box; {first(beyond)}: training goes by the box, but COCO's metric by the area "
            f'when it tells small, medium and large objects apart. Write width x height'
        )
    sides = boxes[:, 2:].prod(axis=1)
    below = (file.area > 0) & (file.area < _TOO_SMALL * sides)
    if below.sum() > 0.5 * len(boxes):
        yield (
            f"{int(below.sum()):,} of {len(boxes):,} annotations have an 'area' under "
            f"{_TOO_SMALL:.0%} of their box; {first(below)}: COCO's metric would call their "
            'objects small. Write width x height, in pixels'
        )


def _listed_twice(file: CocoFile) -> Iterator[str]:
    """The part of :func:`_suspicions` on pictures that several entries share."""
    entries: dict[str, list[int]] = {}
    for k, image in enumerate(file.images):
        entries.setdefault(image['file_name'], []).append(k)
    several = [found for found in entries.values() if len(found) > 1]
    if not several:
        return
    boxes: dict[int, list] = {k: [] for found in several for k in found}
    for k in np.flatnonzero(np.isin(file.image, list(boxes))).tolist():
        row = (*file.boxes[k].tolist(), int(file.category[k]))
        boxes[int(file.image[k])].append(row)
    split = [found for found in several if len({tuple(sorted(boxes[k])) for k in found}) > 1]
    if split:
        ids = ', '.join(_shown(file.images[k]['id']) for k in split[0])
        yield (
            f'{len(split):,} pictures are listed several times, with other annotations each time; '
            f'the first is {file.images[split[0][0]]["file_name"]}, with the ids {ids}: what is '
            f'annotated in one entry is background in the others. Give each picture one entry'
        )


def _doubled(file: CocoFile) -> Iterator[str]:
    """The part of :func:`_suspicions` on annotations that are in the file twice."""
    rows = np.column_stack([file.boxes, file.image, file.category])
    order = np.lexsort(rows.T)
    same = (rows[order][1:] == rows[order][:-1]).all(axis=1)
    if same.sum() >= max(_FEW, _OFTEN * len(rows)):
        k = int(order[1:][same].min())
        yield (
            f'{int(same.sum()):,} of {len(rows):,} annotations repeat another one, with the same '
            f'image, category and box, such as {file.describe(k)}: were files joined that share '
            f'annotations? Remove them, for each counts as an object'
        )


def _mask_fault(value: Any, height: int, width: int) -> str | None:
    """What is wrong with a segmentation, as the rest of a sentence; None if nothing is."""
    if value is None or value == [] or value == {}:
        return f'is {_shown(value)}' if value is not None else 'is missing'
    if isinstance(value, dict):
        return _rle_fault(value, height, width)
    if not isinstance(value, list):
        return f'is {_shown(value)}, expected a list of polygons or RLE'
    if not all(isinstance(polygon, list) for polygon in value):
        return f'is {_shown(value)}, expected a list of polygons, [[x1, y1, x2, y2, ...], ...]'
    for polygon in value:
        if not set(map(type, polygon)) <= {int, float} or not _is_number(sum(map(abs, polygon))):
            return f'has the polygon {_shown(polygon)}, expected numbers x1, y1, x2, y2, ...'
    if not any(len(polygon) >= 6 and len(polygon) % 2 == 0 for polygon in value):
        return f'is {_shown(value)}, without a polygon of three points or more'
    return None


def _rle_fault(value: Mapping[str, Any], height: int, width: int) -> str | None:
    size, counts = value.get('size'), value.get('counts')
    if not isinstance(size, list) or size != [height, width]:
        return f"is RLE of 'size' {_shown(size)}, expected that of the image, [{height}, {width}]"
    if isinstance(counts, str) and counts and all('0' <= c < 'p' for c in set(counts)):
        return None
    if (
        isinstance(counts, list)
        and all(type(c) is int and c >= 0 for c in counts)
        and sum(counts) == height * width
    ):
        return None
    return (
        f"is RLE with 'counts' {_shown(counts)}, expected the compressed text or a list of counts "
        f'whose sum is {height} x {width}'
    )
