"""The region proposals of a detector are those of its own RPN."""

import copy

import numpy as np
import pytest
import torch
from mmdet.models.detectors import RPN
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.hub import get_config

from mmsniper.models.proposals import evaluating, proposal_head, propose

OTHERS = {
    'RetinaNet': 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
    'FastRCNN': 'mmdet::fast_rcnn/fast-rcnn_r50_fpn_1x_coco.py',
    'SparseRCNN': 'mmdet::sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py',
}


@pytest.fixture
def detector(small_config, build):
    """(name) -> a detector in evaluation mode; 'rpn' is one that has nothing but an RPN."""

    def make(name):
        cfg = small_config('faster' if name == 'rpn' else name)
        # As our configs have it: in training, images are padded to the size of a chip.
        cfg.data_preprocessor.batch_augments = [dict(type='BatchFixedSizePad', size=(256, 256))]
        if name == 'rpn':
            keys = ('data_preprocessor', 'backbone', 'neck', 'rpn_head')
            cfg = ConfigDict(
                type='RPN',
                train_cfg=dict(rpn=cfg.train_cfg.rpn),
                test_cfg=dict(rpn=cfg.test_cfg.rpn),
                **{key: cfg[key] for key in keys},
            )
        return build(cfg).eval()

    return make


@pytest.fixture
def batch():
    """Two images of different sizes, as a data loader gives them."""
    rng = np.random.default_rng(0)
    images, samples = [], []
    for height, width in ((90, 130), (120, 70)):
        images.append(torch.from_numpy(rng.integers(0, 256, (3, height, width), np.uint8)))
        samples.append(
            DetDataSample(
                metainfo=dict(
                    img_shape=(height, width), ori_shape=(height, width), scale_factor=(1.0, 1.0)
                )
            )
        )
    return dict(inputs=images, data_samples=samples)


# --- which part proposes --------------------------------------------------------------------------


@pytest.mark.parametrize('name', ['faster', 'cascade', 'mask'])
def test_the_proposal_head_of_a_two_stage_detector_is_its_rpn_head(detector, name):
    model = detector(name)
    assert proposal_head(model) is model.rpn_head


def test_the_proposal_head_of_an_rpn_is_the_only_head_that_it_has(detector):
    model = detector('rpn')
    assert isinstance(model, RPN)
    assert proposal_head(model) is model.bbox_head


@pytest.mark.parametrize(
    ('name', 'what'),
    [
        ('RetinaNet', 'no rpn_head'),
        ('FastRCNN', 'no rpn_head'),
        ('SparseRCNN', 'learned boxes for an rpn_head'),
    ],
)
def test_says_what_is_missing_and_what_to_do_instead(build, name, what):
    cfg = get_config(OTHERS[name]).model
    cfg.backbone.update(depth=18, base_channels=8, init_cfg=None)
    cfg.neck.update(in_channels=[8, 16, 32, 64])
    with pytest.raises(ValueError, match=f'{name} has {what}') as caught:
        proposal_head(build(cfg))
    for way_out in ('mine_negatives.py', 'ChipAwareSampler(negatives=FILE)', 'any proposals'):
        assert way_out in str(caught.value)


# --- what it proposes -----------------------------------------------------------------------------


@pytest.mark.parametrize('name', ['faster', 'cascade', 'mask'])
def test_proposals_are_what_the_detector_hands_to_its_roi_head(detector, batch, name, monkeypatch):
    model = detector(name)
    handed = []

    def stop(features, rpn_results_list, batch_data_samples, rescale=True):
        handed.extend(rpn_results_list)
        raise StopIteration

    monkeypatch.setattr(model.roi_head, 'predict', stop)
    with pytest.raises(StopIteration):
        model.test_step(copy.deepcopy(batch))
    found = propose(model, batch)
    assert [len(result) for result in found] == [50, 50]
    for result, expected in zip(found, handed, strict=True):
        assert torch.equal(result.bboxes, expected.bboxes)
        assert torch.equal(result.scores, expected.scores)


def test_proposals_of_an_rpn_are_its_detections(detector, batch):
    model = detector('rpn')
    expected = model.test_step(copy.deepcopy(batch))
    found = propose(model, batch)
    assert [len(result) for result in found] == [50, 50]
    for result, sample in zip(found, expected, strict=True):
        assert torch.equal(result.bboxes, sample.pred_instances.bboxes)
        assert torch.equal(result.scores, sample.pred_instances.scores)


def test_proposals_are_in_the_pixels_of_the_input_whatever_its_scale(detector, batch):
    model = detector('faster')
    expected = propose(model, copy.deepcopy(batch))
    for sample in batch['data_samples']:
        sample.set_metainfo(dict(scale_factor=(0.5, 0.25)))
    for result, other in zip(propose(model, batch), expected, strict=True):
        assert torch.equal(result.bboxes, other.bboxes)


def test_proposals_lie_in_their_own_image_not_in_the_padding_of_the_batch(detector, batch):
    for result, (width, height) in zip(
        propose(detector('faster'), batch), ((130, 90), (70, 120)), strict=True
    ):
        assert (result.bboxes >= 0).all()
        assert (result.bboxes <= torch.tensor([width, height, width, height])).all()
        assert (result.scores.diff() <= 0).all()


def test_proposing_keeps_no_graph(detector, batch):
    """It would hold the features of a large window several times."""
    model, features = detector('faster'), []
    model.neck.register_forward_hook(lambda module, args, output: features.extend(output))
    propose(model, batch)
    assert len(features) == 5
    assert not any(feature.requires_grad for feature in features)


# --- evaluation mode ------------------------------------------------------------------------------


def modes(model):
    return [module.training for module in model.modules()]


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('fails', [True, False])
def test_evaluating_restores_the_mode(detector, training, fails):
    model = detector('faster').train(training)
    model.neck.train(not training)  # some users freeze a part
    before = modes(model)
    assert len(set(before)) == 2
    try:
        with evaluating(model):
            assert not any(modes(model))
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    assert modes(model) == before
