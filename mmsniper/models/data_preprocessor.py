"""Normalisation of images of any number of bands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmdet.models import DetDataPreprocessor
from mmdet.registry import MODELS


@MODELS.register_module()
class BandDataPreprocessor(DetDataPreprocessor):
    """``DetDataPreprocessor`` with a mean and a standard deviation of each band.

    The stock one takes one value for all bands, or three.

    Args:
        mean (Sequence[float]): Mean of each band, in the order in which images are loaded.
        std (Sequence[float]): Standard deviation of each.
        kwargs (Any): As for ``DetDataPreprocessor``.

    Raises:
        ValueError: If there are not as many of one as of the other, or more than three bands are to
            be turned from BGR to RGB.

    Example:
        >>> kwargs = dict(mean=[600.0, 550.0, 480.0, 2100.0], std=[300.0, 300.0, 350.0, 900.0])
        >>> data_preprocessor = dict(type='BandDataPreprocessor', **kwargs)
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], **kwargs: Any) -> None:
        if not len(mean) == len(std) > 0:
            raise ValueError(
                f'mean and std must have a value for each band, got {len(mean)} and {len(std)}'
            )
        if (kwargs.get('bgr_to_rgb') or kwargs.get('rgb_to_bgr')) and len(mean) != 3:
            raise ValueError(
                f'bgr_to_rgb is for three bands, mean has {len(mean)}: set bgr_to_rgb=False'
            )
        super().__init__(mean=mean[:1], std=std[:1], **kwargs)
        for name, values in dict(mean=mean, std=std).items():
            self.register_buffer(name, torch.tensor(values).float().view(-1, 1, 1), False)

    def forward(self, data: Mapping[str, Any], training: bool = False) -> dict[str, Any]:
        """Normalise and pad a batch.

        Raises:
            ValueError: If an image has another number of bands.
        """
        for image in data['inputs']:
            if len(image) != len(self.mean):
                raise ValueError(
                    f'an image of {len(image)} bands cannot be normalised by the mean and std of '
                    f'{len(self.mean)}: see how it is loaded (color_type)'
                )
        return super().forward(data, training)
