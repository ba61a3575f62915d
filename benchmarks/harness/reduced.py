"""Any detector's config at a size that a CPU trains: every part is there, with few channels.

The rules go by the classes of the parts, so they hold for stock configs, for their SNIPER versions
and for subclasses of either. What a part gives out is what the next one takes in: the backbone's
rule tells its channels, the neck's rule takes these, and the heads' rules those of the neck.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from typing import Any

from mmdet.models.backbones import CSPDarknet, CSPNeXt, MobileNetV2, ResNet, TridentResNet
from mmdet.models.dense_heads import DETRHead, EmbeddingRPNHead, Mask2FormerHead, YOLOXHead
from mmdet.models.dense_heads.anchor_free_head import AnchorFreeHead
from mmdet.models.dense_heads.anchor_head import AnchorHead
from mmdet.models.detectors import DABDETR, DINO, ConditionalDETR, DeformableDETR
from mmdet.models.necks import FPN, NASFCOS_FPN, YOLOXPAFPN, ChannelMapper, CSPNeXtPAFPN
from mmdet.models.roi_heads import BaseRoIHead
from mmdet.models.roi_heads.bbox_heads import BBoxHead, DIIHead
from mmdet.models.roi_heads.mask_heads import (
    CoarseMaskHead,
    DynamicMaskHead,
    FCNMaskHead,
    FeatureRelayHead,
    FusedSemanticHead,
    GlobalContextHead,
    GridHead,
    MaskIoUHead,
    MaskPointHead,
)
from mmdet.models.roi_heads.roi_extractors import BaseRoIExtractor
from mmdet.models.roi_heads.shared_heads import ResLayer
from mmdet.models.utils import make_divisible
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict

from mmsniper.convert.model import is_co_detr
from mmsniper.models import ConcatNeck

# Channels that share a group where 256 channels are normalised in 32 groups, as all configs do.
_CHANNELS_OF_A_GROUP = 8

# DINO, Co-DETR, Conditional and DAB-DETR and the two-stage Deformable DETR embed positions into so
# many channels, whatever is asked.
_FIXED_CHANNELS = 256

# Parts of a detector and of its RoI head for which there are rules, and what needs none.
_PARTS = (
    'backbone',
    'neck',
    'query_head',
    'rpn_head',
    'roi_head',
    'bbox_head',
    'bbox_head_init',
    'bbox_head_refine',
    'encoder',
    'decoder',
    'positional_encoding',
    'dn_cfg',
    'panoptic_head',
    'panoptic_fusion_head',
    'focus_head',
    'level_rpn',
)
_ROI_PARTS = (
    'bbox_roi_extractor',
    'mask_roi_extractor',
    'grid_roi_extractor',
    'semantic_roi_extractor',
    'shared_head',
    'bbox_head',
    'mask_head',
    'mask_iou_head',
    'point_head',
    'grid_head',
    'semantic_head',
    'glbctx_head',
    'feat_relay_head',
)
_OTHERS = (
    'data_preprocessor',
    'train_cfg',
    'test_cfg',
    'init_cfg',
    'pyramid',
    'merge_cfg',
    'dqs_cfg',
)


@dataclass(frozen=True)
class ReducedSize:
    """How small the parts of a detector become. Nothing is made larger than it was but channels.

    Args:
        base_channels (int): Channels of the first stage of a ResNet (64 in full); other backbones
            are thinned in proportion. Defaults to 8.
        channels (int): Channels of neck, heads and transformer (256 in full), a multiple of 8.
            Defaults to 32. DINO, Conditional and DAB-DETR and the two-stage Deformable DETR always
            have 256.
        fc_channels (int): Of the hidden layers of box heads and feed-forward networks. Defaults to
            64.
        convs (int): Stacked convolutions of dense and mask heads, at most. Defaults to 2.
        layers (int): Layers of an encoder or decoder, at most. Defaults to 2.
        proposals (int): Proposals of an image, at most. Defaults to 100.
        queries (int): Queries of a set-prediction detector, at most. Defaults to 50.

    Raises:
        ValueError: If a size is not a positive integer, or ``channels`` not a multiple of 8.
    """

    base_channels: int = 8
    channels: int = 32
    fc_channels: int = 64
    convs: int = 2
    layers: int = 2
    proposals: int = 100
    queries: int = 50

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f'{field.name} must be a positive integer, got {value!r}')
        if self.channels % _CHANNELS_OF_A_GROUP:
            raise ValueError(
                f'channels must be a multiple of {_CHANNELS_OF_A_GROUP}, the heads of an attention '
                f'and the channels of a normalised group; got {self.channels}'
            )


def reduced(cfg: Config, size: ReducedSize | None = None, unfreeze: bool = False) -> Config:
    """The config with its detector reduced, without pre-trained weights and mixed precision.

    Every part stays and is connected as before: stages, deformable and dilated convolutions, masks,
    the stages of a cascade, encoder and decoder. A ResNet becomes a ResNet-18, or a ResNet-50 where
    it has something that only bottlenecks can have (deformable convolutions, plugins, groups).
    Data, pipelines, pyramid, losses and schedule stay as they are.

    Args:
        cfg (Config): Any detector's config, stock or SNIPER. Left as it is.
        size (ReducedSize | None): How small. Defaults to ``ReducedSize()``.
        unfreeze (bool): Train what the config freezes in the backbone, BatchNorm included, whose
            statistics then follow at PyTorch's default pace: without pre-trained weights there is
            nothing worth freezing or keeping. Defaults to False.

    Raises:
        ValueError: If the detector has a part for which there is no rule.

    Example:
        >>> cfg = reduced(get_config('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'))
        >>> cfg.model.backbone.depth, cfg.model.neck.in_channels, cfg.model.bbox_head.in_channels
        (18, [8, 16, 32, 64], 32)
    """
    size = size or ReducedSize()
    cfg = deepcopy(cfg)
    cfg.load_from = None
    if cfg.get('optim_wrapper', {}).get('type') == 'AmpOptimWrapper':
        cfg.optim_wrapper.type = 'OptimWrapper'
        for key in ('loss_scale', 'dtype'):
            cfg.optim_wrapper.pop(key, None)
    _reduce_model(cfg.model, size, unfreeze)
    return cfg


def _reduce_model(model: ConfigDict, size: ReducedSize, unfreeze: bool) -> None:
    _check_parts(model, _PARTS)
    cls = _class_of(ConfigDict(type=model.get('detector', model.type)))
    two_stage = issubclass(cls, DeformableDETR) and model.get('as_two_stage')
    co_detr = is_co_detr(model)
    if two_stage or co_detr or issubclass(cls, (DINO, ConditionalDETR, DABDETR)):
        size = replace(size, channels=_FIXED_CHANNELS)
    if unfreeze:
        model.backbone.update(frozen_stages=-1, norm_eval=False)
        norm = model.backbone.get('norm_cfg') or ConfigDict()
        norm.requires_grad = True
        norm.pop('momentum', None)
    features = _apply(model, 'backbone', size)
    if model.get('neck'):
        features = _apply(model, 'neck', size, features)
    heads = ('rpn_head', 'bbox_head', 'bbox_head_init', 'bbox_head_refine', 'roi_head')
    for key in (*heads, 'panoptic_head'):
        if model.get(key):
            _apply(model, key, size, features)
    for head in model.get('bbox_head_refine', ()):  # MMRotate's R3Det and S2ANet
        head.frm_cfg.feat_channels = size.channels
    if 'num_queries' in model:
        _reduce_transformer(model, size)
    if co_detr:
        _reduce_query_head(model.query_head, size)
    for key in ('train_cfg', 'test_cfg'):
        settings = model.get(key) or []
        for part in settings if isinstance(settings, Sequence) else [settings]:  # Co-DETR
            _cap_numbers(part, size, 'num_queries' in model)
    if model.get('focus_head'):
        model.focus_head.update(in_channels=features[-1], feat_channels=size.channels)
    if model.get('level_rpn'):
        _cap_numbers(ConfigDict(rpn=model.level_rpn), size, False)
    for part in _nested(model):
        _make_trainable_on_a_cpu(part, size)


def _check_parts(of: Mapping[str, Any], known: Sequence[str]) -> None:
    unknown = sorted(
        key
        for key, value in of.items()
        if isinstance(value, Mapping) and key not in (*known, *_OTHERS)
    )
    if unknown:
        raise ValueError(
            f'{of["type"]} has the parts {unknown}, for which reduced() has no rule; it has rules '
            f'for {", ".join(known)}. Write one'
        )


Rule = Callable[..., Any]
_RULES: dict[type, Rule] = {}


def _rule(*classes: type) -> Callable[[Rule], Rule]:
    """Make a function the rule of these classes and their subclasses."""

    def register(function: Rule) -> Rule:
        _RULES.update(dict.fromkeys(classes, function))
        return function

    return register


def _apply(parent: ConfigDict, key: str, *args: Any) -> Any:
    """Apply its rule to a part, or to each of several such as the stages of a cascade."""
    parts = parent[key]
    result = None
    for part in parts if isinstance(parts, Sequence) else [parts]:
        cls = _class_of(part)
        rule = next((_RULES[base] for base in cls.__mro__ if base in _RULES), None)
        if rule is None:
            known = ', '.join(sorted(known.__name__ for known in _RULES))
            raise ValueError(
                f'reduced() has no rule for {cls.__name__}, the {key}; it has rules for {known} '
                f'and their subclasses. Write one'
            )
        result = rule(part, *args)
    return result


def _class_of(part: Mapping[str, Any]) -> type:
    kind = part['type']
    cls = kind if isinstance(kind, type) else MODELS.get(kind)
    if cls is None:
        raise ValueError(f'{kind!r} is in no registry: import its module in custom_imports')
    return cls


# Backbones: (part, size) -> channels of each map that the backbone gives out.


@_rule(ResNet)
def _resnet(part: ConfigDict, size: ReducedSize) -> list[int]:
    cls = _class_of(part)
    bottlenecks = part.get('dcn') or part.get('plugins') or 18 not in cls.arch_settings
    part.update(depth=50 if bottlenecks else 18, base_channels=size.base_channels)
    if not (part.get('norm_cfg') or {}).get('requires_grad', True):
        # The last BatchNorm of a block starts at 0, and frozen it stops the block's gradients.
        part.zero_init_residual = False
    part.pop('pretrained', None)
    if part.get('stem_channels'):
        part.stem_channels = size.base_channels
    block, _ = cls.arch_settings[part.depth]
    widths = [size.base_channels * 2**i * block.expansion for i in range(4)]
    return [widths[i] for i in part.get('out_indices', (0, 1, 2, 3))]


@_rule(TridentResNet)
def _trident_resnet(part: ConfigDict, size: ReducedSize) -> list[int]:
    part.depth = 50  # its widths are those that the shared head of the RoIs wants
    return [1024]


@_rule(MobileNetV2)
def _mobilenet_v2(part: ConfigDict, size: ReducedSize) -> list[int]:
    part.widen_factor = size.base_channels / 64
    stages = MobileNetV2.arch_settings
    widths = [make_divisible(channels * part.widen_factor, 8) for _, channels, *_ in stages]
    widths.append(1280)  # of the last layer, however thin the others are
    return [widths[i] for i in part.get('out_indices', (1, 2, 4, 7))]


@_rule(CSPDarknet, CSPNeXt)
def _cross_stage_partial(part: ConfigDict, size: ReducedSize) -> list[int]:
    part.update(widen_factor=size.base_channels / 64, deepen_factor=0.01)  # one block of each kind
    stages = part.get('arch_ovewrite') or _class_of(part).arch_settings[part.get('arch', 'P5')]
    widths = [stages[0][0], *(channels for _, channels, *_ in stages)]
    return [int(widths[i] * part.widen_factor) for i in part.get('out_indices', (2, 3, 4))]


# Necks: (part, size, channels that come in) -> channels that go out.


@_rule(FPN, ChannelMapper, ConcatNeck, NASFCOS_FPN)
def _neck(part: ConfigDict, size: ReducedSize, features: list[int]) -> list[int]:
    part.update(in_channels=features, out_channels=size.channels)
    return [size.channels]


@_rule(CSPNeXtPAFPN, YOLOXPAFPN)
def _pafpn(part: ConfigDict, size: ReducedSize, features: list[int]) -> list[int]:
    part.num_csp_blocks = 1
    return _neck(part, size, features)


# Heads: (part, size, channels that come in).


@_rule(AnchorHead, AnchorFreeHead, YOLOXHead)
def _dense_head(part: ConfigDict, size: ReducedSize, features: list[int]) -> None:
    if not isinstance(part.get('in_channels'), int):
        raise ValueError(
            f'reduced() knows dense heads for maps of equal channels, but the in_channels of '
            f'{part.type} are {part.get("in_channels")}'
        )
    part.in_channels = features[-1]
    part.feat_channels = size.channels
    if 'stacked_convs' in part:
        part.stacked_convs = min(part.stacked_convs, size.convs)
    norm = part.get('norm_cfg') or _default(_class_of(part), 'norm_cfg')
    if norm:
        part.norm_cfg = deepcopy(norm)


@_rule(DETRHead)
def _set_head(part: ConfigDict, size: ReducedSize, features: list[int]) -> None:
    part.embed_dims = size.channels


@_rule(Mask2FormerHead)
def _mask_transformer(part: ConfigDict, size: ReducedSize, features: list[int]) -> None:
    part.update(in_channels=features, feat_channels=size.channels, out_channels=size.channels)
    part.num_queries = min(part.num_queries, size.queries)
    decoder, encoder = part.transformer_decoder, part.pixel_decoder.encoder
    for owner, coder in ((part, decoder), (part.pixel_decoder, encoder)):
        owner.positional_encoding.num_feats = size.channels // 2
        _reduce_coder(coder, size)


@_rule(BaseRoIHead)
def _roi_head(part: ConfigDict, size: ReducedSize, features: list[int]) -> None:
    _check_parts(part, _ROI_PARTS)
    if 'proposal_feature_channel' in part:
        part.proposal_feature_channel = features[-1]
    for key in _ROI_PARTS:
        if part.get(key):
            _apply(part, key, size, features)


@_rule(BaseRoIExtractor)
def _roi_extractor(part: ConfigDict, size: ReducedSize, features: list[int]) -> None:
    part.out_channels = features[-1]
    if 'output_channels' in part.roi_layer:
        part.roi_layer.output_channels = features[-1]
    if part.roi_layer.get('sampling_ratio') == 0:
        part.roi_layer.sampling_ratio = 2  # RoIAlign is what takes the time on a CPU


@_rule(ResLayer)
def _shared_head(part: ConfigDict, size: ReducedSize, features: list[int]) -> None:
    part.depth = 50
    features[:] = [2048]  # for the heads behind it


@_rule(EmbeddingRPNHead)
def _embedding_head(part: ConfigDict, size: ReducedSize, features: list[int]) -> None:
    part.num_proposals = min(part.num_proposals, size.queries)
    part.proposal_feature_channel = features[-1]


@_rule(DIIHead)
def _dynamic_head(part: ConfigDict, size: ReducedSize, features: list[int]) -> None:
    part.update(in_channels=features[-1], feedforward_channels=size.fc_channels)
    part.dynamic_conv_cfg.update(in_channels=features[-1], out_channels=features[-1])
    part.dynamic_conv_cfg.feat_channels = size.channels // 4


@_rule(BBoxHead)
def _bbox_head(part: ConfigDict, size: ReducedSize, features: list[int]) -> None:
    part.in_channels = features[-1]
    hidden = dict(fc_out_channels=size.fc_channels, conv_out_channels=size.channels)
    part.update({key: channels for key, channels in hidden.items() if key in part})


@_rule(FCNMaskHead)
def _mask_head(part: ConfigDict, size: ReducedSize, features: list[int]) -> None:
    part.update(
        in_channels=features[-1],
        conv_out_channels=size.channels,
        num_convs=min(part.get('num_convs', 4), size.convs),
    )


@_rule(DynamicMaskHead)
def _dynamic_mask_head(part: ConfigDict, size: ReducedSize, features: list[int]) -> None:
    _mask_head(part, size, features)
    part.dynamic_conv_cfg.update(in_channels=features[-1], out_channels=features[-1])
    part.dynamic_conv_cfg.feat_channels = size.channels // 4


@_rule(CoarseMaskHead, MaskIoUHead, MaskPointHead)
def _second_mask_head(part: ConfigDict, size: ReducedSize, features: list[int]) -> None:
    hidden = dict(fc_out_channels=size.fc_channels, fc_channels=size.fc_channels)
    hidden |= dict(conv_out_channels=size.channels, num_convs=size.convs)
    part.in_channels = features[-1]
    part.update({key: value for key, value in hidden.items() if key in part})


@_rule(GridHead)
def _grid_head(part: ConfigDict, size: ReducedSize, features: list[int]) -> None:
    part.update(in_channels=features[-1], num_convs=size.convs)
    part.point_feat_channels = size.channels // _CHANNELS_OF_A_GROUP  # of each point


@_rule(FusedSemanticHead, GlobalContextHead)
def _head_of_the_image(part: ConfigDict, size: ReducedSize, features: list[int]) -> None:
    # What it gives is added to the features.
    part.update(in_channels=features[-1], conv_out_channels=features[-1], num_convs=size.convs)


@_rule(FeatureRelayHead)
def _feature_relay_head(part: ConfigDict, size: ReducedSize, features: list[int]) -> None:
    part.update(in_channels=size.fc_channels, out_conv_channels=features[-1])


def _reduce_transformer(model: ConfigDict, size: ReducedSize) -> None:
    model.num_queries = min(model.num_queries, size.queries)
    model.positional_encoding.num_feats = size.channels // 2
    for coder in (model.encoder, model.decoder):
        _reduce_coder(coder, size)
    groups = (model.get('dn_cfg') or {}).get('group_cfg') or {}
    if groups.get('num_dn_queries'):
        groups.num_dn_queries = min(groups.num_dn_queries, size.queries)


def _reduce_query_head(head: ConfigDict, size: ReducedSize) -> None:
    """Thin the transformer that Co-DETR has in its head."""
    head.num_query = min(head.num_query, size.queries)
    for coder in (head.transformer.encoder, head.transformer.decoder):
        coder.num_layers = min(coder.num_layers, size.layers)
        coder.transformerlayers.feedforward_channels = size.fc_channels
    head.transformer.encoder.with_cp = -1  # which wants FairScale
    groups = head.dn_cfg.group_cfg
    groups.num_dn_queries = min(groups.num_dn_queries, size.queries)


def _reduce_coder(coder: ConfigDict, size: ReducedSize) -> None:
    """Thin an encoder or a decoder of a transformer."""
    coder.num_layers = min(coder.num_layers, size.layers)
    for key, part in coder.layer_cfg.items():
        if key.endswith(('attn_cfg', 'ffn_cfg')):
            part.embed_dims = size.channels
        if key == 'ffn_cfg':
            part.feedforward_channels = size.fc_channels


def _cap_numbers(part: ConfigDict, size: ReducedSize, set_prediction: bool) -> None:
    """Lower the numbers of boxes in a ``train_cfg`` or ``test_cfg``."""
    for key in ('rpn', 'rpn_proposal'):
        if part.get(key):
            for name, most in (('nms_pre', 5 * size.proposals), ('max_per_img', size.proposals)):
                if name in part[key]:
                    part[key][name] = min(part[key][name], most)
    if 'num_points' in part:
        part.num_points = min(part.num_points, 10 * size.proposals)
    if 'nms_pre' in part:
        part.nms_pre = min(part.nms_pre, 10 * size.proposals)
    if set_prediction and 'max_per_img' in part:  # the best of all queries and classes
        part.max_per_img = min(part.max_per_img, size.queries)


def _make_trainable_on_a_cpu(part: ConfigDict, size: ReducedSize) -> None:
    """Settings that any part may have."""
    if (part.get('init_cfg') or {}).get('type') == 'Pretrained':
        part.init_cfg = None
    norm = part.get('norm_cfg') or {}
    if norm.get('type') == 'SyncBN':
        norm.type = 'BN'
    if norm.get('type') == 'GN':
        norm.num_groups = size.channels // _CHANNELS_OF_A_GROUP


def _nested(node: Any) -> Iterator[ConfigDict]:
    """Every dict in a config, the outer ones first."""
    if isinstance(node, Mapping):
        yield node
        node = list(node.values())
    if isinstance(node, Sequence) and not isinstance(node, str):
        for item in node:
            yield from _nested(item)


def _default(cls: type, argument: str) -> Any:
    """The default of a constructor's argument, in the first class of its line that names it."""
    for base in cls.__mro__:
        parameters = inspect.signature(base.__init__).parameters if '__init__' in vars(base) else {}
        if argument in parameters:
            default = parameters[argument].default
            return ConfigDict(default) if isinstance(default, Mapping) else None
    return None
