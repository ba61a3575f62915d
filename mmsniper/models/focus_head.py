"""The branch that tells where small objects are: FocusPixels (AutoFocus section 3.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from mmcv.cnn import ConvModule
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample, SampleList
from mmdet.structures.bbox import BaseBoxes, cat_boxes
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mmsniper.chips.focus import focus_sizes
from mmsniper.chips.input_level import levels_of_input
from mmsniper.chips.pyramid import ScalePyramid
from mmsniper.models.assigners import split_ignored
from mmsniper.utils.box_types import box_areas, enclosing, typed

# Sizes of the paper, for its pyramid: positive, and from there to this don't-care.
PAPER_SMALL, PAPER_IGNORED = (5.0, 64.0), 90.0
POSITIVE, NEGATIVE, DONT_CARE = 1, 0, -1


class FocusLook(NamedTuple):
    """Sizes that a focus head is to find in an input, as in :func:`focus_targets`, and its output.

    Attributes:
        output: Index of the output that finds them.
        small: Sizes (sqrt of area, input pixels, both excluded) that are positive.
        ignored: Sizes from there up to this are don't-care.
    """

    output: int
    small: tuple[float, float]
    ignored: float


def focus_targets(
    objects: Tensor | BaseBoxes,
    regions: Tensor | BaseBoxes,
    shape: tuple[int, int],
    stride: int = 16,
    small: tuple[float, float] = PAPER_SMALL,
    ignored: float = PAPER_IGNORED,
) -> Tensor:
    """Which cells of a map show small objects.

    A cell is positive if it overlaps an object whose sqrt(area) is in ``small`` (both ends
    excluded); don't-care if it overlaps one that is smaller still, one up to ``ignored``, or an
    ignore region; negative otherwise. A positive wins over a don't-care.

    Args:
        objects (Tensor | BaseBoxes): Boxes of all objects, valid or not, shape (n, 4), xyxy in
            input pixels, or n rotated ones, whose cells are those of what encloses them.
        regions (Tensor | BaseBoxes): Boxes of ignore regions, shape (m, 4), or m rotated ones.
        shape (tuple[int, int]): Rows and columns of the map.
        stride (int): Side of a cell, input pixels. Defaults to 16.
        small (tuple[float, float]): Sizes of objects to focus on. Defaults to (5, 64).
        ignored (float): End, excluded, of the don't-care sizes. Defaults to 90.

    Returns:
        Tensor: 1 (positive), 0 or -1 (don't-care), int64, shape (rows, columns).

    Raises:
        ValueError: If a tensor has another shape.
    """
    size = box_areas(objects).nan_to_num(0.0).sqrt()
    objects, regions = enclosing(objects), enclosing(regions)
    positive = (size > small[0]) & (size < small[1])
    dont_care = ~positive & (size < ignored)
    targets = objects.new_full(shape, NEGATIVE, dtype=torch.long)
    targets[_touched(torch.cat([objects[dont_care], regions]), shape, stride)] = DONT_CARE
    targets[_touched(objects[positive], shape, stride)] = POSITIVE
    return targets


def _touched(boxes: Tensor, shape: tuple[int, int], stride: int) -> Tensor:
    """Cells that share an area with any of the boxes."""
    rows, columns = (
        torch.arange(count, device=boxes.device, dtype=boxes.dtype) * stride for count in shape
    )
    across = (columns < boxes[:, 2, None]) & (columns + stride > boxes[:, 0, None])
    down = (rows < boxes[:, 3, None]) & (rows + stride > boxes[:, 1, None])
    # A sum of products of booleans, as a matrix product: no (n, rows, columns) in between.
    return down.float().t() @ across.float() > 0


def uncut_objects(metainfo: Mapping[str, Any]) -> BaseBoxes:
    """The objects that a chip shows, as they were without its edges.

    Args:
        metainfo (dict): Of the chip: ``uncut_objects``, boxes of shape (n, 4) in original pixels,
            or the corners (n, 8) of rotated ones, and ``homography_matrix``, original to input
            pixels with all crops and flips.

    Returns:
        BaseBoxes: n boxes in input pixels, float32. They may reach beyond the input.

    Raises:
        ValueError: If one of them is missing.
    """
    missing = [key for key in ('uncut_objects', 'homography_matrix') if key not in metainfo]
    if missing:
        raise ValueError(
            f'uncut_sizes needs {missing} in the metainfo. ChipDataset packs what ChipSampler '
            f"writes; with another data set add it to PackDetInputs' meta_keys. Whole images cut "
            f'nothing: leave uncut_sizes out'
        )
    boxes = typed(torch.tensor(metainfo['uncut_objects']))
    boxes.project_(metainfo['homography_matrix'])
    return boxes


@MODELS.register_module()
class FocusHead(BaseModule):
    """Predicts, for each cell of the stride-16 map, whether it shows a small object.

    A 3x3 and a 1x1 convolution on the detector's feature map, and a two-way softmax (AutoFocus
    section 3.1). What is small is one range of sizes for all levels. The paper's fits the paper's
    pyramid; for any other there is :class:`PyramidFocusHead`.

    Args:
        in_channels (int): Channels of the feature maps.
        feat_channels (int): Channels between the convolutions. Defaults to 256.
        stride (int): Stride of the map to use; the detector must have one of it. Defaults to 16.
        small, ignored: As in :func:`focus_targets`. Default to those of the paper.
        loss_weight (float): Weight of the loss. Defaults to 1.
        uncut_sizes (bool): In a chip, take an object's size from the whole object instead of from
            what the chip leaves of it. A large object that a chip
            cuts is then not small. Defaults to False.
        detach (bool): Learn from the detector's feature maps without changing them: the detector
            is then the one that would be trained without this head. Defaults to False, as in the
            paper.
        init_cfg (dict | None): Initialization. Defaults to normal, of 0.01, as the RPN's.

    Raises:
        ValueError: If ``small`` and ``ignored`` are not ascending.
    """

    def __init__(
        self,
        in_channels: int,
        feat_channels: int = 256,
        stride: int = 16,
        small: tuple[float, float] = PAPER_SMALL,
        ignored: float = PAPER_IGNORED,
        loss_weight: float = 1.0,
        uncut_sizes: bool = False,
        detach: bool = False,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg or dict(type='Normal', layer='Conv2d', std=0.01))
        if not 0 <= small[0] < small[1] <= ignored:
            raise ValueError(
                f'small and ignored must ascend, such as (5, 64) and 90; got {small} and {ignored}'
            )
        self.stride = stride
        self.small, self.ignored = (small[0], small[1]), ignored
        self.loss_weight = loss_weight
        self.uncut_sizes = uncut_sizes
        self.detach = detach
        self.conv = ConvModule(in_channels, feat_channels, 3, padding=1)
        self.cls = nn.Conv2d(feat_channels, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, outputs, 2, H, W), float32, of a feature map (N, C, H, W)."""
        return self.cls(self.conv(x)).float().unflatten(1, (-1, 2))

    def select(self, feats: Sequence[Tensor], input_shape: tuple[int, int]) -> Tensor:
        """The feature map of this head's stride.

        Args:
            feats (Sequence[Tensor]): Feature maps of the backbone or neck, each (N, C, H, W).
            input_shape (tuple[int, int]): Height and width of the (padded) input.

        Returns:
            Tensor: Shape (N, C, H, W).

        Raises:
            ValueError: If there is none.
        """
        strides = [round(input_shape[1] / feat.shape[-1]) for feat in feats]
        if self.stride not in strides:
            raise ValueError(
                f'FocusHead needs a feature map of stride {self.stride}, the detector gives it '
                f'strides {strides}: set its stride (inputs must be padded to a multiple of it, '
                f'pad_size_divisor=32 in the data preprocessor)'
            )
        return feats[strides.index(self.stride)]

    def predict(self, feats: Sequence[Tensor], input_shape: tuple[int, int], level: int) -> Tensor:
        """Probability of each cell to be a FocusPixel.

        Args:
            feats, input_shape: As in :meth:`select`.
            level (int): Level of the pyramid that the inputs are of.

        Returns:
            Tensor: Shape (N, rows, columns), float32.
        """
        logits = self(self.select(feats, input_shape))
        return logits[:, self.output_of(level)].softmax(dim=1)[:, POSITIVE]

    def output_of(self, level: int) -> int:
        """Which output is for a level; there is one for all."""
        return 0

    def loss(
        self, feats: Sequence[Tensor], input_shape: tuple[int, int], samples: SampleList
    ) -> dict[str, Tensor]:
        """Cross entropy over the cells that are not don't-care.

        Args:
            feats, input_shape: As in :meth:`select`.
            samples (SampleList): Ground truth of each input. Objects out of the level's range count
                as well: they are what to look for at another level. Cells that begin beyond
                ``img_shape``, in the padding, do not count.

        Returns:
            dict[str, Tensor]: ``loss_focus``, and for the log ``focus_recall`` and
            ``focus_precision`` of cells at a probability of 0.5.

        Raises:
            ValueError: If ``uncut_sizes`` is set and the metainfo does not tell the uncut objects.
        """
        feat = self.select(feats, input_shape)
        logits = self(feat.detach() if self.detach else feat)
        looks = [self.look_of(sample.metainfo) for sample in samples]
        logits = torch.stack([one[look.output] for one, look in zip(logits, looks)])
        targets = torch.stack([self.targets(*pair, logits) for pair in zip(samples, looks)])
        counted = targets != DONT_CARE
        loss = cross_entropy(logits, targets, ignore_index=DONT_CARE, reduction='sum')
        predicted = (logits[:, POSITIVE] > logits[:, NEGATIVE]) & counted
        positive = targets == POSITIVE
        hits = (predicted & positive).sum()
        return dict(
            loss_focus=self.loss_weight * loss / counted.sum().clamp(min=1),
            focus_recall=hits / positive.sum().clamp(min=1),
            focus_precision=hits / predicted.sum().clamp(min=1),
        )

    def look_of(self, metainfo: Mapping[str, Any]) -> FocusLook:
        """The sizes to find in an input, and the output that finds them."""
        return FocusLook(self.output_of(0), self.small, self.ignored)

    def targets(self, sample: DetDataSample, look: FocusLook, logits: Tensor) -> Tensor:
        """Targets (rows, columns) of one input; ``logits`` tells shape and device."""
        shape = (logits.shape[-2], logits.shape[-1])
        if not look.small[1]:
            return logits.new_full(shape, DONT_CARE, dtype=torch.long)
        regions, invalid = split_ignored(sample.get('ignored_instances'))
        if self.uncut_sizes:
            objects = uncut_objects(sample.metainfo)
        else:
            objects = sample.gt_instances.bboxes
            if invalid is not None:
                objects = cat_boxes([objects, invalid.bboxes])
        objects, regions = objects.to(logits.device), _boxes(regions).to(logits.device)
        targets = focus_targets(objects, regions, shape, self.stride, look.small, look.ignored)
        if 'img_shape' in sample:
            rows, columns = (-(-side // self.stride) for side in sample.img_shape[:2])
            targets[rows:], targets[:, columns:] = DONT_CARE, DONT_CARE
        return targets


@MODELS.register_module()
class PyramidFocusHead(FocusHead):
    """A :class:`FocusHead` for any pyramid: each level has sizes and an output of its own.

    What is below a level's range is small there, what the next finer level has as well is
    don't-care (:func:`~mmsniper.chips.focus_sizes`), and chips of the finest level do not count.
    An object can be small at one level and not at another, which one output could not tell: each
    level has a 1x1 convolution of its own.

    Args:
        in_channels (int): Channels of the feature maps.
        pyramid (ScalePyramid | dict): The config's pyramid, of two levels or more.
        feat_channels (int): Channels between the convolutions. Defaults to 256.
        **kwargs: Other arguments of :class:`FocusHead`, but ``small`` and ``ignored``.

    Raises:
        ValueError: If the pyramid has one level only.
    """

    def __init__(
        self,
        in_channels: int,
        pyramid: ScalePyramid | Mapping[str, Any],
        feat_channels: int = 256,
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels, feat_channels, **kwargs)
        self.pyramid = ScalePyramid.from_config(pyramid)
        steps = self.pyramid.num_levels - 1
        if not steps:
            raise ValueError(
                'a pyramid of one level has no finer level to look at: leave out the focus head'
            )
        self.cls = nn.Conv2d(feat_channels, 2 * steps, 1)
        self.sizes = focus_sizes(self.pyramid)  # original pixels

    def output_of(self, level: int) -> int:
        """Which output is for a level; the finest has none and gets that of the next."""
        return max(level - 1, 0)

    def look_of(self, metainfo: Mapping[str, Any]) -> FocusLook:
        """The sizes to find in an input, and the output that finds them.

        Raises:
            ValueError: If ``metainfo`` does not tell the level, or the input has another scale.
        """
        levels, scale = levels_of_input(metainfo, self.pyramid)
        level = max(levels)  # of levels that coincide the coarsest: it has to find more
        must, may = (self.sizes[level] * scale).tolist()
        return FocusLook(self.output_of(level), (0.0, must), may)


def _boxes(instances: InstanceData | None) -> Tensor | BaseBoxes:
    return torch.empty(0, 4) if instances is None else instances.bboxes
