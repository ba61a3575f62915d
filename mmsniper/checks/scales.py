"""Whether the data at hand are trained and tested at the same scales."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from mmengine.config import Config

from mmsniper.checks.finding import WARNING, Finding
from mmsniper.chips import ScalePyramid, scale_disagreement

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
