"""Coarse-to-fine inference: equal to the full pyramid, to the coarse level, or between the two."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.dataset import pseudo_collate
from mmengine.structures import InstanceData

from mmsniper.models import AutoFocus, PyramidDetector, autofocus, pyramid_detector
from mmsniper.models.temporary_settings import fewer_proposals
from mmsniper.models.views import uncut

PYRAMID = dict(
    chip_size=64,
    levels=[
        dict(resize=dict(factor=1.0), valid_range=(0, 60)),
        dict(resize=dict(factor=0.5), valid_range=(20, 160)),
        dict(resize=dict(factor=0.25), valid_range=(60, None)),
    ],
)


@pytest.fixture
def config(small_config):
    """The config of an AutoFocus of a small detector."""

    def config_(head=True, pyramid=PYRAMID, name='faster', **settings):
        cfg = small_config(name)
        if head:
            cfg.focus_head = dict(type='FocusHead', in_channels=8, feat_channels=8)
        cfg.update(settings, type='AutoFocus', detector=cfg.type, pyramid=pyramid)
        return cfg

    return config_


@pytest.fixture
def make(config, build):
    """An AutoFocus of a small detector with random weights."""
    return lambda *args, **kwargs: build(config(*args, **kwargs)).eval()


@pytest.fixture
def full_pyramid(small_config):
    """What the same detector finds at all levels, seen whole."""

    def full_pyramid_(model, batch):
        cfg = small_config('faster')
        cfg.update(type='PyramidDetector', detector='FasterRCNN', pyramid=PYRAMID)
        detector = MODELS.build(cfg).eval()
        detector.load_state_dict(without_branch(model), strict=True)
        (result,) = detector.test_step(batch)
        return result.pred_instances

    return full_pyramid_


def without_branch(model):
    """The weights of the detector alone."""
    return {k: v for k, v in model.state_dict().items() if not k.startswith('focus_head.')}


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in ('bboxes', 'scores', 'labels'))


# The two ends of the curve -----------------------------------------------------------------------


@pytest.mark.parametrize('size', [(201, 199), (333, 127), (250, 350), (77, 421)])
def test_edges_of_the_image_are_no_edges_of_a_chip_whatever_its_size(
    make, full_pyramid, picture, unresized, size
):
    """A scale that does not divide the size must not move the chip's edge off the image's."""
    model, batch = make(thresholds=0.0), unresized(picture(*size))
    (result,) = model.test_step(batch)
    assert [chips.tolist() for chips in result.focus_chips] == [[[0, 0, *size]]] * 3
    assert same(result.pred_instances, full_pyramid(model, batch))


@pytest.mark.parametrize('head', [True, False], ids=['head', 'detections'])
def test_with_a_threshold_of_zero_it_is_the_full_pyramid(
    make, full_pyramid, picture, unresized, head
):
    model, batch = make(head, thresholds=0.0), unresized(picture())
    (result,) = model.test_step(batch)
    assert len(result.pred_instances) > 5
    assert same(result.pred_instances, full_pyramid(model, batch))
    assert [chips.tolist() for chips in result.focus_chips] == [[[0, 0, 230, 190]]] * 3
    # 230 x 190, 115 x 95, and rounded 58 x 48
    assert result.focus_pixels == 230 * 190 + 115 * 95 + 58 * 48


def test_with_a_threshold_above_one_it_is_the_coarse_level_alone(make, picture, unresized):
    (result,) = make(thresholds=1.1).test_step(unresized(picture()))
    assert result.focus_pixels == 58 * 48
    assert [len(chips) for chips in result.focus_chips] == [0, 0, 1]
    boxes = result.pred_instances.bboxes
    assert len(boxes)
    assert ((boxes[:, 2:] - boxes[:, :2]).prod(dim=1).sqrt() >= 60).all()
    assert set(result.pred_instances.levels.tolist()) == {2}


def fire_at(model, *cells, levels=(2,)):
    """Let the branch fire at the given (row, column) of a map of these levels, with 0.9."""

    def predict(feats, shape, level):
        rows, columns = (-(-side // 16) for side in shape)
        maps = torch.zeros(len(feats[0]), rows, columns)
        if level in levels:
            for row, column in cells:
                maps[:, row, column] = 0.9
        return maps

    model.focus_head.predict = predict


def test_it_looks_again_only_where_the_branch_fires(make, picture, unresized):
    model = make(thresholds=0.5, dilation=1, min_chip_side=16)
    fire_at(model, (0, 0))
    (result,) = model.test_step(unresized(picture(512, 512)))
    # A cell of 16 px at scale 1/4 is 64 original pixels, twice as large as a chip must be.
    assert result.focus_chips[1].tolist() == [[0, 0, 64, 64]]
    assert len(result.focus_chips[0]) == 0
    assert result.focus_pixels == 128 * 128 + 32 * 32
    found = result.pred_instances
    assert set(found.levels.tolist()) == {1, 2}
    assert (found.bboxes[found.levels == 1] <= 64).all()


@pytest.mark.parametrize(('thresholds', 'chips'), [((0.5, 0.8), 1), ((0.5, 0.95), 0)])
def test_each_step_has_its_threshold(make, picture, unresized, thresholds, chips):
    model = make(thresholds=thresholds)
    fire_at(model, (3, 3), levels=(2, 1))
    (result,) = model.test_step(unresized(picture(512, 512)))
    assert [len(of_level) for of_level in result.focus_chips] == [chips, 1, 1]


def test_chips_are_as_large_as_the_detector_was_trained_on(make, picture, unresized):
    model = make(thresholds=0.5, dilation=1)
    fire_at(model, (3, 3))
    (result,) = model.test_step(unresized(picture(512, 512)))
    # The chip size, 64 px, at scale 1/2.
    assert result.focus_chips[1].tolist() == [[192 - 32, 192 - 32, 256 + 32, 256 + 32]]


def test_the_maps_are_kept_for_pictures(make, picture, unresized):
    model = make(thresholds=0.5, dilation=1)
    fire_at(model, (3, 3))
    batch = unresized(picture(512, 512))
    assert 'focus_maps' not in model.test_step(batch)[0]
    model.keep_maps = True
    (result,) = model.test_step(batch)
    assert [len(maps) for maps in result.focus_maps] == [0, 1, 1]
    (coarsest,) = result.focus_maps[2]
    assert np.argwhere(coarsest.probability).tolist() == [[3, 3]]


ONE_LEVEL = dict(chip_size=64, levels=PYRAMID['levels'][:1])


@pytest.mark.parametrize(
    ('pyramid', 'said'),
    [(PYRAMID, 'FocusPixels from 0.3, 0.5 on'), (ONE_LEVEL, 'AutoFocus changes nothing')],
    ids=['levels', 'one_level'],
)
def test_the_log_says_from_which_probability_on_it_looks_again_if_it_does(
    make, picture, unresized, monkeypatch, pyramid, said
):
    lines = []
    monkeypatch.setattr(pyramid_detector, 'print_log', lambda text, **_: lines.append(text))
    steps = (0.3, 0.5)[: len(pyramid['levels']) - 1]
    model = make(False, pyramid, thresholds=steps, val_levels=[len(steps)])
    (result,) = model.test_step(unresized(picture()))
    model.val_step(unresized(picture()))
    assert [len(chips) for chips in result.focus_chips][-1] == 1
    tested, validated = lines
    assert said in tested
    # Validation sees the coarsest level only: there is no step.
    assert validated.endswith('AutoFocus changes nothing: one level is seen, and that whole')


# Images, batches, windows ------------------------------------------------------------------------


def test_images_of_several_sizes_in_a_batch_have_the_results_they_have_alone(
    make, picture, unresized
):
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


def test_an_image_smaller_than_a_chip(make, picture, unresized):
    (result,) = make(thresholds=0.0).test_step(unresized(picture(9, 5)))
    assert all(chips.tolist() == [[0, 0, 9, 5]] for chips in result.focus_chips)


def test_an_image_without_detections(make, picture, unresized):
    model = make(thresholds=0.0, merge_cfg=dict(score_thr=1.1))
    (result,) = model.test_step(unresized(picture()))
    assert result.pred_instances.bboxes.shape == (0, 4)


def test_large_images_are_seen_in_windows(make, picture, unresized):
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


# Without a branch --------------------------------------------------------------------------------


def let_find(model, boxes, scores):
    """Let it find the same boxes, original pixels, at the coarsest level, and nothing after."""

    def predict(inputs, samples, rescale):
        model.extract_feat(inputs)
        for sample in samples:
            coarsest = sample.metainfo['scale_factor'][0] == 0.25
            sample.pred_instances = InstanceData(
                bboxes=torch.tensor(boxes).float(),
                scores=torch.tensor(scores),
                labels=torch.zeros(len(boxes)).long(),
            )[: len(boxes) if coarsest else 0]
        return samples

    model.predict = predict


def test_without_a_branch_the_scores_of_small_detections_tell_where_to_look(
    make, picture, unresized
):
    model = make(head=False, thresholds=0.5, dilation=1, min_chip_side=16)
    # At scale 1/4 these are 10, 10 and 80 px.
    boxes = [[70, 70, 110, 110], [300, 300, 340, 340], [100, 100, 420, 420]]
    let_find(model, boxes, [0.6, 0.4, 0.9])
    (result,) = model.test_step(unresized(picture(512, 512)))
    assert result.focus_chips[1].tolist() == [[64, 64, 128, 128]]
    assert result.pred_instances.bboxes.tolist() == [[100, 100, 420, 420]]


@pytest.mark.parametrize(
    ('side', 'small', 'chips'),
    [
        (159, None, 1),
        (160, None, 0),  # of 160 px and more there are none at the middle level, see PYRAMID
        (300, None, 0),
        (19, None, 1),
        (19, (5, 64), 0),  # at scale 1/4: 20 to 256 px
        (21, (5, 64), 1),
        (255, (5, 64), 1),
        (257, (5, 64), 0),
    ],
)
def test_small_are_those_that_the_next_finer_level_has(
    make, picture, unresized, side, small, chips
):
    model = make(head=False, thresholds=0.5, small=small)
    let_find(model, [[100, 100, 100 + side, 100 + side]], [0.9])
    (result,) = model.test_step(unresized(picture(512, 512)))
    assert len(result.focus_chips[1]) == chips


# Validation --------------------------------------------------------------------------------------


def test_validation_goes_down_to_its_finest_level(make, picture, unresized):
    model = make(thresholds=0.0, val_levels=[2, 1])
    (result,) = model.val_step(unresized(picture()))
    assert result.focus_pixels == 115 * 95 + 58 * 48
    assert set(result.pred_instances.levels.tolist()) == {1, 2}
    (result,) = model.test_step(unresized(picture()))
    assert result.focus_pixels == 230 * 190 + 115 * 95 + 58 * 48


@pytest.mark.parametrize('levels', [[0], [0, 1], [0, 2]])
def test_validation_must_not_leave_out_a_level_on_the_way(make, levels):
    with pytest.raises(ValueError, match='must not leave one out'):
        make(val_levels=levels)


def test_resized_images_are_detected_as_they_are(make):
    model, data = make(), training_data()
    found = model.test_step(copy.deepcopy(data))
    ready = model.data_preprocessor(data, False)
    with torch.no_grad():
        alone = model.predict(ready['inputs'], ready['data_samples'])
    assert all(same(a.pred_instances, b.pred_instances) for a, b in zip(found, alone))
    assert 'focus_chips' not in found[0]


# Training ----------------------------------------------------------------------------------------


def training_data():
    rng, images, samples = np.random.default_rng(0), [], []
    for _ in range(2):
        info = dict(img_shape=(64, 64), ori_shape=(64, 64), scale_factor=(1.0, 1.0))
        sample = DetDataSample(metainfo=info)
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor([[5.0, 5, 40, 40]]), labels=torch.tensor([1])
        )
        sample.ignored_instances = InstanceData(
            bboxes=torch.zeros(0, 4), labels=torch.zeros(0).long()
        )
        images.append(torch.from_numpy(rng.integers(0, 256, (3, 64, 64), np.uint8)))
        samples.append(sample)
    return pseudo_collate([dict(inputs=i, data_samples=s) for i, s in zip(images, samples)])


def test_losses_are_those_of_the_detector_and_of_the_branch(make, small_config):
    model = make().train()
    detector = MODELS.build(small_config('faster')).train()
    detector.load_state_dict(without_branch(model), strict=True)
    data = model.data_preprocessor(training_data(), True)
    losses = []
    for trained in (model, detector):
        torch.manual_seed(0)
        losses.append(trained(**copy.deepcopy(data), mode='loss'))
    both, alone = losses
    assert set(both) - set(alone) == {'loss_focus', 'focus_recall', 'focus_precision'}
    assert all(torch.equal(both[key], alone[key]) for key in ('loss_cls', 'loss_bbox'))
    total, logged = model.parse_losses(both)
    total.backward()
    assert model.focus_head.conv.conv.weight.grad.abs().sum() > 0
    assert model.neck.fpn_convs[0].conv.weight.grad is not None
    assert 'focus_recall' in logged


def test_the_branch_teaches_the_backbone(make):
    model = make().train()
    data = model.data_preprocessor(training_data(), True)
    model(**data, mode='loss')['loss_focus'].backward()
    assert model.neck.fpn_convs[2].conv.weight.grad.abs().sum() > 0


def test_without_a_branch_it_is_trained_as_the_detector(make):
    model = make(head=False).train()
    losses = model(**model.data_preprocessor(training_data(), True), mode='loss')
    assert not any('focus' in key for key in losses)


def test_the_hook_on_the_features_does_not_stay(make, picture, unresized):
    model = make()
    model.test_step(unresized(picture()))
    model(**model.data_preprocessor(training_data(), True), mode='loss')
    assert not model.neck._forward_hooks


# Weights -----------------------------------------------------------------------------------------


def test_its_weights_are_the_detectors_and_the_branchs(make, small_config):
    model, detector = make(), MODELS.build(small_config('faster'))
    assert isinstance(model, AutoFocus)
    assert isinstance(model, PyramidDetector)
    assert isinstance(model, type(detector))
    assert set(without_branch(model)) == set(detector.state_dict())
    branch = set(model.state_dict()) - set(detector.state_dict())
    assert branch == {f'focus_head.{key}' for key in model.focus_head.state_dict()}
    assert set(make(head=False).state_dict()) == set(detector.state_dict())


def wrapped(model):
    """As of a model in another one, such as a moving average."""
    return torch.nn.ModuleDict(dict(module=model))


@pytest.mark.parametrize('wrap', [lambda model: model, wrapped], ids=['alone', 'wrapped'])
def test_weights_of_the_detector_alone_are_not_tested(make, picture, unresized, wrap):
    model, other, batch = make(), make(), unresized(picture())
    weights = wrap(model).state_dict()
    alone = {key: value for key, value in weights.items() if 'focus_head.' not in key}
    missing = wrap(other).load_state_dict(alone, strict=False)
    assert not missing.unexpected_keys
    for step in (other.test_step, other.val_step, copy.deepcopy(other).test_step):
        with pytest.raises(ValueError, match=r'no focus_head\.\*.*model.focus_head=None'):
            step(batch)
    wrap(other).load_state_dict(wrap(model).state_dict())
    (expected,), (got,) = model.test_step(batch), other.test_step(batch)
    assert same(got.pred_instances, expected.pred_instances)


def test_weights_of_the_detector_alone_are_trained_and_then_tested(make, picture, unresized):
    model = make()
    model.load_state_dict(without_branch(make()), strict=False)
    model.train()(**model.data_preprocessor(training_data(), True), mode='loss')
    assert len(model.eval().test_step(unresized(picture()))) == 1


def test_without_a_branch_weights_of_the_detector_are_tested(make, picture, unresized):
    model = make(head=False)
    model.load_state_dict(without_branch(make()), strict=True)
    assert len(model.test_step(unresized(picture()))) == 1


# Settings ----------------------------------------------------------------------------------------


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
        (dict(min_rpn_proposals=0), 'at least 1, got 0'),
    ],
)
def test_settings_that_cannot_be_are_refused(make, change, message):
    with pytest.raises(ValueError, match=message):
        make(**change)


def test_min_rpn_proposals_need_an_rpn(at_levels):
    with pytest.raises(ValueError, match='RetinaNet has none'):
        at_levels('RetinaNet', PYRAMID, type='AutoFocus', min_rpn_proposals=10)


@pytest.mark.parametrize(
    ('share', 'number', 'before'), [(1.0, 30, 60), (0.5, 15, 30), (0.01, 7, 14)]
)
def test_a_chip_gets_its_share_of_proposals_but_at_least_so_many(make, share, number, before):
    model = make(min_rpn_proposals=7)
    head = model.rpn_head
    own = head.test_cfg = ConfigDict({**head.test_cfg, 'max_per_img': 30, 'nms_pre': 60})
    with fewer_proposals(model, share, model.min_rpn_proposals):
        assert (head.test_cfg.max_per_img, head.test_cfg.nms_pre) == (number, before)
    assert head.test_cfg is own


def test_without_min_rpn_proposals_each_chip_gets_all(make):
    model = make()
    own = model.rpn_head.test_cfg
    with fewer_proposals(model, 0.1, model.min_rpn_proposals):
        assert model.rpn_head.test_cfg is own


def test_the_share_of_proposals_goes_by_the_areas_of_the_chips(
    make, picture, unresized, monkeypatch
):
    """And is a share of what a level has."""
    settings = dict(min_rpn_proposals=1, level_rpn=dict(max_per_img=40))
    model, shares, numbers = make(thresholds=0.0, window_size=100, **settings), [], []
    monkeypatch.setattr(
        autofocus,
        'fewer_proposals',
        lambda detector, share, least: (
            shares.append((share, least)),
            fewer_proposals(detector, share, least),
        )[1],
    )
    predict = model.rpn_head.predict
    model.rpn_head.predict = lambda *args, **kwargs: (
        numbers.append(model.rpn_head.test_cfg.max_per_img),
        predict(*args, **kwargs),
    )[1]
    model.test_step(unresized(picture(200, 100)))
    # Whole at the coarse and the middle level, at the finest in windows of 100 px, half of it.
    assert [share for share, _ in shares] == pytest.approx([1.0, 1.0, 0.5])
    assert {least for _, least in shares} == {1}
    assert numbers == [40, 40, pytest.approx(20, abs=1)]  # rounded up
