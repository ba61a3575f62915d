"""Proposals whose size does not suit the level are ignored (spec section 5, R-CNN)."""

import copy

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmengine.structures import InstanceData

from mmsniper.chips import POSITIVE
from mmsniper.datasets import Chip, ChipDataset, ChipIndex
from mmsniper.models import LevelRange, SNIPERRoIHead
from mmsniper.models.roi_heads import with_invalid_objects

SIZE = 64
# At level 0, boxes of 0 to 32 chip px are in range; at level 1, those from 12.
PYRAMID = {
    'chip_size': SIZE,
    'levels': [
        {'resize': {'factor': 2.0}, 'valid_range': (0, 16)},
        {'resize': {'factor': 1.0}, 'valid_range': (12, None)},
    ],
}
NOTHING_IN_RANGE = {
    'chip_size': SIZE,
    'levels': [{'resize': {'factor': 2.0}, 'valid_range': (5000, None)}],
}

# All in chip px at level 0.
VALID = [0.0, 0.0, 30.0, 30.0]  # label 1
INVALID = [0.0, 0.0, 40.0, 40.0]  # label 2, IoU with VALID 0.56
FOREGROUND = [0.0, 0.0, 30.0, 28.0]  # IoU with VALID 0.93
FOREGROUND_TOO_LARGE = [0.0, 0.0, 33.0, 33.0]  # IoU with VALID 0.83
BACKGROUND = [40.0, 40.0, 60.0, 60.0]
BACKGROUND_TOO_LARGE = [25.0, 25.0, 60.0, 60.0]
ON_INVALID = [9.0, 9.0, 40.0, 40.0]  # IoU with INVALID 0.6, with VALID 0.3; in range


def rectangles(boxes, kind):
    if kind == 'polygon':
        polygons = [[np.array([x1, y1, x2, y1, x2, y2, x1, y2])] for x1, y1, x2, y2 in boxes]
        return PolygonMasks(polygons, SIZE, SIZE)
    masks = np.zeros((len(boxes), SIZE, SIZE), np.uint8)
    for mask, (x1, y1, x2, y2) in zip(
        masks, np.array(boxes).astype(int).reshape(-1, 4), strict=True
    ):
        mask[y1:y2, x1:x2] = 1
    return BitmapMasks(masks, SIZE, SIZE)


def instances(boxes, labels, mask_kind='bitmap'):
    return InstanceData(
        bboxes=torch.tensor(boxes).reshape(-1, 4).float(),
        labels=torch.tensor(labels, dtype=torch.long),
        masks=rectangles(boxes, mask_kind),
    )


def sample(gt=(), labels=(), ignored=(), ignored_labels=(), scale=2.0, mask_kind='bitmap'):
    scale = scale if isinstance(scale, tuple) else (scale, scale)
    data = DetDataSample(
        metainfo={'img_shape': (SIZE, SIZE), 'ori_shape': (100, 120), 'scale_factor': scale}
    )
    data.gt_instances = instances(list(gt), list(labels), mask_kind)
    data.ignored_instances = instances(list(ignored), list(ignored_labels), mask_kind)
    return data


def proposals(*boxes):
    boxes = torch.tensor(boxes).reshape(-1, 4).float()
    return InstanceData(bboxes=boxes, scores=torch.ones(len(boxes)))


class OneImage:
    """A data set of one loaded image with one box."""

    def full_init(self):
        pass

    def __len__(self):
        return 1

    def get_data_info(self, idx):
        return {
            'img': np.zeros((100, 120, 3), np.uint8),
            'img_shape': (100, 120),
            'ori_shape': (100, 120),
            'gt_bboxes': HorizontalBoxes(torch.tensor([[15.0, 50.0, 25.0, 60.0]])),
            'gt_bboxes_labels': np.array([1]),
            'gt_ignore_flags': np.zeros(1, bool),
        }


def chip_pipeline(pyramid):
    return [
        {'type': 'ChipSampler', 'pyramid': pyramid},
        {'type': 'ScaleRangeFilter', 'pyramid': pyramid},
        {'type': 'PackDetInputs'},
    ]


def rows(boxes):
    return sorted(boxes.tolist())


@pytest.fixture
def make_head(small_config, build):
    def make(name='faster', pyramid=PYRAMID, add_gt=False, sampler=None):
        cfg = small_config(name)
        head = cfg.roi_head
        head.update(type='SNIPERRoIHead', head=head.type, pyramid=pyramid)
        head.train_cfg, head.test_cfg = cfg.train_cfg.rcnn, cfg.test_cfg.rcnn
        for stage in head.train_cfg if name == 'cascade' else [head.train_cfg]:
            stage.sampler.add_gt_as_proposals = add_gt
            if sampler is not None:
                stage.sampler = sampler
        return build(head)

    return make


def features(num_images):
    torch.manual_seed(1)
    return tuple(
        torch.rand(num_images, 8, SIZE // s, SIZE // s, requires_grad=True) for s in (4, 8, 16, 32)
    )


def run(head, rpn_results, samples):
    """Losses, and the sampling results of every stage (a list of one list per stage)."""
    sampled = []
    bbox_loss = head.bbox_loss

    def spy(*args):
        sampled.append(args[-1])
        return bbox_loss(*args)

    head.bbox_loss = spy
    losses = head.loss(features(len(samples)), rpn_results, samples)
    return losses, sampled


def run_one(head, boxes, data):
    return run(head, [proposals(*boxes)], [data])[1][0][0]


class TestProposalsInRange:
    def test_a_foreground_proposal_out_of_range_is_dropped(self, make_head):
        got = run_one(make_head(), [FOREGROUND_TOO_LARGE, FOREGROUND], sample([VALID], [1]))
        assert rows(got.pos_priors) == [FOREGROUND]
        assert rows(got.neg_priors) == []

    def test_the_level_is_the_chips_own(self, make_head):
        """Rounded outwards to 64 px, the finer chip has the scale of the coarser level."""
        close = {
            'chip_size': SIZE,
            'levels': [
                {'resize': {'factor': 1.03}, 'valid_range': (0, 16)},
                {'resize': {'factor': 1.0}, 'valid_range': (16, None)},
            ],
        }
        small, large = [40.0, 40.0, 48.0, 48.0], [25.0, 5.0, 55.0, 35.0]
        for level, side, kept in ((0, SIZE / 1.03, small), (1, SIZE, large)):
            corner = 10.95 if level == 0 else 10.0
            chip = Chip(level, (corner, corner, corner + side, corner + side), POSITIVE)
            data = ChipDataset(OneImage(), chip_pipeline(close))[ChipIndex(0, chip)]['data_samples']
            assert data.scale_factor == (1.0, 1.0)
            losses, [[got]] = run(make_head(pyramid=close), [proposals(small, large)], [data])
            assert rows(got.neg_priors) == [kept]
            losses['loss_cls'].backward()

    def test_a_chip_that_was_resized_is_refused(self, make_head):
        data = sample([VALID], [1], scale=0.5)
        data.set_metainfo({'level': 0, 'homography_matrix': np.diag([1.0, 1.0, 1.0])})
        with pytest.raises(ValueError, match='made for level 0.*drop the transform.*Resize'):
            run_one(make_head(), [BACKGROUND], data)

    def test_a_background_proposal_out_of_range_is_dropped(self, make_head):
        got = run_one(make_head(), [BACKGROUND_TOO_LARGE, BACKGROUND], sample([VALID], [1]))
        assert rows(got.pos_priors) == []
        assert rows(got.neg_priors) == [BACKGROUND]

    def test_the_range_is_that_of_the_chips_level(self, make_head):
        # At scale 1 the range is 12 chip px and more.
        small = [40.0, 40.0, 51.0, 51.0]
        got = run_one(make_head(), [BACKGROUND_TOO_LARGE, small], sample([VALID], [1], scale=1.0))
        assert rows(got.neg_priors) == [BACKGROUND_TOO_LARGE]

    def test_every_image_has_its_own_level(self, make_head):
        boxes = [[40.0, 40.0, 51.0, 51.0], BACKGROUND_TOO_LARGE]
        _, [[fine, coarse]] = run(
            make_head(), [proposals(*boxes), proposals(*boxes)], [sample(), sample(scale=1.0)]
        )
        assert rows(fine.neg_priors) == [boxes[0]]
        assert rows(coarse.neg_priors) == [boxes[1]]

    def test_bounds_are_half_open(self, make_head):
        def square(side):
            return [0.0, 0.0, side, side]

        fine = run_one(make_head(), [square(31.5), square(32.0)], sample())
        assert rows(fine.neg_priors) == [square(31.5)]
        coarse = run_one(make_head(), [square(11.5), square(12.0)], sample(scale=1.0))
        assert rows(coarse.neg_priors) == [square(12.0)]


class TestInvalidObjects:
    def test_an_invalid_box_makes_its_in_range_proposal_foreground(self, make_head):
        data = sample([VALID], [1], [INVALID], [2])
        got = run_one(make_head(), [FOREGROUND, ON_INVALID, BACKGROUND], data)
        assert rows(got.pos_priors) == [FOREGROUND, ON_INVALID]
        assert got.pos_gt_labels.tolist() == [1, 2]
        assert got.pos_gt_bboxes.tolist() == [VALID, INVALID]
        assert rows(got.neg_priors) == [BACKGROUND]

    def test_a_proposal_of_the_invalid_boxs_own_size_is_ignored(self, make_head):
        got = run_one(make_head(), [INVALID, BACKGROUND], sample([], [], [INVALID], [2]))
        assert rows(got.pos_priors) == []
        assert rows(got.neg_priors) == [BACKGROUND]

    def test_crowd_stays_an_ignore_region(self, make_head):
        head = make_head()
        data = sample([VALID], [1], [ON_INVALID], [-1])
        got = run_one(head, [ON_INVALID], data)
        assert rows(got.neg_priors) == [ON_INVALID]  # MMDetection's default ignores nothing
        head.bbox_assigner.ignore_iof_thr = 0.5
        got = run_one(head, [ON_INVALID, FOREGROUND], data)
        assert rows(got.priors) == [FOREGROUND]

    def test_without_ignored_instances(self, make_head):
        data = sample([VALID], [1])
        del data.ignored_instances
        got = run_one(make_head(), [FOREGROUND, BACKGROUND], data)
        assert rows(got.pos_priors) == [FOREGROUND]

    @pytest.mark.parametrize('kind', ['bitmap', 'polygon'])
    def test_masks_and_labels_stay_with_their_boxes(self, kind):
        crowd, other = [1.0, 1.0, 9.0, 9.0], [50.0, 50.0, 60.0, 60.0]
        data = sample([VALID], [1], [crowd, INVALID, other], [-1, 2, 0], mask_kind=kind)
        seen = with_invalid_objects(data, LevelRange(((0, 16),)))
        assert seen.gt_instances.bboxes.tolist() == [VALID, INVALID, other]
        assert seen.gt_instances.labels.tolist() == [1, 2, 0]
        expected = rectangles([VALID, INVALID, other], kind).to_ndarray()
        np.testing.assert_array_equal(seen.gt_instances.masks.to_ndarray(), expected)
        assert seen.ignored_instances.bboxes.tolist() == [crowd]

    @pytest.mark.parametrize('kind', ['bitmap', 'polygon'])
    @pytest.mark.parametrize('gt', [[VALID], []], ids=['valid', 'none valid'])
    def test_masks_of_both_have_one_size_where_a_small_chip_was_padded(self, gt, kind):
        """The data preprocessor pads the masks of gt_instances only."""
        data = sample(gt, [1] * len(gt), [INVALID], [2], mask_kind=kind)
        data.gt_instances.masks = data.gt_instances.masks.pad((SIZE + 28, SIZE + 60))
        masks = with_invalid_objects(data, LevelRange(((0, 16),))).gt_instances.masks
        assert (masks.height, masks.width) == (SIZE + 28, SIZE + 60)
        expected = rectangles([*gt, INVALID], kind).to_ndarray()
        np.testing.assert_array_equal(masks.to_ndarray()[:, :SIZE, :SIZE], expected)
        assert masks.to_ndarray().sum() == expected.sum()

    def test_masks_of_invalid_objects_are_learned(self, make_head, monkeypatch):
        head = make_head('mask')
        targets = []
        get_targets = head.mask_head.get_targets
        monkeypatch.setattr(
            head.mask_head,
            'get_targets',
            lambda *a, **k: targets.append(get_targets(*a, **k)) or targets[0],
        )
        run_one(head, [ON_INVALID], sample([VALID], [1], [INVALID], [2]))
        # INVALID's mask fills the proposal; VALID's would fill a quarter of it.
        assert targets[0].shape == (1, 28, 28)
        assert targets[0].mean() == 1

    def test_missing_fields_are_named(self, make_head):
        data = sample([VALID], [1], [INVALID], [2])
        del data.ignored_instances.masks
        with pytest.raises(ValueError, match=r"ignored_instances lack \['masks'\]"):
            run_one(make_head('mask'), [FOREGROUND], data)


class TestGroundTruthAsProposals:
    SMALL_PART = [50.0, 50.0, 60.0, 60.0]  # of an object that is out of range as a whole

    def data(self):
        return sample([VALID], [1], [INVALID, self.SMALL_PART], [2, 0])

    def test_only_boxes_in_range_are_added(self, make_head):
        got = run_one(make_head(add_gt=True), [BACKGROUND], self.data())
        assert rows(got.pos_priors) == [VALID, self.SMALL_PART]
        assert got.pos_gt_labels.tolist() == [1, 0]
        assert got.pos_is_gt.tolist() == [1, 1]

    def test_none_is_added_where_the_sampler_does_not(self, make_head):
        got = run_one(make_head(add_gt=False), [BACKGROUND], self.data())
        assert rows(got.priors) == [BACKGROUND]

    def test_all_out_of_range(self, make_head):
        got = run_one(make_head(add_gt=True), [BACKGROUND], sample([], [], [INVALID], [2]))
        assert rows(got.priors) == [BACKGROUND]

    def test_a_cascade_adds_them_at_every_stage(self, make_head):
        head = make_head('cascade', add_gt=True)
        _, stages = run(head, [proposals(FOREGROUND, BACKGROUND)], [self.data()])
        assert len(stages) == 3
        for [result] in stages:
            added = result.pos_priors[result.pos_is_gt.bool()]
            assert rows(added) == [VALID, self.SMALL_PART]


class TestSamplers:
    BOXES = (FOREGROUND, FOREGROUND_TOO_LARGE, BACKGROUND, BACKGROUND_TOO_LARGE)

    @pytest.mark.parametrize(
        'sampler',
        [{'type': 'PseudoSampler'}, {'type': 'RandomSampler', 'num': 512, 'pos_fraction': 1.0}],
        ids=['PseudoSampler', 'RandomSampler with room for all'],
    )
    def test_without_resampling_every_proposal_in_range_is_used(self, make_head, sampler):
        head = make_head('mask', sampler={**sampler, 'add_gt_as_proposals': False})
        shifted = [[x + 0.1 * i for x in FOREGROUND] for i in range(20)]
        losses, [[got]] = run(head, [proposals(*shifted, *self.BOXES)], [sample([VALID], [1])])
        assert len(got.pos_priors) == 21
        assert rows(got.neg_priors) == [BACKGROUND]
        assert all(torch.isfinite(v).all() for v in losses.values())

    def test_a_random_sampler_draws_from_what_is_in_range_only(self, make_head):
        head = make_head(
            sampler={
                'type': 'RandomSampler',
                'num': 4,
                'pos_fraction': 0.25,
                'add_gt_as_proposals': False,
            }
        )
        boxes = [b for b in self.BOXES for _ in range(30)]
        got = run_one(head, boxes, sample([VALID], [1]))
        assert got.pos_priors.tolist() == [FOREGROUND]
        assert got.neg_priors.tolist() == [BACKGROUND] * 3

    def test_ohem_works(self, make_head):
        head = make_head(sampler={'type': 'OHEMSampler', 'num': 8, 'pos_fraction': 0.5})
        got = run_one(head, self.BOXES, sample([VALID], [1]))
        assert rows(got.pos_priors) == [FOREGROUND, VALID]
        assert rows(got.neg_priors) == [BACKGROUND]


class TestCascade:
    def test_every_stage_keeps_to_the_range(self, make_head):
        # Untrained regression with large weights throws the boxes of later stages about.
        head = make_head('cascade', add_gt=True)
        for stage in head.bbox_head:
            torch.nn.init.normal_(stage.fc_reg.weight, std=2.0)
        rng = np.random.default_rng(0)
        corner, side = rng.uniform(0, 40, (200, 2)), rng.uniform(2, 24, (200, 2))
        boxes = np.concatenate([corner, corner + side], axis=1).tolist()
        data = sample([VALID], [1], [INVALID], [2])
        refined, refine = [], head.bbox_head[0].refine_bboxes
        head.bbox_head[0].refine_bboxes = lambda *a: refined.extend(refine(*a)) or refined
        _, stages = run(head, [proposals(*boxes)], [data])
        level_range = LevelRange.of_input(data.metainfo, head.pyramid)
        assert not level_range.contains(refined[0].priors).all()  # else this shows nothing
        for [result] in stages:
            assert level_range.contains(result.priors).all()

    def test_proposals_that_all_leave_the_range_do_no_harm(self, make_head):
        # The first stage makes boxes several times as large, and no ground truth is added.
        head = make_head('cascade')
        torch.nn.init.constant_(head.bbox_head[0].fc_reg.bias, 10.0)
        losses, stages = run(head, [proposals(FOREGROUND)], [sample([VALID], [1])])
        assert [len(result.priors) for [result] in stages] == [1, 0, 0]
        loss = sum(v.sum() for k, v in losses.items() if 'loss' in k)
        assert torch.isfinite(loss)
        loss.backward()
        assert [k for k, p in head.named_parameters() if p.grad is None] == []

    def test_no_loss_is_added_where_every_stage_has_proposals(self, make_head):
        losses, _ = run(
            make_head('cascade', add_gt=True), [proposals(BACKGROUND)], [sample([VALID], [1])]
        )
        per_stage = ('loss_cls', 'acc', 'loss_bbox', 'loss_mask')
        assert set(losses) == {f's{i}.{name}' for i in range(3) for name in per_stage}


class TestOrphans:
    ADOPTING = {**PYRAMID, 'adopt_orphans': True}
    ORPHAN = [0.0, 0.0, 64.0, 20.0]  # sqrt(area) 35.8 chip px
    ON_ORPHAN = [0.0, 0.0, 63.0, 20.0]
    # IoU with ORPHAN exactly 0.5, and a little less.
    HALF_OF_ORPHAN = [0.0, 0.0, 64.0, 40.0]
    LESS_THAN_HALF = [0.0, 0.0, 64.0, 41.0]

    def test_proposals_on_an_adopted_object_are_kept(self, make_head):
        boxes = [self.ON_ORPHAN, self.HALF_OF_ORPHAN, self.LESS_THAN_HALF, BACKGROUND_TOO_LARGE]
        got = run_one(make_head(pyramid=self.ADOPTING), boxes, sample([self.ORPHAN], [1]))
        assert rows(got.pos_priors) == [self.ON_ORPHAN, self.HALF_OF_ORPHAN]
        assert rows(got.neg_priors) == []

    def test_the_adopted_box_itself_is_added(self, make_head):
        head = make_head(pyramid=self.ADOPTING, add_gt=True)
        got = run_one(head, [], sample([self.ORPHAN], [1], [INVALID], [2]))
        assert rows(got.priors) == [self.ORPHAN]

    def test_invalid_objects_are_not_adopted(self, make_head):
        head = make_head(pyramid=self.ADOPTING)
        got = run_one(head, [self.ON_ORPHAN], sample([], [], [self.ORPHAN], [1]))
        assert rows(got.priors) == []

    def test_without_the_option_they_are_dropped(self, make_head):
        got = run_one(make_head(add_gt=True), [self.ON_ORPHAN], sample([self.ORPHAN], [1]))
        assert rows(got.priors) == []


class TestEdges:
    @pytest.mark.parametrize('ignored', [[], [INVALID, BACKGROUND]], ids=['none', 'two'])
    def test_the_callers_samples_stay_as_they_are(self, make_head, ignored):
        data = sample([VALID], [1], ignored, [2, -1][: len(ignored)])
        before = copy.deepcopy(data)
        gt, ignored = data.gt_instances, data.ignored_instances
        run_one(make_head('mask', add_gt=True), [FOREGROUND, INVALID], data)
        assert data.gt_instances is gt
        assert data.ignored_instances is ignored
        for name in ('gt_instances', 'ignored_instances'):
            old, new = before.get(name), data.get(name)
            assert set(new.all_keys()) == set(old.all_keys())
            assert new.bboxes.tolist() == old.bboxes.tolist()
            assert new.labels.tolist() == old.labels.tolist()
            np.testing.assert_array_equal(new.masks.masks, old.masks.masks)
        assert data.metainfo == before.metainfo

    @pytest.mark.parametrize('key', ['scale_factor', 'ori_shape'])
    def test_metainfo_that_is_missing_is_named(self, make_head, key):
        data = sample([VALID], [1])
        data.pop(key)
        with pytest.raises(ValueError, match=key):
            run_one(make_head(), [FOREGROUND], data)

    def test_a_pyramid_is_required(self, small_config, build):
        head = small_config('faster').roi_head
        head.type = 'SNIPERRoIHead'
        with pytest.raises(TypeError, match='pyramid'):
            build(head)

    def test_a_head_for_inference_only_has_no_sampler(self, small_config, build):
        head = small_config('faster').roi_head
        head.update(type='SNIPERRoIHead', pyramid=PYRAMID)
        assert build(head).bbox_sampler is None

    def test_copies_work(self, make_head):
        # The EMA hook copies models.
        head = copy.deepcopy(make_head('cascade'))
        _, stages = run(head, [proposals(FOREGROUND_TOO_LARGE, FOREGROUND)], [sample([VALID], [1])])
        assert rows(stages[0][0].priors) == [FOREGROUND]

    @pytest.mark.parametrize('name', ['faster', 'mask', 'cascade'])
    def test_inference_is_the_parents(self, make_head, name, build, small_config):
        head = make_head(name).eval()
        cfg = small_config(name)
        cfg.roi_head.update(train_cfg=cfg.train_cfg.rcnn, test_cfg=cfg.test_cfg.rcnn)
        stock = build(cfg.roi_head).eval()
        stock.load_state_dict(head.state_dict())
        boxes = [FOREGROUND, FOREGROUND_TOO_LARGE, BACKGROUND, BACKGROUND_TOO_LARGE]
        with torch.no_grad():
            mine, theirs = (
                h.predict(features(1), [proposals(*boxes)], [sample()], rescale=True)[0]
                for h in (head, stock)
            )
        assert mine.bboxes.tolist() == theirs.bboxes.tolist()
        assert mine.scores.tolist() == theirs.scores.tolist()


@pytest.mark.parametrize('name', ['faster', 'mask', 'cascade'])
@pytest.mark.parametrize(
    'case', ['objects', 'no objects', 'nothing in range', 'nothing in range and no objects']
)
def test_a_training_step_reaches_every_parameter(small_config, build, name, case):
    """Distributed training stops at a parameter without a gradient."""
    cfg = small_config(name)
    pyramid = NOTHING_IN_RANGE if 'nothing' in case else PYRAMID
    cfg.roi_head.update(type='SNIPERRoIHead', head=cfg.roi_head.type, pyramid=pyramid)
    cfg.train_cfg.rpn.assigner.type = 'ValidRangeAssigner'
    model = build(cfg).train()
    assert isinstance(model.roi_head, SNIPERRoIHead)
    samples = [sample(), sample()]
    if 'no objects' not in case:
        samples[0] = sample([VALID], [1], [INVALID, BACKGROUND], [2, -1])
    batch = {
        'inputs': [torch.randint(0, 255, (3, SIZE, SIZE), dtype=torch.uint8) for _ in samples],
        'data_samples': samples,
    }
    losses = model(**model.data_preprocessor(batch, training=True), mode='loss')
    loss, _ = model.parse_losses(losses)
    assert torch.isfinite(loss)
    loss.backward()
    trained = {k: p for k, p in model.named_parameters() if p.requires_grad}
    assert [k for k, p in trained.items() if p.grad is None] == []
    assert all(torch.isfinite(p.grad).all() for p in trained.values())
    in_head = sum(p.grad.abs().sum() for k, p in trained.items() if k.startswith('roi_head'))
    assert (in_head == 0) == ('nothing' in case)
    assert sum(p.grad.abs().sum() for p in trained.values()) > 0
