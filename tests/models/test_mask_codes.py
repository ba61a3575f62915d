"""Masks of detectors that make them of codes are MMDetection's, for what all levels have left."""

import copy

import mmcv
import pytest
import torch
from mmdet.structures import DetDataSample
from torch.nn import functional as F

from mmsniper.models.enlarged_masks import Axis, Resize, enlarged_mask
from mmsniper.models.mask_prediction import mask_prediction
from mmsniper.models.nms import best_first

PYRAMID = dict(
    chip_size=64,
    levels=[
        dict(resize=dict(factor=1.5), valid_range=(0, 50)),
        dict(resize=dict(factor=0.7), valid_range=(30, None)),
    ],
)
CODED = ['RTMDet-Ins', 'QueryInst', 'Mask2Former']


def one_level(factor):
    level = dict(resize=dict(factor=factor), valid_range=(0, None))
    return dict(chip_size=64, levels=[level])


@pytest.fixture
def make(at_levels):
    """A small PyramidDetector, whose random masks have both values and most boxes an area."""

    def make_(family, pyramid, **settings):
        model = at_levels(family, pyramid, **settings)
        torch.manual_seed(1)
        if family == 'RTMDet-Ins':
            for kernels in model.bbox_head.rtm_kernel:
                # Signals die away in what has not learned: masks by places around a cell alone.
                torch.nn.init.normal_(kernels.bias)
                kernels.bias.data[-sum(model.bbox_head.bias_nums) :] = 0
            model.bbox_head.test_cfg.update(score_thr=0.0)
        elif family == 'QueryInst':
            spread_queries(model)
            # Stock finds as many objects as it has queries, no more and no fewer.
            model.roi_head.test_cfg.max_per_img = model.rpn_head.num_proposals
            torch.nn.init.normal_(model.roi_head.mask_head[-1].conv_logits.weight, std=10.0)
        elif family == 'Mask2Former':
            model.panoptic_head.pixel_decoder.register_forward_hook(with_bumps)
            last = model.panoptic_head.mask_embed[-1]
            torch.nn.init.normal_(last.weight, std=0.3)
            last.weight.data[0], last.bias.data[0] = 0, -0.6
        return model

    return make_


def with_bumps(module, args, output):
    """Embeddings of pixels: bumps at 31 places, which make masks of all sizes, and a constant."""
    maps, others = output
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.rand(maps.shape[1], 1, 1, generator=generator) for _ in range(2))
    height, width = maps.shape[-2:]
    rows, columns = torch.arange(height)[:, None] / height, torch.arange(width) / width
    bumps = torch.exp(-90 * ((columns - x) ** 2 + (rows - y) ** 2))
    bumps[0] = 1
    return bumps.expand_as(maps), others


def spread_queries(model):
    """Put the boxes of queries all over the image, where each stage leaves them."""
    places = model.rpn_head.init_proposal_bboxes.weight.data
    places.copy_(torch.tensor([0.2, 0.2, 0.1, 0.1]) + 0.6 * torch.rand_like(places))
    for head in model.roi_head.bbox_head:
        torch.nn.init.zeros_(head.fc_reg.weight)
        torch.nn.init.zeros_(head.fc_reg.bias)


def found(model, batch):
    (result,) = model.test_step(batch)
    return result.pred_instances


# Enlarging ---------------------------------------------------------------------------------------


@pytest.mark.parametrize('seed', range(8))
@pytest.mark.parametrize(('after', 'window'), [((64, 96), (50, 90)), ((96, 64), (201, 133))])
def test_a_mask_is_that_of_the_map_enlarged_twice_as_a_whole(seed, after, window):
    """Two times ``F.interpolate``, cut off in between, as heads do."""
    torch.manual_seed(seed)
    cut = (after[0] - 3, after[1] - 5)
    logits = F.interpolate(torch.randn(1, 1, 4, 5), (16, 12), mode='bicubic')[0, 0] - 0.5
    first = F.interpolate(logits[None, None], after, mode='bilinear')[..., : cut[0], : cut[1]]
    whole = F.interpolate(first, window, mode='bilinear')[0, 0]
    axes = [
        Axis(Resize(cells, cells / a), Resize(c, c / w), w)
        for cells, a, c, w in zip(logits.shape, after, cut, window)
    ]
    placed, sureness = enlarged_mask(logits, *axes, 0.3)
    (x, y), (height, width) = placed.corner, placed.mask.shape
    got = torch.zeros(window, dtype=torch.bool)
    got[y : y + height, x : x + width] = torch.from_numpy(placed.mask)
    expected = whole > 0.3
    certain = (whole - 0.3).abs() > 1e-5
    assert torch.equal(got & certain, expected & certain)
    assert 0 < expected.float().mean() < 1
    # As small as the object.
    assert placed.mask[[0, -1]].any(axis=1).all()
    assert placed.mask[:, [0, -1]].any(axis=0).all()
    assert sureness == pytest.approx(float(whole[expected].sigmoid().mean()), abs=1e-3)


def test_bands_are_of_the_same_mask(monkeypatch):
    logits = torch.randn(9, 7)
    axes = [Axis(Resize(n, 0.25), Resize(4 * n, 0.5), 8 * n) for n in logits.shape]
    whole, sureness = enlarged_mask(logits, *axes, 0.0)
    monkeypatch.setattr('mmsniper.models.enlarged_masks._BAND', 100)
    banded, same = enlarged_mask(logits, *axes, 0.0)
    assert banded.corner == whole.corner
    assert (banded.mask == whole.mask).all()
    assert same == pytest.approx(sureness)


def test_no_more_is_computed_than_the_object_needs():
    """A map of 2000 x 2000 cells becomes 10^10 pixels, of which an object has some thousands."""
    logits = torch.full((2000, 2000), -9.0)
    logits[700:703, 900:904] = 9
    axis = Axis(Resize(2000, 0.125), Resize(16000, 0.16), 100000)
    placed, _ = enlarged_mask(logits, axis, axis, 0.0)
    # A pixel of the map is 50 wide, and half of the way to the next one belongs to the object.
    assert placed.corner == (45000, 35000)
    assert placed.mask.shape == (150, 200)


def test_an_empty_mask_is_one_pixel_without_probability():
    axis = Axis(Resize(4, 0.5), Resize(8, 0.5), 16)
    placed, sureness = enlarged_mask(torch.full((4, 4), -1.0), axis, axis, 0.0)
    assert placed.mask.tolist() == [[False]]
    assert sureness == 0


@pytest.mark.parametrize('outside', [dict(row=7, column=1), dict(row=1, column=7)])
def test_what_is_in_the_padding_only_is_no_mask(outside):
    """8 cells of 4 px, of which the last 16 px are padding, so that 8 px are left at half size."""
    axis = Axis(Resize(8, 0.25), Resize(16, 2.0), 8)
    logits = torch.full((8, 8), -1.0)
    logits[outside['row'], outside['column']] = 1
    placed, sureness = enlarged_mask(logits, axis, axis, 0.0)
    assert placed.mask.tolist() == [[False]]
    assert sureness == 0


# As MMDetection predicts them --------------------------------------------------------------------


def as_stock(model, image, factor):
    """What the detector itself predicts of an image at a scale, with all that NMS leaves."""
    height, width = image.shape[:2]
    out = round(height * factor), round(width * factor)
    scaled = torch.from_numpy(mmcv.imresize(image, out[::-1]).transpose(2, 0, 1).copy())
    info = dict(ori_shape=(height, width), img_shape=out)
    info['scale_factor'] = (out[1] / width, out[0] / height)
    data = dict(inputs=[scaled], data_samples=[DetDataSample(metainfo=info)])
    data = model.data_preprocessor(data, False)
    with torch.no_grad():
        (result,) = model.predict(data['inputs'], data['data_samples'], rescale=True)
    return result.pred_instances


@pytest.mark.parametrize('factor', [0.5, 1.0, 2.0])
@pytest.mark.parametrize('family', CODED)
def test_at_one_scale_boxes_and_masks_are_the_stock_detectors(
    make, picture, unresized, family, factor
):
    model = make(family, one_level(factor))
    image = picture(192, 128)
    if family == 'RTMDet-Ins':  # scores are alike, so which box goes before the other is chance
        model.bbox_head.test_cfg.nms.iou_threshold = 1.0
    expected = as_stock(model, image, factor)
    model.merge_cfg.update(score_thr=0, nms=None, nms_pre=None, max_per_img=None)
    got = found(model, unresized(image))
    # Every detection that stock has is among ours.
    places = (got.bboxes[None] - expected.bboxes[:, None]).abs().sum(dim=2)
    places += 100 * (got.labels[None] != expected.labels[:, None])
    places += (got.scores[None] - expected.scores[:, None]).abs()  # boxes may be alike
    near, same = places.min(dim=1)
    large = (expected.bboxes[:, 2:] - expected.bboxes[:, :2]).min(dim=1).values >= 1
    assert large.sum() >= 5
    assert near[large].max() < 1e-2
    torch.testing.assert_close(got.scores[same][large], expected.scores[large])
    differing = (got.masks[same][large] != expected.masks[large]).float().mean()
    assert differing < 1e-4
    shares = expected.masks[large].float().mean(dim=(1, 2))
    assert ((shares > 0.02) & (shares < 0.98)).float().mean() > 0.5


@pytest.mark.parametrize('family', CODED)
def test_masks_of_levels_and_windows_are_placed_where_they_are(
    make, picture, unresized, family, monkeypatch
):
    """A window's masks alone, put into the image by hand."""
    model, image = make(family, PYRAMID, window_size=100), picture(160, 120)
    windows = []
    kind = type(mask_prediction(model))
    predict = kind.predict

    def noted(self, feats, samples, instances, corners):
        masks = predict(self, feats, samples, instances, corners)
        windows.extend(zip(samples, instances, corners, masks))
        return masks

    monkeypatch.setattr(kind, 'predict', noted)
    got = found(model, unresized(image))
    assert set(got.levels.tolist()) == {0, 1}
    assert len(windows) > 2
    assert sum(len(objects) for _, objects, _, _ in windows) == len(got) > 10
    assert 'codes' not in got
    for sample, objects, (x, y), masks in windows:
        height, width = sample.ori_shape
        for box, label, mask in zip(objects.bboxes, objects.labels, masks):
            (number,) = ((got.bboxes == box).all(dim=1) & (got.labels == label)).nonzero()[0]
            whole = got.masks[number].clone()
            assert whole.sum() == mask.mask.sum()
            whole[y : y + height, x : x + width] = False
            assert not whole.any()


@pytest.mark.parametrize('family', CODED)
@pytest.mark.parametrize(('batch_pixels', 'runs'), [(2**22, 2), (1, 4)])
def test_features_that_were_not_kept_are_computed_again(
    make, picture, unresized, family, batch_pixels, runs
):
    batch = unresized(picture(160, 120))
    expected = found(make(family, PYRAMID), batch)
    model, counts = make(family, PYRAMID, batch_pixels=batch_pixels), []
    model.backbone.register_forward_hook(lambda *args: counts.append(1))
    got = found(model, batch)
    assert len(counts) == runs
    assert torch.equal(got.bboxes, expected.bboxes)
    assert torch.equal(got.masks, expected.masks)


@pytest.mark.parametrize('family', CODED)
def test_with_a_threshold_of_zero_autofocus_has_the_masks_of_all_levels(
    make, picture, unresized, family
):
    model = make(family, PYRAMID)
    focus = make(family, PYRAMID, type='AutoFocus', thresholds=0.0)
    focus.load_state_dict(model.state_dict())
    batch = unresized(picture(160, 120), picture(100, 150, 1))
    for got, expected in zip(focus.test_step(batch), model.test_step(batch)):
        got, expected = got.pred_instances, expected.pred_instances
        assert len(got)
        assert torch.equal(got.bboxes, expected.bboxes)
        assert torch.equal(got.masks, expected.masks)


@pytest.mark.parametrize('family', CODED)
def test_without_objects_there_are_no_masks_and_the_detector_is_itself_again(
    make, picture, unresized, family
):
    model = make(family, PYRAMID, merge_cfg=dict(score_thr=1.1))
    before = {name: set(vars(part)) for name, part in model.named_modules()}
    got = found(model, unresized(picture(160, 120)))
    assert got.masks.shape == (0, 120, 160)
    assert {name: set(vars(part)) for name, part in model.named_modules()} == before


@pytest.mark.parametrize('beside', [(-900.0, 0.0), (0.0, -900.0), (900.0, 0.0), (0.0, 900.0)])
def test_a_query_that_finds_something_beside_the_image_has_an_empty_mask_there(
    make, picture, unresized, beside
):
    model = make('QueryInst', one_level(1.0), merge_cfg=dict(score_thr=0, nms=None))
    keep = model._keep

    def with_two_moved(found, window, scene):
        kept = keep(found, window, scene)[:6]
        kept.bboxes[:2] += torch.tensor(beside).repeat(2)
        return kept

    model._keep = with_two_moved
    got = found(model, unresized(picture(160, 120)))
    there = got.bboxes.abs().max(dim=1).values > 500
    assert there.sum() == 2
    assert not got.masks[there].any()
    assert got.masks[~there].flatten(1).any(dim=1).all()


@pytest.mark.parametrize('family', CODED)
def test_a_window_keeps_a_code_of_each_object_and_no_mask(make, picture, unresized, family):
    model = make(family, PYRAMID)
    scenes, _ = model.detect([torch.from_numpy(picture(160, 120)).permute(2, 0, 1)], [0, 1])
    for of_window in scenes[0].found:
        assert 'masks' not in of_window
        assert of_window.codes.ndim == 2
        assert of_window.codes.shape[1] < 400
    merged = best_first(copy.deepcopy(scenes[0].found[0]), model.merge_cfg.nms)
    assert len(merged.codes) == len(merged.bboxes)
    assert mask_prediction(model) is not None
