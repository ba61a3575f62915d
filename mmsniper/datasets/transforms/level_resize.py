"""The transform that resizes a whole image to a level of the pyramid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from mmdet.datasets.transforms import Resize
from mmdet.registry import TRANSFORMS

from mmsniper.chips import ScalePyramid


@TRANSFORMS.register_module()
class LevelResize(Resize):
    """Resize the whole image, with its boxes and masks, to a level of the pyramid.

    The keys are those of ``Resize``, and it adds ``level`` (int). In ``TestTimeAug``, one for each
    level makes the multi-scale test of SNIPER; with ``level=None`` in a training pipeline, followed
    by ``ScaleRangeFilter``, it makes SNIP.

    Args:
        pyramid (dict): The scale pyramid.
        level (int, optional): Level, 0 is the finest. Defaults to None, a random one each time.
        test (bool): Use the level's rule for test time. Defaults to False.
        kwargs: Other arguments of ``Resize``, such as ``interpolation``.
    """

    def __init__(
        self,
        pyramid: ScalePyramid | Mapping[str, Any],
        level: int | None = None,
        test: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(scale_factor=1.0, **kwargs)
        self.pyramid = ScalePyramid.from_config(pyramid)
        if level is not None and not 0 <= level < self.pyramid.num_levels:
            raise ValueError(
                f'level must be in 0..{self.pyramid.num_levels - 1} or None, got {level!r}'
            )
        self.level = level
        self.test = test

    def transform(self, results: dict) -> dict:
        """Resize to the level's scale, rounded to whole pixels.

        Raises:
            ValueError: If the input is of a level already.
        """
        if 'level' in results:
            raise ValueError(
                f'the input is of level {results["level"]} already, for which ChipSampler or '
                f'LevelResize made it: drop the LevelResize after that'
            )
        level = self.level
        if level is None:
            level = int(np.random.randint(self.pyramid.num_levels))
        height, width = results['img'].shape[:2]
        scale = self.pyramid.scales(width, height, test=self.test)[level]
        self.scale = tuple(max(int(v * scale + 0.5), 1) for v in (width, height))
        results['level'] = level
        return super().transform(results)

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(pyramid={self.pyramid}, level={self.level}, '
            f'test={self.test}, interpolation={self.interpolation!r})'
        )
