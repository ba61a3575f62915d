"""Files of region proposals: MMDetection's, and COCO's results, which most tools can write."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmsniper.chips.file_names import match_files
from mmsniper.datasets.data_pickle import Fields, load_data

# Of all boxes so many may lie outside their image; more are of other images, or scaled.
_OUTSIDE = 0.01


class ImageProposals(NamedTuple):
    """Regions of one image that a detector takes for objects.

    Attributes:
        boxes: Float32, shape (n, 4), xyxy in original pixels.
        scores: Float32, shape (n,).
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]

    def best(self, num: int, score_thr: float) -> ImageProposals:
        """The ``num`` of highest score among those of at least ``score_thr``, best first."""
        good = np.flatnonzero(self.scores >= score_thr)
        order = good[np.argsort(-self.scores[good], kind='stable')[:num]]
        return ImageProposals(self.boxes[order], self.scores[order])


def read_proposals(path: str | os.PathLike, dataset: Any) -> list[ImageProposals]:
    """Read the proposals of a data set's images.

    What is read:

    - the pickle of MMDetection's ``DumpProposals``, ``{'folder/file.jpg': InstanceData}``;
    - that of its ``tools/test.py --out``, a list of dicts with ``img_path`` and ``pred_instances``;
    - that of MMDetection 2.x, a list of arrays (n, 5), x1, y1, x2, y2 and score, in the order of
      the data set (or (n, 4), best first);
    - COCO's results, a JSON list of dicts with ``image_id``, ``bbox`` (x, y, width, height) and
      ``score``; images that do not occur have no proposals.

    Boxes are in original pixels. Files are matched by the end of their paths: file name and
    folder, and more where these do not tell them apart. Images that are in the file only are left
    out. Pickles that ask for anything but data are refused, see
    :func:`~mmsniper.datasets.data_pickle.load_data`.

    Args:
        path (str | os.PathLike): A ``.pkl``, ``.pickle`` or ``.json`` file.
        dataset (Any): Anything with ``get_data_info``, wrappers included.

    Returns:
        list[ImageProposals]: Proposals of each image, in the order of the data set's indices.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is none of the above, has no proposals for some images, or boxes that are
            not in the images.
    """
    suffix = Path(path).suffix
    if suffix not in ('.pkl', '.pickle', '.json'):
        raise ValueError(
            f'{path}: proposals are read from a .pkl or .pickle file, as MMDetection writes it, '
            f'or from COCO results in a .json file'
        )
    images = _Images.of(dataset)
    if suffix == '.json':
        proposals = _by_id(path, _load_json(path), images)
    else:
        proposals = _from_pickle(path, load_data(path), images)
    _check_boxes(path, proposals, images)
    return proposals


@dataclass(frozen=True)
class _Images:
    """What is known of a data set's images, in the order of its indices."""

    path: list[str]
    id: list[Any]
    size: NDArray[np.int64]

    @classmethod
    def of(cls, dataset: Any) -> _Images:
        paths, ids, sizes = [], [], []
        for i in range(len(dataset)):
            info = dataset.get_data_info(i)
            paths.append(info['img_path'])
            ids.append(info.get('img_id'))
            sizes.append((info['width'], info['height']))
        return cls(paths, ids, np.array(sizes, np.int64).reshape(-1, 2))

    def __len__(self) -> int:
        return len(self.path)


def _from_pickle(path: str | os.PathLike, content: Any, images: _Images) -> list[ImageProposals]:
    if isinstance(content, Mapping):
        return _by_file(path, list(content), list(content.values()), images)
    if not isinstance(content, Sequence) or isinstance(content, (str, bytes)):
        raise ValueError(
            f'{path} holds a {type(content).__name__}; expected is a dict of InstanceData, as '
            f"MMDetection's DumpProposals writes it, or a list"
        )
    if content and all(isinstance(item, Mapping) and 'img_path' in item for item in content):
        found = [item.get('pred_instances') for item in content]
        return _by_file(path, [item['img_path'] for item in content], found, images)
    return _in_order(path, content, images)


def _by_file(
    path: str | os.PathLike, files: Sequence[Any], found: Sequence[Any], images: _Images
) -> list[ImageProposals]:
    if not all(isinstance(file, str) for file in files):
        raise ValueError(
            f'{path} must name images by their files, it has '
            f'{next(file for file in files if not isinstance(file, str))!r}'
        )
    index = match_files(images.path, files)
    missing = sorted({images.path[i] for i in np.flatnonzero(index < 0)})
    if missing and (index < 0).all():
        raise ValueError(
            f'{path} has proposals of other images: none of its {len(files)} files, such as '
            f'{min(files, default=None)}, is one of this data set, such as {missing[0]}. Were they '
            f'made on the training images?'
        )
    if missing:
        raise ValueError(
            f'{path} has no proposals for {len(missing)} of the {len(set(images.path))} images, '
            f'such as {missing[0]}: make them on all images that are trained on'
        )
    _check_folders(path, [files[i] for i in index.tolist()], images.path)
    entries = {i: _entry(found[i], f'{path}: {files[i]}') for i in set(index.tolist())}
    return [entries[i] for i in index.tolist()]


def _check_folders(path: str | os.PathLike, theirs: Sequence[str], mine: Sequence[str]) -> None:
    """MMDetection names a file with its folder; another one's 0001.jpg is another image."""
    for a, b in zip(theirs, mine):
        if '/' in a and PurePath(a).parts[-2:] != PurePath(b).parts[-2:]:
            raise ValueError(
                f'{path} has proposals of {a}, the data set has {b}: make the proposals on the '
                f'training images, or, if these are the same images in a folder that was renamed, '
                f'give it its name back'
            )


def _in_order(
    path: str | os.PathLike, found: Sequence[Any], images: _Images
) -> list[ImageProposals]:
    position = {file: i for i, file in enumerate(dict.fromkeys(images.path))}
    if len(found) != len(position):
        raise ValueError(
            f'{path} is a list for {len(found)} images, in the order of the data set that it was '
            f'made on, but this one has {len(position)}. If it was made on all images of the '
            f'annotation file, turn off what leaves some out: filter_cfg=None in the data set'
        )
    entries = [_entry(item, f'{path}: entry {i}') for i, item in enumerate(found)]
    return [entries[position[file]] for file in images.path]


def _entry(item: Any, what: str) -> ImageProposals:
    """Boxes and scores of one image, as a pickle holds them."""
    fields = vars(item) if isinstance(item, Fields) else item
    if isinstance(fields, Mapping):
        missing = [name for name in ('bboxes', 'scores') if name not in fields]
        if missing:
            raise ValueError(f'{what} has no {" and no ".join(missing)}, it has {sorted(fields)}')
        return _checked(fields['bboxes'], fields['scores'], what)
    if getattr(fields, 'ndim', 0) == 2 and fields.shape[1] == 5:
        return _checked(fields[:, :4], fields[:, 4], what)
    if getattr(fields, 'ndim', 0) == 2 and fields.shape[1] == 4:
        return _checked(fields, np.ones(len(fields)), what)
    raise ValueError(
        f'{what} is a {type(fields).__name__}'
        + (f' of shape {tuple(fields.shape)}' if hasattr(fields, 'shape') else '')
        + '; expected are boxes and scores, as InstanceData or as an array of shape (n, 5)'
    )


def _checked(boxes: ArrayLike, scores: ArrayLike, what: str) -> ImageProposals:
    try:
        boxes, scores = (np.asarray(values, np.float32) for values in (boxes, scores))
    except (TypeError, ValueError) as error:
        raise ValueError(f'{what}: boxes and scores must be numbers: {error}') from None
    if boxes.shape != (len(scores), 4) or scores.ndim != 1:
        raise ValueError(
            f'{what}: boxes must have the shape (n, 4) and scores (n,), they have {boxes.shape} '
            f'and {scores.shape}'
        )
    return ImageProposals(boxes, scores)


def _load_json(path: str | os.PathLike) -> list[Any]:
    try:
        with open(path, encoding='utf-8') as file:
            content = json.load(file)
    except FileNotFoundError:
        raise FileNotFoundError(f'there is no file {path}') from None
    except ValueError as error:  # JSON or UTF-8
        raise ValueError(f'{path} is not a JSON file: {error}') from None
    if not isinstance(content, list):
        raise ValueError(
            f'{path} is not a file of COCO results: a list of dicts with image_id, bbox and score; '
            f'it holds a {type(content).__name__}'
        )
    return content


def _by_id(path: str | os.PathLike, results: list[Any], images: _Images) -> list[ImageProposals]:
    ids = set(images.id)
    if len(ids) != len(set(zip(images.id, images.path))):
        raise ValueError(
            f'{path} names images by ids, which are not unique in this data set of several: give '
            f"a pickle of MMDetection's DumpProposals, which names them by files"
        )
    rows: dict[Any, list[tuple]] = {key: [] for key in ids}
    unknown: set[Any] = set()
    for i, result in enumerate(results):
        image, row = _coco_row(result, f'{path}: result {i}')
        rows[image].append(row) if image in rows else unknown.add(image)
    if results and not any(rows.values()):
        raise ValueError(
            f'{path} has proposals of other images: none of its {len(unknown)} image ids, such as '
            f'{next(iter(unknown))!r}, is one of this data set, such as {images.id[0]!r}. Were '
            f'they made on the training images?'
        )
    entries = {key: _from_rows(found) for key, found in rows.items()}
    return [entries[key] for key in images.id]


def _coco_row(result: Any, what: str) -> tuple[Any, tuple[float, ...]]:
    """Image id, and box (xywh) and score."""
    try:
        image, box, score = (result[key] for key in ('image_id', 'bbox', 'score'))
        row = (*map(float, box), float(score))
        hash(image)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f'{what} must have image_id, bbox (x, y, width, height) and score: '
            f'{type(error).__name__}: {error}'
        ) from None
    if len(row) != 5:
        raise ValueError(f'{what}: bbox must be (x, y, width, height), got {box}')
    return image, row


def _from_rows(rows: Iterable[tuple]) -> ImageProposals:
    array = np.array(list(rows), np.float64).reshape(-1, 5)
    array[:, 2:4] += array[:, :2]
    array = array.astype(np.float32)
    return ImageProposals(array[:, :4], array[:, 4])


def _check_boxes(
    path: str | os.PathLike, proposals: Sequence[ImageProposals], images: _Images
) -> None:
    """Boxes of another frame or other images would make chips of what nobody has proposed."""
    outside = [_outside(entry.boxes, size) for entry, size in zip(proposals, images.size)]
    count, total = sum(map(int, map(np.sum, outside))), sum(map(len, outside))
    if count <= _OUTSIDE * total:
        return
    worst = int(np.argmax([mask.sum() for mask in outside]))
    box = proposals[worst].boxes[outside[worst]][0]
    width, height = images.size[worst]
    raise ValueError(
        f'{path}: {count} of {total} boxes are not inside their images, such as '
        f'{[round(float(v), 1) for v in box]} of {images.path[worst]}, which has {width}x{height} '
        f'px: boxes must be x1, y1, x2, y2 in pixels of the original images, and of these images'
    )


def _outside(boxes: NDArray[np.float32], size: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Boxes that are turned inside out or have their centre outside an image."""
    with np.errstate(invalid='ignore'):
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2
        inside = (boxes[:, 2:] >= boxes[:, :2]) & (centre >= -1) & (centre <= size + 1)
    return ~inside.all(axis=1)
