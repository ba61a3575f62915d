"""Half precision and compilation: what is computed so, what is not, and what is left behind."""

import copy
import pickle
from contextlib import contextmanager

import pytest
import torch
from mmcv.ops import DeformConv2dPack, ModulatedDeformConv2dPack
from mmdet.models.roi_heads.roi_extractors import BaseRoIExtractor
from torch import nn

from mmsniper.models.runtime import Runtime, half_precision

PYRAMID = dict(
    chip_size=64,
    levels=[
        dict(resize=dict(factor=1.5), valid_range=(0, 60)),
        dict(resize=dict(factor=0.5), valid_range=(40, None)),
    ],
)


def dtypes_of(module, places):
    """Types of the tensors that a module gets and gives, from now on."""

    def note(module, args, outputs):
        places.append([flat(args), flat(outputs)])

    return module.register_forward_hook(note)


def given_in_half_precision(model, heads):
    """As :func:`dtypes_of`, of what heads give when the hooks of half precision are through."""
    places = []
    stock = model.runtime.of

    @contextmanager
    def of(detector):
        with stock(detector):
            handles = [dtypes_of(head, places) for head in heads]
            yield
        for handle in handles:
            handle.remove()

    model.runtime.of = of
    return places


def flat(value):
    if isinstance(value, torch.Tensor):
        return {value.dtype}
    if isinstance(value, dict):
        value = list(value.values())
    return set().union(*map(flat, value)) if isinstance(value, list | tuple) else set()


@pytest.mark.parametrize('type', ['PyramidDetector', 'AutoFocus'])
@pytest.mark.parametrize('family', ['MaskRCNN', 'CascadeRCNN', 'RetinaNet', 'FCOS', 'RTMDet'])
def test_half_precision_finds_about_the_same(at_levels, picture, unresized, family, type):
    settings = dict(small=(0, 100), thresholds=0.0) if type == 'AutoFocus' else {}
    whole = at_levels(family, PYRAMID, type, **settings)
    half = at_levels(family, PYRAMID, type, precision='bf16', **settings)
    places = []
    dtypes_of(half.backbone, places)
    ours, theirs = (
        model.test_step(unresized(picture()))[0].pred_instances for model in (half, whole)
    )
    assert all(outputs == {torch.bfloat16} for _, outputs in places)
    assert len(ours) > 0
    assert ours.bboxes.dtype == ours.scores.dtype == torch.float32
    assert ours.scores[:3].tolist() == pytest.approx(theirs.scores[:3].tolist(), abs=0.05)
    assert not torch.equal(ours.scores, theirs.scores)


# With operators that mmcv has not in bf16, and parts of which scores, boxes or masks are made.
@pytest.mark.parametrize('family', ['TOOD', 'VFNet', 'Grid R-CNN', 'PointRend', 'Mask2Former'])
def test_what_has_no_half_precision_is_computed_in_float32(at_levels, picture, unresized, family):
    half = at_levels(family, PYRAMID, precision='bf16')
    found = half.test_step(unresized(picture()))[0].pred_instances
    whole = at_levels(family, PYRAMID).test_step(unresized(picture()))[0].pred_instances
    assert len(found) > 0
    assert found.bboxes.dtype == found.scores.dtype == torch.float32
    assert found.scores[:3].tolist() == pytest.approx(whole.scores[:3].tolist(), abs=0.05)
    assert [m for m in half.modules() if 'forward' in m.__dict__] == []


@pytest.mark.parametrize('kind', [DeformConv2dPack, ModulatedDeformConv2dPack])
def test_deformable_convolutions_get_float32(kind):
    torch.manual_seed(0)
    convolutions = nn.Sequential(nn.Conv2d(3, 8, 3), kind(8, 4, 3, padding=1)).eval()
    nn.init.normal_(convolutions[1].conv_offset.weight, std=0.1)
    image, places = torch.rand(1, 3, 20, 20), []
    dtypes_of(convolutions[0], places)
    with torch.no_grad():
        whole = convolutions(image)
        with half_precision(convolutions, 'bf16'):
            half = convolutions(image)
    assert half.dtype == torch.float32
    assert 0 < (half - whole).abs().max() < 0.02
    assert [gives for _, gives in places] == [{torch.float32}, {torch.bfloat16}]
    assert 'forward' not in convolutions[1].__dict__


@pytest.mark.parametrize(
    ('family', 'part'), [('Mask Scoring R-CNN', 'mask_iou_head'), ('Grid R-CNN', 'grid_head')]
)
def test_scores_and_places_of_further_heads_are_float32(
    at_levels, picture, unresized, family, part
):
    model = at_levels(family, PYRAMID, precision='bf16')
    places = given_in_half_precision(model, [getattr(model.roi_head, part)])
    model.test_step(unresized(picture()))
    assert {kind for _, gives in places for kind in gives} == {torch.float32}


def calm_query_inst(at_levels, **settings):
    """With stages that move their boxes little; random ones multiply every difference."""
    model = at_levels('QueryInst', PYRAMID, **settings)
    for head in model.roi_head.bbox_head:
        head.fc_reg.weight.data *= 0.01
        head.fc_reg.bias.data.zero_()
    return model


def test_queries_find_about_the_same_in_half_precision_and_compiled(at_levels, picture, unresized):
    half, compiled, whole = (
        calm_query_inst(at_levels, **more)
        for more in (dict(precision='bf16'), dict(compiled=dict(backend='eager')), {})
    )
    heads = [*half.roi_head.bbox_head, *half.roi_head.mask_head]
    places = given_in_half_precision(half, heads)
    ours, same, theirs = (
        model.test_step(unresized(picture()))[0].pred_instances for model in (half, compiled, whole)
    )
    assert {kind for _, gives in places for kind in gives} == {torch.float32}
    assert ours.bboxes.dtype == ours.scores.dtype == torch.float32
    assert ours.scores[:3].tolist() == pytest.approx(theirs.scores[:3].tolist(), abs=0.02)
    assert torch.equal(same.bboxes, theirs.bboxes)
    assert torch.equal(same.masks, theirs.masks)
    # Its RPN has queries, and no forward that could be compiled.
    assert set(compiled.runtime._forwards) == {'backbone', 'neck'}


def test_places_stay_whole(at_levels, picture, unresized, monkeypatch):
    model = at_levels('MaskRCNN', PYRAMID, precision='bf16')
    extractors = [m for m in model.modules() if isinstance(m, BaseRoIExtractor)]
    heads = [model.rpn_head, model.roi_head.bbox_head, model.roi_head.mask_head]
    rois, given = [], []
    for module in extractors:
        dtypes_of(module, rois)
    for head in heads[:2]:  # the third's is replaced while masks are predicted
        original = head.predict_by_feat

        def noted(*args, original=original, **kwargs):
            given.append(flat([*args, *kwargs.values()]) - {torch.int64})
            return original(*args, **kwargs)

        monkeypatch.setattr(head, 'predict_by_feat', noted)
    model.test_step(unresized(picture()))
    assert len(given) >= 4
    assert given == [{torch.float32}] * len(given)
    assert {kind for _, gives in rois for kind in gives} == {torch.float32}
    assert [len(m._forward_pre_hooks) for m in extractors] == [0] * len(extractors)
    assert [len(m._forward_hooks) for m in heads] == [0] * len(heads)


@pytest.mark.parametrize('family', ['DeformableDETR', 'DINO', 'DDQ'])
def test_places_of_queries_stay_whole(at_levels, picture, unresized, family):
    """A head adds offsets to them; of a window of 2048 px, bf16 would tell places of 8 px."""
    model = at_levels(family, PYRAMID, precision='bf16', merge_cfg=dict(score_thr=0.0))
    head, places = model.bbox_head, []

    def noted(_, __, outputs):
        places.append(outputs[1])

    hook = head.register_forward_hook(noted)
    (found,) = model.test_step(unresized(picture()))
    hook.remove()
    assert len(found.pred_instances) > 0
    assert len(places) == 2
    assert not any(torch.equal(of, of.bfloat16().float()) for of in places)
    assert [len(m._forward_hooks) for m in head.modules()] == [0] * len(list(head.modules()))


def test_it_is_taken_off_again_and_of_this_detector_only(at_levels, picture, unresized):
    model = at_levels('RetinaNet', PYRAMID, compiled=dict(backend='eager'))
    before = model.test_step(unresized(picture()))[0].pred_instances
    assert set(model.runtime._forwards) == {'backbone', 'neck', 'bbox_head'}
    assert all('forward' not in part.__dict__ for part in (model.backbone, model.neck))
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert not again.runtime._forwards
        found = again.test_step(unresized(picture()))[0].pred_instances
        assert torch.equal(found.bboxes, before.bboxes)


@pytest.mark.parametrize('type', ['PyramidDetector', 'AutoFocus'])
def test_compiled_parts_find_the_same(at_levels, picture, unresized, type):
    settings = dict(small=(0, 100), thresholds=0.0) if type == 'AutoFocus' else {}
    compiled = dict(backend='eager')  # as torch traces it; the usual one needs a compiler
    for family in ('FasterRCNN', 'FCOS'):
        ours, theirs = (
            at_levels(family, PYRAMID, type, **more, **settings)
            .test_step(unresized(picture()))[0]
            .pred_instances
            for more in (dict(compiled=compiled), {})
        )
        assert len(ours) > 0
        assert torch.equal(ours.bboxes, theirs.bboxes)


def test_wrong_precisions_are_refused(at_levels, picture, unresized, monkeypatch):
    with pytest.raises(ValueError, match="one of bf16, fp16, or None for float32; got 'int8'"):
        Runtime('int8')
    with pytest.raises(ValueError, match="precision 'fp16' is for GPUs"):
        at_levels('FCOS', PYRAMID, precision='fp16').test_step(unresized(picture()))
    monkeypatch.setattr(torch.ops.mkldnn, '_is_mkldnn_bf16_supported', lambda: False)
    with pytest.raises(ValueError, match='this CPU has no bf16'):
        at_levels('FCOS', PYRAMID, precision='bf16').test_step(unresized(picture()))


def test_nothing_changes_by_default(at_levels):
    model = at_levels('FCOS', PYRAMID)
    with model.runtime.of(model):
        assert not torch.is_autocast_cpu_enabled()
        assert 'forward' not in model.backbone.__dict__
        assert not model.bbox_head._forward_hooks
