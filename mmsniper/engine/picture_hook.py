"""Pictures of predictions, on images of any bands and depth."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from mmcv.transforms import LoadImageFromFile
from mmdet.engine.hooks import DetVisualizationHook
from mmdet.registry import HOOKS
from mmdet.structures import DetDataSample
from mmengine.logging import print_log
from mmengine.runner import Runner

from mmsniper.datasets.decoding import load_or_raise, run_checked
from mmsniper.datasets.wrappers import read_datasets
from mmsniper.visualization.picture import as_picture, picture_name
from mmsniper.visualization.shrunk import shrunk_sample


@HOOKS.register_module()
class PictureHook(DetVisualizationHook):
    """``DetVisualizationHook`` for images of any bands and depth.

    The stock hook reads each file as 8-bit colour, so that 12 bits in 16 are drawn black and many
    bands end the run. Here a file is loaded as its data set does, by the first transform of its
    pipeline, and drawn as :func:`~mmsniper.visualization.picture.as_picture` makes it. A picture
    that cannot be drawn ends nothing; the log says why.

    Args:
        kwargs (Any): As for ``DetVisualizationHook``.
    """

    test_out_dir: str | None

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
        path = sample.img_path
        file, folder = os.path.basename(path), self.test_out_dir if name == 'test_img' else None
        try:
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
        except Exception as error:  # of whatever kind: the test is to go on
            print_log(
                f'the picture of {path} cannot be drawn: {type(error).__name__}: {error}',
                logger='current',
                level=logging.WARNING,
            )


def _load(dataset: Any, path: str) -> Any:
    """An image as a data set loads it, with any wrappers around it."""
    pipeline = getattr(next(read_datasets(dataset)), 'pipeline', None)
    load = next(iter(getattr(pipeline, 'transforms', ())), None) or LoadImageFromFile()
    return load_or_raise(partial(run_checked, load), dict(img_path=path, img_id=0))['img']
