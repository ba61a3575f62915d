"""Masks are MMDetection's, at the objects that are left after merging, and placed in the image."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from pycocotools import mask as coco_masks

from mmsniper.models import mask_prediction as prediction_module
from mmsniper.models import masks as masks_module
from mmsniper.models.mask_prediction import MasksByBox
from mmsniper.models.masks import EncodedMask, EncodedMasks, ImageMasks, PlacedMask

PYRAMID = dict(
    chip_size=64,
    levels=[
        dict(resize=dict(factor=1.5), valid_range=(0, 50)),
        dict(resize=dict(factor=0.7), valid_range=(30, None)),
    ],
)
WHOLE = dict(chip_size=64, levels=[dict(resize=dict(factor=1.0), valid_range=(0, None))])
MASKED = ['MaskRCNN', 'CascadeRCNN']


@pytest.fixture
def make(at_levels):
    """A small PyramidDetector with a mask head, whose random masks have both values."""

    def make_(family='MaskRCNN', pyramid=PYRAMID, **settings):
        model = at_levels(family, pyramid, **settings)
        heads = model.roi_head.mask_head
        for head in heads if isinstance(heads, torch.nn.ModuleList) else [heads]:
            torch.nn.init.normal_(head.conv_logits.weight, std=10.0)
        return model

    return make_


def found(model, batch):
    (result,) = model.test_step(batch)
    return result.pred_instances


def decoded(rles):
    return torch.from_numpy(np.stack([coco_masks.decode(rle).astype(bool) for rle in rles]))


# Run lengths -------------------------------------------------------------------------------------


@st.composite
def placed_masks(draw):
    """A random mask somewhere in an image, often as high as the image or at its edges."""
    width, height = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    w = draw(st.integers(1, width))
    h = draw(st.one_of(st.just(height), st.integers(1, height)))
    x, y = draw(st.integers(0, width - w)), draw(st.integers(0, height - h))
    kind = draw(st.sampled_from(['empty', 'full', 'any']))
    mask = np.full((h, w), kind == 'full')
    if kind == 'any':
        mask = draw(arrays.arrays(bool, (h, w)))
    return PlacedMask(mask, (x, y)), width, height


@given(placed_masks())
def test_run_lengths_are_those_of_the_mask_in_the_whole_image(case):
    placed, width, height = case
    (x, y), (h, w) = placed.corner, placed.mask.shape
    whole = np.zeros((height, width), np.uint8, order='F')
    whole[y : y + h, x : x + w] = placed.mask
    assert placed.rle(width, height) == coco_masks.encode(whole)


def test_many_masks_are_run_lengths_and_few_are_a_tensor(monkeypatch):
    monkeypatch.setattr(masks_module, 'MAX_MASK_PIXELS', 2 * 30 * 20)
    placed = [PlacedMask(np.ones((2, 3), bool), (i, 5)) for i in range(3)]
    few, many = ImageMasks(2, (30, 20)), ImageMasks(3, (30, 20))
    few.add([1, 0], placed[:2])
    many.add([1, 0, 2], placed)
    few, many = few.finished(torch.device('cpu')), many.finished(torch.device('cpu'))
    assert few.shape == (2, 20, 30)
    assert few.dtype == torch.bool
    assert few[1, 5:7, 0:3].all()
    assert few.sum() == 12
    assert many.shape == (20, 30)
    assert many.astype(bool).sum(axis=(1, 2)).tolist() == [6, 6, 6]
    assert [coco_masks.toBbox(rle).tolist() for rle in many] == [
        [1, 5, 3, 2],
        [0, 5, 3, 2],
        [2, 5, 3, 2],
    ]


def test_masks_are_a_tensor_of_half_a_gigabyte_at_most():
    assert ImageMasks(2, (2**14, 2**14)).as_tensor
    assert not ImageMasks(2, (2**14, 2**14 + 1)).as_tensor


def test_run_lengths_are_chosen_and_drawn_as_a_tensor_is():
    """As MMDetection's metrics, inferencer and visualizers do."""
    whole = np.random.default_rng(0).random((4, 20, 30)) > 0.5
    rles = [EncodedMask(PlacedMask(mask, (0, 0)).rle(30, 20)) for mask in whole]
    found = InstanceData(masks=EncodedMasks(rles, (20, 30)), scores=torch.arange(4.0))
    assert (found.masks[2][:] == whole[2]).all()
    assert found.masks[2]['size'] == [20, 30]
    chosen = found[torch.tensor([True, False, True, True])].masks
    assert (chosen.numpy().astype(bool) == whole[[0, 2, 3]]).all()
    assert (found[torch.tensor([3, 1])].masks.astype(np.uint8) == whole[[3, 1]]).all()
    assert (found[1:3].masks.astype(bool) == whole[1:3]).all()
    none = found[torch.zeros(4, dtype=torch.bool)].masks
    assert none.astype(bool).shape == (0, 20, 30)


def test_an_image_without_objects_has_no_masks():
    masks = ImageMasks(0, (30, 20)).finished(torch.device('cpu'))
    assert masks.shape == (0, 20, 30)
    assert masks.dtype == torch.bool


# As MMDetection predicts them --------------------------------------------------------------------


@pytest.mark.parametrize('family', MASKED)
def test_masks_of_a_whole_image_are_those_of_the_stock_mask_head(make, picture, unresized, family):
    model, image = make(family, WHOLE), picture(310, 230)
    got = found(model, unresized(image))
    info = dict(ori_shape=(230, 310), img_shape=(230, 310), scale_factor=(1.0, 1.0))
    data = model.data_preprocessor(
        dict(
            inputs=[torch.from_numpy(image.transpose(2, 0, 1).copy())],
            data_samples=[DetDataSample(metainfo=info)],
        ),
        False,
    )
    objects = InstanceData(bboxes=got.bboxes.clone(), labels=got.labels, scores=got.scores)
    with torch.no_grad():
        (stock,) = model.roi_head.predict_mask(
            model.extract_feat(data['inputs']),
            [sample.metainfo for sample in data['data_samples']],
            [objects],
            rescale=True,
        )
    assert torch.equal(got.masks, stock.masks)
    assert got.masks.shape == (len(got), 230, 310)
    # Neither empty nor boxes.
    assert (got.masks.any(dim=2).any(dim=1)).float().mean() > 0.9
    areas = (got.bboxes[:, 2:] - got.bboxes[:, :2]).prod(dim=1)
    assert (got.masks.sum(dim=(1, 2)) < 0.9 * areas).float().mean() > 0.5


@pytest.mark.parametrize('family', MASKED)
def test_masks_of_levels_and_windows_are_placed_where_they_are(
    make, picture, unresized, family, monkeypatch
):
    """What the stock head pastes into each window, put into the image by hand."""
    model, image = make(family, window_size=100), picture(160, 120)
    expected = {}

    predict = MasksByBox.predict

    def predict_as_stock(of_head, feats, samples, instances, corners):
        for i, (sample, objects, (x, y)) in enumerate(zip(samples, instances, corners)):
            scale = torch.tensor(sample.scale_factor).repeat(2)
            boxes = (objects.bboxes - torch.tensor([x, y, x, y])) * scale
            (window,) = of_head.roi_head.predict_mask(
                [feat[i : i + 1] for feat in feats],
                [sample.metainfo],
                [InstanceData(bboxes=boxes, labels=objects.labels, scores=objects.scores)],
                rescale=True,
            )
            height, width = sample.ori_shape
            for box, label, mask in zip(objects.bboxes.tolist(), objects.labels, window.masks):
                whole = torch.zeros(120, 160, dtype=torch.bool)
                whole[y : y + height, x : x + width] = mask
                expected[(*box, int(label))] = whole
        return predict(of_head, feats, samples, instances, corners)

    monkeypatch.setattr(MasksByBox, 'predict', predict_as_stock)
    got = found(model, unresized(image))
    assert set(got.levels.tolist()) == {0, 1}
    assert len(expected) == len(got) > 50
    differing = 0
    for box, label, mask in zip(got.bboxes.tolist(), got.labels, got.masks):
        differing += int((mask != expected[(*box, int(label))]).sum())
        x1, y1, x2, y2 = int(box[0]), int(box[1]), int(np.ceil(box[2])), int(np.ceil(box[3]))
        outside = mask.clone()
        outside[y1:y2, x1:x2] = False
        assert not outside.any()
    # Windows go into a batch with others, so numbers differ by rounding.
    assert differing <= 1e-4 * got.masks.sum()


@pytest.mark.parametrize('family', MASKED)
def test_run_lengths_are_of_the_same_masks(make, picture, unresized, family, monkeypatch):
    model, batch = make(family, window_size=100), unresized(picture(160, 120))
    masks = found(model, batch).masks
    monkeypatch.setattr(masks_module, 'MAX_MASK_PIXELS', 10)
    rles = found(model, batch).masks
    assert isinstance(rles, EncodedMasks)
    assert all(rle['size'] == [120, 160] for rle in rles)
    assert torch.equal(decoded(rles), masks)


@pytest.mark.parametrize(('batch_pixels', 'runs'), [(2**22, 2), (112 * 84, 3), (1, 4)])
def test_features_that_were_not_kept_are_computed_again(
    make, picture, unresized, batch_pixels, runs
):
    """The coarse level has 112 x 84 px; what was seen up to it fits, or nothing does."""
    batch = unresized(picture(160, 120))
    expected = found(make(), batch)
    model, counts = make(batch_pixels=batch_pixels), []
    model.backbone.register_forward_hook(lambda *args: counts.append(1))
    got = found(model, batch)
    assert torch.equal(got.bboxes, expected.bboxes)
    assert torch.equal(got.masks, expected.masks)
    assert set(got.levels.tolist()) == {0, 1}
    assert len(counts) == runs


def test_each_image_of_a_batch_has_its_own_masks(make, picture, unresized):
    model, images = make(), [picture(160, 120, 1), picture(90, 150, 2), picture(160, 120, 3)]
    for image, result in zip(images, model.test_step(unresized(*images))):
        got = result.pred_instances
        assert got.masks.shape == (len(got), *image.shape[:2])
        alone = found(model, unresized(image))
        torch.testing.assert_close(got.bboxes[:5], alone.bboxes[:5], atol=1e-2, rtol=1e-3)
        assert (got.masks[:5] != alone.masks[:5]).float().mean() < 1e-3


@pytest.mark.parametrize('family', MASKED)
def test_without_objects_there_are_no_masks(make, picture, unresized, family):
    model = make(family, merge_cfg=dict(score_thr=1.1))
    got = found(model, unresized(picture(160, 120)))
    assert got.masks.shape == (0, 120, 160)


def test_the_mask_head_is_the_detectors_own_again_afterwards(make, picture, unresized):
    model = make()
    head = model.roi_head.mask_head
    model.test_step(unresized(picture(160, 120)))
    assert model.roi_head.mask_head is head
    assert 'predict_by_feat' not in vars(head)


# Coarse to fine ----------------------------------------------------------------------------------


def test_with_a_threshold_of_zero_autofocus_has_the_masks_of_all_levels(make, picture, unresized):
    model = make()
    focus = make(
        type='AutoFocus', focus_head=dict(type='FocusHead', in_channels=32), thresholds=0.0
    )
    focus.load_state_dict(model.state_dict(), strict=False)
    focus._branch_is_known = True  # at random it says as much
    batch = unresized(picture(160, 120))
    got, expected = found(focus, batch), found(model, batch)
    assert torch.equal(got.bboxes, expected.bboxes)
    assert torch.equal(got.masks, expected.masks)


def test_masks_of_focus_chips_lie_in_their_boxes(make, picture, unresized):
    model = make(
        type='AutoFocus',
        focus_head=dict(type='FocusHead', in_channels=32),
        thresholds=0.5,
        dilation=1,
        min_chip_side=16,
        edge=0,
    )
    maps = torch.zeros(1, 12, 16)
    maps[0, 3, 3] = 0.9
    model.focus_head.predict = lambda *args: maps
    (result,) = model.test_step(unresized(picture(250, 180)))
    got = result.pred_instances
    ((x1, y1, x2, y2),) = result.focus_chips[0].tolist()
    assert 0 < x1 < x2 < 250
    fine = got[got.levels == 0]
    assert fine.masks.any()
    outside = fine.masks.any(dim=0)
    outside[int(y1) : int(y2) + 1, int(x1) : int(x2) + 1] = False
    assert not outside.any()


@pytest.mark.parametrize(
    ('box', 'corner', 'shape'),
    [
        ([10.2, 5.5, 20.8, 9.0], (9, 4), (6, 13)),
        ([10.0, 5.0, 20.0, 9.0], (9, 4), (6, 12)),
        ([0.0, 0.0, 50.0, 30.0], (0, 0), (30, 50)),
        ([49.5, 29.5, 50.0, 30.0], (48, 28), (2, 2)),
        ([60.0, 40.0, 70.0, 50.0], (49, 29), (1, 1)),  # beyond the image of 50x30 px
        ([-20.0, -10.0, -5.0, -3.0], (0, 0), (1, 1)),
        ([20.0, 10.0, 10.0, 5.0], (19, 9), (1, 1)),  # inside out
    ],
)
def test_a_mask_is_pasted_into_a_picture_of_its_object_inside_the_image(box, corner, shape):
    assert prediction_module._picture_of(box, 30, 50) == (corner, shape)
