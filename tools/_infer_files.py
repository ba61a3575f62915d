"""What infer.py does with image files: one after the other, so that nothing is lost."""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _detector import build_inferencer
from mmdet.structures import DetDataSample
from mmengine.config import Config
from numpy.typing import NDArray

from mmsniper.apis import SNIPERInferencer, find_images
from mmsniper.apis.geojson import GeoReference, check_crs, feature_collection
from mmsniper.apis.images import VIS, are_large
from mmsniper.apis.pictures import Pictures
from mmsniper.apis.results import Classes, ImageIds, coco_results, content_of
from mmsniper.datasets.image_faults import ImageFileError, image_fault
from mmsniper.models import AutoFocus
from mmsniper.utils.command_line import progress as progress_bar
from mmsniper.utils.files import check_folder, replacing, utf8_name, write_text
from mmsniper.utils.read_ahead import read_ahead
from mmsniper.utils.words import numbered

DETECTIONS, IMAGES, PROGRESS = 'detections.json', 'images.json', 'progress.jsonl'
GEOJSON = 'geojson'


def infer(cfg: Config, args: argparse.Namespace) -> tuple[dict[str, str], dict[str, str]]:
    """Detect in all images; returns what :func:`detect_all` does."""
    out_dir = Path(args.out_dir)
    check_folder(out_dir, '--out-dir')
    if args.geojson_crs:
        check_crs(args.geojson_crs)
    images = find_images(args.images, out_dir)
    inferencer = build_inferencer(cfg, args, palette=args.palette, read_ahead=args.read_ahead)
    classes, model = inferencer.classes, inferencer.model
    numbers = ImageIds.of(cfg, images)
    print(
        f'{numbered(len(images), "image")}; image ids: {numbers.source}; '
        f'category ids: {classes.source}'
    )
    for doubt in filter(None, (classes.doubt, numbers.doubt)):
        print(f'warning: {doubt}', file=sys.stderr)
    pictures = None
    if not args.no_pictures:
        steps = model.thresholds if isinstance(model, AutoFocus) else None
        pictures = Pictures(out_dir, classes, args.score_thr, steps)
        model.keep_maps = True
    progress = Progress(out_dir / PROGRESS, _run(cfg, args, classes))
    failed, undrawn = detect_all(
        images, inferencer, progress, pictures, args.picture_side, args.batch_size
    )
    count = write_results(out_dir, images, progress, classes, numbers)
    scenes = write_geojson(out_dir, images, progress, classes, args.geojson_crs)
    drawn = progress.lines(name for name in images if name not in undrawn)
    about_pictures = '' if args.no_pictures else _about_pictures(drawn, out_dir, args.score_thr)
    if not failed and not undrawn:
        progress.path.unlink()
    print(f'detections of {numbered(count, "image")} in {out_dir / DETECTIONS}')
    if scenes:
        print(f'of {numbered(scenes, "scene")} also in {out_dir / GEOJSON}')
    if about_pictures:
        print(about_pictures)
    return failed, undrawn


def _about_pictures(done: Iterable[Mapping[str, Any]], out_dir: Path, score_thr: float) -> str:
    """What the pictures show, and on how many there is nothing to see; '' if there are none."""
    best = [max((d['score'] for d in line['detections']), default=0.0) for line in done]
    if not best:
        return ''
    said = f'{numbered(len(best), "picture")} in {out_dir / VIS}, with boxes of scores above '
    said += f'{score_thr:g} (--score-thr)'
    empty = [score for score in best if score <= score_thr]
    if not empty:
        return said
    said += f'; {len(empty)} of them {"has" if len(empty) == 1 else "have"} no box'
    if not max(empty):
        return f'{said}, as nothing is detected there'
    lower = (math.ceil(round(max(empty) * 100, 6)) - 1) / 100  # below the score, not equal
    return f'{said}, the best score there is {max(empty):.3g}: try --score-thr {lower:g}'


def _run(cfg: Config, args: argparse.Namespace, classes: Classes) -> dict[str, Any]:
    """What the results of a run depend on, besides the images."""
    weights = args.checkpoint if '://' in args.checkpoint else file_stamp(Path(args.checkpoint))
    settings = json.dumps(cfg.to_dict(), default=str)  # pretty_text takes seconds
    return dict(
        config=hashlib.sha256(settings.encode()).hexdigest(),
        mode=args.mode,
        thresholds=args.thresholds,
        checkpoint=str(args.checkpoint),
        weights=weights,
        categories=list(classes.ids),
        texts=[args.texts, args.custom_entities],
        pictures=[args.no_pictures, args.score_thr, args.picture_side, args.palette],
        runtime=[args.precision, args.compile, args.batch_size],
    )


class NotKeptError(OSError):
    """What was detected cannot be written: to go on would be in vain."""


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
        line = dict(name=name, stamp=file_stamp(path), **content)
        with open(self.path, 'ab', buffering=0) as file:
            place, text = file.tell(), (json.dumps(line) + '\n').encode()
            try:
                written = file.write(text)
                if written < len(text):  # the disk is full, which the next write says
                    file.write(text[written:])
            except OSError as error:
                file.truncate(place)
                raise NotKeptError(
                    f'{self.path} cannot be written: {error.strerror}. It has the '
                    f'{len(self._places)} images that were detected before {name}; make room, and '
                    f'the same command goes on'
                ) from error
        self._note(line, place)

    def has(self, name: str, path: Path) -> bool:
        """Whether this image, unchanged, has been detected."""
        return name in self._stamps and self._stamps[name] == file_stamp(path)

    def lines(self, names: Iterable[str]) -> Iterator[dict[str, Any]]:
        """What was detected in those of the images that are done."""
        with open(self.path, 'rb') as file:
            for name in names:
                if name in self._places:
                    file.seek(self._places[name])
                    yield json.loads(file.readline())


def file_stamp(path: Path) -> list[int]:
    """What changes when a file is written: its size and time."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


@dataclass
class Loaded:
    """An image that is to be detected.

    Attributes:
        name: Its name in the results.
        path: Its file.
        data: What the model takes; None if the image is done already, or cannot be loaded.
        picture: The image, reduced, to draw on it.
        error: Why it cannot be loaded.
    """

    name: str
    path: Path
    data: Mapping[str, Any] | None = None
    picture: NDArray[np.uint8] | None = None
    error: Exception | None = None


def detect_all(
    images: Mapping[str, Path],
    inferencer: SNIPERInferencer,
    progress: Progress,
    pictures: Pictures | None,
    picture_side: int,
    batch_size: int = 1,
) -> tuple[dict[str, str], dict[str, str]]:
    """Detect in the images that are not done yet, loading some while others are detected.

    Returns:
        tuple[dict[str, str], dict[str, str]]: What was wrong with images that could not be done,
        and with the pictures of others, by the image's name.
    """
    failed: dict[str, str] = {}
    undrawn: dict[str, str] = {}
    bar = progress_bar(what='images', total=len(images), delay=0)

    def load(name: str, path: Path) -> Loaded:
        drawn = pictures is None or all(picture.is_file() for picture in pictures.paths(name))
        try:
            if drawn and progress.has(name, path):
                return Loaded(name, path)
            return Loaded(name, path, *inferencer.load(path, picture_side))
        except Exception as error:  # of whatever kind: the other images are to be done
            return Loaded(name, path, error=error)

    def fail(image: Loaded, error: Exception) -> None:
        failed[image.name] = _in_words(error, image.path)
        bar.write(f'{image.path}: {failed[image.name]}', file=sys.stderr)

    def finish(image: Loaded, sample: DetDataSample) -> None:
        # The picture first: what is in the progress file is complete, or named.
        if pictures is not None:
            try:
                pictures.draw(image.name, sample, image.picture)
            except Exception as error:  # what was detected is kept
                undrawn[image.name] = _in_words(error, image.path)
                bar.write(f'{image.path}: no picture: {undrawn[image.name]}', file=sys.stderr)
        progress.add(image.name, image.path, content_of(sample, inferencer.classes))

    with bar:
        batches = _batches((load(*image) for image in images.items()), batch_size)
        for batch in read_ahead(batches, inferencer.read_ahead, _is_large):
            for image, outcome in zip(batch, _detected(batch, inferencer)):
                try:
                    if isinstance(outcome, Exception):
                        raise outcome
                    if outcome is not None:
                        finish(image, outcome)
                except NotKeptError:
                    raise
                except Exception as error:
                    fail(image, error)
                bar.update()
    return failed, undrawn


def _batches(images: Iterable[Loaded], batch_size: int) -> Iterator[list[Loaded]]:
    """Images in batches, smaller ones where images are large."""
    batch: list[Loaded] = []
    for image in images:
        batch.append(image)
        if sum(one.data is not None for one in batch) == batch_size or _is_large(batch):
            yield batch
            batch = []
    if batch:
        yield batch


def _is_large(batch: Sequence[Loaded]) -> bool:
    return are_large(image.data['inputs'] for image in batch if image.data is not None)


def _detected(
    batch: Sequence[Loaded], inferencer: SNIPERInferencer
) -> list[DetDataSample | Exception | None]:
    """What is detected in each image, why it cannot be, or None for one that is done already."""
    outcomes: list[DetDataSample | Exception | None] = [image.error for image in batch]
    places = [place for place, image in enumerate(batch) if image.data is not None]
    data = [batch[place].data for place in places]
    for image in batch:
        image.data = None  # the input may be the image itself: only the model is to hold it
    try:
        samples = inferencer.detect(data) if data else []
    except Exception as error:
        samples = [error]
        if len(data) > 1:  # which of them is it?
            samples = [_alone(one, inferencer) for one in data]
    for place, sample in zip(places, samples):
        outcomes[place] = sample
    return outcomes


def _alone(data: Mapping[str, Any], inferencer: SNIPERInferencer) -> DetDataSample | Exception:
    try:
        return inferencer.detect([data])[0]
    except Exception as error:
        return error


def _in_words(error: Exception, path: Path) -> str:
    if isinstance(error, ImageFileError) and (fault := image_fault(path, 'the images')):
        return fault
    first = str(error).strip().partition('\n')[0]
    return f'{type(error).__name__}: {first}' if first else type(error).__name__


def write_results(
    out_dir: Path,
    images: Mapping[str, Path],
    progress: Progress,
    classes: Classes,
    numbers: ImageIds,
) -> int:
    """Write detections.json and images.json of the images that are done; returns their number."""
    about = classes.coco(numbers)
    with (
        replacing(out_dir / DETECTIONS) as temporary,
        open(temporary, 'w', encoding='utf-8') as file,
    ):
        separator = '[\n'
        for line in progress.lines(images):
            name = line.pop('name')
            del line['stamp']
            image, detections = coco_results(numbers.ids[name], utf8_name(name), line)
            about['images'].append(image)
            for detection in detections:
                file.write(separator + json.dumps(detection))
                separator = ',\n'
        file.write('[]\n' if separator == '[\n' else '\n]\n')
    write_text(out_dir / IMAGES, json.dumps(about) + '\n')
    return len(about['images'])


def write_geojson(
    out_dir: Path,
    images: Mapping[str, Path],
    progress: Progress,
    classes: Classes,
    crs: str | None = None,
) -> int:
    """Write a GeoJSON file for each image that has a place on the earth; returns their number."""
    count = 0
    for line in progress.lines(images):
        name = line['name']
        reference = GeoReference.of(images[name])
        if reference is not None:
            found = feature_collection(utf8_name(name), line, classes, reference, crs)
            write_text(out_dir / GEOJSON / f'{name}.geojson', json.dumps(found) + '\n')
            count += 1
    return count
