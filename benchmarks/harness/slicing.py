"""SAHI's sliced prediction with a detector of MMDetection.

Needs SAHI (``pip install -r requirements/benchmark.txt``).
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv.ops import batched_nms
from mmengine.config import Config
from numpy.typing import NDArray

from harness.stock_detector import stock_detector
from mmsniper.models import AutoFocus, PyramidDetector
from mmsniper.models.nms import MERGE_NMS

SOFT_NMS = 'Soft-NMS'
_NEVER = 1.1
"""An overlap that SAHI never finds, so that it leaves all boxes."""


@dataclass(frozen=True)
class Slicing:
    """How SAHI slices an image, and merges what is found in the slices.

    Args:
        slice (int): Side of a slice, px of the image.
        overlap (float): Share of a slice that the next one repeats. Defaults to 0.2.
        full_image (bool): Whether the image is seen whole besides, resized to what the detector
            sees of a slice. Defaults to True.
        merge (str): SAHI's ``'NMS'``, ``'NMM'`` or ``'GREEDYNMM'``, or ``'Soft-NMS'``, which is
            SNIPER's and not in SAHI. Defaults to ``'GREEDYNMM'``.
        metric (str): Of overlap, ``'IOU'`` or ``'IOS'``. Defaults to ``'IOS'``.
        confidence (float): The lowest score of a detection. Defaults to 0.25.
        zoom (float): Factor by which a slice is resized. Defaults to 1.
        max_per_img (int): Detections of an image. Defaults to 100.

    All defaults but the last are those of ``sahi predict``.
    """

    slice: int
    overlap: float = 0.2
    full_image: bool = True
    merge: str = 'GREEDYNMM'
    metric: str = 'IOS'
    confidence: float = 0.25
    zoom: float = 1.0
    max_per_img: int = 100

    @property
    def seen(self) -> int:
        """Side of what the detector sees of a slice, px."""
        return round(self.slice * self.zoom)

    def told(self) -> dict[str, Any]:
        """The arguments that differ from what another slicing would have by default."""
        default = {field.name: field.default for field in fields(self)}
        always = ('slice', 'overlap', 'full_image', 'merge', 'metric', 'confidence')
        return {
            name: value
            for name, value in vars(self).items()
            if name in always or value != default[name]
        }


class SlicedDetector:
    """A detector behind SAHI.

    Args:
        cfg (Config): Config of the detector; of a ``PyramidDetector`` or an ``AutoFocus``, the
            stock detector in it is taken, with as many proposals as it has at a level.
        weights (Path): Its checkpoint, with ``meta.dataset_meta``.
        folder (Path): For the config files that SAHI reads.
        device (str | None): Such as ``'cuda:0'``. Defaults to None, the GPU if there is one.
    """

    def __init__(self, cfg: Config, weights: Path, folder: Path, device: str | None = None) -> None:
        self.cfg, self.weights, self.folder = cfg, weights, folder
        self.device = device or ('cuda:0' if torch.cuda.is_available() else 'cpu')
        self._models: dict[tuple[int, float], Any] = {}

    def model(self, slicing: Slicing) -> Any:
        """SAHI's model, one for each size of slices and confidence."""
        from sahi import AutoDetectionModel

        key = slicing.seen, slicing.confidence
        if key not in self._models:
            path = self.folder / f'detector_{slicing.seen}_{slicing.confidence}.py'
            self._config(slicing.confidence).dump(path)
            with contextlib.redirect_stdout(io.StringIO()):
                self._models[key] = AutoDetectionModel.from_pretrained(
                    'mmdet',
                    model_path=str(self.weights),
                    config_path=str(path),
                    device=self.device,
                    confidence_threshold=slicing.confidence,
                    image_size=slicing.seen,
                )
        return self._models[key]

    def detect(
        self, image: str, slicing: Slicing
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
        """Detections of an image, best first.

        Args:
            image (str): Its file.
            slicing (Slicing): How it is sliced.

        Returns:
            tuple: Boxes (n, 4) xyxy in px of the image, scores (n,) and labels (n,).
        """
        from sahi.predict import get_sliced_prediction

        soft = slicing.merge == SOFT_NMS
        result = get_sliced_prediction(
            image,
            self.model(slicing),
            slicing.slice,
            slicing.slice,
            slicing.overlap,
            slicing.overlap,
            perform_standard_pred=slicing.full_image,
            verbose=0,
            postprocess_type='NMS' if soft else slicing.merge,
            postprocess_match_metric='IOU' if soft else slicing.metric,
            postprocess_match_threshold=_NEVER if soft else 0.5,
            force_postprocess_type=True,
        )
        found = result.object_prediction_list
        boxes = np.array([one.bbox.to_xyxy() for one in found], np.float32).reshape(-1, 4)
        scores = np.array([float(one.score.value) for one in found], np.float32)
        labels = np.array([one.category.id for one in found], np.int64)
        if soft and len(found):
            merged, kept = batched_nms(*map(torch.from_numpy, (boxes, scores, labels)), MERGE_NMS)
            boxes, scores, labels = merged[:, :4].numpy(), merged[:, 4].numpy(), labels[kept]
        order = np.argsort(-scores, kind='stable')[: slicing.max_per_img]
        return boxes[order], scores[order], labels[order]

    def _config(self, confidence: float) -> Config:
        """A config that SAHI understands; its scores begin low enough."""
        cfg = self.cfg
        detector = cfg.model.to_dict()
        if cfg.model.type in (PyramidDetector.__name__, AutoFocus.__name__):
            detector = stock_detector(cfg.model).to_dict()
            detector['test_cfg']['rpn'].update(cfg.model.get('level_rpn') or {})
        rcnn = detector['test_cfg']['rcnn']
        rcnn['score_thr'] = min(rcnn['score_thr'], confidence)
        pipeline = [
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=(512, 512), keep_ratio=True),  # SAHI sets the scale
            dict(
                type='PackDetInputs',
                meta_keys=('img_path', 'ori_shape', 'img_shape', 'scale_factor'),
            ),
        ]
        dataset = dict(cfg.test_dataloader.dataset.to_dict(), pipeline=pipeline)
        return Config(
            dict(
                default_scope='mmdet',
                custom_imports=cfg.custom_imports.to_dict(),
                model=detector,
                train_dataloader=dict(dataset=dataset),
                test_dataloader=dict(dataset=dataset),
                test_evaluator=dict(type='CocoMetric'),
                visualizer=dict(type='DetLocalVisualizer'),
            )
        )
