"""Detectors: objects that are out of a level's range are neither positive nor background.

What that means for each family of detectors is told in docs/detectors.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from functools import partial
from typing import Any, NamedTuple

from mmdet.registry import MODELS, TASK_UTILS
from mmengine.config import ConfigDict

from mmsniper.datasets.wrappers import class_names, class_of, type_name
from mmsniper.models.roi_heads import roi_head_fault

# RoI heads that have a version of their own. That of any other is SNIPERRoIHead(head=...).
ROI_HEADS = {'CoStandardRoIHead': 'SNIPERCoRoIHead', 'SparseRoIHead': 'SNIPERSparseRoIHead'}

# Dense and set-prediction heads that have a version of their own.
DENSE_HEADS = {
    'CenterNetUpdateHead': 'SNIPERCenterNetUpdateHead',
    'CoATSSHead': 'SNIPERCoATSSHead',
    'CoDINOHead': 'SNIPERCoDINOHead',
    'ConditionalDETRHead': 'SNIPERConditionalDETRHead',
    'DABDETRHead': 'SNIPERDABDETRHead',
    'DDQDETRHead': 'SNIPERDDQDETRHead',
    'DeformableDETRHead': 'SNIPERDeformableDETRHead',
    'DETRHead': 'SNIPERDETRHead',
    'DINOHead': 'SNIPERDINOHead',
    'FCOSHead': 'SNIPERFCOSHead',
    'FoveaHead': 'SNIPERFoveaHead',
    'FreeAnchorRetinaHead': 'SNIPERFreeAnchorRetinaHead',
    'GARPNHead': 'SNIPERGARPNHead',
    'GARetinaHead': 'SNIPERGARetinaHead',
    'GroundingDINOHead': 'SNIPERGroundingDINOHead',
    'Mask2FormerHead': 'SNIPERMask2FormerHead',
    'NASFCOSHead': 'SNIPERNASFCOSHead',
    'PAAHead': 'SNIPERPAAHead',
    'RTMDetInsHead': 'SNIPERRTMDetInsHead',
    'RTMDetInsSepBNHead': 'SNIPERRTMDetInsSepBNHead',
    'VFNetHead': 'SNIPERVFNetHead',
    'YOLOXHead': 'SNIPERYOLOXHead',
}

# What makes a version of a head that derives from another one, as its first base class.
_FIRST_BASES = {**DENSE_HEADS, 'AnchorFreeHead': 'SNIPERPointsMixin'}
# Dense heads of other packages, of which SNIPERPointsHead(head=...) is the version.
POINTS_HEADS = frozenset({'RotatedFCOSHead'})

# Detectors that have a version of their own, for their heads.
DETECTORS = {'GroundingDINO': 'SNIPERGroundingDINO'}

# Dense heads of ours that find what is ignored themselves: an assigner, if they have one, stays.
_WITHOUT_ASSIGNER = frozenset(
    {'SNIPERCenterNetUpdateHead', 'SNIPERFCOSHead', 'SNIPERFoveaHead'}
    | {'SNIPERFreeAnchorRetinaHead', 'SNIPERNASFCOSHead', 'SNIPERPAAHead', 'SNIPERPointsMixin'}
    | {'SNIPERPointsHead', 'SNIPERYOLOXHead'}
)

# MMRotate's, of heads and of assigners.
MMROTATES_HEADS = frozenset(
    {'AngleBranchRetinaHead', 'OrientedRPNHead', 'RotatedATSSHead', 'RotatedRetinaHead'}
    | {'RotatedRTMDetHead', 'RotatedRTMDetSepBNHead'}
)
MMROTATES_ASSIGNERS = frozenset({'RotatedATSSAssigner'})

# Heads that leave out of their losses what their assigners ignore.
IGNORING_HEADS = frozenset(
    {'ATSSHead', 'ATSSVLFusionHead', 'DDODHead', 'FSAFHead', 'GFLHead', 'LDHead'}
    | {'PISARetinaHead', 'RTMDetHead', 'RTMDetSepBNHead', 'RepPointsHead', 'RetinaHead'}
    | {'RetinaSepBNHead', 'RPNHead', 'SABLRetinaHead', 'TOODHead', 'YOLOFHead'}
    | MMROTATES_HEADS
)

# Assigners that are wrapped in an IgnoreInvalidAssigner.
ASSIGNERS = frozenset(
    {'ATSSAssigner', 'ApproxMaxIoUAssigner', 'CenterRegionAssigner', 'DynamicSoftLabelAssigner'}
    | {'HungarianAssigner', 'PointAssigner', 'TaskAlignedAssigner', 'UniformAssigner'}
    | MMROTATES_ASSIGNERS
)

_DOCS_ON_KINDS = 'docs/detectors.md, Not supported'

# Parts of models that are no plain detectors, with the reason why there is no SNIPER version.
_OTHER_KINDS = {
    'semi_train_cfg': 'semi-supervised training compares a teacher with its student on images '
    'without boxes, by which chips would be chosen',
    'tracker': 'it sees videos; train its detector with SNIPER in a config of its own',
    'track_head': 'it sees videos; train its detector with SNIPER in a config of its own',
    'panoptic_head': 'it segments whole images, and regions without boxes have no size to judge by',
    'semantic_head': 'it segments whole images, and regions without boxes have no size to judge by',
    'mask_head': 'it makes masks without a roi_head, and they are assigned to cells without an '
    'assigner that could ignore them',
    'detector': 'it wraps a detector; train that one with SNIPER in a config of its own',
    'head': 'it has a head for images or crops as a whole',
}

# A chip is where objects are: a few have more positive anchors and proposals than its area's share.
_LEAST_SAMPLES = 32
_LEAST_PROPOSALS = 50  # as AutoFocus has with min_rpn_proposals=50

# The levels of an image have any size, and necks add up maps of strides 8 to 32.
_PAD_DIVISOR = 32


def sniper_model(
    detector: ConfigDict,
    pyramid: Mapping[str, Any],
    whole_images: bool = False,
    range_first: bool = False,
    notes: list[str] | None = None,
) -> None:
    """Exchange heads and assigners of a detector's config for those that know valid ranges.

    Batches of chips get the shape of a chip: chips of small images are smaller.

    Args:
        detector (ConfigDict): The detector's config, changed in place.
        pyramid (dict): The scale pyramid's config.
        whole_images (bool): The detector is trained on whole images (SNIP). Defaults to False.
        range_first (bool): Its RPN becomes a ``SNIPERRPNHead``. Defaults to False.
        notes (list[str] | None): Gets a sentence on what was exchanged. Defaults to None.

    Raises:
        ValueError: If a head or an assigner has no SNIPER version; the message says what does.
    """
    notes, exchanged = [] if notes is None else notes, []
    key = 'detector' if detector.get('detector') else 'type'  # it may be tested at all levels
    detector[key] = _range_aware_detector(detector[key])
    for piece in list(_pieces(detector, pyramid)):
        config = piece.parent[piece.key] = piece.version(piece.parent[piece.key])
        if (base := _known_base(config)) in IGNORING_HEADS:
            if base != type_name(config):
                notes.append(
                    f'{type_name(config)} is taken to ignore what its assigner ignores, as {base} '
                    f"does, from which it derives (docs/detectors.md, A head of one's own)"
                )
        else:
            kind = type_name(config.get('head'))
            exchanged.append(f'{type_name(config)} ({kind})' if kind else type_name(config))
        bases = {cls.__name__ for cls in _bases(config)}
        if 'SNIPERGuidedAnchorMixin' in bases:
            detector.setdefault('batch_pixels', 1)  # it tests one input at a time
        if 'RTMDetInsHead' in bases and detector.get('data_preprocessor'):
            detector.data_preprocessor.pad_mask = True  # it takes masks of a batch at once
    if range_first:
        _propose_in_range(detector, pyramid)
        exchanged.append('SNIPERRPNHead')
    notes.append(f'ranges are known to {", ".join(dict.fromkeys(exchanged))}')
    if not whole_images:
        _shape_batches(detector, pyramid['chip_size'], notes)
    elif dropped := _pad_only(detector.get('data_preprocessor') or ConfigDict()):
        notes.append(f'batches without {dropped}: their scales are those of the pyramid')


def _propose_in_range(detector: ConfigDict, pyramid: Mapping[str, Any]) -> None:
    head = detector.get('rpn_head')
    if head is None or type_name(head) != 'RPNHead':
        raise ValueError(
            f'sniper.range_first is for an RPNHead, and {type_name(detector)} has '
            f'{"no rpn_head" if head is None else f"a {type_name(head)}"}: leave it out'
        )
    head.type, head.pyramid = 'SNIPERRPNHead', pyramid


def sample_by_area(detector: ConfigDict, share: float, notes: list[str]) -> None:
    """Give a chip its area's share of an image's samples and proposals, in training.

    Heads sample image by image. With an image's numbers for each chip, a batch of chips has several
    times the samples of images with as many pixels, and takes longer. An RPN keeps its samples,
    which cost no time, since all anchors are assigned: with few it learns less
    (docs/benchmarks.md).

    Args:
        detector (ConfigDict): The detector's config, with the numbers of an image; changed in
            place. Samples of the RoI head are lowered to 32 at least, proposals to 50.
        share (float): Area of a chip, as part of an image's.
        notes (list[str]): Gets a sentence with all numbers.
    """
    train = detector.get('train_cfg') or ConfigDict()
    if is_co_detr(detector):  # of the first RoI head, which has the RPN's, too
        train = train[1]
    stages = train.get('rcnn') or ()
    stages = stages if isinstance(stages, Sequence) else [stages]
    proposals = train.get('rpn_proposal')
    changed = []
    for name, part, key, least in (
        ('proposals before NMS', proposals, 'nms_pre', _LEAST_PROPOSALS),
        ('proposals', proposals, 'max_per_img', _LEAST_PROPOSALS),
        *(('RoI samples', stage.get('sampler'), 'num', _LEAST_SAMPLES) for stage in stages),
    ):
        number = (part or {}).get(key, 0)
        if number > 0:  # -1 is all
            part[key] = max(round(share * number), min(number, least))
            changed.append(f'{name} {part[key]} instead of {number}')
    if changed:
        notes.append(
            f'a chip has {share:.3g} of the pixels of an image, and in training '
            f'{", ".join(dict.fromkeys(changed))} (sniper.samples_by_area)'
        )
    else:
        notes.append(f'no samples by area: {type_name(detector)} samples no proposals')


def check_kind(detector: Mapping[str, Any]) -> None:
    """Check that a model is a plain detector, before anything is made of its config.

    Raises:
        ValueError: If it is of another kind; the message says why that has no SNIPER version.
    """
    name = type_name(detector)
    for part, reason in _OTHER_KINDS.items():
        value = detector.get(part)
        if part == 'panoptic_head' and value is not None and _finds_instances_only(value):
            continue
        # The `detector` of a PyramidDetector is a type.
        if value is not None and (part != 'detector' or isinstance(value, Mapping)):
            raise ValueError(
                f'there is no SNIPER version of {name}, which has a {part}: {reason} '
                f'({_DOCS_ON_KINDS})'
            )
    for part in ('rpn_head', 'roi_head', 'bbox_head', 'train_cfg'):
        if isinstance(detector.get(part), Sequence) and not is_co_detr(detector):
            raise ValueError(
                f'there is no SNIPER version of {name}, whose {part} is a list of '
                f'{len(detector[part])}: heads that are trained side by side would all have to '
                f'know what is invalid; take one of them ({_DOCS_ON_KINDS})'
            )
    if detector.get('roi_head') is not None and not detector.get('rpn_head'):
        raise ValueError(
            f'there is no SNIPER version of {name}, which has a roi_head and no rpn_head: its '
            f'proposals are made beforehand, for whole images; use a Faster R-CNN '
            f'({_DOCS_ON_KINDS})'
        )


def _finds_instances_only(panoptic_head: Mapping[str, Any]) -> bool:
    """Whether a ``panoptic_head`` is one of Mask2Former, for instance segmentation."""
    names = {cls.__name__ for cls in _bases(panoptic_head)}
    return 'Mask2FormerHead' in names and not panoptic_head.get('num_stuff_classes', 53)


def is_co_detr(detector: Mapping[str, Any]) -> bool:
    """Whether a detector has a ``query_head``, and lists of other heads and of all settings."""
    settings = detector.get('test_cfg') or detector.get('train_cfg')
    return detector.get('query_head') is not None and isinstance(settings, Sequence)


def has_rpn(detector: Mapping[str, Any]) -> bool:
    """Whether a detector's config is that of an RPN, alone or with a RoI head.

    Sparse R-CNN's ``EmbeddingRPNHead`` is none: it has queries, which are the same for each image.
    """
    if detector.get('roi_head') is not None:
        return type_name(detector.get('rpn_head')) != 'EmbeddingRPNHead'
    return type_name(detector) == 'RPN'


class UnawarePiece(NamedTuple):
    """A piece of a detector's config that knows nothing of invalid objects.

    Attributes:
        path: Its key in the detector's config, such as ``'train_cfg.rpn.assigner'``.
        config: What it is.
        version: What the conversion puts in its place, None if it has nothing to put there.
        fault: Why it has nothing, '' if it has.
        certain: Whether invalid objects are background to it for certain. Not so where it is not
            MMDetection's, or something was done about ignored objects by hand.
    """

    path: str
    config: Mapping[str, Any]
    version: Mapping[str, Any] | None
    fault: str
    certain: bool


def unaware_pieces(detector: Mapping[str, Any]) -> Iterator[UnawarePiece]:
    """The pieces of a detector that the conversion would exchange, or has nothing to put in for.

    Args:
        detector (dict): A detector's config, converted or by hand. Left as it is.
    """
    made = ConfigDict(deepcopy(dict(detector)))
    wrapped = made.get('detector')
    if wrapped is not None and not isinstance(wrapped, Mapping):  # of a PyramidDetector
        made.type = wrapped
    try:
        check_kind(made)
        pieces = list(_pieces(made, {}))
    except ValueError as error:
        yield UnawarePiece('', made, None, str(error), _is_stock(made))
        return
    try:
        kind = _range_aware_detector(made.type)
        if kind != made.type:
            yield UnawarePiece('', made, ConfigDict(made, type=kind), '', True)
    except ValueError as error:
        yield UnawarePiece('', made, None, str(error), True)
    configs = [piece.parent[piece.key] for piece in pieces]
    assigners = [c for c, piece in zip(configs, pieces) if piece.version is range_aware]
    by_hand = bool(assigners) and all(map(_has_our_rules, assigners))
    for piece, config in zip(pieces, configs):
        version, fault = None, ''
        certain = _is_stock(config) and not config.get('ignore_iof_thr', -1) > 0
        try:
            version = piece.version(config)
        except ValueError as error:
            # A head without a version may be one for which a wrapped assigner is enough.
            fault, certain = str(error), certain and not by_hand
        if version is None or type_name(version) != type_name(config):
            yield UnawarePiece(piece.path, config, version, fault, certain)


class _Piece(NamedTuple):
    """A piece of a detector's config that decides what becomes of invalid objects."""

    path: str
    parent: Any
    key: str | int
    version: Callable[[ConfigDict], ConfigDict]


def _pieces(detector: ConfigDict, pyramid: Mapping[str, Any]) -> Iterator[_Piece]:
    train = detector.get('train_cfg') or {}
    if is_co_detr(detector):
        yield from _pieces_of_co_detr(detector, pyramid)
        return
    if has_rpn(detector):
        yield from _dense_pieces(detector, 'rpn_head', train.get('rpn') or {}, 'train_cfg.rpn')
    elif detector.get('bbox_head_refine'):  # MMRotate's R3Det and S2ANet
        yield from _dense_pieces(detector, 'bbox_head_init', train['init'], 'train_cfg.init')
        heads = detector.bbox_head_refine
        for i, (_, refine) in enumerate(zip(heads, train['refine'])):
            yield _Piece(f'bbox_head_refine.{i}', heads, i, _range_aware_dense_head)
            yield from _assigners(refine, f'train_cfg.refine.{i}')
    elif detector.get('panoptic_head'):
        yield _Piece('panoptic_head', detector, 'panoptic_head', _range_aware_dense_head)
    elif detector.get('roi_head') is None:  # else it has queries instead of an RPN
        yield from _dense_pieces(detector, 'bbox_head', train, 'train_cfg')
    if detector.get('roi_head'):
        version = partial(_range_aware_roi_head, pyramid=pyramid)
        yield _Piece('roi_head', detector, 'roi_head', version)


def _pieces_of_co_detr(detector: ConfigDict, pyramid: Mapping[str, Any]) -> Iterator[_Piece]:
    """Settings are in the order query head, RoI heads (the first with the RPN's), dense heads."""
    train = detector.train_cfg
    roi_heads, dense_heads = detector.get('roi_head') or [], detector.get('bbox_head') or []
    yield _Piece('query_head', detector, 'query_head', _range_aware_dense_head)
    yield from _assigners(train[0], 'train_cfg.0')
    if detector.get('rpn_head'):
        yield from _dense_pieces(detector, 'rpn_head', train[1].rpn, 'train_cfg.1.rpn')
    version = partial(_range_aware_roi_head, pyramid=pyramid)
    for i, _ in enumerate(roi_heads):
        yield _Piece(f'roi_head.{i}', roi_heads, i, version)
    for i, _ in enumerate(dense_heads):
        yield _Piece(f'bbox_head.{i}', dense_heads, i, _range_aware_dense_head)
        place = 1 + len(roi_heads) + i
        yield from _assigners(train[place], f'train_cfg.{place}')


def _dense_pieces(
    detector: ConfigDict, key: str, train_cfg: ConfigDict, path: str
) -> Iterator[_Piece]:
    """A dense head and, if it does not find itself what is ignored, its assigners."""
    if not detector.get(key):
        raise ValueError(
            f'{type_name(detector)} has no {key}: there are SNIPER versions of detectors with an '
            f'RPN and a roi_head, and of those with a dense bbox_head'
        )
    yield _Piece(key, detector, key, _range_aware_dense_head)
    name = type_name(detector[key])
    names = {DENSE_HEADS.get(name, name), *(base.__name__ for base in _bases(detector[key]))}
    if name not in POINTS_HEADS and not names & _WITHOUT_ASSIGNER:
        yield from _assigners(train_cfg, path)


def _assigners(train_cfg: ConfigDict | Sequence[Any], path: str) -> Iterator[_Piece]:
    items = train_cfg.items() if isinstance(train_cfg, Mapping) else enumerate(train_cfg)
    for key, value in items:
        if isinstance(key, str) and key.endswith('assigner'):
            yield _Piece(f'{path}.{key}', train_cfg, key, range_aware)
        elif isinstance(value, ConfigDict | list | tuple):  # RepPoints, Cascade RPN: two stages
            yield from _assigners(value, f'{path}.{key}')


def _bases(config: Mapping[str, Any]) -> tuple[type, ...]:
    """The class of a head or assigner and those that it derives from, none if it is not known."""
    return getattr(class_of(config, MODELS, TASK_UTILS), '__mro__', ())


def _is_stock(config: Mapping[str, Any]) -> bool:
    return any(base.__module__.startswith('mmdet.') for base in _bases(config)[:1])


def _has_our_rules(config: Mapping[str, Any]) -> bool:
    """Whether a head or assigner is one of ours, or derives from one."""
    return any(base.__module__.startswith('mmsniper.') for base in _bases(config))


def _range_aware_detector(kind: str | type) -> str | type:
    """The version of a detector's type, of most detectors itself."""
    if version := DETECTORS.get(type_name(dict(type=kind))):
        return version
    names = class_names(dict(type=kind), MODELS)
    for base, ours in DETECTORS.items():
        if base in names and ours not in names:
            raise ValueError(
                f'there is no SNIPER version of {names[0]}, which derives from {base}. '
                f'{_make_one(names[0], ours)}'
            )
    return kind


def _range_aware_roi_head(head: ConfigDict, pyramid: Mapping[str, Any]) -> ConfigDict:
    name, head = type_name(head), ConfigDict(head)
    if name in ROI_HEADS:
        head.type = ROI_HEADS[name]
    elif not _has_our_rules(head):
        if fault := roi_head_fault(next(iter(_bases(head)), None)):
            bases = {cls.__name__ for cls in _bases(head)}
            first = next((ours for base, ours in ROI_HEADS.items() if base in bases), None)
            fix = 'SNIPERRoIMixin makes one'
            if first:
                fix = _make_one(name, first)
            raise ValueError(
                f'there is no SNIPER version of {name}: {fault} ({_DOCS_ON_KINDS}). {fix}'
            )
        if name != 'StandardRoIHead':
            head.head = head.type
        head.type = 'SNIPERRoIHead'
    if any(cls.__name__ == 'SNIPERRoIMixin' for cls in _bases(head)):
        head.setdefault('pyramid', pyramid)
    return head


def _range_aware_dense_head(head: ConfigDict) -> ConfigDict:
    name, base = type_name(head), _known_base(head)
    if base in IGNORING_HEADS or _has_our_rules(head):
        return head
    if name in POINTS_HEADS:
        return ConfigDict({**head, 'type': 'SNIPERPointsHead', 'head': head.type})
    if name in DENSE_HEADS:
        return ConfigDict(head, type=DENSE_HEADS[name])
    if first := _FIRST_BASES.get(base):
        raise ValueError(
            f'there is no SNIPER version of {name}, which derives from {base}. '
            f"{_make_one(name, first)} (docs/detectors.md, A head of one's own)"
        )
    raise ValueError(
        f'there is no SNIPER version of {name}; there is one of '
        f'{", ".join(sorted([*DENSE_HEADS, *IGNORING_HEADS]))}. docs/detectors.md tells what is '
        f"not supported and why, and how to make one (A head of one's own)"
    )


def _make_one(name: str, ours: str) -> str:
    """What to do about a class that derives from one that has a version, ``ours``."""
    made = f'class SNIPER{name}({ours}, {name})'
    return f'Make one, {made} with {ours} of mmsniper.models, and name that'


def _known_base(head: Mapping[str, Any]) -> str:
    """The nearest class of a head, itself or a base, of which it is known what it ignores.

    '' if there is none, or it is one of ours, or another one of MMDetection's heads is nearer.
    """
    name, known = type_name(head), IGNORING_HEADS | _FIRST_BASES.keys()
    for cls in _bases(head):
        name = cls.__name__
        stock = cls.__module__.startswith('mmdet.') and name.endswith('Head')
        if stock or name in known or cls.__module__.startswith('mmsniper.'):
            break
    return name if name in known else ''


def range_aware(assigner: ConfigDict) -> ConfigDict:
    """The version of an assigner that ignores what belongs to invalid objects."""
    name = type_name(assigner)
    if _has_our_rules(assigner):
        return assigner
    if name == 'MaxIoUAssigner':
        return ConfigDict(assigner, type='ValidRangeAssigner')
    if name in ASSIGNERS:
        return ConfigDict(type='IgnoreInvalidAssigner', assigner=assigner)
    raise ValueError(
        f'there is no SNIPER version of {name}; there is one of MaxIoUAssigner, '
        f'{", ".join(sorted(ASSIGNERS))}. If a result of -1 means "ignored" to the head, write '
        f"dict(type='IgnoreInvalidAssigner', assigner=dict(type='{name}', ...)) yourself"
    )


def _shape_batches(detector: ConfigDict, chip_size: int, notes: list[str]) -> None:
    preprocessor = detector.get('data_preprocessor')
    if preprocessor is None:
        raise ValueError(
            f'{type_name(detector)} has no data_preprocessor of its own, which pads chips to one '
            f"shape: write model = dict(data_preprocessor=dict(type='DetDataPreprocessor', ...))"
        )
    pad = ConfigDict(type='BatchFixedSizePad', size=(chip_size, chip_size))
    if preprocessor.get('pad_mask'):
        pad.pad_mask = True
    if preprocessor.get('pad_seg'):
        pad.update(pad_seg=True, seg_pad_value=preprocessor.get('seg_pad_value', 255))
    if dropped := _pad_only(preprocessor):
        notes.append(f'batches without {dropped}: they have the shape of a chip')
    preprocessor.batch_augments = [pad]


def _pad_only(preprocessor: ConfigDict) -> str:
    """Let batches be padded for any neck, and neither resized nor given one size; what did so."""
    if preprocessor.get('pad_size_divisor', 1) % _PAD_DIVISOR:
        preprocessor.pad_size_divisor = _PAD_DIVISOR
    return ', '.join(map(type_name, preprocessor.pop('batch_augments', None) or ()))
