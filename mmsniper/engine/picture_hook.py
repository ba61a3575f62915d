"""Pictures of predictions, on images of any bands and depth, and of what a training sees."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from mmcv.transforms import LoadImageFromFile
from mmdet.engine.hooks import DetVisualizationHook
from mmdet.registry import HOOKS
from mmdet.structures import DetDataSample
from mmengine.dist import is_main_process
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmengine.visualization import LocalVisBackend

from mmsniper.chips import NEGATIVE, NegativeChipPool
from mmsniper.datasets.decoding import load_or_raise, run_checked
from mmsniper.datasets.wrappers import read_datasets
from mmsniper.engine.negative_chip_hook import NEGATIVE_CHIPS
from mmsniper.utils.checks import check_whole_number
from mmsniper.visualization.chips import ChipView, draw_chip_views
from mmsniper.visualization.figure import figure_pixels
from mmsniper.visualization.inputs import input_view, with_proposals
from mmsniper.visualization.picture import as_picture, picture_name
from mmsniper.visualization.shrunk import shrunk_sample


@HOOKS.register_module()
class PictureHook(DetVisualizationHook):
    """``DetVisualizationHook`` that knows of levels and chips, and of images of any bands.

    With ``draw=True`` all backends of the visualizer get, beside the stock hook's pictures:

    - ``train_chips/level_0`` and so on: in every epoch, the first chips of each level as the
      network sees them, with their boxes;
    - ``negative_chips/level_0`` and so on: the same of negative chips, with the proposals of the
      RPN that they were mined for, as far as the pool has kept them;
    - ``val_img/level_0`` and so on (``test_img`` in a test, unless its pictures go to a folder or
      window): those of the merged detections that each level has found.

    The stock hook reads each file as 8-bit colour, so that 12 bits in 16 are drawn black and many
    bands end the run. Here a file is loaded as its data set does, by the first transform of its
    pipeline, and drawn as :func:`~mmsniper.visualization.picture.as_picture` makes it. A picture
    that cannot be drawn ends nothing; the log says why. Rank 0 draws what it sees itself.

    Args:
        chips (int): Chips in a picture, at most. Defaults to 4.
        chip_iters (int): Iterations at the start of each epoch from which chips are taken.
            Defaults to 50.
        **kwargs (Any): As for ``DetVisualizationHook``.

    Raises:
        ValueError: If ``chips`` or ``chip_iters`` is no whole number of at least 1.
    """

    test_out_dir: str | None

    def __init__(self, chips: int = 4, chip_iters: int = 50, **kwargs: Any) -> None:
        check_whole_number('chips', chips, 1)
        check_whole_number('chip_iters', chip_iters, 1)
        super().__init__(**kwargs)
        self.chips, self.chip_iters = chips, chip_iters
        self._iters_left = 0
        self._seen: dict[str, list[ChipView]] = {}
        self._pool: NegativeChipPool | None = None

    def before_train_epoch(self, runner: Runner) -> None:
        """Begin to collect chips."""
        self._iters_left = self.chip_iters if self.draw and is_main_process() else 0
        if self._iters_left:
            with _told('proposals in negative chips'):
                self._pool = _mined(runner)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Take the chips of which pictures need more."""
        if not self._iters_left:
            return
        left, self._iters_left = self._iters_left, 0  # where one fails, each would
        with _told('training chips'):
            self._collect(data_batch)
            self._iters_left = left - 1
        if not self._iters_left:
            self._draw_chips(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Draw what an epoch of few iterations had."""
        if self._iters_left:
            self._iters_left = 0
            self._draw_chips(runner)

    def _collect(self, data_batch: Mapping[str, Any]) -> None:
        names = (self._visualizer.dataset_meta or {}).get('classes', ())
        for image, sample in zip(data_batch['inputs'], data_batch['data_samples']):
            level, chip = sample.get('level'), sample.get('chip')
            if level is None:  # not made for a pyramid
                continue
            negative = chip is not None and chip.kind == NEGATIVE
            name = f'{"negative" if negative else "train"}_chips/level_{level}'
            seen = self._seen.setdefault(name, [])
            if len(seen) == self.chips:
                continue
            view = input_view(image, sample, names)
            if negative and self._pool is not None:
                proposals = self._pool.uncovered_in(sample.img_path, level, chip.box)
                view = with_proposals(view, proposals, sample.homography_matrix)
            seen.append(view)

    def _draw_chips(self, runner: Runner) -> None:
        seen, self._seen, self._pool = self._seen, {}, None
        for name, views in sorted(seen.items()):
            with _told(name):
                self._make_folder(name)
                picture = figure_pixels(draw_chip_views(views))
                self._visualizer.add_image(name, picture, runner.iter)

    def before_test(self, runner: Runner) -> None:
        """Make the folder of the pictures."""
        if self.draw and self.test_out_dir is not None:
            self.test_out_dir = os.path.join(runner.work_dir, runner.timestamp, self.test_out_dir)
            os.makedirs(self.test_out_dir, exist_ok=True)

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Mapping[str, Any],
        outputs: Sequence[DetDataSample],
    ) -> None:
        """Draw the first image of every ``interval``-th batch."""
        step = runner.iter + batch_idx
        if self.draw and step % self.interval == 0:
            self._draw(runner.val_dataloader.dataset, outputs[0], 'val_img', step)

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Mapping[str, Any],
        outputs: Sequence[DetDataSample],
    ) -> None:
        """Draw all images."""
        for sample in outputs if self.draw else ():
            self._test_index += 1
            self._draw(runner.test_dataloader.dataset, sample, 'test_img', self._test_index)

    def _draw(self, dataset: Any, sample: DetDataSample, name: str, step: int) -> None:
        if not is_main_process():  # no other process's visualizer draws
            return
        path = sample.img_path
        file, folder = os.path.basename(path), self.test_out_dir if name == 'test_img' else None
        with _told(path):
            image = _load(dataset, path)
            picture = as_picture(image)
            self._visualizer.add_datasample(
                file if self.show else name,
                picture[..., ::-1],
                data_sample=shrunk_sample(sample, image.shape[:2], picture.shape[:2]),
                show=self.show,
                wait_time=self.wait_time,
                pred_score_thr=self.score_thr,
                out_file=None if folder is None else os.path.join(folder, picture_name(file)),
                step=step,
            )
            if self.show or folder is not None:
                return
            for level, found in _by_level(sample):
                self._make_folder(f'{name}/level_{level}')
                self._visualizer.add_datasample(
                    f'{name}/level_{level}',
                    picture[..., ::-1],
                    data_sample=shrunk_sample(found, image.shape[:2], picture.shape[:2]),
                    draw_gt=False,
                    pred_score_thr=self.score_thr,
                    step=step,
                )

    def _make_folder(self, name: str) -> None:
        """``LocalVisBackend`` writes no file into a folder that is not there, and says nothing."""
        for backend in self._visualizer._vis_backends.values():
            if isinstance(backend, LocalVisBackend):
                path = Path(backend.experiment._img_save_dir, name)
                path.parent.mkdir(parents=True, exist_ok=True)


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Whatever goes wrong with a picture is told, and the run goes on."""
    try:
        yield
    except Exception as error:  # of whatever kind
        print_log(
            f'the picture of {what} cannot be drawn: {type(error).__name__}: {error}',
            logger='current',
            level=logging.WARNING,
        )


def _mined(runner: Runner) -> NegativeChipPool | None:
    """The pool that the run has mined, None if it is not in the work folder."""
    record = runner.message_hub.runtime_info.get(NEGATIVE_CHIPS)
    file = Path(runner.work_dir, record['file']) if record else None
    return NegativeChipPool.from_file(file) if file is not None and file.is_file() else None


def _by_level(sample: DetDataSample) -> Iterator[tuple[int, DetDataSample]]:
    """Each level that has found something, fine to coarse, and what; none of other detectors."""
    found = sample.pred_instances
    if 'levels' not in found:
        return
    for level in found.levels.unique().tolist():
        part = DetDataSample(metainfo=sample.metainfo)
        part.pred_instances = found[found.levels == level]
        yield level, part


def _load(dataset: Any, path: str) -> Any:
    """An image as a data set loads it, with any wrappers around it."""
    pipeline = getattr(next(read_datasets(dataset)), 'pipeline', None)
    load = next(iter(getattr(pipeline, 'transforms', ())), None) or LoadImageFromFile()
    return load_or_raise(partial(run_checked, load), dict(img_path=path, img_id=0))['img']
