"""Coarse-to-fine inference: the finer levels see only where small objects are (AutoFocus)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmcv.ops import batched_nms
from mmdet.models.detectors import BaseDetector
from mmdet.models.utils.misc import samplelist_boxtype2tensor
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample, SampleList
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmsniper.chips.focus import FocusMap, focus_chips, focus_sizes
from mmsniper.chips.pyramid import ScalePyramid
from mmsniper.chips.windows import (
    WINDOW_SIZE,
    Window,
    check_window_size,
    cut_windows,
    window_batches,
)
from mmsniper.models.focus_windows import area_share, image_size, load_window, uncut, whole_pixels
from mmsniper.models.level_range import LevelRange
from mmsniper.models.temporary_settings import fewer_proposals, view_settings
from mmsniper.models.tta import MERGE_NMS
from mmsniper.utils.checks import check_whole_number

# Inputs go into a batch with others of the same size, rounded up to this: most backbones want sides
# that are multiples of 32, and data preprocessors pad to them.
_PAD_SIZE_DIVISOR = 32


@MODELS.register_module()
class AutoFocus(BaseDetector):
    """A detector with a FocusPixel branch, trained jointly and tested coarse to fine.

    In testing (AutoFocus section 3) the coarsest level is seen whole. Where the branch finds small
    objects, FocusChips are cut out of the original image and seen at the next finer level, and so
    on. Each level keeps what is in its test range; what an edge of a chip cuts is dropped; all is
    merged by ``tta_cfg``. Images and chips that are larger than ``window_size`` are seen in
    overlapping windows, so that memory is bounded.

    The image must come unresized, which a pipeline without ``Resize`` does:
    ``[LoadImageFromFile, LoadAnnotations, PackDetInputs]``. An image that a pipeline *has* resized
    (it has a ``scale_factor``) is detected as it is, which validation at one scale and
    ``SNIPERTTAModel`` need.

    Checkpoints of the detector alone are loaded as well.

    Args:
        detector (dict): The detector's config, with a backbone and its ``data_preprocessor``.
        pyramid (ScalePyramid | dict): The config's pyramid; its test rules and test ranges count.
        focus_head (dict | None): Config of the branch. Defaults to None, the detector's own
            detections tell where to look: cells that show one of a small object have its score as
            their probability.
        thresholds (float | Sequence[float] | None): Least probability of a FocusPixel for each
            step, coarse to fine, or one for all. Defaults to 0.02, and 0.2 for the last of several
            steps, as in the authors' release.
        dilation (int): Side of the square that FocusPixels are dilated by, cells. Defaults to 3.
        min_chip_side (float | None): Least side of a FocusChip in pixels of the level at which it
            is seen. Defaults to None, the pyramid's chip size, which the detector was trained on.
        edge (float): Detections within so many pixels of an edge of their chip that is not an edge
            of the image are dropped. Defaults to 10, as in the release.
        window_size (int): Longest side of what the network sees at once, pixels of the level; more
            than the chip size. Defaults to 2048.
        batch_pixels (int): Pixels of a batch, at their level, at most (but at least one window).
            Defaults to 2 ** 22, one window of the default size.
        small (tuple[float, float] | None): Without a focus head, sizes (input pixels) to look at
            again. Defaults to None, those up to the end of the next finer level's test range.
        tta_cfg (dict | None): ``nms`` and ``max_per_img`` of the merge. Defaults to
            :data:`~mmsniper.models.tta.MERGE_NMS` and 100.
        view_test_cfg (dict | None): Merged into the detector's ``test_cfg`` while chips are seen,
            ``rpn`` and ``rcnn`` of a two-stage detector. Defaults to None.
        min_rpn_proposals (int | None): A chip gets the share of the RPN's proposals
            (``max_per_img`` and ``nms_pre``) that its area has of the image's, but at least so
            many: the cost of proposals would not fall with the area otherwise. Defaults to None,
            each chip gets as many as a whole image.
        init_cfg (dict | None): Initialization. Defaults to None.

    Raises:
        ValueError: If an argument is out of its range, ``detector`` has no preprocessor, or there
            are ``min_rpn_proposals`` and no RPN.
    """

    def __init__(
        self,
        detector: Mapping[str, Any],
        pyramid: ScalePyramid | Mapping[str, Any],
        focus_head: Mapping[str, Any] | None = None,
        thresholds: float | Sequence[float] | None = None,
        dilation: int = 3,
        min_chip_side: float | None = None,
        edge: float = 10,
        window_size: int = WINDOW_SIZE,
        batch_pixels: int = 2**22,
        small: tuple[float, float] | None = None,
        tta_cfg: Mapping[str, Any] | None = None,
        view_test_cfg: Mapping[str, Any] | None = None,
        min_rpn_proposals: int | None = None,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if not detector.get('data_preprocessor'):
            raise ValueError('the detector of AutoFocus needs its data_preprocessor')
        self.detector = MODELS.build(detector)
        self.data_preprocessor = self.detector.data_preprocessor
        self.focus_head = MODELS.build(focus_head) if focus_head else None
        self.pyramid = ScalePyramid.from_config(pyramid)
        self.thresholds = step_thresholds(thresholds, self.pyramid.num_levels - 1)
        self.dilation = dilation
        self.min_chip_side = self.pyramid.chip_size if min_chip_side is None else min_chip_side
        self.edge = edge
        check_window_size(window_size, self.pyramid)
        self.window_size, self.batch_pixels = window_size, batch_pixels
        self.small = None if small is None else tuple(small)
        self.tta_cfg = ConfigDict(tta_cfg or dict(nms=MERGE_NMS, max_per_img=100))
        self.view_test_cfg = view_test_cfg
        if min_rpn_proposals is not None and not getattr(self.detector, 'with_rpn', False):
            raise ValueError(
                f'min_rpn_proposals is for detectors with an RPN, '
                f'{type(self.detector).__name__} has none: leave it out'
            )
        check_whole_number('min_rpn_proposals', min_rpn_proposals, 1, optional=True)
        self.min_rpn_proposals = min_rpn_proposals
        self.keep_maps = False  # set it to draw pictures of the FocusPixels
        # Public from torch 2.5 on.
        self._register_load_state_dict_pre_hook(_accept_plain_detector, with_module=True)

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> dict[str, Tensor]:
        """Losses of the detector and of the focus head."""
        with self._features() as feats:
            losses = self.detector.loss(batch_inputs, batch_data_samples)
        if self.focus_head is not None:
            shape = tuple(batch_inputs.shape[-2:])
            losses.update(self.focus_head.loss(feats[-1], shape, batch_data_samples))
        return losses

    def predict(
        self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True
    ) -> SampleList:
        """Detections of the detector on inputs as they are."""
        return self.detector.predict(batch_inputs, batch_data_samples, rescale=rescale)

    def _forward(self, batch_inputs: Tensor, batch_data_samples: Any = None) -> Any:
        return self.detector._forward(batch_inputs, batch_data_samples)

    def extract_feat(self, batch_inputs: Tensor) -> Any:
        """Features of the detector."""
        return self.detector.extract_feat(batch_inputs)

    def val_step(self, data: Mapping[str, Any]) -> SampleList:
        """As :meth:`test_step`."""
        return self.test_step(data)

    def test_step(self, data: Mapping[str, Any]) -> SampleList:
        """Detect coarse to fine; inputs that have a ``scale_factor`` are detected as they are.

        Args:
            data (dict): ``inputs``, images (3, H, W) in original pixels, and ``data_samples``.

        Returns:
            SampleList: The samples with ``pred_instances``, whose ``levels`` tell at which level
            each was seen. The metainfo has ``focus_chips`` (of each level, fine to coarse, in
            original pixels, shape (n, 4)), ``focus_pixels`` (pixels that the detector has seen)
            and, with ``keep_maps``, ``focus_maps`` (of each level, fine to coarse, a list of
            :class:`FocusMap`).
        """
        if any('scale_factor' in sample.metainfo for sample in data['data_samples']):
            return super().test_step(data)
        samples = self.data_preprocessor.cast_data(data['data_samples'])
        if getattr(self.data_preprocessor, 'boxtype2tensor', False):
            samplelist_boxtype2tensor(samples)  # visualizers and metrics expect it
        return self._detect(data['inputs'], samples)

    @torch.no_grad()
    def _detect(self, images: Sequence[Tensor], samples: SampleList) -> SampleList:
        """Detect coarse to fine in images (3, H, W) of original pixels."""
        sizes = [image_size(image) for image in images]
        # Of each image, and of these chips and maps of each level, coarse to fine.
        chips = [[np.array([[0.0, 0.0, w, h]])] for w, h in sizes]
        maps: list[list[list[FocusMap]]] = [[] for _ in images]
        found: list[list[InstanceData]] = [[] for _ in images]
        pixels_seen = [0] * len(images)
        with view_settings(self.detector, self.view_test_cfg):
            for level in reversed(range(self.pyramid.num_levels)):
                windows = [
                    window
                    for i, size in enumerate(sizes)
                    for chip in chips[i][-1].tolist()
                    for window in cut_windows(
                        chip,
                        self._scale(size, level),
                        self.window_size,
                        self.pyramid.chip_size,
                        image=i,
                        level=level,
                    )
                ]
                for of_image in maps:
                    of_image.append([])
                for window, instances, focus, pixels in self._see(images, windows):
                    i = window.image
                    found[i].append(self._keep(instances, window, sizes[i]))
                    maps[i][-1].append(focus)
                    pixels_seen[i] += pixels
                if level:
                    for i, size in enumerate(sizes):
                        chips[i].append(self._chips(maps[i][-1], size, level))
        results = []
        for i, sample in enumerate(samples):
            result = sample.new()
            result.pred_instances = self._merge(found[i])
            result.set_metainfo(dict(focus_chips=chips[i][::-1], focus_pixels=pixels_seen[i]))
            if self.keep_maps:
                result.set_metainfo(dict(focus_maps=maps[i][::-1]))
            results.append(result)
        return results

    def _chips(self, maps: list[FocusMap], size: tuple[int, int], level: int) -> np.ndarray:
        """FocusChips for the level below ``level``."""
        min_side = self.min_chip_side / self._scale(size, level - 1)
        threshold = self.thresholds[self.pyramid.num_levels - 1 - level]
        return focus_chips(maps, threshold, *size, min_side, self.dilation)

    def _scale(self, size: tuple[int, int], level: int) -> float:
        return float(self.pyramid.scales(*size, test=True)[level])

    def _see(
        self, images: Sequence[Tensor], windows: Sequence[Window]
    ) -> Iterator[tuple[Window, InstanceData, FocusMap, int]]:
        """Windows with their detections in original pixels, FocusPixel maps and numbers of pixels.

        Windows of one size go through the detector together.
        """
        for batch in window_batches(windows, self.batch_pixels, pad_size_divisor=_PAD_SIZE_DIVISOR):
            sizes = [image_size(images[window.image]) for window in batch]
            views = [
                load_window(images[window.image], window.box, self._scale(size, window.level))
                for window, size in zip(batch, sizes)
            ]
            data = self.data_preprocessor(
                dict(inputs=[v for v, _ in views], data_samples=[s for _, s in views]), False
            )
            shape = tuple(data['inputs'].shape[-2:])
            share = max(area_share(window.box, size) for window, size in zip(batch, sizes))
            with (
                self._features() as feats,
                fewer_proposals(self.detector, share, self.min_rpn_proposals),
            ):
                results = self.detector.predict(data['inputs'], data['data_samples'], rescale=True)
            maps = self._probabilities(feats, shape, results, batch[0].level)
            for window, size, (view, sample), result, focus in zip(
                batch, sizes, views, results, maps
            ):
                instances = result.pred_instances
                box = whole_pixels(window.box, size)
                instances.bboxes = instances.bboxes + instances.bboxes.new_tensor(box[:2] * 2)
                height, width = view.shape[-2:]
                scale_w, scale_h = sample.metainfo['scale_factor']
                cell = (self._stride / scale_w, self._stride / scale_h)
                yield window, instances, FocusMap(focus, box, cell), width * height

    @property
    def _stride(self) -> int:
        return 16 if self.focus_head is None else self.focus_head.stride

    def _probabilities(
        self, feats: list[Sequence[Tensor]], shape: tuple[int, int], results: SampleList, level: int
    ) -> list[np.ndarray]:
        if self.focus_head is not None:
            return list(self.focus_head.predict(feats[-1], shape, level).cpu().numpy())
        shape = tuple(-(-side // self._stride) for side in shape)
        end = float(focus_sizes(self.pyramid, test=True)[level, 1])
        return [
            _small_detections(result, shape, self._stride, self.small, end).cpu().numpy()
            for result in results
        ]

    def _keep(self, instances: InstanceData, window: Window, size: tuple[int, int]) -> InstanceData:
        """Detections of the window in its level's range that no edge of the window cuts."""
        boxes = instances.bboxes
        lo, hi = self.pyramid.ranges(test=True)[window.level].tolist()
        keep = LevelRange(((lo, hi),)).contains(boxes) & window.owns(boxes, *size)
        seen = whole_pixels(window.box, size)
        keep &= uncut(boxes, seen, size, self.edge / self._scale(size, window.level))
        return InstanceData(
            bboxes=boxes,
            scores=instances.scores,
            labels=instances.labels,
            levels=torch.full_like(instances.labels, window.level),
        )[keep]

    def _merge(self, instances: list[InstanceData]) -> InstanceData:
        """Merge the detections of all levels."""
        merged = InstanceData.cat(instances)
        if not len(merged):
            return merged
        found, keep = batched_nms(merged.bboxes, merged.scores, merged.labels, self.tta_cfg.nms)
        merged = merged[keep]
        merged.bboxes, merged.scores = found[:, :4], found[:, 4]
        return merged[: self.tta_cfg.max_per_img]

    @contextmanager
    def _features(self) -> Iterator[list[Sequence[Tensor]]]:
        """Collect the features that the detector computes meanwhile."""
        feats: list[Sequence[Tensor]] = []
        source = self.detector.neck if self.detector.with_neck else self.detector.backbone
        handle = source.register_forward_hook(lambda module, args, output: feats.append(output))
        try:
            yield feats
        finally:
            handle.remove()


def step_thresholds(given: float | Sequence[float] | None, steps: int) -> tuple[float, ...]:
    """The threshold of each step, coarse to fine.

    Args:
        given (float | Sequence[float] | None): One for each step, one for all, or None, the
            authors' release's.
        steps (int): Steps from a level to the next finer one.

    Raises:
        ValueError: If there are not as many as steps, or one is negative.
    """
    if given is None:
        given = [0.02] * (steps - 1) + [0.2] if steps > 1 else [0.02] * steps
    if not isinstance(given, Sequence):
        given = [given] * steps
    if len(given) != steps or not all(t >= 0 for t in given):
        raise ValueError(
            f'thresholds must be one number of at least 0 for each of the {steps} steps from a '
            f'level to the next finer one, or one for all; got {given!r}'
        )
    return tuple(float(t) for t in given)


def _small_detections(
    result: DetDataSample,
    shape: tuple[int, int],
    stride: int,
    small: tuple[float, float] | None,
    end: float,
) -> Tensor:
    """Greatest score, in each cell of a map, of a detection of a size between those in ``small``.

    These are in input pixels. Without them, detections of less than ``end`` original pixels count.
    """
    instances = result.pred_instances
    scale = instances.bboxes.new_tensor(result.metainfo['scale_factor'])
    small = (0.0, end * float(scale.prod().sqrt())) if small is None else small
    boxes = instances.bboxes * scale.repeat(2)
    size = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1).sqrt()
    focus = (size > small[0]) & (size < small[1])
    cells = boxes[focus] / stride
    starts, stops = cells[:, :2].floor().int().tolist(), cells[:, 2:].ceil().int().tolist()
    scores = instances.scores[focus].tolist()
    grid = torch.zeros(shape)
    for (x1, y1), (x2, y2), score in zip(starts, stops, scores):
        grid[y1:y2, x1:x2].clamp_(min=score)
    return grid


def _accept_plain_detector(
    module: nn.Module, state_dict: dict[str, Any], prefix: str, *args: Any
) -> None:
    """Weights of the detector alone are those of ``detector``."""
    own = (f'{prefix}detector.', f'{prefix}focus_head.')
    if any(key.startswith(own[0]) for key in state_dict):
        return
    for key in [key for key in state_dict if key.startswith(prefix) and not key.startswith(own)]:
        state_dict[own[0] + key[len(prefix) :]] = state_dict.pop(key)
