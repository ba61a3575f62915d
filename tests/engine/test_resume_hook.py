"""A run that is resumed with epochs of another length has the rates of the uninterrupted one."""

import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import DataLoader, Dataset

from mmsniper.engine import ResumeHook

ITEMS, EPOCHS = 24, 6
COSINE = dict(type='CosineAnnealingLR', eta_min=0.01, by_epoch=True, convert_to_iter_based=True)
STEP = dict(
    type='MultiStepLR', milestones=[1, 4], gamma=0.1, by_epoch=True, convert_to_iter_based=True
)
# Ends past the last iteration, as in the configs of the paper's recipe.
LATE = dict(type='ConstantLR', factor=0.1, begin=4.5, end=EPOCHS + 1, by_epoch=True)
LATE['convert_to_iter_based'] = True
LOOP = dict(by_epoch=True, max_epochs=EPOCHS)
WARM_UP = dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=3)


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, inputs, mode='tensor'):
        return dict(loss=(self.weight * torch.stack(list(inputs))).mean())


class Data(Dataset):
    def __len__(self):
        return ITEMS

    def __getitem__(self, index):
        return dict(inputs=torch.tensor(1.0))


class Notes(Hook):
    """The rate of each iteration, by the part of the training that is done: in epochs."""

    def __init__(self):
        self.lrs, self.left = {}, []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        at = runner.epoch + batch_idx / len(runner.train_dataloader)
        self.lrs[round(at, 6)] = runner.optim_wrapper.get_lr()['lr'][0]
        self.left.append(runner.max_iters - runner.iter)


@pytest.fixture
def train(tmp_path):
    count = itertools.count()

    def run(schedulers, batch_size, resume=None, hooks=None, loop=LOOP, **options):
        config = dict(
            work_dir=str(tmp_path / f'{batch_size}'),
            experiment_name=f'{tmp_path.name}_{next(count)}',
            train_cfg=loop,
            param_scheduler=schedulers,
            default_hooks=dict(logger=None, checkpoint=dict(type='CheckpointHook', interval=1)),
            default_scope='mmengine',
            log_level='INFO',
        )
        config['default_hooks']['checkpoint'].update(options.pop('checkpoint', {}))
        notes = Notes()
        wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=1.0), **options)
        runner = Runner(
            model=Model(),
            optim_wrapper=wrapper,
            train_dataloader=DataLoader(Data(), batch_size),
            custom_hooks=[notes, *([ResumeHook()] if hooks is None else hooks)],
            resume=resume is not None,
            load_from=None if resume is None else str(tmp_path / resume),
            cfg=dict(config),
            **config,
        )
        runner.train()
        notes.runner = runner
        notes.log = Path(runner.log_dir, f'{runner.timestamp}.log').read_text()
        return notes

    return run


@pytest.mark.parametrize(('before', 'after'), [(2, 1), (2, 4)])
@pytest.mark.parametrize('stop', [1, 2, 5])
@pytest.mark.parametrize('scheduler', [COSINE, STEP, LATE], ids=lambda s: s['type'])
def test_the_rate_at_each_part_of_an_epoch_is_that_of_the_uninterrupted_run(
    train, scheduler, stop, before, after
):
    whole = train([WARM_UP, scheduler], before).lrs
    rest = train([WARM_UP, scheduler], after, f'{before}/epoch_{stop}.pth')
    assert len(rest.lrs) == (EPOCHS - stop) * ITEMS // after
    common = set(whole) & set(rest.lrs)
    assert len(common) == (EPOCHS - stop) * ITEMS // max(before, after)
    assert [rest.lrs[at] for at in common] == pytest.approx([whole[at] for at in common])
    assert len(set(whole.values())) > 1
    assert rest.left == list(range(len(rest.lrs), 0, -1))
    assert rest.runner.message_hub.get_info('max_iters') == rest.runner.max_iters
    new, old = ITEMS // after, ITEMS // before
    assert (
        f'an epoch has {new} iterations, in the resumed run it had {old}: schedules that are given '
        f'in epochs go on at epoch {stop} of {EPOCHS}'
    ) in rest.log


def test_without_the_hook_the_schedule_is_that_of_the_old_epochs(train):
    """Shows that the test above tests something."""
    train([LATE], 2, hooks=[])
    rest = train([LATE], 1, '2/epoch_2.pth', hooks=[]).lrs
    assert (rest[3.0], rest[4.25]) == (1.0, 0.1)


def test_a_run_that_is_resumed_twice_counts_from_where_it_is(train):
    whole = train([COSINE], 2).lrs
    train([COSINE], 1, '2/epoch_2.pth')
    rest = train([COSINE], 1, '1/epoch_4.pth')
    assert rest.lrs[5.5] == pytest.approx(whole[5.5])
    assert rest.left == list(range(2 * ITEMS, 0, -1))


def test_a_batch_of_another_size_is_warned_of_with_the_fix(train):
    train([STEP], 4)
    log = train([STEP], 2, '4/epoch_2.pth').log
    assert 'the batch size over all GPUs is 2, but the resumed run had 4' in log
    assert 'Make it 4 again: 4 on each GPU' in log
    assert 'WARNING' in log[log.index('the batch size over all') - 100 :][:100]
    assert '4/epoch_2.pth without --resume' in log


@pytest.mark.parametrize(('after', 'accumulated'), [(4, 1), (2, 2)])
def test_nothing_is_said_of_as_many_inputs_for_an_update(train, after, accumulated):
    train([STEP], 4)
    log = train([STEP], after, '4/epoch_2.pth', accumulative_counts=accumulated).log
    assert 'batch size over all GPUs' not in log
    assert ('an epoch has' in log) == (after != 4)


WITHIN = dict(by_epoch=False, interval=5)


@pytest.mark.parametrize('after', [2, 1])
def test_a_checkpoint_from_within_an_epoch_is_warned_of_once(train, after):
    """mmengine trains the whole epoch. A step that has been taken is not taken again."""
    step = dict(type='MultiStepLR', milestones=[1], gamma=0.1, by_epoch=True, end=EPOCHS + 1)
    step['convert_to_iter_based'] = True
    train([step], 2, checkpoint=WITHIN)
    rest = train([step], after, '2/iter_15.pth')
    told = 'iter_15.pth is from within epoch 2, after 3 of 12 iterations'
    assert rest.log.count(told) == 1
    assert rest.left[0] == 5 * ITEMS // after
    assert list(rest.lrs.values()) == pytest.approx([0.1] * len(rest.lrs))


def test_the_end_of_an_epoch_is_whole_only_in_checkpoints_by_epoch(train):
    train([STEP], 2, checkpoint=dict(by_epoch=False, interval=12))
    assert 'after 12 of 12 iterations' in train([STEP], 2, '2/iter_24.pth').log
    train([STEP], 4)
    assert 'from within' not in train([STEP], 4, '4/epoch_2.pth').log


def test_loops_without_epochs_are_told_of_the_batch_only(train):
    loop = dict(by_epoch=False, max_iters=20)
    train([], 4, loop=loop, checkpoint=WITHIN)
    rest = train([], 2, '4/iter_10.pth', loop=loop)
    assert 'the batch size over all GPUs is 2' in rest.log
    assert 'an epoch has' not in rest.log
    assert 'from within' not in rest.log


def test_of_a_checkpoint_without_notes_nothing_is_said(train):
    train([STEP], 4, hooks=[])
    log = train([STEP], 2, '4/epoch_2.pth').log
    assert 'batch size over all GPUs' not in log
    assert 'an epoch has' not in log


def test_weights_to_start_from_are_not_a_run_to_resume():
    hook = ResumeHook()
    hook.after_load_checkpoint(SimpleNamespace(_resume=False), dict(state_dict={}))
    assert hook._noted is None
