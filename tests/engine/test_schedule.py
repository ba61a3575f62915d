"""When epochs become longer on the way, the end of training and the schedules move with them."""

import itertools

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch.optim import SGD
from torch.utils.data import DataLoader, Dataset, Sampler

from mmsniper.engine.schedule import _carried_on, fit_to_epoch_length

SHORT, LONG, EPOCHS, CHANGE = 4, 10, 6, 2
TOTAL = CHANGE * SHORT + (EPOCHS - CHANGE) * LONG


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, inputs, mode='tensor'):
        return dict(loss=(self.weight * torch.stack(list(inputs))).mean())


class TwoOptimizers(Model):
    """Trained by an optimizer for each of its two weights."""

    def __init__(self):
        super().__init__()
        self.other = torch.nn.Parameter(torch.ones(1))

    def train_step(self, data, optim_wrapper):
        for wrapper in optim_wrapper.values():
            wrapper.update_params(self.weight.sum() + self.other.sum())
        return dict(loss=self.weight.detach().sum())

    def wrappers(self):
        parameters = dict(one=[self.weight], two=[self.other])
        return OptimWrapperDict(
            **{name: OptimWrapper(SGD(some, lr=1.0)) for name, some in parameters.items()}
        )


class Data(Dataset):
    def __len__(self):
        return LONG

    def __getitem__(self, index):
        return dict(inputs=torch.tensor(1.0))


class GrowingSampler(Sampler):
    """SHORT items in the first epochs, LONG from epoch CHANGE on; or LONG from the start."""

    def __init__(self, fixed):
        self.epoch, self.fixed = CHANGE if fixed else 0, fixed

    def set_epoch(self, epoch):
        self.epoch = max(epoch, self.epoch)

    def __len__(self):
        return LONG if self.epoch >= CHANGE else SHORT

    def __iter__(self):
        return iter(range(len(self)))


class Grow(Hook):
    """Fits the schedule where the epochs grow, and notes what each iteration was done with."""

    priority = 'ABOVE_NORMAL'

    def __init__(self, fit):
        self.fit, self.lrs, self.left, self.epochs = fit, [], [], []

    def before_train(self, runner):
        if runner.epoch > CHANGE:  # resumed
            runner.train_dataloader.sampler.set_epoch(runner.epoch)
            fit_to_epoch_length(runner, resumed=True)

    def before_train_epoch(self, runner):
        runner.train_dataloader.sampler.set_epoch(runner.epoch)
        if runner.epoch == CHANGE and self.fit:
            fit_to_epoch_length(runner)

    def after_train_epoch(self, runner):
        """The validation of each epoch finds the loss that it began with."""
        for scheduler in runner.param_schedulers or ():
            if getattr(scheduler, 'need_val_args', False):
                scheduler.step(dict(loss=1.0))

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.lrs.append(next(iter(runner.optim_wrapper.get_lr().values()))[0])
        self.left.append(runner.max_iters - runner.iter)
        self.epochs.append(runner.epoch)


@pytest.fixture
def train(tmp_path):
    """Train with a param_scheduler config and return what the iterations were done with."""
    count = itertools.count()

    def run(
        scheduler, fixed=False, fit=True, epochs=EPOCHS, resume=False, wrapper=None, model=None
    ):
        model = model or Model()
        config = dict(
            work_dir=str(tmp_path),
            experiment_name=f'{tmp_path.name}_{next(count)}',
            train_cfg=dict(by_epoch=True, max_epochs=epochs),
            param_scheduler=scheduler,
            default_hooks=dict(logger=None),
            default_scope='mmengine',
            log_level='ERROR',
        )
        seen = Grow(fit and not fixed)
        runner = Runner(
            model=model,
            optim_wrapper=model.wrappers()
            if isinstance(model, TwoOptimizers)
            else dict(
                type='OptimWrapper',
                optimizer=dict(type='SGD', lr=1.0, momentum=0.9),
                **(wrapper or {}),
            ),
            train_dataloader=DataLoader(Data(), sampler=GrowingSampler(fixed)),
            custom_hooks=[seen],
            resume=resume,
            cfg=dict(config),
            **config,
        )
        runner.train()
        seen.runner = runner
        return seen

    return run


COSINE = dict(type='CosineAnnealingLR', eta_min=0.01, by_epoch=True, convert_to_iter_based=True)
STEP = dict(
    type='MultiStepLR', milestones=[1, 4], gamma=0.1, by_epoch=True, convert_to_iter_based=True
)
LATE = dict(type='ConstantLR', factor=0.1, begin=4.5, by_epoch=True, convert_to_iter_based=True)
WARM_UP = dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=3)


@pytest.mark.parametrize('scheduler', [COSINE, STEP, LATE], ids=lambda s: s['type'])
def test_what_is_given_in_epochs_happens_at_the_same_epochs_as_before(train, scheduler):
    """The long epochs have the learning rates that they have where all epochs are long."""
    grown, fixed = train([scheduler]), train([scheduler], fixed=True)
    assert len(grown.lrs) == TOTAL
    assert grown.lrs[CHANGE * SHORT :] == pytest.approx(fixed.lrs[CHANGE * LONG :], rel=1e-5)
    assert len(set(grown.lrs)) > 1


@pytest.mark.parametrize('end', [1, CHANGE, CHANGE + 1])
@pytest.mark.parametrize('begin', [0, 0.5])
def test_a_schedule_that_has_ended_is_where_it_would_be_with_long_epochs(train, begin, end):
    scheduler = dict(COSINE, begin=begin, end=end, T_max=end - begin)
    [grown], [fixed] = (
        train([scheduler], fixed=fixed).runner.param_schedulers for fixed in (False, True)
    )
    assert grown.last_step == fixed.last_step == round((end - begin) * LONG) - 1
    assert grown._global_step == fixed._global_step


def test_a_schedule_that_has_not_begun_begins_at_its_epoch(train):
    scheduler = dict(COSINE, begin=CHANGE + 1)
    grown, fixed = train([scheduler]), train([scheduler], fixed=True)
    first = CHANGE * SHORT + LONG
    assert grown.lrs[first - 1 : first + 2] == fixed.lrs[(CHANGE + 1) * LONG - 1 :][:3]
    assert grown.lrs[first] == 1.0 > grown.lrs[first + 1]
    [one], [other] = grown.runner.param_schedulers, fixed.runner.param_schedulers
    assert one.last_step == other.last_step


def test_without_the_fit_a_cosine_would_end_too_early(train):
    """Shows that the tests above test something."""
    unfit, fit = train([COSINE], fit=False), train([COSINE])
    end = EPOCHS * SHORT
    assert set(unfit.lrs[end:]) == {unfit.lrs[end]}
    assert unfit.left[-1] == end - TOTAL + 1
    assert sorted(set(fit.lrs), reverse=True) == fit.lrs


def test_a_warm_up_in_iterations_stays_and_mixes_with_a_cosine(train):
    both, alone = train([WARM_UP, COSINE]), train([COSINE])
    assert both.lrs[:2] == pytest.approx([0.1, 0.55], rel=0.01)
    assert both.lrs[2:] == pytest.approx(alone.lrs[2:], rel=1e-3)


def test_a_schedule_in_iterations_that_has_an_end_is_left_alone(train):
    steps = dict(type='MultiStepLR', milestones=[5, 30], gamma=0.1, by_epoch=False, end=1000)
    lrs = train([steps]).lrs
    assert lrs == pytest.approx([1.0] * 5 + [0.1] * 25 + [0.01] * (TOTAL - 30))


def test_a_schedule_in_iterations_without_an_end_ends_with_the_training(train):
    cosine = dict(type='CosineAnnealingLR', eta_min=0.01, by_epoch=False)
    lrs = train([cosine]).lrs
    assert lrs[-1] == pytest.approx(0.01, abs=0.01)
    assert min(lrs[:-5]) > 0.015


def test_a_schedule_by_epoch_is_left_alone(train):
    lrs = train([dict(type='MultiStepLR', milestones=[1, 4], gamma=0.1, by_epoch=True)]).lrs
    assert lrs == pytest.approx([1.0] * SHORT + [0.1] * (SHORT + 2 * LONG) + [0.01] * (2 * LONG))


def test_momentum_schedules_move_too(train):
    momentum = dict(
        type='CosineAnnealingMomentum', eta_min=0.0, by_epoch=True, convert_to_iter_based=True
    )
    runner = train([COSINE, momentum]).runner
    assert [s.last_step for s in runner.param_schedulers] == [EPOCHS * LONG - 1] * 2
    assert runner.optim_wrapper.get_momentum()['momentum'][0] == pytest.approx(0, abs=1e-3)


PLATEAU = dict(type='ReduceOnPlateauLR', monitor='loss', patience=2, cooldown=1, by_epoch=True)


def test_a_plateau_that_began_before_the_change_is_one(train):
    """The loss never falls: the first epoch's is the best, and the three after it are too many."""
    lrs, momentum = train([PLATEAU]).lrs, dict(PLATEAU, type='ReduceOnPlateauMomentum')
    assert lrs == pytest.approx([1.0] * (TOTAL - 2 * LONG) + [0.1] * (2 * LONG))
    runner = train([COSINE, momentum]).runner
    assert runner.optim_wrapper.get_momentum()['momentum'][0] == pytest.approx(0.09)
    assert runner.param_schedulers[1].best == 1.0


@pytest.mark.parametrize('apart', [False, True])
def test_each_of_several_optimizers_has_its_schedules(train, apart):
    second = [PLATEAU, WARM_UP]
    config = dict(one=[COSINE], two=second) if apart else [COSINE]
    seen = train(config, model=TwoOptimizers())
    assert seen.lrs == train([COSINE]).lrs
    if apart:
        plateau, warm_up = seen.runner.param_schedulers['two']
        assert (plateau.best, plateau._global_step, warm_up.last_step) == (1e9, EPOCHS, 2)


def test_one_cycle_goes_on_where_it_was(train):
    cycle = dict(type='OneCycleLR', eta_max=1.0, by_epoch=True, convert_to_iter_based=True)
    cycle['total_steps'] = EPOCHS
    grown, fixed = train([cycle]).lrs, train([cycle], fixed=True).lrs
    # But for the first, which was set before the change: the cycle takes its last step for its end.
    left = (EPOCHS - CHANGE) * LONG - 1
    assert grown[-left:] == pytest.approx(fixed[-left:], rel=1e-5)


@pytest.mark.parametrize('scheduler', [COSINE, LATE, WARM_UP, PLATEAU], ids=lambda s: s['type'])
@pytest.mark.parametrize('stop', [CHANGE, CHANGE + 2])
def test_a_resumed_run_goes_on_as_the_uninterrupted_one(train, scheduler, stop, tmp_path):
    whole = train([scheduler])
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / f'epoch_{stop}.pth'))
    rest = train([scheduler], resume=True)
    assert len(rest.lrs) == (EPOCHS - stop) * LONG
    assert rest.lrs == pytest.approx(whole.lrs[-len(rest.lrs) :], rel=1e-6)
    assert rest.left == whole.left[-len(rest.lrs) :]


def test_the_iterations_that_are_left_are_right_from_the_change_on(train):
    seen = train([COSINE])
    assert seen.left[CHANGE * SHORT :] == list(range((EPOCHS - CHANGE) * LONG, 0, -1))
    assert seen.runner.message_hub.get_info('max_iters') == TOTAL
    assert seen.epochs.count(EPOCHS - 1) == LONG


def test_gradients_are_still_accumulated_in_the_longer_epochs(train):
    """mmengine counts to the end of training that it knew at the start, and then fails."""
    seen = train([COSINE], wrapper=dict(accumulative_counts=2))
    assert len(seen.lrs) == TOTAL
    assert seen.runner.optim_wrapper._max_counts == TOTAL


def test_no_schedule_at_all_is_fine(train):
    assert train(None).lrs == [1.0] * TOTAL


def test_a_schedule_that_is_not_of_the_config_is_not_lost_without_a_word():
    with pytest.raises(ValueError, match='longer'):
        _carried_on([], [object()], [], 10)
