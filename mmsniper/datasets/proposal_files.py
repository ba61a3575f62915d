"""Files of region proposals: MMDetection's, and COCO's results, which most tools can write."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmsniper.chips.file_names import match_files
from mmsniper.datasets.data_pickle import Fields, load_data

# This fraction of all boxes may lie outside their images; if it is more, the boxes are of other
# images, or scaled.
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
    out. Pickles are read by :func:`~mmsniper.datasets.data_pickle.load_data`.

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
    return _ProposalFile(path, dataset).read()


class _ProposalFile:
    """A file, and what is known of a data set's images, in the order of its indices."""

    def __init__(self, path: str | os.PathLike, dataset: Any) -> None:
        self.path = path
        self.images: list[str] = []
        self.ids: list[Any] = []
        self.shapes: list[tuple[int, int]] = []
        for i in range(len(dataset)):
            info = dataset.get_data_info(i)
            self.images.append(info['img_path'])
            self.ids.append(info.get('img_id'))
            self.shapes.append((info['width'], info['height']))

    def read(self) -> list[ImageProposals]:
        suffix = Path(self.path).suffix
        if suffix == '.json':
            proposals = self._by_id(self._load_json())
        elif suffix in ('.pkl', '.pickle'):
            proposals = self._from_pickle(load_data(self.path))
        else:
            raise ValueError(
                f'{self.path}: proposals are read from a .pkl or .pickle file, as MMDetection '
                f'writes it, or from COCO results in a .json file'
            )
        self._check_boxes(proposals)
        return proposals

    def _from_pickle(self, content: Any) -> list[ImageProposals]:
        if isinstance(content, Mapping):
            return self._by_file(list(content), list(content.values()))
        if not isinstance(content, Sequence) or isinstance(content, (str, bytes)):
            raise ValueError(
                f'{self.path} holds a {type(content).__name__}; expected is a dict of '
                f"InstanceData, as MMDetection's DumpProposals writes it, or a list"
            )
        if content and all(isinstance(item, Mapping) and 'img_path' in item for item in content):
            found = [item.get('pred_instances') for item in content]
            return self._by_file([item['img_path'] for item in content], found)
        return self._in_order(content)

    def _by_file(self, files: Sequence[Any], found: Sequence[Any]) -> list[ImageProposals]:
        wrong = [file for file in files if not isinstance(file, str)]
        if wrong:
            raise ValueError(f'{self.path} must name images by their files, it has {wrong[0]!r}')
        index = match_files(self.images, files).tolist()
        missing = sorted({image for image, i in zip(self.images, index) if i < 0})
        if missing and max(index) < 0:
            raise ValueError(
                f'{self.path} has proposals of other images: none of its {len(files)} files, such '
                f'as {min(files, default=None)}, is one of this data set, such as {missing[0]}. '
                f'Were they made on the training images?'
            )
        if missing:
            raise ValueError(
                f'{self.path} has no proposals for {len(missing)} of the {len(set(self.images))} '
                f'images, such as {missing[0]}: make them on all images that are trained on'
            )
        for image, i in zip(self.images, index):
            # MMDetection names a file with its folder; another one's 0001.jpg is another image.
            if '/' in files[i] and PurePath(files[i]).parts[-2:] != PurePath(image).parts[-2:]:
                raise ValueError(
                    f'{self.path} has proposals of {files[i]}, the data set has {image}: make the '
                    f'proposals on the training images, or, if these are the same images in a '
                    f'folder that was renamed, give it its name back'
                )
        entries = {i: _entry(found[i], f'{self.path}: {files[i]}') for i in set(index)}
        return [entries[i] for i in index]

    def _in_order(self, found: Sequence[Any]) -> list[ImageProposals]:
        position = {file: i for i, file in enumerate(dict.fromkeys(self.images))}
        if len(found) != len(position):
            raise ValueError(
                f'{self.path} is a list for {len(found)} images, in the order of the data set that '
                f'it was made on, but this one has {len(position)}. If it was made on all images '
                f'of the annotation file, turn off what leaves some out: filter_cfg=None in the '
                f'data set'
            )
        entries = [_entry(item, f'{self.path}: entry {i}') for i, item in enumerate(found)]
        return [entries[position[file]] for file in self.images]

    def _load_json(self) -> list[Any]:
        try:
            content = json.loads(Path(self.path).read_bytes())
        except FileNotFoundError:
            raise FileNotFoundError(f'there is no file {self.path}') from None
        except (ValueError, RecursionError) as error:  # JSON or UTF-8
            raise ValueError(f'{self.path} is not a JSON file: {error}') from None
        if not isinstance(content, list):
            raise ValueError(
                f'{self.path} is not a file of COCO results: a list of dicts with image_id, bbox '
                f'and score; it holds a {type(content).__name__}'
            )
        return content

    def _by_id(self, results: list[Any]) -> list[ImageProposals]:
        rows: dict[Any, list[tuple]] = {key: [] for key in self.ids}
        if len(rows) != len(set(zip(self.ids, self.images))):
            raise ValueError(
                f'{self.path} names images by ids, which are not unique in this data set of '
                f"several: give a pickle of MMDetection's DumpProposals, which names them by files"
            )
        unknown: set[Any] = set()
        for i, result in enumerate(results):
            image, row = _coco_row(result, f'{self.path}: result {i}')
            rows[image].append(row) if image in rows else unknown.add(image)
        if results and not any(rows.values()):
            raise ValueError(
                f'{self.path} has proposals of other images: none of its {len(unknown)} image ids, '
                f'such as {next(iter(unknown))!r}, is one of this data set, such as '
                f'{self.ids[0]!r}. Were they made on the training images?'
            )
        entries = {}
        for image, found in rows.items():
            array = np.array(found, np.float64).reshape(-1, 5)
            array[:, 2:4] += array[:, :2]
            entries[image] = _checked(array[:, :4], array[:, 4], f'{self.path}: image {image}')
        return [entries[image] for image in self.ids]

    def _check_boxes(self, proposals: Sequence[ImageProposals]) -> None:
        """Boxes of another frame or other images would make chips of what nobody has proposed."""
        outside = [_outside(entry.boxes, shape) for entry, shape in zip(proposals, self.shapes)]
        counts = [int(mask.sum()) for mask in outside]
        total = sum(map(len, outside))
        if sum(counts) <= _OUTSIDE * total:
            return
        worst = int(np.argmax(counts))
        box = proposals[worst].boxes[outside[worst]][0]
        width, height = self.shapes[worst]
        raise ValueError(
            f'{self.path}: {sum(counts)} of {total} boxes are not inside their images, such as '
            f'{[round(float(v), 1) for v in box]} of {self.images[worst]}, which has '
            f'{width}x{height} px: boxes must be x1, y1, x2, y2 in pixels of the original images, '
            f'and of these images'
        )


def _entry(item: Any, what: str) -> ImageProposals:
    """Boxes and scores of one image, as a pickle holds them."""
    fields = vars(item) if isinstance(item, Fields) else item
    if isinstance(fields, Mapping):
        missing = [name for name in ('bboxes', 'scores') if name not in fields]
        if missing:
            raise ValueError(
                f'{what} has no {" and no ".join(missing)}, it has {sorted(map(str, fields))}'
            )
        return _checked(fields['bboxes'], fields['scores'], what)
    if getattr(fields, 'ndim', 0) == 2 and fields.shape[1] in (4, 5):
        scores = fields[:, 4] if fields.shape[1] == 5 else np.ones(len(fields))
        return _checked(fields[:, :4], scores, what)
    shape = f' of shape {tuple(fields.shape)}' if hasattr(fields, 'shape') else ''
    raise ValueError(
        f'{what} is a {type(fields).__name__}{shape}; expected are boxes and scores, as '
        f'InstanceData or as an array of shape (n, 5)'
    )


def _checked(boxes: ArrayLike, scores: ArrayLike, what: str) -> ImageProposals:
    try:
        boxes, scores = (np.asarray(values, np.float32) for values in (boxes, scores))
    # RuntimeError: a tensor that requires a gradient
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise ValueError(f'{what}: boxes and scores must be numbers: {error}') from None
    if scores.ndim != 1 or boxes.shape != (len(scores), 4):
        raise ValueError(
            f'{what}: boxes must have the shape (n, 4) and scores (n,), they have {boxes.shape} '
            f'and {scores.shape}'
        )
    return ImageProposals(boxes, scores)


def _coco_row(result: Any, what: str) -> tuple[Any, tuple[float, ...]]:
    """Image id, and box (xywh) and score."""
    try:
        image, box, score = (result[key] for key in ('image_id', 'bbox', 'score'))
        row = (*map(float, box), float(score))
        hash(image)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f'{what} must have image_id, bbox (x, y, width, height) and score: '
            f'{type(error).__name__}: {error}'
        ) from None
    if len(row) != 5:
        raise ValueError(f'{what}: bbox must be (x, y, width, height), got {box}')
    return image, row


def _outside(boxes: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Boxes that are turned inside out or have their centre outside an image (width, height)."""
    with np.errstate(invalid='ignore'):
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2
        inside = (boxes[:, 2:] >= boxes[:, :2]) & (centre >= -1) & (centre <= np.add(shape, 1))
    return ~np.all(inside, axis=1)
