"""Chips as samples: the index that carries a chip, and the data set that attaches it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from operator import index
from typing import Any, NamedTuple, SupportsIndex

import mmcv.transforms
import numpy as np
import torch
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets.transforms import LoadAnnotations
from mmdet.registry import DATASETS
from mmengine.dataset import BaseDataset, Compose
from mmengine.structures import BaseDataElement

from mmsniper.chips import KINDS
from mmsniper.chips.input_level import homography_scale
from mmsniper.datasets.coco_reader import build_checked, read_checked
from mmsniper.datasets.decoding import ImageDecodingError, are_numbers, run_checked
from mmsniper.datasets.ignored_order import sort_ignored
from mmsniper.datasets.image_cache import ImageCache
from mmsniper.datasets.image_faults import ImageFileError, image_fault
from mmsniper.datasets.scale_transforms import behind_the_cut, rescaling
from mmsniper.datasets.transforms.load_image_windows import LoadImageWindows
from mmsniper.datasets.transforms.load_large_image import LoadLargeImageFromFile
from mmsniper.datasets.wrappers import all_datasets, read_datasets, type_name


class Chip(NamedTuple):
    """One planned chip.

    Attributes:
        level: Pyramid level, 0 is the finest.
        box: Window (x1, y1, x2, y2) in original pixels.
        kind: ``mmsniper.chips.POSITIVE`` or ``NEGATIVE``.
    """

    level: int
    box: tuple[float, float, float, float]
    kind: int

    def __str__(self) -> str:
        window = ', '.join(f'{v:.1f}' for v in self.box)
        return f'{KINDS[self.kind]} chip [{window}] of level {self.level}'


class ChipIndex(int):
    """The index of an image together with the chip to take from it.

    It is an ``int`` that keeps its chip through the arithmetic by which ``ConcatDataset`` and
    ``RepeatDataset`` find the image in the data set below them. So a chip needs no state in the
    workers: it travels with its index.

    Args:
        image (int): Image index.
        chip (Chip): The chip.
        left (int): How many further chips of the image the same worker is going to be asked for
            soon. Defaults to 0.

    Example:
        >>> index = ChipIndex(7, Chip(0, (0.0, 0.0, 64.0, 64.0), 0))
        >>> index == 7, (index - 5) == 2, (index - 5).chip.level
        (True, True, 0)
    """

    chip: Chip
    left: int

    def __new__(cls, image: int, chip: Chip, left: int = 0) -> ChipIndex:
        self = super().__new__(cls, image)
        self.chip, self.left = chip, left
        return self

    def of(self, image: int) -> ChipIndex:
        """The same chip of the same image, under its index in another data set."""
        return ChipIndex(image, self.chip, self.left)

    def __sub__(self, other: SupportsIndex) -> ChipIndex:
        return self.of(int(self) - index(other))

    def __mod__(self, other: SupportsIndex) -> ChipIndex:
        return self.of(int(self) % index(other))

    def __reduce__(self) -> tuple[type, tuple[int, Chip, int]]:
        return ChipIndex, (int(self), self.chip, self.left)

    def __repr__(self) -> str:
        return f'ChipIndex({int(self)}, {self.chip})'


class ChipIndexTable(list):
    """A list of image indices through which a :class:`ChipIndex` keeps its chip."""

    def __getitem__(self, idx: Any) -> Any:
        image = super().__getitem__(idx)
        return idx.of(image) if isinstance(idx, ChipIndex) else image


# What the model, and who draws it, has to know of a chip.
_PACKED = ('chip', 'level', 'homography_matrix', 'uncut_objects')


@DATASETS.register_module()
class ChipDataset:
    """Wrap a data set so that a chip index gives that chip of the image.

    The wrapped data set finds the image and its annotations (any MMDetection data set, or
    ``ConcatDataset``, ``RepeatDataset`` and ``ClassBalancedDataset`` of them). This wrapper
    attaches the chip, if the index has one, and runs ``pipeline``, in which :class:`ChipSampler`
    cuts it out. Samples have their ``chip``, ``level``, ``homography_matrix`` and ``uncut_objects``
    in the metainfo, whether ``PackDetInputs`` packs them or not, and invalid objects before ignore
    regions in their ``ignored_instances``.

    An input must be a chip, whatever a sampler, a pipeline or a hook that exchanges the pipeline
    (``PipelineSwitchHook``) makes of it; a whole image is an error. An index without a chip, of a
    stock sampler, is none where ``ChipSampler`` draws one.

    Args:
        dataset (BaseDataset | dict): The data set to wrap, or its config, without a pipeline.
        pipeline (Sequence[Any]): The transforms, ``LoadImageFromFile`` to ``PackDetInputs``.
        max_refetch (int): How many other images are tried, drawn at random, where the pipeline
            returns None (as ``FilterAnnotations`` does for an image without boxes). Defaults to 15.
        lazy_init (bool): Do not load annotations yet. Defaults to False.
        cache_mb (float): Decoded images of which more chips are to come, up to so many MB, are kept
            in each worker: for ``ChipAwareSampler(lanes=...)``, without which nothing is kept. It
            is what ``LoadImageFromFile``, ``LoadLargeImageFromFile``, ``LoadImageWindows`` and
            ``LoadAnnotations`` make, if they come first; a transform of one's own could differ
            from time to time. Defaults to 0.

    Raises:
        ValueError: If the pipeline is empty, the wrapped data set has one, too, a transform after
            :class:`ChipSampler` changes the scale of chips or mixes images, decoded images are to
            be kept of which each chip decodes its own, or a COCO file is faulty
            (:class:`~mmsniper.chips.CocoFile`).
        RuntimeError: If a transform fails, or the sample is not cut out of its image; the message
            names the image's file and the chip.

    Example:
        >>> train_dataloader = dict(
        ...     batch_size=20,
        ...     sampler=dict(type='ChipAwareSampler', pyramid=pyramid),
        ...     batch_sampler=None,
        ...     dataset=dict(
        ...         type='ChipDataset',
        ...         dataset=dict(type='CocoDataset', data_root='data/coco/', ...),
        ...         pipeline=train_pipeline))
    """

    def __init__(
        self,
        dataset: BaseDataset | Mapping[str, Any],
        pipeline: Sequence[Any],
        max_refetch: int = 15,
        lazy_init: bool = False,
        cache_mb: float = 0.0,
    ) -> None:
        self.cache = ImageCache(cache_mb * 1e6)
        if not pipeline:
            raise ValueError(
                'ChipDataset needs a pipeline of its own, from LoadImageFromFile to PackDetInputs'
            )
        self.pipeline = _ChipPipeline(pipeline)
        if isinstance(dataset, Mapping):
            dataset = build_checked(dataset, self.pipeline)
        self.dataset = dataset
        _check_no_pipeline(self.dataset)
        self.max_refetch = max_refetch
        if not lazy_init:
            self.full_init()

    @property
    def pipeline(self) -> Callable[[dict], dict | None]:
        """The transforms; another pipeline that is put here has to give chips, too."""
        return self._pipeline

    @pipeline.setter
    def pipeline(self, pipeline: Any) -> None:
        if type(pipeline) in (Compose, mmcv.transforms.Compose):
            pipeline = _ChipPipeline(pipeline.transforms)
        if self.cache.max_bytes:
            _check_kept_whole(pipeline)
        self._pipeline = pipeline
        self.cache = ImageCache(self.cache.max_bytes)  # of what the old one has loaded

    @property
    def metainfo(self) -> dict:
        """Meta information of the wrapped data set."""
        return self.dataset.metainfo

    def full_init(self) -> None:
        """Load the annotations if they have not been loaded yet."""
        read_checked(self.dataset, self.pipeline)

    def __len__(self) -> int:
        """Number of images (the sampler knows the number of chips)."""
        return len(self.dataset)

    def get_data_info(self, idx: int) -> dict:
        """Annotations of an image."""
        return self.dataset.get_data_info(int(idx))

    def get_cat_ids(self, idx: int) -> list[int]:
        """Labels in an image, for ``ClassBalancedDataset``."""
        return self.dataset.get_cat_ids(int(idx))

    def __getitem__(self, idx: int) -> dict:
        for _ in range(self.max_refetch + 1):
            data = self._prepare(idx)
            if data is not None:
                return data
            idx = int(np.random.randint(len(self)))
        raise RuntimeError(
            f'the pipeline returned None for {self.max_refetch + 1} images in a row, the last '
            f'of them {self.get_data_info(idx).get("img_path")}; which transform drops them?'
        )

    def _prepare(self, idx: int) -> dict | None:
        pipeline = self.pipeline
        chip, left = getattr(idx, 'chip', None), getattr(idx, 'left', 0)
        loaded = self.cache.get(int(idx), left)
        results = self.get_data_info(idx) if loaded is None else loaded_again(loaded)
        # The transforms change `results`, and an error is told by what it was before.
        name, img_id = results.get('img_path'), results.get('img_id')
        try:
            if loaded is None and left and isinstance(pipeline, _ChipPipeline):
                loaded = pipeline.load(results)
                if loaded is None:
                    return None
                self.cache.put(int(idx), loaded, left)
                results = loaded_again(loaded)
            if chip is not None:
                results['chip'] = chip
            if loaded is not None and isinstance(pipeline, _ChipPipeline):
                return pipeline.cut(results)
            return pipeline(results)
        except Exception as error:
            what = f'{chip} of {name}' if chip is not None else name
            file = None if 'img' in results else name
            # No variable keeps the error: with its frames it would keep the image.
            raise RuntimeError(
                f'cannot make a sample of {what} (img_id {img_id}): {self._told(error, file)}'
            ) from _cause(error)

    def _told(self, error: Exception, loading: str | None) -> str:
        """An error, and what is wrong with the file that was loading when it came."""
        cause = _cause(error)
        file = getattr(cause, 'filename', None)
        file = file or (None if isinstance(cause, ImageDecodingError) else loading)
        fault = self._fault(file, cause) if isinstance(file, str) else ''
        return f'{type(cause).__name__}: {str(cause).strip()}{f". {fault}" if fault else ""}'

    def _fault(self, file: str, error: BaseException) -> str:
        """What is wrong with a file that could not be loaded, '' if nothing was found."""
        folders = [
            folder
            for part in read_datasets(self.dataset)
            for folder in (getattr(part, 'data_prefix', None) or {}).values()
            if isinstance(folder, str)
        ]
        fault = image_fault(file, folders=folders)
        if isinstance(error, FileNotFoundError) and 'There is ' not in fault:
            fault += '. Do data_root and data_prefix point at the images?'
        return fault


def _cause(error: Exception) -> BaseException:
    """What has happened to an image's file, for a data set that knows the folders."""
    return (error.__cause__ or error) if isinstance(error, ImageFileError) else error


_LOADERS = LoadImageFromFile, LoadLargeImageFromFile, LoadImageWindows
_ALWAYS_THE_SAME = (*_LOADERS, LoadAnnotations)


def loaded_again(results: Mapping[str, Any]) -> dict:
    """What a pipeline would have loaded a second time, with the same pixels and masks.

    They are only read by whatever cuts a chip out; boxes and what goes with them are changed.
    """
    shared = ('gt_masks', 'gt_seg_map')
    return {
        key: copy(value) if key.startswith('gt_') and key not in shared else value
        for key, value in results.items()
    }


class _ChipPipeline(Compose):
    """Transforms that cut a chip out and leave it its scale; the packed sample knows its level.

    A transform after ``ChipSampler`` that changes the scale is refused: in building the pipeline
    if it is a known one, else when it has done so.
    """

    def __init__(self, transforms: Sequence[Any]) -> None:
        super().__init__(transforms)
        if wrong := rescaling(behind_the_cut(self.transforms)):
            raise ValueError(
                f'{", ".join(wrong)} after ChipSampler would change the scale of chips, which must '
                f'be that of their level, or mix chips of different levels: drop it from the '
                f'pipeline of ChipDataset'
            )

        changing = (
            i for i, step in enumerate(self.transforms) if type(step) not in _ALWAYS_THE_SAME
        )
        self._loading = next(changing, 0)

    def __call__(self, data: dict) -> dict | None:
        loaded = self.load(data)
        return None if loaded is None else self.cut(loaded)

    def load(self, data: dict) -> dict | None:
        """Run the transforms that come first and give the same whenever an image is loaded."""
        for transform in self.transforms[: self._loading]:
            changed = run_checked(transform, data)
            if changed is None:
                return None
            data = changed
        return data

    def cut(self, data: dict) -> dict | None:
        """Run the transforms that are left after :meth:`load`."""
        planned = data.get('chip') is not None
        made: tuple[float, ...] = ()
        kept: dict[str, Any] = {}
        for transform in self.transforms[self._loading :]:
            changed = run_checked(transform, data)
            if changed is None:
                return None
            data = changed
            if not {'level', 'homography_matrix'} <= data.keys():
                continue
            if not made:
                _check_cut(data, transform)
            kept = {key: data[key] for key in _PACKED if key in data}
            now = (*data['scale_factor'], homography_scale(data['homography_matrix']))
            made = made or now
            # It is float32; what is no number is no scale either.
            if not all(abs(a - b) <= 1e-3 * abs(b) for a, b in zip(now, made)):
                raise ValueError(
                    f'{type(transform).__name__} changed the scale from {made[-1]:.3g} to '
                    f'{now[-1]:.3g} (scale_factor from {made[:2]} to {now[:2]}), which must be '
                    f'that of level {data["level"]}: drop it from the pipeline'
                )
        if not made:
            names = ', '.join(type(transform).__name__ for transform in self.transforms)
            raise ValueError(
                f'the image comes out uncut: the pipeline ({names}) has no transform that cuts '
                f"chips out. Put dict(type='ChipSampler', pyramid=pyramid) after LoadAnnotations"
                f'{"" if planned else _NO_CHIP}; and if a hook has exchanged the pipeline, such '
                f'as PipelineSwitchHook, take it out of custom_hooks'
            )
        _check_numbers(data.get('inputs'))
        sample = data.get('data_samples')
        if isinstance(sample, BaseDataElement):
            sample.set_metainfo({k: v for k, v in kept.items() if k not in sample.metainfo_keys()})
            sort_ignored(sample)
        return data


def _check_kept_whole(pipeline: Any) -> None:
    """Refuse to keep images that are decoded as coarse as a chip needs them, for other chips."""
    if any(getattr(step, 'reduced_jpegs', False) for step in getattr(pipeline, 'transforms', ())):
        raise ValueError(
            'cache_mb keeps decoded images for all of their chips, and reduced_jpegs=True decodes '
            'JPEGs only as fine as the one chip needs it: leave one of the two out'
        )


def _check_numbers(inputs: Any) -> None:
    """Refuse an input of which a network would make NaN, and of its weights in one step."""
    if not isinstance(inputs, torch.Tensor) or not inputs.is_floating_point():
        return
    if not are_numbers(inputs.numpy()):
        raise ValueError(
            'the input has values that are NaN, infinite or stand for no data, of which training '
            'would make NaN of all weights: replace them in the files, or by a transform after '
            'LoadImageFromFile'
        )


_NO_CHIP = (
    ", and use sampler=dict(type='ChipAwareSampler', pyramid=pyramid), batch_sampler=None: the "
    'sampler gives indices without chips'
)


def _check_cut(data: Mapping[str, Any], transform: Any) -> None:
    """Check that a transform that wrote a level has cut the chip out.

    Raises:
        ValueError: If there is no chip, or the input is of another level or shows more than it.
    """
    chip: Chip | None = data.get('chip')
    name = type(transform).__name__
    if chip is None:
        raise ValueError(
            f'{name} has made an input of the whole image: use ChipSampler in its place{_NO_CHIP}'
        )
    x1, y1, x2, y2 = chip.box
    scales = np.array(data['scale_factor'])
    # A chip's hull has up to 2 px more than the chip itself, and is rounded to whole pixels.
    most = (np.array([x2 - x1, y2 - y1]) + 2) * scales + 1
    height, width = data['img_shape'][:2]
    if data['level'] != chip.level or width > most[0] or height > most[1]:
        raise ValueError(
            f'{name} has made an input of {width}x{height} px at level {data["level"]}, which is '
            f'not the {chip}: the image comes out uncut. Use ChipSampler in its place'
        )


def _check_no_pipeline(dataset: Any) -> None:
    """Refuse pipelines below a ChipDataset, which run before the chip is attached.

    Where one returned None, the chip would be cut out of the image that takes the place.
    """
    for part in all_datasets(dataset):
        pipeline = getattr(part, 'pipeline', None)
        names = [type_name(step) for step in getattr(pipeline, 'transforms', pipeline) or ()]
        if names:
            raise ValueError(
                f'{type_name(part)} in a ChipDataset has a pipeline ({", ".join(names)}), which '
                f'would run before the chip is known: move all of it to the pipeline of ChipDataset'
            )
