"""Coarse-to-fine inference: the finer levels see only where small objects are (AutoFocus)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample, SampleList
from numpy.typing import NDArray
from torch import Tensor

from mmsniper.chips.focus import FocusMap, focus_chips, focus_sizes
from mmsniper.chips.windows import Window
from mmsniper.models.pyramid_detector import PyramidDetector
from mmsniper.models.temporary_settings import fewer_proposals
from mmsniper.models.views import Scene, SeenBatch, area_share, whole_pixels
from mmsniper.utils.box_types import box_areas, enclosing, typed
from mmsniper.utils.checks import check_whole_number


@MODELS.register_module()
class AutoFocus(PyramidDetector):
    """A ``PyramidDetector`` with a FocusPixel branch, trained jointly and tested coarse to fine.

    In testing (AutoFocus section 3) the coarsest level is seen whole. Where the branch finds small
    objects, FocusChips are cut out of the original image and seen at the next finer level, and so
    on. All else is as in ``PyramidDetector``. The branch adds its own weights, ``focus_head.*``;
    a checkpoint of the detector alone has the others.

    Args:
        focus_head (dict | None): Config of the branch. Defaults to None, the detector's own
            detections tell where to look: cells that show one of a small object have its score as
            their probability.
        thresholds (float | Sequence[float] | None): Least probability of a FocusPixel for each
            step, coarse to fine, or one for all. Defaults to 0.02, and 0.2 for the last of several
            steps, as in the authors' release.
        dilation (int): Side of the square that FocusPixels are dilated by, cells. Defaults to 3.
        min_chip_side (float | None): Least side of a FocusChip in pixels of the level at which it
            is seen. Defaults to None, the pyramid's chip size, which the detector was trained on.
        small (tuple[float, float] | None): Without a focus head, sizes (input pixels) to look at
            again. Defaults to None, those up to the end of the next finer level's test range.
        min_rpn_proposals (int | None): A chip gets the share of the RPN's proposals
            (``max_per_img`` and ``nms_pre``) that its area has of the image's, but at least so
            many: the cost of proposals would not fall with the area otherwise. Defaults to None,
            each chip gets as many as a whole image.
        **kwargs: As for ``PyramidDetector``.

    Raises:
        ValueError: If an argument is out of its range, there are ``min_rpn_proposals`` and no RPN,
            or ``val_levels`` leave a level out, of which the next one needs to know.
    """

    def __init__(
        self,
        *,
        focus_head: Mapping[str, Any] | None = None,
        thresholds: float | Sequence[float] | None = None,
        dilation: int = 3,
        min_chip_side: float | None = None,
        small: tuple[float, float] | None = None,
        min_rpn_proposals: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.focus_head = MODELS.build(focus_head) if focus_head else None
        self.thresholds = step_thresholds(thresholds, self.pyramid.num_levels - 1)
        self.dilation = dilation
        self.min_chip_side = self.pyramid.chip_size if min_chip_side is None else min_chip_side
        self.small = None if small is None else (small[0], small[1])
        if min_rpn_proposals is not None and not getattr(self, 'with_rpn', False):
            raise ValueError(
                f'min_rpn_proposals is for detectors with an RPN, '
                f'{type(self).__name__} has none: leave it out'
            )
        check_whole_number('min_rpn_proposals', min_rpn_proposals, 1, optional=True)
        self.min_rpn_proposals = min_rpn_proposals
        if self.val_levels != tuple(range(min(self.val_levels), self.pyramid.num_levels)):
            raise ValueError(
                f'AutoFocus goes from the coarsest level down, so val_levels must not leave one '
                f'out, such as {list(range(1, self.pyramid.num_levels))}; got {self.val_levels}'
            )
        self.keep_maps = False  # set it to draw pictures of the FocusPixels
        self._branch_is_known = True
        # Public from torch 2.5 on.
        self._register_load_state_dict_pre_hook(_note_missing_branch, with_module=True)

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> dict[str, Tensor]:
        """Losses of the detector and of the focus head."""
        with self._features() as feats:
            losses = super().loss(batch_inputs, batch_data_samples)
        if self.focus_head is not None:
            self._branch_is_known = True
            shape = tuple(batch_inputs.shape[-2:])
            losses.update(self.focus_head.loss(feats[-1], shape, batch_data_samples))
        return losses

    def test_step(self, data: Mapping[str, Any]) -> SampleList:
        """Detect coarse to fine; as ``PyramidDetector``.

        Returns:
            SampleList: The metainfo has ``focus_chips`` (of each level, fine to coarse, in original
            pixels, shape (n, 4)), ``focus_pixels`` (pixels that the detector has seen) and, with
            ``keep_maps``, ``focus_maps`` (of each level, fine to coarse, a list of
            :class:`FocusMap`).

        Raises:
            ValueError: If a checkpoint without the branch was loaded, which would be random.
        """
        return super().test_step(data)

    def detect(self, *args: Any, **kwargs: Any) -> tuple[list[Scene], list[SeenBatch]]:
        """As ``PyramidDetector``, if the branch has been trained."""
        if not self._branch_is_known:
            raise ValueError(
                'the checkpoint has no focus_head.*, it is of the detector alone: train the '
                'AutoFocus config, or test with its own detections in place of the branch, '
                'model.focus_head=None'
            )
        return super().detect(*args, **kwargs)

    def _described(self, levels: Sequence[int]) -> str:
        seen = super()._described(levels)
        steps = ', '.join(f'{t:g}' for t in self.thresholds[: len(levels) - 1])
        if not steps:
            return f'{seen}. AutoFocus changes nothing: one level is seen, and that whole'
        return f'coarse to fine, FocusPixels from {steps} on; {seen}'

    def _about(self, scene: Scene) -> dict[str, Any]:
        about = dict(focus_chips=scene.chips[::-1], focus_pixels=scene.pixels)
        if self.keep_maps:
            about['focus_maps'] = scene.maps[::-1]
        return about

    def _regions(self, scene: Scene, level: int) -> NDArray[np.float64]:
        """The whole image at the coarsest level, then FocusChips."""
        if not scene.chips:
            return super()._regions(scene, level)
        min_side = self.min_chip_side / self._scale(scene, level)
        threshold = self.thresholds[self.pyramid.num_levels - 2 - level]
        return focus_chips(scene.maps[-1], threshold, *scene.size, min_side, self.dilation)

    def _look(self, scenes: Sequence[Scene], windows: Sequence[Window], *inputs: Any) -> SampleList:
        share = max(area_share(w.box, scenes[w.image].size) for w in windows)
        with fewer_proposals(self, share, self.min_rpn_proposals):
            return super()._look(scenes, windows, *inputs)

    def _look_again(
        self,
        scenes: Sequence[Scene],
        windows: Sequence[Window],
        data: Mapping[str, Any],
        feats: Sequence[Tensor],
        results: SampleList,
    ) -> None:
        """Note the FocusPixels of windows."""
        shape, level = tuple(data['inputs'].shape[-2:]), windows[0].level
        stride = 16 if self.focus_head is None else self.focus_head.stride
        if self.focus_head is not None:
            maps = self.focus_head.predict(feats, shape, level)
        else:
            cells = -(-shape[0] // stride), -(-shape[1] // stride)
            end = float(focus_sizes(self.pyramid, test=True)[level, 1])
            maps = [_small_detections(r, cells, stride, self.small, end) for r in results]
        for window, sample, probabilities in zip(windows, data['data_samples'], maps):
            scene = scenes[window.image]
            scale_w, scale_h = sample.metainfo['scale_factor']
            box, cell = whole_pixels(window.box, scene.size), (stride / scale_w, stride / scale_h)
            scene.maps[-1].append(FocusMap(probabilities.cpu().numpy(), box, cell))


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
    found = typed(instances.bboxes)
    around = enclosing(found)
    scale = around.new_tensor(result.metainfo['scale_factor'])
    small = (0.0, end * float(scale.prod().sqrt())) if small is None else small
    boxes = around * scale.repeat(2)
    size = (box_areas(found).nan_to_num(0.0) * scale.prod()).sqrt()
    focus = (size > small[0]) & (size < small[1])
    cells = boxes[focus] / stride
    starts, stops = cells[:, :2].floor().int().tolist(), cells[:, 2:].ceil().int().tolist()
    scores = instances.scores[focus].tolist()
    grid = torch.zeros(shape)
    for (x1, y1), (x2, y2), score in zip(starts, stops, scores):
        grid[y1:y2, x1:x2].clamp_(min=score)
    return grid


def _note_missing_branch(
    module: AutoFocus, state_dict: Mapping[str, Any], prefix: str, *args: Any
) -> None:
    """Whether the weights that are loaded have those of the branch."""
    if module.focus_head is not None:
        branch = f'{prefix}focus_head.'
        module._branch_is_known = any(key.startswith(branch) for key in state_dict)
