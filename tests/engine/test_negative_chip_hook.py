"""Negative chips inside a training: when they are mined, what they change, how it resumes."""

import logging
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from mmsniper.chips import NEGATIVE, NegativeChipPool
from mmsniper.engine import NegativeChipHook, PoolError, negative_chip_hook
from mmsniper.mining import NegativeChipMiner

# Of the small images of conftest.py: how many, and which have no objects.
NUM_IMAGES, EMPTY = 8, (3, 6)


class Notes(Hook):
    """What each epoch was made of, and what each iteration was told."""

    priority = 'VERY_LOW'

    def __init__(self):
        self.chips, self.length, self.left, self.lrs, self.eta = {}, {}, {}, [], []

    def before_train_epoch(self, runner):
        plan = runner.train_dataloader.sampler.plan
        self.chips[runner.epoch] = list(runner.train_dataloader.sampler)
        self.length[runner.epoch] = len(runner.train_dataloader)
        self.left[runner.epoch] = runner.max_iters - runner.iter
        assert len(plan) == len(self.chips[runner.epoch])

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.lrs.append(runner.optim_wrapper.get_lr()['lr'][0])
        self.eta.append(runner.message_hub.get_info('eta'))


@pytest.fixture
def train(small_run, tmp_path):
    """Train the small run with changes to its config; ``hook=None`` is without negatives."""
    names = iter(f'{tmp_path.name}_{i}' for i in range(99))

    def run(work_dir='w', hook=None, without=False, **changes):
        cfg = Config.fromfile(small_run)
        cfg.work_dir = str(tmp_path / work_dir)
        cfg.experiment_name = next(names)
        cfg.log_level = 'WARNING'
        if without:
            cfg.custom_hooks = []
        else:
            cfg.custom_hooks[0].update(hook or {})
        cfg.merge_from_dict(changes)
        init_default_scope('mmdet')
        runner = Runner.from_cfg(cfg)
        notes = Notes()
        runner.register_hook(notes)
        runner.train()
        notes.runner = runner
        return notes

    return run


def negatives(chips):
    return [index for index in chips if index.chip.kind == NEGATIVE]


def as_tuples(chips):
    return [(int(index), index.chip) for index in chips]


@pytest.fixture
def count_mining(monkeypatch):
    """How often a pool was mined, and how many windows were looked at."""
    seen = dict(mined=0, windows=0)
    mine, propose = NegativeChipMiner.mine, NegativeChipMiner._propose

    def counted_mine(self, *args, **kwargs):
        seen['mined'] += 1
        return mine(self, *args, **kwargs)

    def counted_propose(self, model, data, batch, pyramid):
        seen['windows'] += len(batch)
        return propose(self, model, data, batch, pyramid)

    monkeypatch.setattr(NegativeChipMiner, 'mine', counted_mine)
    monkeypatch.setattr(NegativeChipMiner, '_propose', counted_propose)
    return seen


# --- what an epoch is made of ---------------------------------------------------------------------


def test_negative_chips_come_after_the_warm_up(train):
    notes = train()
    assert [len(negatives(notes.chips[e])) for e in range(4)] == [0, 0, 16, 16]
    positives = [len(notes.chips[e]) - len(negatives(notes.chips[e])) for e in range(4)]
    assert len(set(positives)) == 1


def test_an_epoch_takes_so_many_chips_of_an_image_and_others_in_the_next(train):
    notes = train(hook=dict(chips_per_image=1, warmup_epochs=1))
    for epoch in (1, 2, 3):
        images = [int(index) for index in negatives(notes.chips[epoch])]
        assert sorted(images) == list(range(NUM_IMAGES))
    assert as_tuples(negatives(notes.chips[1])) != as_tuples(negatives(notes.chips[2]))


def test_images_without_objects_have_negative_chips_only(train):
    notes = train()
    kinds = {i: {c.chip.kind for e in range(4) for c in notes.chips[e] if c == i} for i in EMPTY}
    assert kinds == {i: {NEGATIVE} for i in EMPTY}


def test_images_without_objects_can_be_left_out(train):
    notes = train(hook=dict(empty_images=False, warmup_epochs=1), **{'train_cfg.max_epochs': 2})
    assert {int(index) for index in notes.chips[1]} == set(range(NUM_IMAGES)) - set(EMPTY)


def test_the_positive_chips_are_those_of_a_run_without_negatives(train):
    def positives(notes):
        return {
            e: {i for i in as_tuples(c) if i[1].kind != NEGATIVE} for e, c in notes.chips.items()
        }

    assert positives(train('with')) == positives(train('without', without=True))


# --- the schedule ---------------------------------------------------------------------------------


def test_the_length_of_the_epoch_the_iterations_and_the_schedule_follow(train):
    notes = train()
    chips = [len(notes.chips[e]) for e in range(4)]
    assert [notes.length[e] for e in range(4)] == [-(-n // 4) for n in chips]
    total = sum(notes.length.values())
    assert notes.runner.iter == notes.runner.max_iters == total == len(notes.lrs)
    assert notes.left[2] == notes.length[2] + notes.length[3]
    assert notes.lrs[3:] == sorted(notes.lrs[3:], reverse=True)
    assert notes.lrs[-1] < 1e-4 < notes.lrs[-3]
    start = notes.length[0] + notes.length[1]
    assert (np.diff(notes.eta[start:]) < 1e9).all()
    assert notes.eta[start] > 0
    assert notes.eta[-1] == 0


def test_the_log_counts_the_iterations_of_the_longer_epochs(train, tmp_path):
    train(log_level='INFO')
    log = next((tmp_path / 'w').glob('*/*.log')).read_text()
    counts = re.findall(r'Epoch\(train\)\s+\[(\d)\]\[\s*(\d+)/(\d+)\]', log)
    lengths = {epoch: {int(n) for e, _, n in counts if e == epoch} for epoch in '1234'}
    assert lengths == {'1': {3}, '2': {3}, '3': {7}, '4': {7}}
    assert 'negative chips for 8 of 8 images, fine to coarse' in log
    assert 'saved to' in log


def test_scaling_the_learning_rate_is_left_alone(train):
    config = {'auto_scale_lr': dict(enable=True, base_batch_size=2)}
    scaled, plain = train('a', **config), train('b')
    assert np.array(scaled.lrs)[:-3] == pytest.approx(2 * np.array(plain.lrs)[:-3], rel=0.02)


def test_mining_leaves_the_random_numbers_of_the_training_alone(train, monkeypatch):
    def states(notes):
        return torch.get_rng_state(), np.random.get_state()[1]

    after = []
    mine = NegativeChipMiner.mine

    def watched(self, *args, **kwargs):
        before = states(None)
        pool = mine(self, *args, **kwargs)
        after.append((before, states(None)))
        return pool

    monkeypatch.setattr(NegativeChipMiner, 'mine', watched)
    train()
    ((before, then),) = after
    assert torch.equal(before[0], then[0])
    assert (before[1] == then[1]).all()


# --- the file, and resuming -----------------------------------------------------------------------


def test_the_pool_is_saved_and_named_in_the_checkpoints_from_then_on(train, tmp_path):
    notes = train()
    pool = NegativeChipPool.from_file(tmp_path / 'w' / 'negative_chips.npz')
    assert pool.statistics.images == NUM_IMAGES
    assert len(pool.chips) == pool.statistics.chips > 16
    names = {index.chip.box for e in (2, 3) for index in negatives(notes.chips[e])}
    assert names <= {tuple(box) for box in pool.chips.box.tolist()}
    # As torch loads by default: from torch 2.6 on with weights_only.
    saved = [torch.load(tmp_path / 'w' / f'epoch_{e}.pth') for e in (2, 3)]
    first, second = (s['message_hub']['runtime_info'].get('negative_chips') for s in saved)
    assert first is None
    assert second == dict(file='negative_chips.npz', origin=pool.origin, epoch=2)
    pixels = saved[1]['message_hub']['runtime_info']['mining_pixels']
    # Every image at both levels, in windows that overlap.
    assert pixels > 4 * (150 * 200 + 75 * 100) + 4 * (180 * 140 + 90 * 70)
    assert sorted(p.name for p in (tmp_path / 'w').glob('*negative*')) == ['negative_chips.npz']


def resume_from(tmp_path, epoch, source='w', target='r'):
    shutil.copytree(tmp_path / source, tmp_path / target)
    return {'resume': True, 'load_from': str(tmp_path / target / f'epoch_{epoch}.pth')}


@pytest.mark.parametrize('epoch', [2, 3])
def test_a_resumed_run_has_the_chips_of_the_uninterrupted_one(train, tmp_path, epoch, count_mining):
    whole = train()
    assert count_mining['mined'] == 1
    rest = train('r', **resume_from(tmp_path, epoch))
    # The pool is there: found by what it was mined from, or named by the checkpoint.
    assert count_mining['mined'] == 1
    assert sorted(rest.chips) == list(range(epoch, 4))
    for e in rest.chips:
        assert as_tuples(rest.chips[e]) == as_tuples(whole.chips[e])
        assert rest.left[e] == whole.left[e]
    assert rest.lrs == pytest.approx(whole.lrs[-len(rest.lrs) :])
    assert rest.runner.iter == whole.runner.iter


ANEW = dict(covered='touched', placed='anew')


def test_chips_that_are_placed_anew_are_others_in_every_epoch_and_the_schedule_follows(train):
    changes = {'hook': dict(ANEW, warmup_epochs=1, chips_per_image=99), 'train_cfg.max_epochs': 5}
    notes = train(**changes)
    boxes = [{index.chip.box for index in negatives(notes.chips[e])} for e in (1, 2, 3, 4)]
    # At an image's border they cannot slide.
    assert all(len(a - b) > len(a) / 2 for a, b in zip(boxes, boxes[1:]))
    assert len(set(notes.length.values())) > 2  # epochs are not equally long
    assert notes.runner.iter == notes.runner.max_iters == sum(notes.length.values())
    assert notes.lrs[-1] < notes.lrs[-3] < 1e-3


@pytest.mark.parametrize('epoch', [1, 2, 3])
def test_a_run_whose_chips_are_placed_anew_resumes_with_the_same(train, tmp_path, epoch):
    changes = {'hook': dict(ANEW, warmup_epochs=1, chips_per_image=99)}
    whole = train(**changes)
    rest = train('r', **changes, **resume_from(tmp_path, epoch))
    for e in rest.chips:
        assert as_tuples(rest.chips[e]) == as_tuples(whole.chips[e])
        assert rest.left[e] == whole.left[e]
    assert rest.lrs == pytest.approx(whole.lrs[-len(rest.lrs) :])
    assert rest.runner.iter == whole.runner.iter


def test_a_checkpoint_within_the_epoch_of_mining_does_not_mine_again(train, tmp_path, count_mining):
    changes = {'default_hooks.checkpoint': dict(by_epoch=False, interval=8)}
    whole = train(**changes)
    assert 2 * whole.length[0] < 8 < 2 * whole.length[0] + whole.length[2]
    rest = train(**changes, resume=True, load_from=str(tmp_path / 'w' / 'iter_8.pth'))
    assert count_mining['mined'] == 1
    assert {e: as_tuples(rest.chips[e]) for e in (2, 3)} == {
        e: as_tuples(whole.chips[e]) for e in (2, 3)
    }


def test_a_run_that_is_resumed_before_mining_mines_the_same_pool(train, tmp_path):
    train()
    changes = resume_from(tmp_path, 2)
    (tmp_path / 'r' / 'negative_chips.npz').unlink()
    train('r', **changes)
    first, second = (np.load(tmp_path / f / 'negative_chips.npz') for f in 'wr')
    assert all((first[name] == second[name]).all() for name in first)


def test_a_pool_of_another_training_is_not_taken(train, tmp_path, count_mining):
    """A work folder that is used again."""
    train()
    train(**{'randomness.seed': 1})
    assert count_mining['mined'] == 2


def test_a_checkpoint_in_another_folder_brings_its_pool(train, tmp_path, count_mining):
    train()
    train('other', resume=True, load_from=str(tmp_path / 'w' / 'epoch_3.pth'))
    assert count_mining['mined'] == 1


def test_says_that_the_pool_of_a_checkpoint_is_gone(train, tmp_path):
    train()
    (tmp_path / 'w' / 'negative_chips.npz').unlink()
    with pytest.raises(PoolError, match=r'negative_chips.npz, which is not in .*epoch 2'):
        train(resume=True)


def test_says_that_the_pool_of_a_checkpoint_was_replaced(train, tmp_path):
    train()
    train('other', **{'randomness.seed': 1})
    shutil.copy(tmp_path / 'other' / 'negative_chips.npz', tmp_path / 'w')
    with pytest.raises(PoolError, match=r'is not the pool that the run to resume was trained'):
        train(resume=True)


def test_says_that_the_pool_of_a_checkpoint_is_cut_short(train, tmp_path):
    train()
    file = tmp_path / 'w' / 'negative_chips.npz'
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(PoolError, match=r'negative_chips.npz is not a whole .npz file'):
        train(resume=True)


# --- mining again ---------------------------------------------------------------------------------


def test_mines_again_at_every_interval(train, tmp_path, count_mining):
    notes = train(hook=dict(warmup_epochs=1, interval=2), **{'train_cfg.max_epochs': 6})
    assert count_mining['mined'] == 3
    files = sorted(p.name for p in (tmp_path / 'w').glob('*.npz'))
    assert files == [
        'negative_chips.npz',
        'negative_chips_epoch_3.npz',
        'negative_chips_epoch_5.npz',
    ]
    pools = [NegativeChipPool.from_file(tmp_path / 'w' / name) for name in files]
    assert len({pool.origin for pool in pools}) == 3
    for pool, epochs in zip(pools, [(1, 2), (3, 4), (5,)]):
        boxes = {tuple(box) for box in pool.chips.box.tolist()}
        for e in epochs:
            assert {index.chip.box for index in negatives(notes.chips[e])} <= boxes
    assert notes.runner.iter == notes.runner.max_iters == sum(notes.length.values())


@pytest.mark.parametrize('epoch', [3, 4])
def test_a_run_that_mines_again_resumes_with_the_right_pool(train, tmp_path, epoch, count_mining):
    changes = {'hook': dict(warmup_epochs=1, interval=2), 'train_cfg.max_epochs': 5}
    whole = train(**changes)
    rest = train('r', **changes, **resume_from(tmp_path, epoch))
    assert count_mining['mined'] == 2
    for e in rest.chips:
        assert as_tuples(rest.chips[e]) == as_tuples(whole.chips[e])
    assert rest.lrs == pytest.approx(whole.lrs[-len(rest.lrs) :])


# --- other detectors ------------------------------------------------------------------------------


def test_an_rpn_alone_is_trained_with_negative_chips(train):
    model = dict(
        _delete_=True,
        type='RPN',
        data_preprocessor=dict(type='DetDataPreprocessor', pad_size_divisor=32),
        backbone=dict(type='ResNet', depth=18, base_channels=8, norm_eval=False),
        neck=dict(type='FPN', in_channels=[8, 16, 32, 64], out_channels=8, num_outs=5),
        rpn_head=dict(
            type='RPNHead',
            in_channels=8,
            feat_channels=8,
            anchor_generator=dict(
                type='AnchorGenerator', scales=[4], ratios=[1.0], strides=[4, 8, 16, 32, 64]
            ),
        ),
        train_cfg=dict(
            rpn=dict(
                assigner=dict(type='ValidRangeAssigner', pos_iou_thr=0.7, neg_iou_thr=0.3),
                sampler=dict(
                    type='RandomSampler', num=64, pos_fraction=0.5, add_gt_as_proposals=False
                ),
                allowed_border=-1,
                pos_weight=-1,
                debug=False,
            )
        ),
        test_cfg=dict(
            rpn=dict(
                nms_pre=100,
                max_per_img=50,
                nms=dict(type='nms', iou_threshold=0.7),
                min_bbox_size=0,
            )
        ),
    )
    notes = train(model=model)
    assert len(negatives(notes.chips[3])) == 16


def test_a_detector_without_an_rpn_is_refused_at_the_start_with_the_way_out(train):
    model = dict(
        _delete_=True,
        type='RetinaNet',
        data_preprocessor=dict(type='DetDataPreprocessor', pad_size_divisor=32),
        backbone=dict(type='ResNet', depth=18, base_channels=8),
        neck=dict(type='FPN', in_channels=[8, 16, 32, 64], out_channels=8, num_outs=5),
        bbox_head=dict(type='RetinaHead', num_classes=2, in_channels=8, feat_channels=8),
    )
    with pytest.raises(ValueError, match=r'RetinaNet has no rpn_head.*mine_negatives.py.*FILE'):
        train(model=model)


# --- mistakes -------------------------------------------------------------------------------------


def test_a_pool_without_chips_is_warned_of_and_training_goes_on(train, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger('mmengine'), 'propagate', True)
    notes = train(hook=dict(min_proposals=1000))
    assert len(notes.chips[3]) == len(notes.chips[0])


@pytest.mark.parametrize(
    ('options', 'epoch', 'max_epochs', 'warning'),
    [
        (dict(), 0, 3, None),
        (dict(), 0, 2, 'epoch 2, counted from 0, but this training ends after 2.'),
        (dict(), 2, 3, None),
        # Beyond the warm-up a checkpoint without a pool is one of a training without the hook.
        (dict(), 3, 9, 'was resumed at 3, from a checkpoint without negative chips'),
        (dict(interval=2), 3, 5, None),
        (dict(interval=2), 3, 4, 'warmup_epochs=2 and interval=2'),
        (dict(), 4, 4, None),  # nothing is left to train
    ],
)
def test_mining_that_never_comes_is_warned_of(monkeypatch, options, epoch, max_epochs, warning):
    monkeypatch.setattr(negative_chip_hook, '_sampler_of', lambda runner: None)
    monkeypatch.setattr(NegativeChipMiner, 'check', lambda self, model, sampler: None)
    said = []
    hub = SimpleNamespace(runtime_info={})
    runner = SimpleNamespace(
        epoch=epoch,
        max_epochs=max_epochs,
        message_hub=hub,
        model=None,
        logger=SimpleNamespace(warning=said.append),
    )
    NegativeChipHook(**options).before_train(runner)
    assert len(said) == (warning is not None)
    assert warning is None or warning in said[0]


def test_an_iteration_based_training_is_refused_with_the_way_out(train):
    changes = dict(train_cfg=dict(_delete_=True, type='IterBasedTrainLoop', max_iters=4))
    with pytest.raises(TypeError, match=r'mines between epochs.*mine_negatives.py'):
        train(**changes, param_scheduler=[])


def test_windows_that_are_no_larger_than_a_chip_are_refused_at_the_start(train, tmp_path):
    with pytest.raises(ValueError, match='window_size 64 must exceed the chip size, 64'):
        train(hook=dict(window_size=64))
    assert not list((tmp_path / 'w').glob('*.pth'))


def test_another_sampler_is_refused(train):
    changes = {'train_dataloader.sampler': dict(_delete_=True, type='DefaultSampler')}
    with pytest.raises(TypeError, match=r'ChipAwareSampler, but .* is a DefaultSampler'):
        train(**changes)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(warmup_epochs=0), 'warmup_epochs must be a whole number of at least 1, got 0'),
        (dict(interval=0), 'interval must be a whole number'),
        (dict(chips_per_image=1.5), 'chips_per_image must be a whole number'),
        (dict(min_proposals=-1), 'min_proposals must be'),
        (dict(max_per_image=0), 'max_per_image must be'),
        (dict(num_proposals=0), 'num_proposals must be a whole number of at least 1, got 0'),
    ],
)
def test_options_are_checked_when_the_hook_is_built(options, message):
    with pytest.raises(ValueError, match=message):
        NegativeChipHook(**options)


def test_the_file_has_the_name_that_the_docs_say():
    assert negative_chip_hook.POOL_FILE == 'negative_chips.npz'
