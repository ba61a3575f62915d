"""Detect objects in image files: at one scale, at all levels of the pyramid, or by AutoFocus.

OUT_DIR gets

- detections.json: all detections as COCO results (image_id, category_id, bbox as x, y, width,
  height in original pixels, score), whatever their score;
- images.json: their images and categories in COCO's annotation format, so that
  COCO('images.json').loadRes('detections.json') works; with --mode autofocus also the chips of each
  level (xyxy, original pixels, fine to coarse) and the number of pixels that the detector has seen;
- vis/: a picture of each image with its detections;
- focus/: with --mode autofocus, a figure of what each level has seen and found.

Images are numbered from 1, in the order of their names. Categories are those of the annotation file
of the config's test data, if it is there; otherwise a category's number is its label + 1. Boxes
only: masks are not predicted.

What has been detected is kept in OUT_DIR/progress.jsonl until all images are done: the same command
goes on where it was interrupted, one with other settings begins anew. An image that cannot be read
does not end the run. It is named at once and at the end, the exit status is 1, and the same command
tries it again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Read when torch is loaded, see tools/_launch.py.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

import cv2
import numpy as np
import torch
from mmdet.registry import DATASETS, MODELS, TRANSFORMS
from mmdet.structures import DetDataSample
from mmdet.visualization import DetLocalVisualizer
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.dataset import Compose, pseudo_collate
from mmengine.device import get_device
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from mmengine.structures import InstanceData
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

import mmsniper.datasets  # registers the transforms
import mmsniper.models  # noqa: F401
from mmsniper.convert import load_config
from mmsniper.convert.autofocus import autofocus_model
from mmsniper.datasets.wrappers import read_datasets
from mmsniper.utils.compat import allow_checkpoint_globals
from mmsniper.utils.files import replacing, write_text
from mmsniper.visualization import draw_focus, save_figure
from mmsniper.visualization.figure import MAX_SIDE, shrunk

SINGLE, PYRAMID, AUTOFOCUS = MODES = ('single', 'pyramid', 'autofocus')
SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.ppm', '.pgm')
WRITTEN_SUFFIXES = ('.jpg', '.jpeg', '.png')
DETECTIONS, IMAGES, PROGRESS = 'detections.json', 'images.json', 'progress.jsonl'
VIS, FOCUS = 'vis', 'focus'


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'images',
        nargs='+',
        metavar='IMAGES_OR_DIR',
        help='image files, or folders: the images in and below them',
    )
    parser.add_argument('config', metavar='CONFIG', help='config of the detector')
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='its weights')
    parser.add_argument(
        '--mode',
        choices=MODES,
        required=True,
        help=f"{SINGLE}: the test pipeline's one scale (of an AutoFocus config, "
        f"that of validation); {PYRAMID}: the config's tta_model and "
        f'tta_pipeline, for SNIPER all levels; {AUTOFOCUS}: coarse to fine, by an '
        'AutoFocus config or, without FocusHead, any SNIPER config. For images of '
        'any size',
    )
    parser.add_argument(
        '--thresholds',
        type=float,
        nargs='+',
        metavar='T',
        help=f'for {AUTOFOCUS}: least probability of a FocusPixel for each step, '
        'coarse to fine, or one for all; higher is faster; default: those of the '
        'config',
    )
    parser.add_argument('--out-dir', required=True, help='folder of the results')
    parser.add_argument('--device', help='such as cuda:0 or cpu; default: the GPU if there is one')
    parser.add_argument(
        '--score-thr',
        type=float,
        default=0.3,
        metavar='S',
        help='least score of what is drawn; default: 0.3',
    )
    parser.add_argument(
        '--picture-side',
        type=int,
        default=MAX_SIDE,
        metavar='PX',
        help=f'pictures of larger images are reduced to this side; default: {MAX_SIDE}',
    )
    parser.add_argument('--no-pictures', action='store_true', help='write the JSON files only')
    parser.add_argument(
        '--palette',
        default='none',
        choices=['none', 'coco', 'voc', 'citys', 'random'],
        help='colours of the classes; default: those of the data set',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='settings that override the config; for many objects in large images '
        'model.tta_cfg.max_per_img=5000 (SNIPER configs: '
        'tta_model.tta_cfg.max_per_img)',
    )
    args = parser.parse_intermixed_args(argv)
    if args.thresholds and args.mode != AUTOFOCUS:
        parser.error(f'--thresholds are for --mode {AUTOFOCUS}, not for {args.mode}')
    if args.picture_side < 1:
        parser.error(f'--picture-side must be at least 1, got {args.picture_side}')
    return args


# Images -------------------------------------------------------------------------------------------


def find_images(inputs: Sequence[str], out_dir: Path) -> dict[str, Path]:
    """The images to detect, by the names that they are given in the results.

    Args:
        inputs (Sequence[str]): Files and folders. A file is taken whatever its suffix.
        out_dir (Path): Where pictures are written; they are no input.

    Returns:
        dict[str, Path]: Paths by name, sorted; a name is the path from the folder that holds all
        inputs.

    Raises:
        FileNotFoundError: If an input does not exist or there is no image.
    """
    roots, found = [], set()
    for path in (_absolute(name) for name in inputs):
        if not path.exists():
            raise FileNotFoundError(f'{path} does not exist')
        roots.append(path if path.is_dir() else path.parent)
        found |= set(_images_below(path, _absolute(out_dir))) if path.is_dir() else {path}
    if not found:
        raise FileNotFoundError(
            f'there are no images in {", ".join(inputs)}: no file ends in {", ".join(SUFFIXES)}'
        )
    root = os.path.commonpath(roots)
    return {path.relative_to(root).as_posix(): path for path in sorted(found)}


def _absolute(path: str | os.PathLike[str]) -> Path:
    return Path(os.path.abspath(path))


def _images_below(folder: Path, out_dir: Path) -> Iterator[Path]:
    for path in folder.rglob('*'):
        made_here = any(path.is_relative_to(out_dir / made) for made in (VIS, FOCUS))
        if path.suffix.lower() in SUFFIXES and not made_here and path.is_file():
            yield path


# What a mode needs of a config --------------------------------------------------------------------


def working_modes(cfg: Config) -> list[str]:
    """The modes that a config has all for."""
    has = {
        SINGLE: _pipeline(cfg) is not None,
        PYRAMID: 'tta_model' in cfg and 'tta_pipeline' in cfg,
        AUTOFOCUS: _is_autofocus(cfg) or 'pyramid' in cfg,
    }
    return [mode for mode in MODES if has[mode]]


NEEDS = {
    SINGLE: 'a test_dataloader whose data set has a pipeline',
    PYRAMID: 'tta_model and tta_pipeline, which SNIPER configs have',
    AUTOFOCUS: "a model of type 'AutoFocus', or a pyramid, which SNIPER configs have",
}


def mode_config(cfg: Config, mode: str) -> tuple[ConfigDict, list[Mapping[str, Any]]]:
    """The model and the pipeline of a mode.

    Args:
        cfg (Config): The config, left as it is.
        mode (str): One of ``MODES``.

    Returns:
        tuple[ConfigDict, list[dict]]: Config of the model, and those of the transforms, of which
        the first loads the image. For AutoFocus that is all: it sees the image as it is.

    Raises:
        ValueError: If the config lacks what the mode needs.
    """
    works = working_modes(cfg)
    if mode not in works:
        raise ValueError(
            f'--mode {mode} needs {NEEDS[mode]}; {cfg.filename} has none. '
            + (f'With it works: --mode {" or ".join(works)}' if works else 'No mode works with it')
        )
    cfg = deepcopy(cfg)
    detector = cfg.model.detector if _is_autofocus(cfg) else cfg.model
    if cfg.get('data_preprocessor'):
        detector.setdefault('data_preprocessor', cfg.data_preprocessor)
    if mode == AUTOFOCUS:
        model = (
            cfg.model
            if _is_autofocus(cfg)
            else autofocus_model(
                detector, cfg.pyramid, cfg.get('tta_model') or {}, dict(focus_head=None)
            )
        )
        pipeline = (_pipeline(cfg) or [ConfigDict(type='LoadImageFromFile')])[:1]
    elif mode == PYRAMID:
        model, pipeline = ConfigDict(**cfg.tta_model, module=detector), cfg.tta_pipeline
    else:
        model, pipeline = detector, _pipeline(cfg)
    return model, [_loading(cfg, pipeline[0]), *pipeline[1:]]


def _is_autofocus(cfg: Config) -> bool:
    return cfg.model.type == 'AutoFocus'


def _pipeline(cfg: Config) -> list[Mapping[str, Any]] | None:
    """The pipeline of a test at one scale."""
    loader = cfg.get('val_dataloader' if _is_autofocus(cfg) else 'test_dataloader')
    if loader is None:
        return None
    return next(read_datasets(loader.dataset)).get('pipeline') or None


def _loading(cfg: Config, transform: Mapping[str, Any]) -> ConfigDict:
    """The transform that loads images, in the version that does so once."""
    if 'LoadImageFromFile' not in transform['type']:
        raise ValueError(
            f'the pipeline of {cfg.filename} begins with {transform["type"]}; image files need '
            f'LoadImageFromFile there'
        )
    if transform['type'].rpartition('.')[2] == 'LoadImageFromFile':
        return ConfigDict(transform, type='mmdet.LoadLargeImageFromFile')
    return transform


# The detector -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Classes:
    """What the labels of a detector mean.

    Attributes:
        names: Names of the classes.
        ids: Category ids in COCO results.
        palette: Colours, or the name of a palette.
        source: Where the ids are from, in words.
    """

    names: Sequence[str]
    ids: Sequence[int]
    palette: Any
    source: str

    @classmethod
    def of(cls, cfg: Config, checkpoint: Mapping[str, Any], palette: str = 'none') -> Classes:
        """Ask the checkpoint, the config's data set and its annotation file."""
        metainfo, ann_file = _dataset(cfg)
        saved = (checkpoint.get('meta') or {}).get('dataset_meta') or {}
        metainfo = {**metainfo, **{key.lower(): value for key, value in saved.items()}}
        names = list(metainfo.get('classes') or ())
        if palette == 'none':
            palette = metainfo.get('palette') or 'random'
        # In the order of the annotation file, as CocoDataset numbers its labels.
        listed = [item for item in _categories(ann_file) if item['name'] in names]
        if names and len(listed) == len(names):
            return cls(
                [item['name'] for item in listed],
                [item['id'] for item in listed],
                palette,
                f'those of {ann_file}',
            )
        return cls(names, range(1, len(names) + 1), palette, 'label + 1')

    def name(self, label: int) -> str:
        return self.names[label] if label < len(self.names) else f'class {label}'

    def category(self, label: int) -> int:
        return self.ids[label] if label < len(self.ids) else label + 1


def _dataset(cfg: Config) -> tuple[Mapping[str, Any], str | None]:
    """Metainfo and annotation file of the config's (first) test data set, unread."""
    loader = cfg.get('test_dataloader') or cfg.get('val_dataloader')
    if loader is None:
        return {}, None
    config = ConfigDict(deepcopy(next(read_datasets(loader.dataset))), lazy_init=True, pipeline=[])
    dataset = DATASETS.build(config)
    return dataset.metainfo, getattr(dataset, 'ann_file', None)


def _categories(ann_file: str | None) -> list[Mapping[str, Any]]:
    if not ann_file or Path(ann_file).suffix != '.json' or not Path(ann_file).is_file():
        return []
    content = json.loads(Path(ann_file).read_text())
    return content.get('categories', []) if isinstance(content, dict) else []


def load_model(
    config: ConfigDict, checkpoint: str, device: str
) -> tuple[nn.Module, Mapping[str, Any]]:
    """Build a model and load its weights, all of them.

    Checkpoints of the detector alone and of AutoFocus are taken alike.

    Returns:
        tuple[nn.Module, dict]: The model, ready to test, and the checkpoint.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If it lacks weights of the model.
    """
    if '://' not in checkpoint and not Path(checkpoint).is_file():
        raise FileNotFoundError(f'there is no checkpoint {checkpoint}')
    model = revert_sync_batchnorm(MODELS.build(config))
    for part in model.modules():
        # Boxes only: masks of the size of a large image would not fit into memory.
        if getattr(getattr(part, 'roi_head', None), 'with_mask', False):
            part.roi_head.mask_head = None
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(torch.nan)
    loaded = load_checkpoint(
        model,
        checkpoint,
        map_location='cpu',
        revise_keys=[(r'^module\.', ''), (r'^detector\.', '')],
    )
    # mmengine only warns of what is missing and of what has another shape.
    missing = [
        name for name, weight in model.named_parameters() if weight.numel() and weight.isnan().all()
    ]
    if missing:
        raise ValueError(
            f'{checkpoint} is of another model: it lacks {len(missing)} of the weights of the '
            f"config's, or has them in another shape, such as {', '.join(missing[:3])}"
            + (
                '. Without a FocusHead use the SNIPER config'
                if all(name.startswith('focus_head.') for name in missing)
                else ''
            )
        )
    return model.to(device).eval(), loaded


@dataclass(frozen=True)
class Detected:
    """What was found in an image.

    Attributes:
        size: Width and height.
        picture: The image, reduced, (h, w, 3) uint8 BGR.
        found: ``bboxes`` in original pixels, ``scores``, ``labels`` as arrays; of AutoFocus also
            ``levels``.
        focus: What AutoFocus tells of its way, empty for others.
    """

    size: tuple[int, int]
    picture: NDArray[np.uint8]
    found: InstanceData
    focus: Mapping[str, Any]


class ImageDetector:
    """A detector in one of the modes, for image files.

    Args:
        model (nn.Module): The model, see :func:`load_model`.
        pipeline (Sequence[dict]): Configs of the transforms, see :func:`mode_config`.
        picture_side (int): Side of the picture that is kept for drawing, at most.
        pictures (bool): Whether there will be pictures.
    """

    def __init__(
        self,
        model: nn.Module,
        pipeline: Sequence[Mapping[str, Any]],
        picture_side: int = MAX_SIDE,
        pictures: bool = True,
    ) -> None:
        self.model, self.picture_side = model, picture_side
        self.load = TRANSFORMS.build(pipeline[0])
        self.prepare = Compose(pipeline[1:]) if pipeline[1:] else _as_it_is
        if hasattr(model, 'keep_maps'):
            model.keep_maps = pictures

    @torch.no_grad()
    def __call__(self, path: Path) -> Detected:
        """Detect in one image.

        Raises:
            Exception: Whatever the file or the pipeline gives cause to.
        """
        results = self.load(dict(img_path=str(path), img_id=0))
        image = results['img']
        picture, size = _reduced(image, self.picture_side), image.shape[1::-1]
        data = self.prepare(results)
        # In AutoFocus the input is the image itself. Elsewhere it can go.
        del results, image
        [result] = self.model.test_step(pseudo_collate([data]))
        focus = {key: value for key, value in result.metainfo.items() if key.startswith('focus_')}
        return Detected(size, picture, result.pred_instances.cpu().numpy(), focus)


def _as_it_is(results: Mapping[str, Any]) -> dict[str, Any]:
    """Pack an image without copying it, which PackDetInputs would do."""
    image = results['img']
    sample = DetDataSample(
        metainfo={key: results[key] for key in ('img_id', 'img_path', 'ori_shape', 'img_shape')}
    )
    return dict(inputs=torch.from_numpy(image).permute(2, 0, 1), data_samples=sample)


def _reduced(image: NDArray, side: int) -> NDArray[np.uint8]:
    """A copy of at most the given side, which no transform can change."""
    return np.clip(shrunk(image, side), 0, 255).astype(np.uint8)


# Results ------------------------------------------------------------------------------------------


class Progress:
    """What has been detected: a line of JSON for each image, written as it comes.

    Args:
        path (Path): The file; its folder is made.
        run (dict): What decides the results. A file of another run is replaced.
    """

    def __init__(self, path: Path, run: Mapping[str, Any]) -> None:
        self.path = path
        self._places: dict[str, int] = {}
        self._stamps: dict[str, list[int]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        header = (json.dumps(run) + '\n').encode()
        if not (path.is_file() and self._take_up(header)):
            path.write_bytes(header)

    def _take_up(self, header: bytes) -> bool:
        """Read a file of this run; a last line that was cut short is taken off."""
        with open(self.path, 'rb+') as file:
            if file.readline() != header:
                return False
            place = file.tell()
            while (line := file.readline()).endswith(b'\n'):
                self._note(json.loads(line), place)
                place = file.tell()
            file.truncate(place)
        return True

    def _note(self, line: Mapping[str, Any], place: int) -> None:
        self._places[line['name']], self._stamps[line['name']] = place, line['stamp']

    def add(self, name: str, path: Path, content: Mapping[str, Any]) -> None:
        """Keep what was detected in an image."""
        line = dict(name=name, stamp=_stamp(path), **content)
        with open(self.path, 'ab') as file:
            place = file.tell()
            file.write((json.dumps(line) + '\n').encode())
        self._note(line, place)

    def has(self, name: str, path: Path) -> bool:
        """Whether this image, unchanged, has been detected."""
        return name in self._stamps and self._stamps[name] == _stamp(path)

    def lines(self, names: Iterable[str]) -> Iterator[dict[str, Any]]:
        """What was detected in those of the images that are done."""
        with open(self.path, 'rb') as file:
            for name in names:
                if name in self._places:
                    file.seek(self._places[name])
                    yield json.loads(file.readline())


def _stamp(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def content_of(detected: Detected, classes: Classes) -> dict[str, Any]:
    """What is kept of an image, as numbers: 1/1000 of a pixel is exact enough."""
    found = detected.found
    sides = np.concatenate(
        [found.bboxes[:, :2], found.bboxes[:, 2:] - found.bboxes[:, :2]], axis=1
    ).astype(float)
    detections = [
        dict(category_id=classes.category(label), bbox=box, score=round(score, 6))
        for label, box, score in zip(
            found.labels.tolist(), sides.round(3).tolist(), found.scores.tolist()
        )
    ]
    content = dict(width=detected.size[0], height=detected.size[1], detections=detections)
    if 'focus_chips' in detected.focus:
        content['focus_chips'] = [
            chips.round(3).tolist() for chips in detected.focus['focus_chips']
        ]
        content['focus_pixels'] = int(detected.focus['focus_pixels'])
    return content


def write_results(
    out_dir: Path, images: Mapping[str, Path], progress: Progress, classes: Classes
) -> int:
    """Write detections.json and images.json of the images that are done; returns their number."""
    ids = {name: number for number, name in enumerate(images, 1)}
    listed = []
    with replacing(out_dir / DETECTIONS) as temporary, open(temporary, 'w') as file:
        separator = '[\n'
        for line in progress.lines(images):
            name, detections = line.pop('name'), line.pop('detections')
            del line['stamp']
            listed.append(dict(id=ids[name], file_name=name, **line))
            for detection in detections:
                file.write(separator + json.dumps(dict(image_id=ids[name], **detection)))
                separator = ',\n'
        file.write('[]\n' if separator == '[\n' else '\n]\n')
    categories = [
        dict(id=classes.category(label), name=name) for label, name in enumerate(classes.names)
    ]
    write_text(
        out_dir / IMAGES,
        json.dumps(dict(images=listed, annotations=[], categories=categories)) + '\n',
    )
    return len(listed)


# Pictures -----------------------------------------------------------------------------------------


class Pictures:
    """Draws what was detected.

    Args:
        out_dir (Path): Folder of ``vis/`` and ``focus/``.
        classes (Classes): The classes.
        score_thr (float): Least score of what is drawn.
        thresholds (Sequence[float] | None): Thresholds of AutoFocus, None without it.
    """

    def __init__(
        self,
        out_dir: Path,
        classes: Classes,
        score_thr: float,
        thresholds: Sequence[float] | None = None,
    ) -> None:
        self.out_dir, self.score_thr, self.thresholds = out_dir, score_thr, thresholds
        self.classes = classes
        self.visualizer = DetLocalVisualizer()

    def paths(self, name: str) -> list[Path]:
        """The pictures of an image."""
        suffix = '' if Path(name).suffix.lower() in WRITTEN_SUFFIXES else '.png'
        paths = [self.out_dir / VIS / (name + suffix)]
        if self.thresholds is not None:
            paths.append(self.out_dir / FOCUS / f'{name}.png')
        return paths

    def draw(self, name: str, detected: Detected) -> None:
        """Draw and write the pictures of an image."""
        vis, *focus = self.paths(name)
        _write_image(vis, self._with_boxes(detected))
        for path in focus:
            found = detected.found
            figure = draw_focus(
                detected.picture,
                detected.focus['focus_chips'],
                detected.focus['focus_maps'],
                found.bboxes,
                found.levels,
                found.scores,
                size=detected.size,
                thresholds=self.thresholds,
                score_thr=self.score_thr,
                title=name,
            )
            save_figure(figure, path)

    def _with_boxes(self, detected: Detected) -> NDArray[np.uint8]:
        found, picture = detected.found, detected.picture
        shrink = np.tile(np.array(picture.shape[1::-1]) / detected.size, 2)
        labels = found.labels
        number = int(labels.max(initial=len(self.classes.names) - 1)) + 1
        self.visualizer.dataset_meta = dict(
            classes=[self.classes.name(label) for label in range(number)],
            palette=self.classes.palette,
        )
        sample = DetDataSample(
            pred_instances=InstanceData(
                bboxes=torch.from_numpy(found.bboxes * shrink),
                labels=torch.from_numpy(labels),
                scores=torch.from_numpy(found.scores),
            )
        )
        with warnings.catch_warnings():
            # Of boxes at the edge, once for each kind of line.
            warnings.filterwarnings('ignore', message='.*out of bounds')
            self.visualizer.add_datasample(
                'detections',
                np.ascontiguousarray(picture[..., ::-1]),
                sample,
                draw_gt=False,
                pred_score_thr=self.score_thr,
            )
        return self.visualizer.get_image()[..., ::-1]


def _write_image(path: Path, image: NDArray[np.uint8]) -> None:
    _, encoded = cv2.imencode(path.suffix, image)
    with replacing(path) as temporary:
        temporary.write_bytes(encoded.tobytes())


# The run ------------------------------------------------------------------------------------------


def infer(cfg: Config, args: argparse.Namespace) -> dict[str, str]:
    """Detect in all images; returns what was wrong with those that could not be done, by name."""
    out_dir = Path(args.out_dir)
    images = find_images(args.images, out_dir)
    config, pipeline = mode_config(cfg, args.mode)
    if args.thresholds:
        config.thresholds = args.thresholds if len(args.thresholds) > 1 else args.thresholds[0]
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    model, checkpoint = load_model(config, args.checkpoint, args.device or get_device())
    classes = Classes.of(cfg, checkpoint, args.palette)
    print(f'{len(images)} images; category ids: {classes.source}')
    del checkpoint
    pictures = None
    if not args.no_pictures:
        thresholds = model.thresholds if args.mode == AUTOFOCUS else None
        pictures = Pictures(out_dir, classes, args.score_thr, thresholds)
    detector = ImageDetector(model, pipeline, args.picture_side, pictures is not None)
    progress = Progress(out_dir / PROGRESS, _run(cfg, args, classes))
    failed = detect_all(images, detector, progress, pictures, classes)
    count = write_results(out_dir, images, progress, classes)
    if not failed:
        progress.path.unlink()
    print(f'detections of {count} images in {out_dir / DETECTIONS}')
    return failed


def detect_all(
    images: Mapping[str, Path],
    detector: ImageDetector,
    progress: Progress,
    pictures: Pictures | None,
    classes: Classes,
) -> dict[str, str]:
    """Detect in the images that are not done yet; returns what was wrong, by name of the image."""
    failed = {}
    bar = tqdm(images.items(), 'images', unit='image')
    for name, path in bar:
        drawn = pictures is None or all(picture.is_file() for picture in pictures.paths(name))
        try:
            if drawn and progress.has(name, path):
                continue
            detected = detector(path)
            # The picture first: what is in the progress file is complete.
            if pictures is not None:
                pictures.draw(name, detected)
            progress.add(name, path, content_of(detected, classes))
        except Exception as error:  # of whatever kind: the other images are to be done
            failed[name] = _in_words(error)
            bar.write(f'{path}: {failed[name]}', file=sys.stderr)
    return failed


def _in_words(error: Exception) -> str:
    first = str(error).strip().partition('\n')[0]
    return f'{type(error).__name__}: {first}' if first else type(error).__name__


def _run(cfg: Config, args: argparse.Namespace, classes: Classes) -> dict[str, Any]:
    """What the results of a run depend on, besides the images."""
    weights = args.checkpoint if '://' in args.checkpoint else _stamp(Path(args.checkpoint))
    settings = json.dumps(cfg.to_dict(), default=str)  # pretty_text takes seconds
    return dict(
        config=hashlib.sha256(settings.encode()).hexdigest(),
        mode=args.mode,
        thresholds=args.thresholds,
        checkpoint=str(args.checkpoint),
        weights=weights,
        categories=list(classes.ids),
        pictures=[args.no_pictures, args.score_thr, args.picture_side, args.palette],
    )


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    allow_checkpoint_globals()
    try:
        failed = infer(load_config(args.config, args.cfg_options), args)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f'error: {error}')
    if failed:
        lines = '\n'.join(f'  {name}: {error}' for name, error in failed.items())
        sys.exit(
            f'{len(failed)} images could not be done; the same command tries them again:\n{lines}'
        )


if __name__ == '__main__':
    main()
