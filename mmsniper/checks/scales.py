"""Whether the scales and ranges of a pyramid suit the data at hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from mmengine.config import Config

from mmsniper.checks.finding import NOTE, WARNING, Finding
from mmsniper.chips import ScalePyramid, range_gaps, scale_disagreement
from mmsniper.datasets import read_annotations

_MOST = 1000  # images that are looked at, spread over the data set


def check_scales(cfg: Config, dataset: Any) -> Iterator[Finding]:
    """Compare the scales at which the config's pyramid trains and tests the images of a data set.

    Args:
        cfg (Config): A config; one without ``pyramid`` has no scales to compare.
        dataset (BaseDataset): A data set that has been built, with any wrappers.
    """
    if not cfg.get('pyramid'):
        return
    chosen = np.linspace(0, len(dataset) - 1, min(len(dataset), _MOST)).astype(int).tolist()
    infos = map(dataset.get_data_info, chosen)
    sizes = [(i['width'], i['height']) for i in infos if i.get('width') and i.get('height')]
    pyramid = ScalePyramid.from_config(cfg.pyramid)
    if sizes and (message := scale_disagreement(pyramid, *zip(*sizes)).message):
        what, _, fix = message.rpartition(': ')
        yield Finding(WARNING, 'pyramid', what.removeprefix('the pyramid '), fix)


def check_ranges(cfg: Config, dataset: Any) -> Iterator[Finding]:
    """Look for boxes of a data set whose size is in the range of no level of the config's pyramid.

    Args:
        cfg (Config): A config; one without ``pyramid`` has no ranges.
        dataset (BaseDataset): A data set that has been built, with any wrappers.
    """
    if not cfg.get('pyramid'):
        return
    pyramid = ScalePyramid.from_config(cfg.pyramid)
    if pyramid.gaps() or pyramid.gaps(test=True):  # else all annotations were read for nothing
        for gaps in range_gaps(pyramid, read_annotations(dataset)):
            if gaps.boxes:
                yield Finding(WARNING, 'pyramid', gaps.what, gaps.fix)
            else:
                yield Finding(NOTE, 'pyramid', gaps.what)
