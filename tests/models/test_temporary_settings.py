"""Settings of a detector that hold for a while, and its own after that."""

from types import SimpleNamespace

import pytest
from mmengine.config import ConfigDict
from torch import nn

from mmsniper.models.mask_prediction import mask_prediction
from mmsniper.models.temporary_settings import everything_found, fewer_proposals

RPN = dict(nms_pre=1000, max_per_img=300, nms=dict(iou_threshold=0.7))


def detector(**heads):
    return SimpleNamespace(
        **{name: SimpleNamespace(**settings) for name, settings in heads.items()}
    )


@pytest.fixture
def two_stages():
    return detector(
        rpn_head=dict(test_cfg=ConfigDict(RPN)),
        roi_head=dict(
            test_cfg=ConfigDict(score_thr=0.05, nms=dict(type='nms'), max_per_img=100),
            with_mask=True,
            mask_head=nn.Identity(),
        ),
    )


# --- proposals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('share', 'least', 'number', 'before'),
    [
        (1, 10, 300, 1000),
        (0.5, 10, 150, 500),
        (0.101, 10, 31, 104),  # 30.3 and 103.3, rounded up
        (0.01, 10, 10, 34),  # at least 10, of 33.3
        (0.01, 500, 300, 1000),  # the detector gives no more
        (0, 1, 1, 4),
    ],
)
def test_a_part_of_the_image_gets_its_share_of_the_proposals(
    two_stages, share, least, number, before
):
    own = two_stages.rpn_head.test_cfg
    with fewer_proposals(two_stages, share, least):
        now = two_stages.rpn_head.test_cfg
        assert (now.max_per_img, now.nms_pre) == (number, before)
        assert now.nms == own.nms
    assert two_stages.rpn_head.test_cfg is own
    assert own == RPN


def test_without_a_least_number_proposals_are_as_they_were():
    with fewer_proposals(SimpleNamespace(), 0.1, None):  # needs no RPN
        pass


def test_after_an_error_a_detector_has_its_own_settings(two_stages):
    own = two_stages.rpn_head.test_cfg, two_stages.roi_head.test_cfg, two_stages.roi_head.mask_head
    with pytest.raises(KeyError), fewer_proposals(two_stages, 0.1, 1):
        raise KeyError
    with pytest.raises(KeyError), everything_found(two_stages, 0.01, dict(max_per_img=7)):
        raise KeyError
    head = two_stages.roi_head
    assert (two_stages.rpn_head.test_cfg, head.test_cfg, head.mask_head) == own


# --- everything that is found ---------------------------------------------------------------------


@pytest.mark.parametrize(('asked', 'used'), [(0.001, 0.001), (0.05, 0.05), (0.3, 0.05)])
def test_the_lower_score_threshold_counts(two_stages, asked, used):
    with everything_found(two_stages, asked) as nms:
        now = two_stages.roi_head.test_cfg
        assert now.score_thr == used
        assert now.nms is None
        assert now.max_per_img >= 10**6
        assert nms is None  # of two stages: merging sees all that they find
        assert two_stages.rpn_head.test_cfg == RPN
        assert two_stages.roi_head.mask_head is None
    assert two_stages.roi_head.test_cfg.max_per_img == 100
    assert isinstance(two_stages.roi_head.mask_head, nn.Identity)


def test_an_rpn_can_have_settings_too(two_stages):
    with everything_found(two_stages, 0.05, dict(max_per_img=2000)):
        assert two_stages.rpn_head.test_cfg == dict(RPN, max_per_img=2000)
    assert two_stages.rpn_head.test_cfg == RPN


def test_a_one_stage_detector_leaves_its_nms_to_be_done():
    own = ConfigDict(nms_pre=1000, score_thr=0.02, nms=dict(type='nms', iou_threshold=0.6))
    one_stage = detector(bbox_head=dict(test_cfg=own))
    with everything_found(one_stage, 0.01) as nms:
        assert nms == dict(type='nms', iou_threshold=0.6)
        assert one_stage.bbox_head.test_cfg.nms is None
        assert one_stage.bbox_head.test_cfg.nms_pre == 1000
    assert one_stage.bbox_head.test_cfg is own


def test_what_a_detector_does_not_have_is_not_set():
    bare = detector(bbox_head=dict(test_cfg=None))
    with everything_found(bare, 0.01) as nms:
        assert nms is None
        assert set(bare.bbox_head.test_cfg) == {'max_per_img'}
    assert bare.bbox_head.test_cfg is None


@pytest.mark.parametrize(
    ('heads', 'masks'),
    [
        (dict(bbox_head={}), False),
        (dict(roi_head={}), False),
        (dict(roi_head=dict(with_mask=False)), False),
        (dict(roi_head=dict(with_mask=True)), True),
    ],
)
def test_which_detectors_have_masks(heads, masks):
    assert (mask_prediction(detector(**heads)) is not None) is masks
