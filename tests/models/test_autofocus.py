"""Coarse-to-fine inference: equal to the full pyramid, to the coarse level, or between the two."""

import copy

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.config import ConfigDict
from mmengine.dataset import Compose, pseudo_collate
from mmengine.hub import get_config
from mmengine.structures import InstanceData

import mmsniper.datasets  # noqa: F401
from mmsniper.chips.windows import Window
from mmsniper.models import AutoFocus, SNIPERTTAModel, autofocus
from mmsniper.models.focus_windows import uncut
from mmsniper.models.temporary_settings import fewer_proposals, view_settings

PYRAMID = dict(
    chip_size=64,
    levels=[
        dict(resize=dict(factor=1.0), valid_range=(0, 60)),
        dict(resize=dict(factor=0.5), valid_range=(20, 160)),
        dict(resize=dict(factor=0.25), valid_range=(60, None)),
    ],
)
SOFT = dict(type='soft_nms', method='gaussian', sigma=0.55, min_score=0.001)
MERGE = dict(nms=SOFT, max_per_img=100)
VIEW = dict(rcnn=dict(score_thr=0.0, nms=None, max_per_img=50))


@pytest.fixture
def make(small_config, build):
    """An AutoFocus of a small detector with random weights."""

    def make_(head=True, pyramid=PYRAMID, name='faster', **settings):
        focus_head = dict(type='FocusHead', in_channels=8, feat_channels=8) if head else None
        settings = {**dict(tta_cfg=MERGE, view_test_cfg=VIEW), **settings}
        model = build(
            dict(
                type='AutoFocus',
                detector=small_config(name),
                pyramid=pyramid,
                focus_head=focus_head,
                **settings,
            )
        )
        return model.eval()

    return make_


def picture(width=230, height=190, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 3)


def unresized(*images):
    pack = Compose([dict(type='PackDetInputs')])
    return pseudo_collate(
        [
            pack(
                dict(
                    img=image,
                    img_shape=image.shape[:2],
                    ori_shape=image.shape[:2],
                    img_path='x.jpg',
                    img_id=i,
                )
            )
            for i, image in enumerate(images)
        ]
    )


def full_pyramid(model, image):
    """What ``tools/test.py --tta`` does with the same detector."""
    pipeline = Compose(
        [
            dict(
                type='TestTimeAug',
                transforms=[
                    [
                        dict(type='LevelResize', pyramid=PYRAMID, level=level, test=True)
                        for level in range(3)
                    ],
                    [dict(type='RandomFlip', prob=0.0)],
                    [
                        dict(
                            type='PackDetInputs',
                            meta_keys=(
                                'ori_shape',
                                'img_shape',
                                'scale_factor',
                                'flip',
                                'flip_direction',
                            ),
                        )
                    ],
                ],
            )
        ]
    )
    tta = SNIPERTTAModel(PYRAMID, MERGE, model)
    views = pipeline(dict(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2]))
    with torch.no_grad():
        return tta.test_step(pseudo_collate([views]))[0].pred_instances


def same(a, b):
    return (
        torch.equal(a.bboxes, b.bboxes)
        and torch.equal(a.scores, b.scores)
        and torch.equal(a.labels, b.labels)
    )


def all_views(model):
    """The detector as it is while chips are seen."""
    model.detector.roi_head.test_cfg.update(VIEW['rcnn'])
    return model.detector


# The two ends of the curve -----------------------------------------------------------------------


@pytest.mark.parametrize('size', [(201, 199), (333, 127), (250, 350), (77, 421)])
def test_edges_of_the_image_are_no_edges_of_a_chip_whatever_its_size(make, size):
    """A scale that does not divide the size must not move the chip's edge off the image's."""
    model, image = make(thresholds=0.0), picture(*size)
    (result,) = model.test_step(unresized(image))
    assert [chips.tolist() for chips in result.focus_chips] == [[[0, 0, *size]]] * 3
    assert same(result.pred_instances, full_pyramid(all_views(model), image))


@pytest.mark.parametrize('head', [True, False], ids=['head', 'detections'])
def test_with_a_threshold_of_zero_it_is_the_full_pyramid(make, head):
    model, image = make(head, thresholds=0.0), picture()
    (result,) = model.test_step(unresized(image))
    assert len(result.pred_instances) > 5
    assert same(result.pred_instances, full_pyramid(all_views(model), image))
    assert [chips.tolist() for chips in result.focus_chips] == [[[0, 0, 230, 190]]] * 3
    # 230 x 190, 115 x 95, and rounded 58 x 48
    assert result.focus_pixels == 230 * 190 + 115 * 95 + 58 * 48


def test_with_a_threshold_above_one_it_is_the_coarse_level_alone(make):
    model, image = make(thresholds=1.1), picture()
    (result,) = model.test_step(unresized(image))
    assert result.focus_pixels == 58 * 48
    assert [len(chips) for chips in result.focus_chips] == [0, 0, 1]
    boxes = result.pred_instances.bboxes
    size = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).sqrt()
    assert len(boxes)
    assert (size >= 60).all()


def at_cells(model, *cells):
    """Let the branch fire at the given (row, column) of the coarsest map, and nowhere after."""
    calls = []

    def predict(feats, shape, level):
        rows, columns = (-(-side // 16) for side in shape)
        maps = torch.zeros(len(feats[0]), rows, columns)
        if not calls:
            for row, column in cells:
                maps[:, row, column] = 0.9
        calls.append(shape)
        return maps

    model.focus_head.predict = predict
    return calls


def test_it_looks_again_only_where_the_branch_fires(make):
    model = make(thresholds=0.5, dilation=1, min_chip_side=16)
    at_cells(model, (0, 0))
    (result,) = model.test_step(unresized(picture(512, 512)))
    # A cell of 16 px at scale 1/4 is 64 original pixels, twice as large as a chip must be.
    assert result.focus_chips[1].tolist() == [[0, 0, 64, 64]]
    assert len(result.focus_chips[0]) == 0
    assert result.focus_pixels == 128 * 128 + 32 * 32
    boxes = result.pred_instances.bboxes
    fine = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).sqrt() < 60
    assert (boxes[fine] <= 64).all()


def test_chips_are_as_large_as_the_detector_was_trained_on(make):
    model = make(thresholds=0.5, dilation=1)
    at_cells(model, (3, 3))
    (result,) = model.test_step(unresized(picture(512, 512)))
    # The chip size, 64 px, at scale 1/2.
    assert result.focus_chips[1].tolist() == [[192 - 32, 192 - 32, 256 + 32, 256 + 32]]


# Images, batches, windows ------------------------------------------------------------------------


def test_images_of_several_sizes_in_a_batch_have_the_results_they_have_alone(make):
    model = make(thresholds=0.3)
    images = [picture(230, 190, 1), picture(100, 300, 2), picture(20, 17, 3), picture(230, 190, 4)]
    together = model.test_step(unresized(*images))
    for image, result in zip(images, together):
        (alone,) = model.test_step(unresized(image))
        assert result.focus_pixels == alone.focus_pixels
        assert result.img_shape == image.shape[:2]
        torch.testing.assert_close(
            result.pred_instances.bboxes, alone.pred_instances.bboxes, atol=1e-2, rtol=1e-3
        )


def test_chips_of_one_size_are_seen_together_up_to_a_number_of_pixels(make):
    model = make(thresholds=0.0, batch_pixels=2 * 256 * 192)
    seen = []
    forward = model.data_preprocessor.forward
    model.data_preprocessor.forward = lambda data, training: (
        seen.append(len(data['inputs'])),
        forward(data, training),
    )[1]
    model.test_step(unresized(*[picture(230, 190, i) for i in range(3)]))
    assert seen == [3, 3, 2, 1]


def test_an_image_smaller_than_a_chip(make):
    model = make(thresholds=0.0)
    (result,) = model.test_step(unresized(picture(9, 5)))
    assert all(chips.tolist() == [[0, 0, 9, 5]] for chips in result.focus_chips)


def test_an_image_without_detections(make):
    model = make(thresholds=0.0, view_test_cfg=dict(rcnn=dict(score_thr=1.1)))
    (result,) = model.test_step(unresized(picture()))
    assert len(result.pred_instances) == 0
    assert result.pred_instances.bboxes.shape == (0, 4)


def test_large_images_are_seen_in_windows(make):
    model = make(thresholds=0.0, window_size=96)
    shapes = []
    forward = model.data_preprocessor.forward
    model.data_preprocessor.forward = lambda data, training: (
        shapes.extend(x.shape[-2:] for x in data['inputs']),
        forward(data, training),
    )[1]
    (result,) = model.test_step(unresized(picture(400, 300)))
    assert max(max(shape) for shape in shapes) <= 97  # windows in whole pixels
    assert result.focus_pixels > 400 * 300
    boxes = result.pred_instances.bboxes
    assert (boxes[:, 2] > 350).any()
    assert (boxes >= 0).all()


def test_a_detection_in_two_windows_counts_in_one(make):
    model = make()
    instances = InstanceData(
        bboxes=torch.tensor([[40.0, 10, 60, 30]]),
        scores=torch.ones(1),
        labels=torch.zeros(1).long(),
    )
    windows = [
        Window(0, 0, (0, 0, 80, 40), (0, 0, 50, 40), (40, 80)),
        Window(0, 0, (20, 0, 100, 40), (50, 0, 100, 40), (40, 80)),
    ]
    kept = [len(model._keep(instances, window, (100, 40))) for window in windows]
    assert kept == [0, 1]


# Detections at edges -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('box', 'kept'),
    [
        ([30, 30, 50, 50], True),
        ([20, 30, 50, 50], False),  # at the left edge of the chip
        ([24, 30, 50, 50], False),  # within 5 px of it
        ([26, 30, 50, 50], True),
        ([30, 0, 50, 50], True),  # the top edge is that of the image
        ([30, 30, 79, 50], False),
        ([30, 30, 50, 60], True),  # the bottom edge, too
    ],
)
def test_what_an_edge_cuts_is_dropped_unless_the_edge_is_the_images(box, kept):
    window, size = (20, 0, 80, 60), (200, 60)
    assert uncut(torch.tensor([box]).float(), window, size, 5).tolist() == [kept]


COORDINATE = st.integers(0, 100)


@given(st.tuples(*[COORDINATE] * 4), st.tuples(*[COORDINATE] * 4), st.integers(0, 12))
@settings(max_examples=300, deadline=None)
def test_no_detection_that_survives_is_cut(window, box, edge):
    (a, b, c, d), (x1, y1, x2, y2) = window, box
    window = (min(a, c), min(b, d), max(a, c) + 1, max(b, d) + 1)
    size = (101, 101)
    # As seen in the window: cropped to it.
    low, high = np.array(window[:2]), np.array(window[2:])
    corner = np.clip([min(x1, x2), min(y1, y2)], low, high)
    end = np.clip([max(x1, x2), max(y1, y2)], low, high)
    seen = torch.tensor([[*corner, *end]]).float()
    was_cut = (
        min(x1, x2) < window[0]
        or min(y1, y2) < window[1]
        or (max(x1, x2) > window[2] or max(y1, y2) > window[3])
    )
    survives = bool(uncut(seen, window, size, edge))
    if was_cut:
        assert not survives
    distances = [
        seen[0, 0] - window[0],
        seen[0, 1] - window[1],
        window[2] - seen[0, 2],
        window[3] - seen[0, 3],
    ]
    inner = [window[0] > 0, window[1] > 0, window[2] < 101, window[3] < 101]
    assert survives == all(not i or d > edge for i, d in zip(inner, distances))


def test_levels_keep_what_is_in_their_test_range(make):
    model = make()
    sides = [10, 59, 60, 159, 160]
    boxes = torch.tensor([[0.0, 0, side, side] for side in sides])
    instances = InstanceData(bboxes=boxes, scores=torch.ones(5), labels=torch.zeros(5).long())
    whole = (0, 0, 500, 500)
    windows = [Window(0, level, whole, whole, (500, 500)) for level in range(3)]
    kept = [model._keep(instances, w, (500, 500)).bboxes[:, 2].tolist() for w in windows]
    assert kept == [[10, 59], [59, 60, 159], [60, 159, 160]]


# Without a branch --------------------------------------------------------------------------------


def test_without_a_branch_the_scores_of_small_detections_tell_where_to_look(make):
    model = make(head=False, thresholds=0.5, dilation=1, min_chip_side=16, edge=0)

    def predict(inputs, samples, rescale):
        for sample in samples:
            # In original pixels; at scale 1/4 these are 10, 10 and 80 px.
            sample.pred_instances = InstanceData(
                bboxes=torch.tensor(
                    [[70.0, 70, 110, 110], [300, 300, 340, 340], [100, 100, 420, 420]]
                ),
                scores=torch.tensor([0.6, 0.4, 0.9]),
                labels=torch.zeros(3).long(),
            )
        return samples

    model.detector.predict = predict
    (result,) = model.test_step(unresized(picture(512, 512)))
    assert result.focus_chips[1].tolist() == [[64, 64, 128, 128]]


@pytest.mark.parametrize(
    ('sides', 'expected'), [((100, 159), [1, 1]), ((100, 160), [1, 0]), ((19, 300), [1, 0])]
)
def test_small_are_those_that_the_next_finer_level_has(make, sides, expected):
    """Of 160 px and more there are none at the middle level, see PYRAMID."""
    model = make(head=False)
    result = DetDataSample(metainfo=dict(scale_factor=(0.25, 0.25)))
    result.pred_instances = InstanceData(
        bboxes=torch.tensor([[0.0, 0, sides[0], sides[0]], [640, 0, 640 + sides[1], sides[1]]]),
        scores=torch.ones(2),
    )
    (grid,) = model._probabilities([], (256, 256), [result], level=2)
    assert [grid[0, 0], grid[0, 10]] == expected
    model.small = (5, 64)  # input pixels: 20 to 256 px
    (grid,) = model._probabilities([], (256, 256), [result], level=2)
    assert [grid[0, 0], grid[0, 10]] == [20 < side < 256 for side in sides]


# Training ----------------------------------------------------------------------------------------


def training_data(count=2):
    data = unresized(*[picture(64, 64, i) for i in range(count)])
    for sample in data['data_samples']:
        sample.set_metainfo(dict(scale_factor=(1.0, 1.0)))
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor([[5.0, 5, 40, 40]]), labels=torch.tensor([1])
        )
        sample.ignored_instances = InstanceData(
            bboxes=torch.zeros(0, 4), labels=torch.zeros(0).long()
        )
    return data


def test_losses_are_those_of_the_detector_and_of_the_branch(make):
    model = make().train()
    data = model.data_preprocessor(training_data(), True)
    torch.manual_seed(0)
    losses = model(**data, mode='loss')
    torch.manual_seed(0)
    alone = model.detector(**copy.deepcopy(data), mode='loss')
    assert set(losses) - set(alone) == {'loss_focus', 'focus_recall', 'focus_precision'}
    assert all(
        torch.equal(torch.as_tensor(losses[k]), torch.as_tensor(alone[k]))
        for k in ('loss_cls', 'loss_bbox')
    )
    total, logged = model.parse_losses(losses)
    total.backward()
    assert model.focus_head.conv.conv.weight.grad.abs().sum() > 0
    assert model.detector.neck.fpn_convs[0].conv.weight.grad is not None
    assert 'focus_recall' in logged


def test_the_branch_teaches_the_backbone(make):
    model = make().train()
    data = model.data_preprocessor(training_data(), True)
    model(**data, mode='loss')['loss_focus'].backward()
    assert model.detector.neck.fpn_convs[2].conv.weight.grad.abs().sum() > 0


def test_the_hook_on_the_features_does_not_stay(make):
    model = make()
    model.test_step(unresized(picture()))
    assert not model.detector.neck._forward_hooks


# Inputs that a pipeline has resized --------------------------------------------------------------


def test_resized_inputs_are_detected_as_they_are(make):
    """Validation at one scale, and the views of SNIPERTTAModel."""
    model = make()
    data = training_data()
    found = model.test_step(copy.deepcopy(data))
    detector = model.detector
    ready = model.data_preprocessor(data, False)
    alone = detector.predict(ready['inputs'], ready['data_samples'])
    assert all(same(a.pred_instances, b.pred_instances) for a, b in zip(found, alone))
    assert same(full_pyramid(model, picture()), full_pyramid(model.detector, picture()))


# Checkpoints and settings ------------------------------------------------------------------------


def test_ground_truth_comes_out_as_of_any_detector(make):
    """Metrics and visualizers take its boxes for tensors."""
    data = unresized(picture())
    (sample,) = data['data_samples']
    sample.gt_instances = InstanceData(
        bboxes=HorizontalBoxes([[5.0, 5, 40, 40]]), labels=torch.tensor([1])
    )
    (result,) = make().test_step(data)
    assert type(result.gt_instances.bboxes) is torch.Tensor
    assert result.gt_instances.bboxes.tolist() == [[5, 5, 40, 40]]


def test_weights_of_the_detector_alone_are_taken(make):
    model, other = make(), make()
    for p in other.parameters():
        torch.nn.init.normal_(p)
    missing = other.load_state_dict(model.detector.state_dict(), strict=False)
    assert not missing.unexpected_keys
    assert all(key.startswith('focus_head.') for key in missing.missing_keys)
    assert torch.equal(other.detector.backbone.conv1.weight, model.detector.backbone.conv1.weight)


def test_its_own_weights_are_taken(make):
    model, other = make(), make()
    torch.nn.init.normal_(model.focus_head.cls.weight)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.focus_head.cls.weight, model.focus_head.cls.weight)


def test_the_settings_of_the_detector_are_its_own_again_afterwards(make):
    model = make()
    before = copy.deepcopy(model.detector.roi_head.test_cfg)
    model.test_step(unresized(picture()))
    assert model.detector.roi_head.test_cfg == before


def test_the_rpn_and_the_rcnn_have_their_part_of_the_settings_of_views(make):
    model = make(view_test_cfg=dict(rpn=dict(max_per_img=5), rcnn=dict(score_thr=0.9)))
    rpn, rcnn = model.detector.rpn_head, model.detector.roi_head
    before = copy.deepcopy(rpn.test_cfg), copy.deepcopy(rcnn.test_cfg)
    with view_settings(model.detector, model.view_test_cfg):
        assert (rpn.test_cfg.max_per_img, rcnn.test_cfg.score_thr) == (5, 0.9)
        assert rpn.test_cfg.nms_pre == before[0].nms_pre
        with fewer_proposals(model.detector, 0.5, model.min_rpn_proposals):
            assert rpn.test_cfg.max_per_img == 5  # without min_rpn_proposals they are not shared
    assert (rpn.test_cfg, rcnn.test_cfg) == before


def test_masks_are_not_predicted_and_the_mask_head_stays(make):
    view = dict(rcnn=dict(score_thr=0.0, max_per_img=5))
    model = make(name='mask', thresholds=0.0, view_test_cfg=view)
    head = model.detector.roi_head.mask_head
    (result,) = model.test_step(unresized(picture()))
    assert 'masks' not in result.pred_instances
    assert model.detector.roi_head.mask_head is head


def test_it_can_be_tested_as_the_full_pyramid_by_its_config(small_config, build):
    """As ``tools/test.py --tta`` builds it."""
    module = dict(type='AutoFocus', detector=small_config('faster'), pyramid=PYRAMID)
    tta = build(
        dict(
            type='SNIPERTTAModel', pyramid=PYRAMID, tta_cfg=MERGE, view_test_cfg=VIEW, module=module
        )
    )
    assert tta.module.detector.roi_head.test_cfg.max_per_img == 50


@pytest.mark.parametrize(
    ('thresholds', 'expected'), [(None, (0.02, 0.2)), (0.1, (0.1, 0.1)), ((0.3, 0.4), (0.3, 0.4))]
)
def test_there_is_a_threshold_for_each_step(make, thresholds, expected):
    assert make(thresholds=thresholds).thresholds == expected


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(thresholds=(0.1,)), 'each of the 2 steps'),
        (dict(thresholds=-1), 'at least 0'),
        (dict(window_size=64), 'window_size 64 must exceed the chip size, 64'),
    ],
)
def test_settings_that_cannot_be_are_refused(make, change, message):
    with pytest.raises(ValueError, match=message):
        make(**change)


def test_a_detector_without_a_preprocessor_is_refused(small_config):
    config = small_config('faster')
    config.pop('data_preprocessor')
    with pytest.raises(ValueError, match='needs its data_preprocessor'):
        AutoFocus(config, PYRAMID)


@pytest.mark.parametrize(
    ('share', 'number', 'before'), [(1.0, 30, 60), (0.5, 15, 30), (0.01, 7, 14)]
)
def test_a_chip_gets_its_share_of_proposals_but_at_least_so_many(make, share, number, before):
    model = make(min_rpn_proposals=7)
    head = model.detector.rpn_head
    own = head.test_cfg = ConfigDict({**head.test_cfg, 'max_per_img': 30, 'nms_pre': 60})
    with fewer_proposals(model.detector, share, model.min_rpn_proposals):
        assert (head.test_cfg.max_per_img, head.test_cfg.nms_pre) == (number, before)
    assert head.test_cfg is own


def test_the_share_of_proposals_goes_by_the_areas_of_the_chips(make, monkeypatch):
    model, shares = make(thresholds=0.0, min_rpn_proposals=1, window_size=100), []
    monkeypatch.setattr(
        autofocus,
        'fewer_proposals',
        lambda detector, share, least: (
            shares.append((share, least)),
            fewer_proposals(detector, share, least),
        )[1],
    )
    model.test_step(unresized(picture(200, 100)))
    # Whole at the coarse and the middle level, at the finest in windows of 100 px, half of it.
    assert [share for share, _ in shares] == pytest.approx([1.0, 1.0, 0.5])
    assert {least for _, least in shares} == {1}


def test_without_min_rpn_proposals_each_chip_gets_all(make):
    model = make()
    own = model.detector.rpn_head.test_cfg
    with fewer_proposals(model.detector, 0.1, model.min_rpn_proposals):
        assert model.detector.rpn_head.test_cfg is own


def test_min_rpn_proposals_need_an_rpn(build):
    detector = get_config('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py').model
    detector.backbone.update(depth=18, base_channels=8, init_cfg=None)
    detector.neck.update(in_channels=[8, 16, 32, 64])
    with pytest.raises(ValueError, match='RetinaNet has none'):
        build(dict(type='AutoFocus', detector=detector, pyramid=PYRAMID, min_rpn_proposals=10))


def test_min_rpn_proposals_are_positive(make):
    with pytest.raises(ValueError, match='at least 1, got 0'):
        make(min_rpn_proposals=0)
