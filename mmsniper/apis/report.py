"""A page about a SNIPER config: its data, its chips, and what a training has made of them.

Everything is planned from the annotations; only the images that are shown are opened.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

import mmsniper
from mmsniper.apis.predictions import PredictedData
from mmsniper.apis.report_data import ReportData, class_rows, config_rows, numbers_of, pyramid_rows
from mmsniper.apis.report_pictures import examples, negative_chips, wrong_detections
from mmsniper.apis.training_log import Curve, TrainingLog, read_training_log
from mmsniper.checks import ERROR, NOTE, WARNING, Finding
from mmsniper.checks.everything import BuiltData, check_loaded, refused
from mmsniper.chips import NegativeChipPool, ScalePyramid
from mmsniper.convert import load_config
from mmsniper.convert.pyramid import config_pyramid
from mmsniper.engine.negative_chip_hook import POOL_FILE
from mmsniper.utils.files import utf8_name
from mmsniper.utils.words import numbered
from mmsniper.visualization.charts import LineChart, line_chart
from mmsniper.visualization.figure import LEVEL_COLOURS
from mmsniper.visualization.page import render

_NEGATIVES_SHOWN = 18


@dataclass(frozen=True)
class Report:
    """A report.

    Attributes:
        page: The page, HTML.
        findings: What the check has found.
        missing: Why the page has nothing about the data, else ''.
    """

    page: str
    findings: list[Finding]
    missing: str


def make_report(
    config: str,
    cfg_options: Mapping[str, Any] | None = None,
    *,
    num_examples: int = 24,
    images: bool = False,
    work_dir: Path | None = None,
    predictions: Path | None = None,
    num_wrong: int = 30,
    tell: Callable[[str], None] = lambda text: None,
) -> Report:
    """Make a page about a config.

    A config or data that the check has errors for, so that no chips can be planned, give a page
    with these errors.

    Args:
        config (str): The config file, with a pyramid.
        cfg_options (dict | None): Settings that replace those of the file, by their dotted keys.
            Defaults to None.
        num_examples (int): Images to page through, at most. Defaults to 24.
        images (bool): Have the check open every image file. Defaults to False.
        work_dir (Path | None): Folder of a training, whose curves and negative chips are shown.
            Defaults to None.
        predictions (Path | None): What ``tools/test.py --out`` has written, of which the most wrong
            detections are shown. Defaults to None.
        num_wrong (int): Number of those, at most. Defaults to 30.
        tell (Callable[[str], None]): Gets what is being done. Defaults to nothing.

    Raises:
        FileNotFoundError: If there is no such work folder or file.
        ValueError: If the config has no pyramid, the pool in the work folder or the predictions are
            of other data, or a file is none of its kind.
    """
    if predictions is not None and not predictions.is_file():  # before all is planned and drawn
        raise FileNotFoundError(f'there is no file {predictions}')
    log = read_training_log(work_dir) if work_dir else None
    pool = work_dir / POOL_FILE if work_dir and (work_dir / POOL_FILE).is_file() else None
    tell('checking config and data')
    cfg, built, findings, missing = None, None, [], ''
    try:
        cfg = load_config(config, cfg_options)
    except Exception as error:  # of whatever kind: the page tells of it
        findings, missing = [refused(config, error)], _said(error)
    else:
        built = BuiltData(cfg)
        findings = check_loaded(cfg, images=images, built=built)
    content: dict[str, Any] = dict(
        title=utf8_name(Path(config).name),
        config=utf8_name(config),
        made=f'{time.strftime("%Y-%m-%d %H:%M")} by mmsniper {mmsniper.__version__}',
        findings=findings,
        severities=dict(Counter(finding.severity for finding in findings)),
        kinds=dict(error=ERROR, warning=WARNING, note=NOTE),
        opened=images and cfg is not None,
        rows=[],
        pyramid=[],
        numbers=None,
        classes=[],
        examples=[],
        training=None,
        wrong=None,
    )
    data = None
    if cfg is not None:
        try:
            pyramid = ScalePyramid.from_config(config_pyramid(cfg))
            content.update(rows=config_rows(cfg), pyramid=pyramid_rows(pyramid))
            data = ReportData.from_config(cfg, pool, built)
        except Exception as error:  # of whatever kind, if the check has told of it
            if not any(finding.severity == ERROR for finding in findings):
                raise
            missing = _said(error)
    if cfg is not None and data is not None:
        content.update(numbers=numbers_of(data), classes=class_rows(data))
        tell(f'drawing up to {numbered(num_examples, "example")}')
        content.update(examples=list(examples(data, num_examples)))
        if predictions is not None:
            tell('matching the predictions to the objects')
            content.update(wrong=_wrong(cfg, predictions, num_wrong))
    if log is not None and work_dir is not None:
        content.update(training=_training(log, work_dir, pool, data))
    return Report(render(dict(content, missing=missing)), findings, missing)


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


def _training(
    log: TrainingLog, work_dir: Path, pool: Path | None, data: ReportData | None
) -> dict[str, Any]:
    charts = []
    for kind in dict.fromkeys(name.partition('mAP')[0] for name in log.metrics):
        curves = {name: c for name, c in log.metrics.items() if name.startswith(f'{kind}mAP')}
        charts.append(_chart('AP on the validation data', curves, log.by_epoch))
    if log.losses:
        charts.append(_chart('Loss', log.losses, False))
    negatives = None
    if pool is not None:
        content = NegativeChipPool.from_file(pool)
        said = content.statistics
        shown = negative_chips(data, _NEGATIVES_SHOWN) if data is not None else ()
        negatives = dict(
            chips=len(content.chips),
            per_level=said.chips_per_level,
            images=said.images,
            with_chips=said.images_with_chips,
            proposals=said.proposals,
            covered=said.covered / max(said.valid, 1),
            shown=list(shown),
        )
    return dict(folder=utf8_name(str(work_dir)), runs=log.runs, charts=charts, negatives=negatives)


def _chart(title: str, curves: Mapping[str, Curve], by_epoch: bool) -> tuple[str, LineChart]:
    """As many of the curves as there are colours."""
    shown = dict(list(curves.items())[: len(LEVEL_COLOURS)])
    if len(shown) < len(curves):
        title += f', {len(shown)} of {len(curves)} curves'
    return title, line_chart(shown, 'epoch' if by_epoch else 'iteration')


def _wrong(cfg: Config, predictions: Path, number: int) -> dict[str, Any]:
    data = PredictedData.from_config(cfg)
    found = wrong_detections(data, data.match(predictions), number)
    return dict(found, file=utf8_name(str(predictions)))
