"""Testing: one pass for every level of the pyramid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log

from mmsniper.convert.data import with_level
from mmsniper.datasets.wrappers import read_datasets, type_name
from mmsniper.models.tta import MERGE_NMS

# Detections of a level, of which those out of its range then go first.
_VIEW_SCORE, _VIEW_DETECTIONS = 0.001, 1000


def sniper_tta(
    cfg: Config, detector: Mapping[str, Any], pyramid: Mapping[str, Any]
) -> tuple[ConfigDict, list[ConfigDict]]:
    """``tta_model`` and ``tta_pipeline``: all levels, each with its range, merged by Soft-NMS.

    Args:
        cfg (Config): The config; images are loaded as its test pipeline does.
        detector (dict): The detector's config.
        pyramid (dict): The scale pyramid's config.
    """
    rcnn = (detector.get('test_cfg') or {}).get('rcnn')
    own = rcnn or detector.get('test_cfg') or {}
    most = own.get('max_per_img', 100)
    view: dict[str, Any] = dict(max_per_img=max(most, _VIEW_DETECTIONS))
    if 'score_thr' in own:
        view['score_thr'] = min(own['score_thr'], _VIEW_SCORE)
    if rcnn:
        # Soft-NMS is to see all of a level's detections.
        view = dict(rcnn=dict(view, nms=None))
    if _is_set_prediction(detector):
        view = {}  # its detections are its queries
    model = ConfigDict(
        type='SNIPERTTAModel',
        pyramid=pyramid,
        tta_cfg=dict(nms=MERGE_NMS, max_per_img=most),
        **(dict(view_test_cfg=view) if view else {}),
    )
    levels = [
        dict(type='LevelResize', pyramid=pyramid, level=level, test=True)
        for level in range(len(pyramid['levels']))
    ]
    views = dict(
        type='TestTimeAug',
        transforms=[
            levels,
            [dict(type='RandomFlip', prob=0.0)],
            [dict(type='LoadAnnotations', with_bbox=True)],
            [with_level(dict(type='PackDetInputs'))],
        ],
    )
    return model, [image_loading(cfg), ConfigDict(views)]


def wrap_in_tta(cfg: Config, model: ConfigDict) -> None:
    """Put the config's ``tta_model`` around a model, and test with its ``tta_pipeline``."""
    cfg.model = ConfigDict(**cfg.tta_model, module=model)
    use_test_pipeline(cfg, cfg.tta_pipeline)


def use_test_pipeline(cfg: Config, pipeline: Sequence[Mapping[str, Any]]) -> None:
    """Test with a pipeline whose results are merged, of boxes only."""
    for dataset in read_datasets(cfg.test_dataloader.dataset):
        dataset.pipeline = pipeline
    _evaluate_boxes_only(cfg)


def _evaluate_boxes_only(cfg: Config) -> None:
    """Leave masks out of the test's evaluation: what merges levels merges boxes."""
    evaluators = cfg.get('test_evaluator') or []
    for evaluator in evaluators if isinstance(evaluators, list) else [evaluators]:
        metrics = evaluator.get('metric')
        if isinstance(metrics, list) and 'segm' in metrics:
            print_log('levels are merged without masks: segm is not evaluated', logger='current')
            evaluator.metric = [metric for metric in metrics if metric != 'segm']


def _is_set_prediction(detector: Mapping[str, Any]) -> bool:
    return 'num_queries' in detector or 'num_query' in detector


def image_loading(cfg: Config) -> ConfigDict:
    """The transform that loads the image in the test pipeline."""
    loader = cfg.get('test_dataloader') or cfg.get('val_dataloader')
    if loader is not None:
        for dataset in read_datasets(loader.dataset):
            for transform in dataset.get('pipeline') or []:
                if 'LoadImage' in type_name(transform):
                    return deepcopy(transform)
    return ConfigDict(type='LoadImageFromFile')
