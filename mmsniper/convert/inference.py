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

# Detections of a level, so many because those out of its range are then dropped.
_VIEW_SCORE, _VIEW_DETECTIONS = 0.001, 1000


def sniper_tta(
    cfg: Config, detector: Mapping[str, Any], pyramid: Mapping[str, Any]
) -> tuple[ConfigDict, list[ConfigDict]]:
    """``tta_model`` and ``tta_pipeline``: all levels, each with its range, merged by Soft-NMS.

    Args:
        cfg (Config): The config; images are loaded as its test pipeline does.
        detector (dict): The detector's config.
        pyramid (dict): The scale pyramid's config.

    Returns:
        tuple[ConfigDict, list[ConfigDict]]: Both.
    """
    rcnn = (detector.get('test_cfg') or {}).get('rcnn')
    own = rcnn or detector.get('test_cfg') or {}
    max_per_img = own.get('max_per_img', 100)
    view: dict[str, Any] = dict(max_per_img=max(max_per_img, _VIEW_DETECTIONS))
    if 'score_thr' in own:
        view['score_thr'] = min(own['score_thr'], _VIEW_SCORE)
    if rcnn:  # Soft-NMS is to see all of a level's detections
        view = dict(rcnn=dict(view, nms=None))
    if 'num_queries' in detector or 'num_query' in detector:  # the detections are the queries
        view = {}
    tta_cfg = dict(nms=MERGE_NMS, max_per_img=max_per_img)
    model = ConfigDict(type='SNIPERTTAModel', pyramid=pyramid, tta_cfg=tta_cfg)
    if view:
        model.view_test_cfg = ConfigDict(view)
    transforms = [
        [
            dict(type='LevelResize', pyramid=pyramid, level=level, test=True)
            for level in range(len(pyramid['levels']))
        ],
        [dict(type='RandomFlip', prob=0.0)],
        [dict(type='LoadAnnotations', with_bbox=True)],
        [with_level(dict(type='PackDetInputs'))],
    ]
    return model, [image_loading(cfg), ConfigDict(type='TestTimeAug', transforms=transforms)]


def wrap_in_tta(cfg: Config, model: ConfigDict) -> None:
    """Put the config's ``tta_model`` around a model, and test with its ``tta_pipeline``."""
    cfg.model = ConfigDict(**cfg.tta_model, module=model)
    use_test_pipeline(cfg, cfg.tta_pipeline)


def use_test_pipeline(cfg: Config, pipeline: Sequence[Mapping[str, Any]]) -> None:
    """Test with a pipeline whose levels are merged, and leave masks out: boxes only are merged."""
    for dataset in read_datasets(cfg.test_dataloader.dataset):
        dataset.pipeline = pipeline
    evaluators = cfg.get('test_evaluator') or []
    for evaluator in evaluators if isinstance(evaluators, list) else [evaluators]:
        metrics = evaluator.get('metric')
        if isinstance(metrics, list) and 'segm' in metrics:
            print_log('levels are merged without masks: segm is not evaluated', logger='current')
            evaluator.metric = [metric for metric in metrics if metric != 'segm']


def image_loading(cfg: Config) -> ConfigDict:
    """The transform that loads the image in the test pipeline."""
    loader = cfg.get('test_dataloader') or cfg.get('val_dataloader')
    if loader is not None:
        for dataset in read_datasets(loader.dataset):
            for transform in dataset.get('pipeline') or []:
                if 'LoadImage' in type_name(transform):
                    return deepcopy(transform)
    return ConfigDict(type='LoadImageFromFile')
