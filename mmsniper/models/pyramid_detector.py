"""Any detector, tested at every level of the pyramid."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import torch
from mmdet.models.detectors import BaseDetector
from mmdet.models.utils.misc import samplelist_boxtype2tensor
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample, SampleList
from mmdet.structures.bbox import get_box_tensor
from mmengine.config import ConfigDict
from mmengine.logging import print_log
from mmengine.structures import InstanceData
from numpy.typing import NDArray
from torch import Tensor

from mmsniper.chips.pyramid import ScalePyramid
from mmsniper.chips.pyramid_text import describe_range
from mmsniper.chips.scale_agreement import scale_disagreement
from mmsniper.chips.windows import (
    WINDOW_SIZE,
    Window,
    check_window_size,
    cut_windows,
    window_batches,
)
from mmsniper.datasets.image_windows import ImageWindows
from mmsniper.models.joined_classes import empty, joined
from mmsniper.models.level_range import LevelRange
from mmsniper.models.mask_prediction import MaskPrediction, mask_prediction
from mmsniper.models.masks import ImageMasks
from mmsniper.models.nms import MERGE_NMS, best_first
from mmsniper.models.runtime import Runtime
from mmsniper.models.temporary_settings import box_head, everything_found
from mmsniper.models.views import (
    TEXT_KEYS,
    Scene,
    SeenBatch,
    image_size,
    load_window,
    uncut,
    whole_pixels,
)
from mmsniper.utils.box_types import enclosing, is_rotated, typed
from mmsniper.utils.checks import check_whole_number
from mmsniper.utils.read_ahead import read_ahead as made_ahead

_MERGE_OPTIONS = ('score_thr', 'nms_pre', 'nms', 'max_per_img')

# Inputs go into a batch with others of the same size, rounded up to this: most backbones want sides
# that are multiples of 32, and data preprocessors pad to them.
_PAD_SIZE_DIVISOR = 32

# After so many images it is judged whether scales differ from those of training, or as soon as they
# do by this factor.
_COMPARED_IMAGES, _FAR_SCALE = 50, 1.9

# What is thinner, original px, is no object: a box that was clipped at the image's edge. Its area
# can be 0 in the float32 of the NMS, and the IoU of two of them 0 / 0.
_MIN_SIDE = 0.1


def complete_merge_cfg(given: Mapping[str, Any], test_cfg: Mapping[str, Any]) -> ConfigDict:
    """How the detections of all levels are merged, with what is not given.

    Args:
        given (dict): ``merge_cfg`` of a :class:`PyramidDetector`.
        test_cfg (dict): That of the detector, of which ``max_per_img`` is the default. Its
            ``score_thr`` and the NMS of a two-stage detector are for one scale and do not count.

    Returns:
        ConfigDict: ``score_thr``, ``nms_pre``, ``nms`` and ``max_per_img``. Without a limit is
        None, which is below 0 elsewhere.

    Raises:
        ValueError: If ``nms`` is no dict.
    """
    own = test_cfg.get('rcnn') or test_cfg
    most = own.get('max_per_img', own.get('max_per_image', 100))  # the latter is Mask2Former's
    merge = dict(score_thr=0.001, nms_pre=max(1000, most), nms=MERGE_NMS, max_per_img=most)
    merge.update(given)
    if not isinstance(merge['nms'], Mapping | None):
        raise ValueError(
            f"merge_cfg.nms must be a dict, such as dict(type='nms', iou_threshold=0.5), or None, "
            f'got {merge["nms"]!r}'
        )
    if merge['nms'] is not None and 'type' not in merge['nms']:
        merge['nms'] = {**MERGE_NMS, **merge['nms']}
    for key in ('nms_pre', 'max_per_img'):
        merge[key] = None if (merge[key] or 0) < 0 else merge[key]
    return ConfigDict(merge)


@MODELS.register_module()
class PyramidDetector(BaseDetector):
    """A detector that is tested at every level of the pyramid (SNIPER section 4).

    It *is* the detector: an instance of its class, with its parts, its losses and the keys of its
    weights, so that checkpoints of either are those of the other. Only ``val_step`` and
    ``test_step`` differ. In a stock config change ``type`` and add ``detector`` and ``pyramid``.

    An image comes as it is, which a pipeline without ``Resize`` does. It is seen at each level,
    coarse to fine; what is larger than ``window_size`` there in overlapping windows, so that memory
    is bounded. Of a window those detections stay that are in the level's test range and that no
    edge of it cuts; only then come the detector's own NMS (one-stage) and the best ``nms_pre``.
    What all levels have found is merged once. Masks are predicted for what is left, from the
    features of the level that found it.

    An image that a pipeline has resized (it has a ``scale_factor``) is detected by the detector as
    it is, at that one scale; the log says so.

    Args:
        detector (str): Type of the detector, such as ``'FasterRCNN'``.
        pyramid (ScalePyramid | dict): The config's pyramid; its test rules and test ranges count.
        merge_cfg (dict | None): Of the merge: ``score_thr``, ``nms_pre`` (best detections of a
            window that take part), ``nms`` and ``max_per_img``, or some of them. Defaults to 0.001,
            1000, :data:`~mmsniper.models.nms.MERGE_NMS` and the detector's ``max_per_img``. They
            take the place of the detector's ``test_cfg``, whose ``score_thr`` does not count.
        level_rpn (dict | None): Merged into ``test_cfg.rpn`` while levels are seen: each may need
            fewer proposals than a whole image. Defaults to None.
        window_size (int): Longest side of what the network sees at once, pixels of the level; more
            than the chip size. Defaults to 2048.
        batch_pixels (int): Pixels of a batch, at their level, at most (but at least one window).
            Defaults to 2 ** 22, one window of the default size.
        edge (float): Detections within so many pixels (of the level) of an edge of their window
            that is not an edge of the image are dropped. Defaults to 10, as in AutoFocus's release.
        max_padding (float): Windows of unlike shape go into a batch, too, as long as it has at most
            so many times their pixels. 1.5 fills the batches of AutoFocus's chips, which a GPU may
            want; the network then sees more padding. Defaults to 1, only those of one shape.
        read_ahead (int): Batches of windows that are read while the network sees one, of images of
            which windows are read; those of decoded images cost less than a thread. Defaults to 1.
        precision (str | None): ``'bf16'`` or ``'fp16'`` computes in half precision, with places and
            scores in float32. Defaults to None, float32.
        compiled (bool | dict): Whether ``torch.compile`` compiles backbone, neck and dense head, or
            its arguments. Defaults to False.
        val_levels (Sequence[int] | None): Levels that validation sees, 0 is the finest: fewer are
            cheaper. Defaults to None, all.
        **kwargs: As for the detector. ``data_preprocessor`` is needed.

    Raises:
        ValueError: If an argument is out of its range or missing.

    Example:
        >>> model = dict(type='PyramidDetector', detector='RetinaNet', pyramid=pyramid)
    """

    merge_defaults: ClassVar[Mapping[str, Any]] = {}
    """Further options of ``merge_cfg``, and their defaults, of a class with another ``merge``."""

    def __new__(cls, *args: Any, detector: str | type | None = None, **kwargs: Any) -> Any:
        """An instance of a class that is both this one and the detector's."""
        if detector is not None:
            kind = MODELS.get(detector) if isinstance(detector, str) else detector
            if kind is None:
                raise ValueError(f'there is no detector {detector!r} among the MODELS')
            tested: type = cls
            cls = joined(tested, kind)
        elif not hasattr(cls, '_joined_from'):
            raise ValueError(
                f"{cls.__name__} needs the type of its detector, such as detector='FasterRCNN', "
                f"beside that detector's own settings"
            )
        return super().__new__(cls)

    def __init__(
        self,
        *,
        detector: str | type,
        pyramid: ScalePyramid | Mapping[str, Any],
        merge_cfg: Mapping[str, Any] | None = None,
        level_rpn: Mapping[str, Any] | None = None,
        window_size: int = WINDOW_SIZE,
        batch_pixels: int = 2**22,
        edge: float = 10,
        max_padding: float = 1.0,
        read_ahead: int = 1,
        precision: str | None = None,
        compiled: bool | Mapping[str, Any] = False,
        val_levels: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        if not kwargs.get('data_preprocessor'):
            raise ValueError(f'{type(self).__name__} needs the data_preprocessor of its detector')
        super().__init__(**kwargs)
        self.pyramid = ScalePyramid.from_config(pyramid)
        check_window_size(window_size, self.pyramid)
        self.window_size, self.batch_pixels, self.edge = window_size, batch_pixels, edge
        if not max_padding >= 1:
            raise ValueError(f'max_padding must be at least 1, which is none, got {max_padding!r}')
        check_whole_number('read_ahead', read_ahead, 0)
        self.max_padding, self.read_ahead = max_padding, read_ahead
        self.runtime = Runtime(precision, compiled)
        options = [*_MERGE_OPTIONS, *self.merge_defaults]
        if unknown := sorted(set(merge_cfg or ()) - set(options)):
            raise ValueError(f'merge_cfg has no option {unknown}, its options are {options}')
        given = {**self.merge_defaults, **(merge_cfg or {})}
        # Co-DETR has a list of test_cfg, of each head.
        own = getattr(box_head(self), 'test_cfg', None) or self.test_cfg or {}
        self.merge_cfg = complete_merge_cfg(given, own)
        if level_rpn and not getattr(self, 'with_rpn', False):
            raise ValueError(f'level_rpn is for detectors with an RPN, {detector} has none')
        self.level_rpn = level_rpn
        every = range(self.pyramid.num_levels)
        val_levels = [val_levels] if isinstance(val_levels, int) else val_levels
        self.val_levels = tuple(every if val_levels is None else sorted(set(val_levels)))
        if not self.val_levels or not set(self.val_levels) <= set(every):
            raise ValueError(f'val_levels must be some of {list(every)}, got {val_levels!r}')
        self._told: set[str] = set()
        self._sizes: list[tuple[int, int]] = []
        self._scales_are_compared = False

    def __reduce__(self) -> tuple[Any, ...]:
        return empty, self._joined_from, self.__dict__

    def val_step(self, data: Mapping[str, Any]) -> SampleList:
        """As :meth:`test_step`, at ``val_levels``."""
        return self._step(data, self.val_levels, 'validation')

    def test_step(self, data: Mapping[str, Any]) -> SampleList:
        """Detect at all levels.

        Args:
            data (dict): ``inputs``, images (3, H, W) in original pixels, or of which windows are
                read (:class:`~mmsniper.datasets.image_windows.ImageWindows`), and
                ``data_samples``.

        Returns:
            SampleList: The samples with ``pred_instances``: ``bboxes`` in original pixels, (n, 4),
            or (n, 5) of a detector of rotated boxes, ``scores``, ``labels``, the ``levels`` that
            found them, and of a detector with a mask head ``masks``, bool (n, H, W), or COCO RLEs
            where that would be too large (:class:`~mmsniper.models.masks.ImageMasks`).
        """
        return self._step(data, range(self.pyramid.num_levels), 'test')

    def unmerged_step(self, data: Mapping[str, Any]) -> SampleList:
        """As :meth:`test_step`, without merging and masks: what there is to merge.

        Raises:
            ValueError: If a pipeline has resized an image.
        """
        if _resized(data):
            raise ValueError(
                'all levels are seen of an image as it is, but a pipeline (tta_pipeline) has '
                'resized it: take Resize out, and scale_factor out of meta_keys'
            )
        with self.runtime.of(self):
            scenes, _ = self.detect(data['inputs'], range(self.pyramid.num_levels), _texts(data))
        return [
            _with(sample, InstanceData.cat(scene.found))
            for sample, scene in zip(self._samples_of(data), scenes)
        ]

    def _samples_of(self, data: Mapping[str, Any]) -> SampleList:
        """The samples as a detector would give them."""
        samples = self.data_preprocessor.cast_data(data['data_samples'])
        samplelist_boxtype2tensor(samples)  # visualizers and metrics expect it
        return samples

    @torch.no_grad()
    def _step(self, data: Mapping[str, Any], levels: Sequence[int], what: str) -> SampleList:
        with self.runtime.of(self):
            return self._tested(data, levels, what)

    def _tested(self, data: Mapping[str, Any], levels: Sequence[int], what: str) -> SampleList:
        if _resized(data):
            self._tell(
                f'{what}: images at the one scale that the pipeline resizes them to, not at the '
                f'levels of the pyramid. Take Resize out of the pipeline to see these'
            )
            return super().test_step(data)
        self._tell(f'{what}: {self._described(levels)}')
        self._compare_scales(data['inputs'])
        scenes, batches = self.detect(data['inputs'], levels, _texts(data))
        results = [
            _with(sample, self.merge(scene.found), self._about(scene))
            for sample, scene in zip(self._samples_of(data), scenes)
        ]
        if masks := mask_prediction(self):
            self._add_masks(masks, results, scenes, batches)
        for result in results:
            for key in ('views', 'codes'):
                result.pred_instances.pop(key, None)
        return results

    def _described(self, levels: Sequence[int]) -> str:
        """How images are tested, for the log."""
        ranges = self.pyramid.ranges(test=True)
        seen = ', '.join(
            f'{i} (objects of {ranges[i][0]:g} to {ranges[i][1]:g} px)' for i in levels
        )
        merge = (self.merge_cfg.nms or dict(type='no NMS')).get('type')
        if type(self).merge is not PyramidDetector.merge:
            merge = type(self).merge.__qualname__
        dropped = ' and '.join(map(describe_range, self.pyramid.gaps(test=True)))
        gaps = f'; detections of {dropped}, in no level, are dropped' if dropped else ''
        return f'every image is seen at the levels {seen}, merged by {merge}{gaps}'

    def _compare_scales(self, images: Sequence[Tensor | ImageWindows]) -> None:
        """Warn once if scales are others than in training: of the first, if far, or of many."""
        if not self._scales_are_compared:
            self._sizes += map(image_size, images)
            found = scale_disagreement(self.pyramid, *zip(*self._sizes))
            far = np.maximum(found.factors, 1 / found.factors).max() > _FAR_SCALE
            if far or len(self._sizes) >= _COMPARED_IMAGES:
                self._scales_are_compared = True
                if found.message:
                    self._tell(found.message, logging.WARNING)

    def _tell(self, message: str, level: int = logging.INFO) -> None:
        """Log a message once."""
        if message not in self._told:
            self._told.add(message)
            print_log(message, logger='current', level=level)

    @torch.no_grad()
    def detect(
        self,
        images: Sequence[Tensor | ImageWindows],
        levels: Sequence[int],
        texts: Sequence[Mapping[str, Any]] | None = None,
    ) -> tuple[list[Scene], list[SeenBatch]]:
        """Detect at levels of the pyramid, coarse to fine.

        Args:
            images (Sequence[Tensor | ImageWindows]): Each (3, H, W), original pixels, or one of
                which windows are read.
            levels (Sequence[int]): The levels.
            texts (Sequence[dict] | None): Of each image what a detector that takes texts is told
                (:data:`~mmsniper.models.views.TEXT_KEYS`). Defaults to None, nothing.

        Returns:
            tuple[list[Scene], list[SeenBatch]]: The images with what was found in each window:
            ``bboxes`` in original pixels, ``scores``, ``labels``, ``levels``, ``views``, the
            positions (n, 2) of batch and of the window in it, and ``codes`` (n, d) where masks
            need them; and these batches.
        """
        texts = texts or [{}] * len(images)
        scenes = [Scene(image, text=text) for image, text in zip(images, texts)]
        batches: list[SeenBatch] = []
        with_masks = mask_prediction(self) is not None
        from_files = any(isinstance(image, ImageWindows) for image in images)
        with everything_found(self, self.merge_cfg.score_thr, self.level_rpn) as nms:
            for level in sorted(levels, reverse=True):
                level_batches = window_batches(
                    self._windows(scenes, level),
                    self.batch_pixels,
                    max_padding=self.max_padding,
                    pad_size_divisor=_PAD_SIZE_DIVISOR,
                )
                with_views = ((batch, self._read(scenes, batch)) for batch in level_batches)
                for batch, views in made_ahead(with_views, self.read_ahead if from_files else 0):
                    seen = self._see(scenes, batch, views, len(batches), nms)
                    # So many as fit into memory whatever the images' size; others come again.
                    if not with_masks or sum(s.pixels for s in scenes) > self.batch_pixels:
                        seen.feats = None
                    batches.append(seen)
        return scenes, batches

    def _windows(self, scenes: Sequence[Scene], level: int) -> list[Window]:
        """The windows of all images at a level."""
        windows: list[Window] = []
        for i, scene in enumerate(scenes):
            chips = self._regions(scene, level)
            scene.chips.append(chips)
            scene.maps.append([])
            for chip in chips.tolist():
                scale, overlap = self._scale(scene, level), self.pyramid.chip_size
                windows += cut_windows(chip, scale, self.window_size, overlap, image=i, level=level)
        return windows

    def _regions(self, scene: Scene, level: int) -> NDArray[np.float64]:
        """Where to look at a level: boxes (n, 4), original pixels. Here everywhere."""
        return np.array([[0.0, 0.0, *scene.size]])

    def _see(
        self,
        scenes: Sequence[Scene],
        windows: Sequence[Window],
        views: Mapping[str, Any],
        number: int,
        nms: Mapping[str, Any] | None,
    ) -> SeenBatch:
        """Detect in windows that go together, and note what is found."""
        data = self.data_preprocessor(views, False)
        with self._features() as feats:
            results = self._look(scenes, windows, data['inputs'], data['data_samples'])
        self._look_again(scenes, windows, data, feats[-1], results)
        for place, (window, result) in enumerate(zip(windows, results)):
            scene = scenes[window.image]
            found = self._keep(result.pred_instances, window, scene)
            found.views = found.labels.new_tensor([number, place]).repeat(len(found), 1)
            scene.found.append(self._best(found, nms))
            scene.pixels += math.prod(result.metainfo['img_shape'])
            del result.pred_instances  # all that was found: too much to keep of many windows
        return SeenBatch(windows, data['data_samples'], feats[-1])

    def _read(self, scenes: Sequence[Scene], windows: Sequence[Window]) -> dict[str, Any]:
        """The windows as a pipeline would give them."""
        views = [
            load_window(scenes[w.image], w.box, self._scale(scenes[w.image], w.level))
            for w in windows
        ]
        inputs, samples = map(list, zip(*views))
        return dict(inputs=inputs, data_samples=samples)

    def _look(
        self,
        scenes: Sequence[Scene],
        windows: Sequence[Window],
        inputs: Tensor,
        samples: SampleList,
    ) -> SampleList:
        """Detections in each window, in its original pixels."""
        return self.predict(inputs, samples, rescale=True)

    def _look_again(self, *args: Any) -> None:
        """Note where to look at the next finer level."""

    def _about(self, scene: Scene) -> dict[str, Any]:
        """Metainfo of a result."""
        return {}

    def edge_at(self, scale: float) -> float:
        """How near to a window's edge is cut by it, original pixels."""
        return self.edge / scale

    def _scale(self, scene: Scene, level: int) -> float:
        return float(self.pyramid.scales(*scene.size, test=True)[level])

    def _keep(self, found: InstanceData, window: Window, scene: Scene) -> InstanceData:
        """Detections of a window, in the image's pixels, that are in range, its own and whole."""
        seen = whole_pixels(window.box, scene.size)
        # In half precision places would be lost, and Soft-NMS wants float.
        boxes = typed(found.bboxes).to(torch.float32, copy=True)
        scores = found.scores.float()
        boxes.translate_(seen[:2])
        lo, hi = self.pyramid.ranges(test=True)[window.level].tolist()
        around = enclosing(boxes)
        keep = LevelRange(((lo, hi),)).contains(boxes) & window.owns(around, *scene.size)
        keep &= uncut(around, seen, scene.size, self.edge_at(self._scale(scene, window.level)))
        keep &= (boxes.widths >= _MIN_SIDE) & (boxes.heights >= _MIN_SIDE)
        keep &= scores >= self.merge_cfg.score_thr
        kept = InstanceData(
            bboxes=boxes if is_rotated(boxes) else boxes.tensor,
            scores=scores,
            labels=found.labels,
            levels=torch.full_like(found.labels, window.level),
        )
        if 'codes' in found:
            kept.codes = found.codes.float()
        return kept[keep]

    def _best(self, found: InstanceData, nms: Mapping[str, Any] | None) -> InstanceData:
        """The best of a window, after the NMS of a detector that has its own."""
        return best_first(found, nms)[: self.merge_cfg.nms_pre]

    def merge(self, found: Sequence[InstanceData]) -> InstanceData:
        """Merge the detections of all levels: the method to override for another way.

        Args:
            found (Sequence[InstanceData]): Of each window what is in the level's range, with
                ``bboxes`` (n, 4) in original pixels, or n rotated ones, ``scores``, ``labels``,
                ``levels`` and ``views`` (n, 2), and ``codes`` (n, d) where masks need them.

        Returns:
            InstanceData: What is left of them, with all fields, best scores first.
        """
        merged = best_first(InstanceData.cat(found), self.merge_cfg.nms)
        return merged[: self.merge_cfg.max_per_img]

    def _add_masks(
        self,
        prediction: MaskPrediction,
        results: SampleList,
        scenes: Sequence[Scene],
        batches: Sequence[SeenBatch],
    ) -> None:
        """Predict the masks of what is left, batch by batch."""
        masks = [
            ImageMasks(len(result.pred_instances), scene.size)
            for result, scene in zip(results, scenes)
        ]
        for number, batch in enumerate(batches):
            members = []  # of each window
            for place, window in enumerate(batch.windows):
                views = results[window.image].pred_instances.views
                members.append(((views[:, 0] == number) & (views[:, 1] == place)).nonzero()[:, 0])
            if not any(map(len, members)):
                continue
            feats = batch.feats
            if feats is None:
                data = self.data_preprocessor(self._read(scenes, batch.windows), False)
                feats = self.extract_feat(data['inputs'])
            corners = [whole_pixels(w.box, scenes[w.image].size)[:2] for w in batch.windows]
            instances = [
                results[window.image].pred_instances[chosen]
                for window, chosen in zip(batch.windows, members)
            ]
            predicted = prediction.predict(feats, batch.samples, instances, corners)
            for window, chosen, of_window, found in zip(
                batch.windows, members, predicted, instances
            ):
                masks[window.image].add(chosen.tolist(), of_window)
                results[window.image].pred_instances.scores[chosen] = found.scores
        for result, of_image in zip(results, masks):
            result.pred_instances.masks = of_image.finished(result.pred_instances.bboxes.device)

    @contextmanager
    def _features(self) -> Iterator[list[Sequence[Tensor]]]:
        """Collect the features that the detector computes meanwhile."""
        feats: list[Sequence[Tensor]] = []
        source = self.neck if self.with_neck else self.backbone
        handle = source.register_forward_hook(lambda module, args, output: feats.append(output))
        try:
            yield feats
        finally:
            handle.remove()


def _resized(data: Mapping[str, Any]) -> bool:
    return any('scale_factor' in sample.metainfo for sample in data['data_samples'])


def _texts(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    infos = [sample.metainfo for sample in data['data_samples']]
    return [{key: info[key] for key in TEXT_KEYS if key in info} for info in infos]


def _with(
    sample: DetDataSample, instances: InstanceData, metainfo: Mapping[str, Any] | None = None
) -> DetDataSample:
    result = sample.new()
    instances.bboxes = get_box_tensor(instances.bboxes)
    result.pred_instances = instances
    result.set_metainfo(dict(metainfo or {}))
    return result
