"""What detectors that are tested at all levels do where their config does not say it."""

import pytest

from mmsniper.models.autofocus import step_thresholds

PYRAMID = dict(
    chip_size=64,
    levels=[
        dict(resize=dict(factor=2.0), valid_range=(0, 50)),
        dict(resize=dict(factor=1.0), valid_range=(30, None)),
    ],
)
SOFT_NMS = dict(type='soft_nms', method='gaussian', sigma=0.55, min_score=0.001)


@pytest.mark.parametrize(
    ('given', 'steps', 'expected'),
    [
        (None, 0, ()),
        (None, 1, (0.02,)),
        (None, 2, (0.02, 0.2)),
        (None, 3, (0.02, 0.02, 0.2)),
        (0.1, 0, ()),
        (0.1, 3, (0.1, 0.1, 0.1)),
        (0, 1, (0.0,)),
        ((0.3, 0.4), 2, (0.3, 0.4)),
    ],
)
def test_thresholds_of_the_steps(given, steps, expected):
    assert step_thresholds(given, steps) == expected


@pytest.mark.parametrize(
    ('given', 'steps'), [((0.1,), 2), ((0.1, 0.2), 1), (-0.1, 1), ((0.1, -0.1), 2)]
)
def test_thresholds_that_do_not_fit_the_steps_are_refused(given, steps):
    with pytest.raises(ValueError, match=f'for each of the {steps} steps'):
        step_thresholds(given, steps)


def test_the_settings_of_a_config_that_has_none(at_levels):
    model = at_levels('RetinaNet', PYRAMID)
    assert model.merge_cfg == dict(score_thr=0.001, nms_pre=1000, nms=SOFT_NMS, max_per_img=100)
    assert (model.window_size, model.batch_pixels, model.edge) == (2048, 2048**2, 10)
    assert model.val_levels == (0, 1)
    assert model.level_rpn is None


@pytest.mark.parametrize(
    ('most', 'nms_pre', 'max_per_img'),
    [(300, 1000, 300), (1000, 1000, 1000), (3000, 3000, 3000), (-1, 1000, None)],
)
def test_as_many_are_merged_as_the_detector_finds_in_an_image(
    at_levels, family_config, most, nms_pre, max_per_img
):
    test_cfg = dict(family_config('RetinaNet').test_cfg, max_per_img=most)
    merge = at_levels('RetinaNet', PYRAMID, test_cfg=test_cfg).merge_cfg
    assert (merge.nms_pre, merge.max_per_img) == (nms_pre, max_per_img)


@pytest.mark.parametrize(('given', 'kept'), [(0, 0), (None, None), (-1, None), (5, 5)])
def test_below_0_and_none_are_without_a_limit(at_levels, given, kept):
    merge = at_levels(
        'RetinaNet', PYRAMID, merge_cfg=dict(nms_pre=given, max_per_img=given)
    ).merge_cfg
    assert (merge.nms_pre, merge.max_per_img) == (kept, kept)


def test_the_nms_of_the_merge_is_a_dict_or_none(at_levels):
    """``--cfg-options model.merge_cfg.nms=soft_nms`` is not, and ``...nms.type=soft_nms`` is."""
    with pytest.raises(ValueError, match=r"nms must be a dict, such as .*, got 'soft_nms'"):
        at_levels('RetinaNet', PYRAMID, merge_cfg=dict(nms='soft_nms'))
    assert at_levels('RetinaNet', PYRAMID, merge_cfg=dict(nms=None)).merge_cfg.nms is None


def test_an_option_of_the_merge_that_there_is_not_is_refused(at_levels):
    with pytest.raises(ValueError, match=r"merge_cfg has no option \['max_per_image'\].*'nms'"):
        at_levels('RetinaNet', PYRAMID, merge_cfg=dict(max_per_image=5, nms_pre=3))


@pytest.mark.parametrize(
    ('given', 'levels'), [(1, (1,)), (0, (0,)), ([1, 0, 1], (0, 1)), ([1], (1,)), (None, (0, 1))]
)
def test_levels_of_validation(at_levels, given, levels):
    assert at_levels('RetinaNet', PYRAMID, val_levels=given).val_levels == levels


@pytest.mark.parametrize('given', [[], [2], [-1, 0], 2])
def test_levels_that_there_are_not_are_refused(at_levels, given):
    with pytest.raises(ValueError, match=r'val_levels must be some of \[0, 1\]'):
        at_levels('RetinaNet', PYRAMID, val_levels=given)
