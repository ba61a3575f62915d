"""Training data: images at one scale become chips of a pyramid."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from inspect import Parameter, signature
from math import prod
from typing import Any

from mmdet.datasets import MultiImageMixDataset
from mmdet.datasets.transforms import PackDetInputs
from mmdet.registry import DATA_SAMPLERS, TRANSFORMS
from mmengine.config import ConfigDict

from mmsniper.datasets import ChipAwareSampler
from mmsniper.datasets.scale_transforms import RESCALING
from mmsniper.datasets.transforms.load_image_windows import in_reduced_version
from mmsniper.datasets.wrappers import (
    NESTED_TRANSFORMS,
    all_transforms,
    class_names,
    inner_datasets,
    read_datasets,
    replace_datasets,
    type_name,
)
from mmsniper.utils.words import numbered

# Those that only crop or pad, or drop the boxes that are small at one scale, go as well: a chip has
# its size already, and its boxes are judged by ScaleRangeFilter.
SCALE_TRANSFORMS = RESCALING | {
    *('RandomCrop', 'RandomCropYOLO', 'MinIoURandomCrop', 'RandomCenterCropPad'),
    *('Expand', 'Pad', 'FilterAnnotations'),
}

# MMRotate's, after which boxes are rotated ones.
_BOX_TYPES = ('ConvertBoxType', 'ConvertMask2BoxType')

# What a ChipAwareSampler stands in for without a loss, and the arguments that it takes over.
_SAMPLERS = ('', 'DefaultSampler', 'InfiniteSampler', 'ChipAwareSampler', 'ClassAwareSampler')
_SAMPLER_ARGUMENTS = ('shuffle', 'seed', 'round_up', 'num_sample_class')
_BATCH_SAMPLERS = ('', 'BatchSampler', 'AspectRatioBatchSampler')

# Where the size of what goes into the network is found.
_SIZES = {
    'Resize': 'scale',
    'FixScaleResize': 'scale',
    'RandomResize': 'scale',
    'RandomChoiceResize': 'scales',
    'RandomCrop': 'crop_size',
    'Pad': 'size',
}


def sniper_dataloader(
    loader: Mapping[str, Any],
    pyramid: Mapping[str, Any],
    batch_size: int | None = None,
    sampler: Mapping[str, Any] | None = None,
    keep_empty: bool = False,
    notes: list[str] | None = None,
    cache_mb: float = 0.0,
) -> ConfigDict:
    """The data loader's config, with chips instead of images.

    Each data set that reads images is wrapped in a ``ChipDataset``, whatever wrappers are around
    it, with its own pipeline as :func:`sniper_pipeline` changes it. ``ChipAwareSampler`` chooses
    the chips.

    Args:
        loader (dict): A ``train_dataloader``. Left as it is.
        pyramid (dict): The scale pyramid's config.
        batch_size (int | None): Chips of a batch. Defaults to None, the pixels that a batch has
            now.
        sampler (dict | None): Further arguments of ``ChipAwareSampler``. Defaults to None.
        keep_empty (bool): Keep images without objects, for their negative chips. Defaults to
            False.
        notes (list[str] | None): Gets sentences on what was left out or decided. Defaults to None.
        cache_mb (float): Decoded images that a worker keeps while chips of them are to come, MB.
            Defaults to 0, chips in any order.

    Returns:
        ConfigDict: The new ``train_dataloader``.

    Raises:
        ValueError: If a pipeline loads no annotations, the data are chips already, or the sampler
            that would be replaced chooses images in a way of its own.
    """
    notes = [] if notes is None else notes
    chips = ConfigDict(deepcopy(loader))
    if batch_size is None:
        batch_size = _same_pixels(chips, pyramid['chip_size'], notes)

    def with_chips(part: ConfigDict, dropped: list[str]) -> ConfigDict:
        pipeline = sniper_pipeline(part.get('pipeline') or [], pyramid, dropped)
        part.pipeline = []
        if keep_empty and part.get('filter_cfg'):
            part.filter_cfg.filter_empty_gt = False
        kept = dict(cache_mb=cache_mb) if cache_mb else {}
        return ConfigDict(type='ChipDataset', dataset=part, pipeline=pipeline, **kept)

    chips.dataset = _converted(chips.dataset, with_chips, notes)
    chips.batch_size = batch_size
    chips.sampler = ConfigDict(type='ChipAwareSampler', pyramid=pyramid, **_sampler_settings(chips))
    if cache_mb:
        workers = max(1, chips.get('num_workers', 0))
        chips.sampler.lanes = batch_size * workers
        notes.append(
            f'chips of an image come soon after each other, in different batches: each of '
            f'{workers} workers keeps up to {cache_mb:g} MB of decoded images (sniper.cache_mb)'
        )
    chips.sampler.update(sampler or {})
    if chips.sampler.get('num_sample_class'):
        notes.append(
            'class-aware: of every class equally many chips (sniper.sampler.num_sample_class=None '
            'for every chip once)'
        )
    chips.batch_sampler = None
    return chips


def check_sampler(options: Mapping[str, Any]) -> None:
    """Check the further arguments of a ``ChipAwareSampler``, ``sniper.sampler``.

    Raises:
        ValueError: If the sampler does not take one of them.
    """
    if 'pyramid' in options:
        raise ValueError(
            'sniper.sampler has a pyramid of its own; the one of all pieces is the '
            "config's variable: pyramid = dict(...)"
        )
    kind = options.get('type', ChipAwareSampler)
    kind = DATA_SAMPLERS.get(kind) if isinstance(kind, str) else kind
    if kind is None:  # unknown, which building it will say
        return
    takes = signature(kind).parameters
    if 'pyramid' not in takes and not _takes_any(takes):
        raise ValueError(
            f'sniper.sampler is a {type_name(kind)}, which takes no pyramid and so chooses no '
            f'chips: leave its type out, or derive yours from ChipAwareSampler'
        )
    names = [name for name in takes if name not in ('dataset', 'pyramid')]
    unknown = sorted(set(options) - {'type', *names})
    if unknown and not _takes_any(takes):
        raise ValueError(f'sniper.sampler has no option {unknown}, its options are {names}')


def _takes_any(parameters: Mapping[str, Parameter]) -> bool:
    return any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters.values())


def _sampler_settings(loader: ConfigDict) -> dict[str, Any]:
    """What the data loader's sampler says that holds for chips as well.

    Raises:
        ValueError: If it, or the batch sampler, says more, which would be lost.
    """
    given = loader.get('sampler') or {}
    name, group = type_name(given), loader.get('batch_sampler') or {}
    if name not in _SAMPLERS:
        raise ValueError(
            f'train_dataloader.sampler is a {name}, but which chips an epoch has is chosen by a '
            f'ChipAwareSampler: every object once, or with num_sample_class of every class equally '
            f'many. Say by wrappers of the data set what is to come up more often '
            f'(ClassBalancedDataset for images with rare classes, RepeatDataset in a ConcatDataset '
            f'for one of several sources), and write train_dataloader = '
            f"dict(sampler=dict(_delete_=True, type='DefaultSampler', shuffle=True))"
        )
    unknown = sorted(set(given) - {'type', '_scope_', *_SAMPLER_ARGUMENTS})
    if unknown:
        raise ValueError(
            f'train_dataloader.sampler has {", ".join(unknown)}, which would be lost: arguments of '
            f'the ChipAwareSampler are sniper = dict(sampler=dict(...))'
        )
    if type_name(group) not in _BATCH_SAMPLERS:
        raise ValueError(
            f'train_dataloader.batch_sampler is a {type_name(group)}, but chips have one shape and '
            f'are batched as they come: write train_dataloader = dict(batch_sampler=None)'
        )
    if group.get('drop_last'):
        loader.drop_last = True
    # None and True are their defaults, and ours.
    settings = {key: given.get(key) for key in _SAMPLER_ARGUMENTS}
    if name == 'ClassAwareSampler' and settings['num_sample_class'] is None:
        settings['num_sample_class'] = 1  # its default
    return {
        key: value for key, value in settings.items() if value is not None and value is not True
    }


def snip_dataloader(
    loader: Mapping[str, Any], pyramid: Mapping[str, Any], batch_size: int | None, notes: list[str]
) -> ConfigDict:
    """The data loader's config, with whole images at a random level each time (SNIP section 5).

    The arguments are those of :func:`sniper_dataloader`, but ``batch_size`` counts images.
    """
    snip = ConfigDict(deepcopy(loader))

    def at_random_levels(part: ConfigDict, dropped: list[str]) -> ConfigDict:
        pipeline = _at_one_level(part.get('pipeline') or [], 'LevelResize', pyramid, dropped)
        part.pipeline = [
            with_level(step) if type_name(step) == 'PackDetInputs' else step for step in pipeline
        ]
        return part

    snip.dataset = _converted(snip.dataset, at_random_levels, notes)
    if batch_size is not None:
        snip.batch_size = batch_size
    return snip


def sniper_pipeline(
    pipeline: Sequence[Mapping[str, Any]],
    pyramid: Mapping[str, Any],
    dropped: list[str] | None = None,
) -> list[dict[str, Any]]:
    """A training pipeline that cuts a chip out instead of resizing the image.

    ``ChipSampler`` and ``ScaleRangeFilter`` follow ``LoadAnnotations``; the
    ``SCALE_TRANSFORMS`` are left out, also inside ``RandomChoice`` and the like. Images are loaded
    by ``LoadLargeImageFromFile``. All others (flips, colours, one's own) stay in their order.

    Args:
        pipeline (Sequence[dict]): Configs of the transforms. Left as it is.
        pyramid (dict): The scale pyramid's config.
        dropped (list[str] | None): Gets the types of the transforms that are left out. Defaults to
            None.

    Returns:
        list[dict]: The new pipeline.

    Raises:
        ValueError: If no transform loads annotations.
    """
    dropped = [] if dropped is None else dropped
    transforms = _at_one_level(pipeline, 'ChipSampler', pyramid, dropped)
    for transform in transforms:
        if type_name(transform) == 'LoadImageFromFile':
            transform['type'] = 'LoadLargeImageFromFile'  # the same pixels in half the memory
    return transforms


def decode_reduced(loader: ConfigDict | None) -> None:
    """Have a data loader's images loaded with ``reduced_jpegs=True``.

    Args:
        loader (ConfigDict | None): The data loader's config, changed in place; None if it has none.
    """
    for part in read_datasets(loader.dataset) if loader else ():
        part.pipeline = [ConfigDict(in_reduced_version(s)) for s in part.get('pipeline') or ()]


def with_inner_settings(dataset: ConfigDict) -> ConfigDict:
    """A copy in which settings without a type, in a data set's ``dataset``, are that data set's.

    So an override that is written for a spelled-out ``ChipDataset``,
    ``train_dataloader.dataset.dataset.ann_file``, reaches the data set that will be in one.
    """

    def replacement(part: ConfigDict) -> ConfigDict | None:
        settings = part.get('dataset')
        if settings is None or type_name(settings):
            return None
        merged = ConfigDict({key: value for key, value in part.items() if key != 'dataset'})
        merged.merge(settings)
        return with_inner_settings(merged)

    return replace_datasets(dataset, replacement)


def with_level(pack: Mapping[str, Any]) -> ConfigDict:
    """A ``PackDetInputs`` that keeps the level of its input, and with it the level's check."""
    keys = pack.get('meta_keys') or signature(PackDetInputs).parameters['meta_keys'].default
    missing = (key for key in ('level', 'homography_matrix') if key not in keys)
    return ConfigDict(pack, meta_keys=(*keys, *missing))


def _at_one_level(
    pipeline: Sequence[Mapping[str, Any]],
    resize: str,
    pyramid: Mapping[str, Any],
    dropped: list[str],
) -> list[dict[str, Any]]:
    """The pipeline with one transform that chooses the scale, and the filter of its ranges."""
    steps = list(_without_scale_transforms(deepcopy(pipeline), dropped))
    # Where it is spelled out, so is the filter, or there is to be none.
    if any(resize in class_names(step, TRANSFORMS) for step in steps):
        return steps
    loading = [
        i
        for i, step in enumerate(steps)
        if any('LoadAnnotations' in name for name in class_names(step, TRANSFORMS))
        or type_name(step) in _BOX_TYPES
    ]
    if not loading:
        types = ', '.join(type_name(step) for step in steps)
        raise ValueError(
            f'the training pipeline ({types}) has no LoadAnnotations, after which the chip is cut '
            f'out'
        )
    first = loading[-1] + 1
    cut = [ConfigDict(type=name, pyramid=pyramid) for name in (resize, 'ScaleRangeFilter')]
    return [*steps[:first], *cut, *steps[first:]]


def _converted(
    dataset: ConfigDict, convert: Callable[[ConfigDict, list[str]], ConfigDict], notes: list[str]
) -> ConfigDict:
    """A data set whose parts that read images are converted, wherever they are."""
    dropped: list[str] = []

    def replacement(part: ConfigDict) -> ConfigDict | None:
        kind = type_name(part)
        if kind == 'ChipDataset':
            raise ValueError(
                'the training data are a ChipDataset already: this config spells its chips out, '
                'so take `sniper = dict(...)` and the fragment configs/_base_/sniper.py out of it'
            )
        if kind == 'ODVGDataset' and not part.get('label_map_file'):
            raise ValueError(
                f'the training data {part.get("ann_file")} are an ODVGDataset without a '
                f'label_map_file: captions and what they name. A caption is about a whole image, '
                f'not about chips of it; data with class names are fine (docs/detectors.md, Not '
                f'supported)'
            )
        if kind == 'MultiImageMixDataset':
            dropped.append(kind)
            known = {'type', '_scope_', *signature(MultiImageMixDataset).parameters}
            lost = sorted(set(part) - known)
            if lost:
                raise ValueError(
                    f'the training data, a MultiImageMixDataset, have {", ".join(lost)}, which it '
                    f'does not take: they are settings of the data set in it, '
                    f'train_dataloader.dataset.dataset.{lost[0]}'
                )

            def with_its_pipeline(inner: ConfigDict) -> ConfigDict | None:
                if inner_datasets(inner):
                    return None
                return ConfigDict(inner, pipeline=[*inner.get('pipeline', []), *part.pipeline])

            return replace_datasets(
                replace_datasets(ConfigDict(part.dataset), with_its_pipeline), replacement
            )
        if inner_datasets(part):
            return None
        new = convert(part, dropped)
        # XMLDataset ignores boxes that are small in the image, which are the point here.
        if (part.get('filter_cfg') or {}).pop('bbox_min_size', None) is not None:
            dropped.append('bbox_min_size')
        return new

    dataset = replace_datasets(dataset, replacement)
    if dropped:
        names = ', '.join(dict.fromkeys(dropped))
        notes.append(f'pipeline without {names}: the scales are those of the pyramid')
    return dataset


def _without_scale_transforms(pipeline: Sequence[Any], dropped: list[str]) -> Iterator[Any]:
    for transform in pipeline:
        if isinstance(transform, Sequence):  # an alternative of RandomChoice
            yield list(_without_scale_transforms(transform, dropped))
        elif type_name(transform) in SCALE_TRANSFORMS:
            dropped.append(type_name(transform))
        else:
            nested = [n for n in NESTED_TRANSFORMS if isinstance(transform.get(n), Sequence)]
            for name in nested:
                transform[name] = list(_without_scale_transforms(transform[name], dropped))
            if not nested or any(any(transform[name]) for name in nested):
                yield transform


def _same_pixels(loader: ConfigDict, chip_size: int, notes: list[str]) -> int:
    """How many chips have the pixels of a batch of images."""
    images, pixels = loader.get('batch_size', 1), image_pixels(loader)
    if pixels is None:
        notes.append(
            f'batches of {numbered(images, "chip")}; the pipeline does not tell how many pixels '
            f'{numbered(images, "image")} had (choose with sniper.batch_size)'
        )
        return images
    chips = max(round(images * pixels / chip_size**2), 1)
    notes.append(
        f'batches of {numbered(chips, "chip")} of {chip_size}x{chip_size} px: the pixels of '
        f'{numbered(images, "image")} (choose with sniper.batch_size)'
    )
    return chips


def image_pixels(loader: ConfigDict) -> float | None:
    """Pixels of an image as a training pipeline gives it to the network.

    Args:
        loader (ConfigDict): A ``train_dataloader`` of whole images.

    Returns:
        float | None: The mean of all data sets, None if a pipeline does not tell.
    """
    found = [_input_pixels(data.get('pipeline') or []) for data in read_datasets(loader.dataset)]
    pixels = [number for number in found if number is not None]
    return sum(pixels) / len(pixels) if len(pixels) == len(found) else None


def _input_pixels(pipeline: Sequence[Any]) -> float | None:
    """Largest number of pixels that a pipeline gives the network, None if it does not tell."""
    pixels = None
    for transform in all_transforms(pipeline):
        value = transform.get(_SIZES.get(type_name(transform), ''))
        if value is None or transform.get('crop_type', 'absolute') != 'absolute':
            continue
        if not isinstance(value, Sequence):
            value = (value, value)
        sizes = value if isinstance(value[0], Sequence) else [value]
        area = sum(map(prod, sizes)) / len(sizes)
        is_crop = type_name(transform) == 'RandomCrop'
        pixels = min(area, pixels or area) if is_crop else area
    return pixels
