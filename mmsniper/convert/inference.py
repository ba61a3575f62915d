"""Testing: the detector becomes one that sees every level of the pyramid, or coarse to fine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from inspect import signature
from typing import Any

from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict

from mmsniper.convert.data import SCALE_TRANSFORMS
from mmsniper.convert.model import is_co_detr
from mmsniper.datasets.scale_transforms import rescaling
from mmsniper.datasets.transforms.load_image_windows import PACK_WINDOWS, WINDOWS
from mmsniper.datasets.wrappers import class_names, read_datasets, type_name
from mmsniper.models import AutoFocus, PyramidDetector
from mmsniper.models.pyramid_detector import complete_merge_cfg

# Without a scale_factor the image is as it is, see PyramidDetector.
_META_KEYS = ('img_id', 'img_path', 'ori_shape', 'img_shape')
_FLIP_KEYS = ('flip', 'flip_direction')


def sees_levels(model: Any) -> bool:
    """Whether the config of a model is that of a ``PyramidDetector``, or derives from it."""
    return 'PyramidDetector' in class_names(model, MODELS)


def sees_coarse_to_fine(model: Any) -> bool:
    """Whether the config of a model is that of an ``AutoFocus``, or derives from it."""
    return 'AutoFocus' in class_names(model, MODELS)


def is_own(model: Any) -> bool:
    """Whether a model that sees levels is of a class of the user's."""
    return type_name(model) not in ('PyramidDetector', 'AutoFocus')


def check_autofocus(options: Mapping[str, Any]) -> None:
    """Check the arguments of ``AutoFocus``, ``sniper.autofocus``.

    Raises:
        ValueError: If it does not take one of them.
    """
    kinds = (AutoFocus, PyramidDetector)
    names = {name for kind in kinds for name in signature(kind.__init__).parameters}
    names -= {'self', 'kwargs', 'detector', 'pyramid'}
    unknown = sorted(set(options) - names)
    if unknown:
        raise ValueError(
            f'sniper.autofocus has no option {unknown}, its options are {sorted(names)} (those of '
            f'the detector are model = dict(...))'
        )


def see_all_levels(
    model: ConfigDict,
    pyramid: Mapping[str, Any],
    autofocus: Mapping[str, Any] | None = None,
    notes: list[str] | None = None,
) -> None:
    """Make a detector's config that of a ``PyramidDetector``, or of an ``AutoFocus``.

    An AutoFocus has a branch with the channels of the neck and each level's sizes of the pyramid.
    A class of the user's, derived from one of the two, keeps its place.

    Args:
        model (ConfigDict): The detector's config, changed in place.
        pyramid (dict): The scale pyramid's config.
        autofocus (dict | None): Arguments of ``AutoFocus``; those of ``focus_head`` are added to
            the branch's, and ``focus_head=None`` leaves it out. What the detector's config says
            goes before. Defaults to None, no AutoFocus.
        notes (list[str] | None): Gets a sentence on how detections are merged. Defaults to None.

    Raises:
        ValueError: If the channels of the branch are unknown, or a class of the user's cannot be
            what is asked for.
    """
    kind, own = model.type, sees_levels(model) and is_own(model)
    if not sees_levels(model):
        model.detector = kind
    elif not model.get('detector'):
        raise ValueError(
            f'model has the type {type_name(kind)}, which is how levels are tested, and no '
            f"detector: add the type that it had, such as model = dict(type='{type_name(kind)}', "
            f"detector='FasterRCNN')"
        )
    if own and autofocus is not None and not sees_coarse_to_fine(model):
        raise ValueError(
            f'sniper.autofocus is for an AutoFocus, and model has the type {type_name(kind)}, '
            f'which is none: derive it from mmsniper.models.AutoFocus, or leave '
            f'sniper.autofocus=None'
        )
    stock = 'PyramidDetector' if autofocus is None else 'AutoFocus'
    model.update(type=kind if own else stock, pyramid=pyramid)
    if notes is not None:
        notes.append(_merging(model))
    if _box_settings(model)[0].get('chunked_size', -1) > 0:
        model.setdefault('batch_pixels', 1)  # names of classes come in parts, for one input each
    if autofocus is None:
        return
    head = autofocus.get('focus_head', {})
    if head is not None and model.get('focus_head', {}) is not None:
        ours = {} if 'type' in head else dict(type='PyramidFocusHead', pyramid=pyramid)
        model.setdefault('focus_head', ConfigDict())
        model.focus_head = ConfigDict({**ours, **head, **model.focus_head})
        if 'in_channels' not in model.focus_head:
            model.focus_head.in_channels = _channels(model)
    for key, value in autofocus.items():
        if key != 'focus_head':
            model.setdefault(key, value)


def _merging(model: Mapping[str, Any]) -> str:
    """How the detections of all levels are merged, and what of ``test_cfg`` does not count then."""
    own, path = _box_settings(model)
    merge = complete_merge_cfg(model.get('merge_cfg') or {}, own)
    kind = model['type'] if isinstance(model['type'], type) else MODELS.get(model['type'])
    merging = getattr(kind, 'merge', PyramidDetector.merge)
    how = f'nms={type_name(merge.nms) or None}'
    if merging is not PyramidDetector.merge:
        how = merging.__qualname__
    values = [f'score_thr={merge.score_thr}', how]
    values.append(f'max_per_img={merge.max_per_img}')
    said = f'tests merge all levels by {", ".join(values)} (choose with model.merge_cfg)'
    # Grid R-CNN keeps its own.
    differs = own.get('score_thr', merge.score_thr) != merge.score_thr
    grid = not is_co_detr(model) and type_name((model.get('roi_head') or {}).get('head'))
    if differs and grid != 'GridRoIHead':
        said += f'; model.{path}.score_thr={own["score_thr"]} does not count'
    return said


def _box_settings(model: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """``test_cfg`` of the head whose boxes a detector gives, and its key in the model's config."""
    settings, path = model.get('test_cfg') or {}, 'test_cfg'
    if is_co_detr(model):  # one of each head, of which eval_module chooses
        module, roi_heads = model.get('eval_module', 'detr'), model.get('roi_head') or []
        place = {'two-stage': 1, 'one-stage': 1 + len(roi_heads)}.get(module)
        place = 0 if place is None else place + model.get('eval_index', 0)
        settings, path = settings[place], f'{path}.{place}'
    if settings.get('rcnn'):
        return settings['rcnn'], f'{path}.rcnn'
    return settings, path


def see_images_as_they_are(cfg: Config) -> None:
    """Give validation and test the images as they are, and ``--tta`` a view of them.

    ``--tta`` of one's own, such as with flips, is a ``tta_model`` of type ``SNIPERTTAModel`` and a
    ``tta_pipeline``. That of a stock config is replaced.

    Raises:
        ValueError: If a transform of one's own changes the scale of images, or ``tta_model`` says
            how to merge, which ``model.merge_cfg`` does.
    """
    for name in ('val_dataloader', 'test_dataloader'):
        if cfg.get(name) is not None:
            cfg[name] = deepcopy(cfg[name])  # set in Python both may be one object
            for dataset in read_datasets(cfg[name].dataset):
                dataset.pipeline = unresized(dataset.get('pipeline') or [])
                if left := rescaling(dataset.pipeline):
                    raise ValueError(
                        f'the pipeline of {name} has {", ".join(left)}, after which boxes would be '
                        f'in pixels of another size, but each level is made of the image as it is: '
                        f'take it out (Resize and the like, by their own names, are left out '
                        f'anyway)'
                    )
    given = cfg.get('tta_model') or {}
    wrong = [] if type_name(given) == 'DetTTAModel' else {'tta_cfg', 'view_test_cfg'} & set(given)
    if wrong:
        raise ValueError(
            f'tta_model has {sorted(wrong)}, but how levels are merged is said once, by '
            f'model = dict(merge_cfg=dict(score_thr=..., nms=..., max_per_img=...)), and how many '
            f"boxes a level gives by the detector's own test_cfg"
        )
    cfg.tta_model = ConfigDict(type='SNIPERTTAModel')
    if cfg.get('test_dataloader') is None:
        return
    pipeline = cfg.test_pipeline = deepcopy(
        next(read_datasets(cfg.test_dataloader.dataset)).pipeline
    )
    if pipeline and (type_name(given) != 'SNIPERTTAModel' or 'tta_pipeline' not in cfg):
        loading, *others = _packed_with(deepcopy(pipeline), (*_META_KEYS, *_FLIP_KEYS))
        steps = [[dict(type='RandomFlip', prob=0.0)], *([step] for step in others)]
        cfg.tta_pipeline = [loading, ConfigDict(type='TestTimeAug', transforms=steps)]


def unresized(pipeline: Sequence[Mapping[str, Any]]) -> list[ConfigDict]:
    """A test pipeline that leaves the image its size.

    Args:
        pipeline (Sequence[dict]): Configs of the transforms. Left as it is.

    Returns:
        list[ConfigDict]: Those that do not change the scale, from ``LoadImageFromFile`` to
        ``PackDetInputs``, or from ``LoadImageWindows`` to ``PackImageWindows``. Of a
        ``TestTimeAug``, which MMDetection's own ``tools/test.py --tta`` has put there, those of one
        view, not flipped.
    """
    kept = [
        ConfigDict(step)
        for step in _one_view(deepcopy(pipeline))
        if type_name(step) not in SCALE_TRANSFORMS
    ]
    if kept and type_name(kept[0]) == WINDOWS and not kept[0].get('whole'):
        for step in kept:
            if type_name(step) == 'PackDetInputs':
                step.type = PACK_WINDOWS
    return _packed_with(kept, _META_KEYS)


def _one_view(pipeline: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The transforms of a pipeline, of ``TestTimeAug`` those of one view."""
    for step in pipeline:
        if type_name(step) != 'TestTimeAug':
            yield step
            continue
        for first, *_ in step['transforms']:
            if type_name(first) != 'RandomFlip':
                yield first


def _packed_with(pipeline: list[ConfigDict], meta_keys: Sequence[str]) -> list[ConfigDict]:
    for step in pipeline:
        if type_name(step) in ('PackDetInputs', PACK_WINDOWS):
            # Texts, and what evaluators read.
            left_out = {*meta_keys, 'scale_factor', *_FLIP_KEYS}
            others = (key for key in step.get('meta_keys') or () if key not in left_out)
            step.meta_keys = (*meta_keys, *others)
    return pipeline


def wrap_in_tta(cfg: Config, model: ConfigDict) -> None:
    """Put the config's ``tta_model`` around a model, and test with its ``tta_pipeline``."""
    cfg.model = ConfigDict(**cfg.tta_model, module=model)
    for dataset in read_datasets(cfg.test_dataloader.dataset):
        dataset.pipeline = cfg.tta_pipeline


def _channels(detector: Mapping[str, Any]) -> int:
    """Channels of the neck's maps."""
    neck = detector.get('neck') or {}
    last = neck[-1] if isinstance(neck, Sequence) else neck
    channels = last.get('out_channels')
    if not isinstance(channels, int):
        raise ValueError(
            f'how many channels the maps of {type_name(dict(type=detector["detector"]))} have '
            f'cannot be told from its neck ({type_name(last) or "it has none"}): write '
            f'sniper = dict(autofocus=dict(focus_head=dict(in_channels=...)))'
        )
    return channels
