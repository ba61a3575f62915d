"""The neck of the authors' detector: one map out of the backbone's last stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmcv.cnn import ConvModule
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor


@MODELS.register_module()
class ConcatNeck(BaseModule):
    """Concatenates maps of one stride and reduces their channels by a 1x1 convolution and ReLU.

    In the authors' release the RoI head sees C4 and a dilated C5 like this, both of stride 16, and
    with MobileNetV2 its last map alone.

    Args:
        in_channels (Sequence[int]): Channels of each map.
        out_channels (int): Channels of the map that is made of them.
        init_cfg (dict | None): How the convolution is initialised. Defaults to Xavier, as in FPN.

    Example:
        >>> neck = ConcatNeck(in_channels=[1024, 2048], out_channels=256)
        >>> [map] = neck((torch.rand(1, 1024, 8, 8), torch.rand(1, 2048, 8, 8)))
        >>> map.shape
        torch.Size([1, 256, 8, 8])
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int,
        init_cfg: Mapping[str, Any] | None = dict(
            type='Xavier', layer='Conv2d', distribution='uniform'
        ),
    ) -> None:
        super().__init__(init_cfg)
        self.conv = ConvModule(sum(in_channels), out_channels, kernel_size=1)

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor]:
        """Make one map of several.

        Args:
            maps (tuple[Tensor, ...]): Each of shape (N, its channels, H, W).

        Returns:
            tuple[Tensor]: One map, shape (N, ``out_channels``, H, W).

        Raises:
            ValueError: If the maps differ in height or width.
        """
        sizes = [tuple(m.shape[-2:]) for m in maps]
        if len(set(sizes)) > 1:
            raise ValueError(
                f'ConcatNeck needs maps of one size, got {sizes}: give the last stage of the '
                f'backbone a stride of 1 and a dilation (of a ResNet: strides=(1, 2, 2, 1), '
                f'dilations=(1, 1, 1, 2))'
            )
        return (self.conv(torch.cat(maps, dim=1)),)
