"""Pictures of detections, and of AutoFocus's way to them."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from mmdet.registry import VISUALIZERS
from mmdet.structures import DetDataSample
from mmdet.visualization import DetLocalVisualizer
from numpy.typing import NDArray

from mmsniper.apis.images import FOCUS, VIS
from mmsniper.apis.results import Classes
from mmsniper.utils.box_types import enclosing, is_rotated
from mmsniper.utils.files import replacing, utf8_name
from mmsniper.visualization import draw_focus, save_figure
from mmsniper.visualization.picture import picture_name
from mmsniper.visualization.shrunk import shrunk_instances


class Pictures:
    """Draws what was detected.

    Args:
        out_dir (Path): Folder of ``vis/`` and ``focus/``.
        classes (Classes): The classes.
        score_thr (float): Minimum score of what is drawn.
        thresholds (Sequence[float] | None): Thresholds of AutoFocus. Defaults to None, no
            AutoFocus.
    """

    def __init__(
        self,
        out_dir: Path,
        classes: Classes,
        score_thr: float,
        thresholds: Sequence[float] | None = None,
    ) -> None:
        self.out_dir, self.classes = out_dir, classes
        self.score_thr, self.thresholds = score_thr, thresholds

    def paths(self, name: str) -> list[Path]:
        """The pictures of an image."""
        paths = [self.out_dir / VIS / picture_name(name)]
        if self.thresholds is not None:
            paths.append(self.out_dir / FOCUS / f'{name}.png')
        return paths

    def draw(self, name: str, sample: DetDataSample, picture: NDArray[np.uint8]) -> None:
        """Draw and write the pictures of an image.

        Args:
            name (str): Its name, a relative path.
            sample (DetDataSample): What the model predicts.
            picture (np.ndarray): The image, reduced, (h, w, 3) uint8 BGR.
        """
        vis, *focus = self.paths(name)
        _, encoded = cv2.imencode(vis.suffix, self._with_boxes(sample, picture))
        with replacing(vis) as temporary:
            temporary.write_bytes(encoded.tobytes())
        for path in focus:
            found = sample.pred_instances.cpu().numpy()
            figure = draw_focus(
                picture,
                sample.focus_chips,
                sample.focus_maps,
                enclosing(sample.pred_instances.bboxes).cpu().numpy(),
                found.levels,
                found.scores,
                size=sample.ori_shape[1::-1],
                thresholds=self.thresholds,
                score_thr=self.score_thr,
                title=utf8_name(name),
            )
            save_figure(figure, path)

    def _with_boxes(self, sample: DetDataSample, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        found = sample.pred_instances.cpu()
        found = found[found.scores > self.score_thr]
        shrunk = shrunk_instances(found, sample.ori_shape[:2], picture.shape[:2])
        number = max([len(self.classes.names), *(found.labels + 1).tolist()])
        visualizer = _visualizer(is_rotated(shrunk.bboxes))
        visualizer.dataset_meta = dict(
            classes=[self.classes.name(label) for label in range(number)],
            palette=self.classes.palette,
        )
        with warnings.catch_warnings():
            # Of boxes at the edge, once for each kind of line.
            warnings.filterwarnings('ignore', message='.*out of bounds')
            visualizer.add_datasample(
                'detections',
                np.ascontiguousarray(picture[..., ::-1]),
                DetDataSample(pred_instances=shrunk),
                draw_gt=False,
                pred_score_thr=self.score_thr,
            )
        return visualizer.get_image()[..., ::-1]


@functools.cache
def _visualizer(rotated: bool) -> DetLocalVisualizer:
    """MMDetection's, or for rotated boxes MMRotate's."""
    kind = VISUALIZERS.get('mmrotate.RotLocalVisualizer' if rotated else 'mmdet.DetLocalVisualizer')
    return kind()
