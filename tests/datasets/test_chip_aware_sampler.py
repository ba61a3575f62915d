import gc
import logging
import pickle
import time
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch.distributed as dist
import torch.multiprocessing as mp
from mmdet.registry import DATASETS
from mmengine.hooks import DistSamplerSeedHook
from mmengine.runner import Runner
from mmengine.runner.loops import _InfiniteDataloaderIterator
from PIL import Image
from torch.utils.data import Subset

from mmsniper.chips import POSITIVE, ChipPlan
from mmsniper.datasets import ChipIndex, read_annotations, samplers

WORLD_SIZES = [1, 2, 3, 8]


@pytest.fixture
def dataset(five_images, chips_of):
    return DATASETS.build(chips_of(five_images()))


@pytest.fixture
def on_rank(monkeypatch, make_sampler, dataset):
    """The sampler that one rank of several would build."""

    def make(rank, world_size, **kwargs):
        monkeypatch.setattr(samplers, 'get_dist_info', lambda: (rank, world_size))
        return make_sampler(dataset, **kwargs)

    return make


def chips(indices):
    return [(int(index), index.chip) for index in indices]


def planned(sampler):
    """The plan's chips, in its order."""
    plan = sampler.plan
    return [
        (int(plan.image[i]), (int(plan.level[i]), tuple(plan.box[i].tolist()), int(plan.kind[i])))
        for i in range(len(plan))
    ]


# --- one epoch ------------------------------------------------------------------------------------


def test_an_epoch_is_every_chip_of_the_plan_once(make_sampler, dataset):
    sampler = make_sampler(dataset)
    indices = list(sampler)
    assert all(isinstance(index, ChipIndex) for index in indices)
    assert sorted(chips(indices)) == sorted(planned(sampler))
    assert len(sampler) == len(indices) == len(sampler.plan) >= 10
    assert {index.chip.kind for index in indices} == {POSITIVE}


def test_the_plan_covers_every_valid_box_that_fits(make_sampler, dataset, pyramid):
    sampler = make_sampler(dataset)
    table = read_annotations(dataset)
    for image in range(len(dataset)):
        width, height = table.width[image], table.height[image]
        boxes = table.boxes_of(image)
        valid, fits = sampler.pyramid.valid_and_fits(boxes, width, height)
        for box, level in zip(*np.nonzero(valid & fits)):
            mine = (sampler.plan.image == image) & (sampler.plan.level == level)
            windows = sampler.plan.box[mine]
            inside = (windows[:, :2] <= boxes[box, :2] + 1e-3) & (
                windows[:, 2:] >= boxes[box, 2:] - 1e-3
            )
            assert inside.all(axis=1).any()


def test_chips_are_shuffled_differently_in_each_epoch(make_sampler, dataset):
    sampler = make_sampler(dataset)
    first = [int(index) for index in sampler]
    sampler.set_epoch(1)
    second = [int(index) for index in sampler]
    assert sorted(first) == sorted(second)
    assert first != sorted(first)
    assert first != second


def test_without_shuffling_the_order_is_that_of_the_plan(make_sampler, dataset):
    sampler = make_sampler(dataset, shuffle=False)
    assert chips(sampler) == planned(sampler)
    assert [int(index) for index in sampler] == sorted(int(index) for index in sampler)


def test_grid_is_the_other_strategy(make_sampler, dataset):
    sampler = make_sampler(dataset, strategy='grid', stride=(14, 18))
    assert sorted(chips(sampler)) == sorted(planned(sampler))
    assert {int(index) for index in sampler} == set(range(5))


# --- seed and epoch -------------------------------------------------------------------------------


def test_an_epoch_is_determined_by_seed_and_epoch(make_sampler, dataset):
    same = [chips(make_sampler(dataset, seed=5)) for _ in range(2)]
    assert same[0] == same[1]
    assert chips(make_sampler(dataset, seed=6)) != same[0]


def test_a_resumed_run_has_the_epochs_of_the_uninterrupted_one(make_sampler, dataset):
    uninterrupted, epochs = make_sampler(dataset), []
    for epoch in range(4):
        uninterrupted.set_epoch(epoch)
        epochs.append(chips(uninterrupted))
    assert len({str(sorted(epoch)) for epoch in epochs}) == 4
    for epoch in (3, 1):
        resumed = make_sampler(dataset)
        resumed.set_epoch(epoch)
        assert chips(resumed) == epochs[epoch]


def test_reading_an_epoch_twice_gives_the_same(make_sampler, dataset):
    sampler = make_sampler(dataset)
    assert chips(sampler) == chips(sampler)


# --- ranks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize('world_size', [2, 8])
def test_several_ranks_without_rounding_are_refused_before_they_wait_for_each_other(
    on_rank, world_size
):
    for rank in range(world_size):
        with pytest.raises(ValueError, match='round_up=False of .* for which the others wait for'):
            on_rank(rank, world_size, round_up=False)
    assert sorted(chips(sampler := on_rank(0, 1, round_up=False))) == sorted(planned(sampler))


@pytest.mark.parametrize('epoch', [0, 2])
@pytest.mark.parametrize('world_size', WORLD_SIZES)
def test_ranks_have_equally_many_and_together_the_plan(on_rank, world_size, epoch):
    samplers_ = [on_rank(rank, world_size) for rank in range(world_size)]
    for sampler in samplers_:
        sampler.set_epoch(epoch)
    shares = [chips(sampler) for sampler in samplers_]
    plan = planned(samplers_[0])
    wanted = -(-len(plan) // world_size)
    assert {len(share) for share in shares} == {wanted}
    assert {len(sampler) for sampler in samplers_} == {wanted}
    together = [chip for share in shares for chip in share]
    assert set(together) == set(plan)
    assert len(together) - len(plan) < world_size


def test_more_ranks_than_chips_still_get_equally_many(on_rank):
    samplers_ = [on_rank(rank, 64) for rank in range(64)]
    shares = [chips(sampler) for sampler in samplers_]
    assert {len(share) for share in shares} == {1}
    assert {share[0] for share in shares} == set(planned(samplers_[0]))


def _rank_main(rank, world_size, folder, config):
    from mmdet.utils import register_all_modules

    register_all_modules(init_default_scope=True)
    dist.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=world_size
    )
    loader = Runner.build_dataloader(config, seed=None)  # ranks must agree on a random one
    batches = [[sample.chip for sample in batch['data_samples']] for batch in loader]
    sampler = loader.sampler
    seen = dict(seed=sampler.seed, batches=batches, chips=chips(sampler), plan=planned(sampler))
    with open(f'{folder}/rank{rank}.pkl', 'wb') as file:
        pickle.dump(seen, file)
    dist.barrier()
    dist.destroy_process_group()


def test_two_real_processes_share_one_plan(tmp_path, five_images, chips_of, pyramid):
    config = dict(
        batch_size=3,
        num_workers=0,
        sampler=dict(type='ChipAwareSampler', pyramid=pyramid),
        dataset=chips_of(five_images()),
    )
    mp.spawn(_rank_main, args=(2, str(tmp_path), config), nprocs=2)
    first, second = (pickle.loads((tmp_path / f'rank{i}.pkl').read_bytes()) for i in range(2))
    assert first['seed'] == second['seed']
    assert first['plan'] == second['plan']
    assert len(first['chips']) == len(second['chips'])
    assert len(first['batches']) == len(second['batches'])
    assert set(first['chips'] + second['chips']) == set(first['plan'])
    assert len(set(first['chips']) & set(second['chips'])) <= len(first['plan']) % 2
    for rank in (first, second):
        loaded_chips = [chip for batch in rank['batches'] for chip in batch]
        assert loaded_chips == [chip for _, chip in rank['chips']]


# --- in a data loader -----------------------------------------------------------------------------


@pytest.fixture
def build_loader(five_images, chips_of, pyramid):
    config = dict(
        batch_size=3,
        num_workers=0,
        sampler=dict(type='ChipAwareSampler', pyramid=pyramid),
        dataset=chips_of(five_images()),
    )

    def build(**kwargs):
        return Runner.build_dataloader(config | kwargs, seed=7)

    return build


def loaded(loader):
    return [(s.img_id, s.chip) for batch in loader for s in batch['data_samples']]


def set_epoch(loader, epoch):
    """As the runner does at the start of an epoch."""
    loop = SimpleNamespace(dataloader=loader)
    DistSamplerSeedHook().before_train_epoch(SimpleNamespace(train_loop=loop, epoch=epoch))


def test_persistent_workers_make_exactly_the_chips_of_each_epoch(build_loader, make_sampler):
    loader = build_loader(num_workers=2, persistent_workers=True)
    assert loader.sampler.seed == 7
    reference = make_sampler(loader.dataset, seed=7)
    epochs = []
    for epoch in range(3):
        set_epoch(loader, epoch)
        reference.set_epoch(epoch)
        epochs.append(loaded(loader))
        assert epochs[-1] == chips(reference)
    assert len({str(sorted(epoch)) for epoch in epochs}) == 3


def test_the_data_loader_has_the_length_that_it_has(build_loader):
    loader = build_loader()
    assert len(loader) == len(list(loader)) == -(-len(loader.sampler.plan) // 3)


def test_aspect_ratio_batches_hold_every_chip_too(build_loader):
    loader = build_loader(batch_sampler=dict(type='AspectRatioBatchSampler'), batch_size=4)
    sampler = loader.batch_sampler.sampler
    for epoch in (0, 1):
        set_epoch(loader, epoch)
        assert sampler.epoch == epoch
        assert sorted(loaded(loader)) == sorted(planned(sampler))
    full = [b['data_samples'] for b in loader if len(b['data_samples']) == 4][:-1]
    assert full
    for batch in full:
        assert len({s.ori_shape[0] > s.ori_shape[1] for s in batch}) == 1


@pytest.mark.parametrize('batch_sampler', [None, dict(type='AspectRatioBatchSampler')])
def test_an_iteration_based_loop_goes_on_with_the_next_epochs_plan(
    build_loader, make_sampler, monkeypatch, batch_sampler
):
    monkeypatch.setattr(time, 'sleep', lambda _: None)
    loader = build_loader(batch_sampler=batch_sampler)
    endless = _InfiniteDataloaderIterator(loader)
    reference = make_sampler(loader.dataset, seed=7)
    for epoch in range(3):
        reference.set_epoch(epoch)
        batches = [next(endless) for _ in range(len(loader))]
        assert sorted(loaded(batches)) == sorted(planned(reference))


def test_says_that_ranks_disagree(make_sampler, dataset, monkeypatch):
    """They would have batches of different number, and hang."""

    def gathered(mine):
        return [mine, mine | dict(boxes=12) if isinstance(mine, dict) else (mine[0] + 1, 0)]

    monkeypatch.setattr(samplers, 'all_gather_object', gathered)
    message = r'different chips .*\[1\d, 1\d\]\)\. boxes: \[11, 12\]\. Do .* annotation file'
    with pytest.raises(RuntimeError, match=message):
        make_sampler(dataset)


# --- size -----------------------------------------------------------------------------------------


def test_no_python_object_is_kept_for_a_chip(make_sampler, dataset):
    sampler, n = make_sampler(dataset), 200_000
    sampler._plan = ChipPlan(
        np.zeros(n, np.int32),
        np.zeros(n, np.int8),
        np.zeros((n, 4), np.float32),
        np.zeros(n, np.int8),
    )
    gc.collect()
    tracemalloc.start()
    assert sum(1 for _ in sampler) == n
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * n  # two arrays of positions; a list of integers would take 36 n more


class CountingDataset:
    """Counts how often annotations are read."""

    def __init__(self, dataset):
        self.dataset, self.reads = dataset, 0

    def __len__(self):
        return len(self.dataset)

    def get_data_info(self, idx):
        self.reads += 1
        return self.dataset.get_data_info(idx)


def test_annotations_are_read_once_for_all_epochs(make_sampler, dataset):
    counting = CountingDataset(dataset)
    sampler = make_sampler(counting)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        list(sampler)
    assert counting.reads == 5


# --- what it says ---------------------------------------------------------------------------------


@pytest.mark.parametrize(('rank', 'test_factor', 'warns'), [(0, 4, 1), (1, 4, 0), (0, 2.4, 0)])
def test_other_scales_in_the_test_are_warned_of_once_by_the_first_rank(
    five_images, chips_of, make_sampler, pyramid, monkeypatch, rank, test_factor, warns
):
    pyramid['levels'][0]['test_resize'] = dict(factor=test_factor)
    said = []
    monkeypatch.setattr(
        samplers, 'print_log', lambda msg, logger, level=logging.INFO: said.append((level, msg))
    )
    monkeypatch.setattr(samplers, 'get_dist_info', lambda: (rank, 2))
    sampler = make_sampler(chips_of(five_images()))
    sampler.set_epoch(1)
    list(sampler)
    warnings = [msg for level, msg in said if level == logging.WARNING]
    assert len(warnings) == warns
    for message in warnings:
        assert message.startswith(
            'the pyramid trains level 0 at 0.5 times the scale of its test (images of 220x240 px): '
        )


@pytest.fixture
def logged(monkeypatch):
    """What samplers log: pairs of level and message."""
    said = []
    monkeypatch.setattr(
        samplers, 'print_log', lambda msg, logger, level=logging.INFO: said.append((level, msg))
    )
    return said


@pytest.mark.parametrize(('rank', 'warns'), [(0, 1), (1, 0)])
def test_boxes_in_no_level_s_range_are_warned_of_once_by_the_first_rank(
    five_images, chips_of, make_sampler, pyramid, monkeypatch, logged, rank, warns
):
    pyramid['levels'][1]['valid_range'] = (30, 40)
    dataset = DATASETS.build(chips_of(five_images()))
    table = read_annotations(dataset)
    boxes = table.boxes[~table.ignore]
    sizes = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))
    in_gap = int(((sizes >= 16) & (sizes < 30)).sum())
    assert in_gap
    monkeypatch.setattr(samplers, 'get_dist_info', lambda: (rank, 2))
    sampler = make_sampler(dataset)
    sampler.set_epoch(1)
    list(sampler)
    warnings = [msg for level, msg in logged if level == logging.WARNING]
    assert len(warnings) == warns
    if warns:
        assert f"{in_gap} of {len(sizes)} boxes have a size in no level's" in warnings[0]
        assert '16 to 30 px' in warnings[0]
        assert 'let the valid_range of neighbouring levels overlap' in warnings[0]
        line = next(msg for _, msg in logged if 'fine to coarse' in msg).splitlines()[0]
        assert line.endswith(
            f"{in_gap} orphans (learned at no level), {in_gap} of them in no level's range"
        )


def test_a_gap_without_boxes_is_told_but_not_warned_of(
    five_images, chips_of, make_sampler, pyramid, logged
):
    pyramid['levels'][2]['valid_range'] = (32, 5000)
    make_sampler(chips_of(five_images()))
    (told,) = (entry for entry in logged if "no level's" in entry[1])
    assert told[0] == logging.INFO
    assert '0 of ' in told[1]
    assert '5000 px and more' in told[1]
    assert not told[1].endswith('.md)')  # there is nothing to do
    assert not any("of them in no level's range" in message for _, message in logged)


# --- mistakes -------------------------------------------------------------------------------------


def test_says_that_a_chip_dataset_is_needed(make_sampler, five_images):
    with pytest.raises(TypeError, match='which CocoDataset cannot .*ChipDataset'):
        make_sampler(five_images())
    with pytest.raises(TypeError, match='which CocoDataset cannot .*ChipDataset'):
        make_sampler(dict(type='RepeatDataset', dataset=five_images(name='b'), times=2))


def test_every_part_of_a_concatenation_must_take_chips(make_sampler, five_images, chips_of):
    mixed = [chips_of(five_images()), five_images(name='b')]
    with pytest.raises(TypeError, match='which CocoDataset cannot'):
        make_sampler(dict(type='ConcatDataset', datasets=mixed))


def test_says_that_a_wrapper_would_lose_the_chip(make_sampler, dataset):
    with pytest.raises(TypeError, match='which Subset cannot'):
        make_sampler(Subset(dataset, [0, 1]))


def test_another_pyramid_in_a_pipeline_below_is_refused_with_both_values(
    make_sampler, five_images, chips_of, pyramid
):
    repeated = dict(type='RepeatDataset', dataset=chips_of(five_images()), times=2)
    levels = [*pyramid['levels'][:2], dict(pyramid['levels'][2], valid_range=(36, None))]
    message = (
        r'levels\[2\].valid_range is \(36.0, inf\) in that of ChipAwareSampler, and '
        r'\(32.0, inf\) in that of ChipSampler, which is in the pipeline of ChipDataset'
    )
    with pytest.raises(ValueError, match=message):
        make_sampler(repeated, pyramid=dict(pyramid, levels=levels))


def test_says_that_num_batch_per_epoch_does_not_go_with_chips(build_loader):
    with pytest.raises(TypeError, match='num_batch_per_epoch counts images'):
        build_loader(num_batch_per_epoch=2)


@pytest.mark.parametrize('missing', ['width', 'height'])
def test_a_size_that_is_not_in_the_annotations_is_that_of_the_file(
    make_sampler, five_images, chips_of, missing
):
    dataset = DATASETS.build(chips_of(five_images(serialize_data=False)))
    image = dataset.dataset.data_list[3]
    size = image['width'], image['height']
    Image.new('RGB', size).save(image['img_path'])
    del image[missing]
    table = make_sampler(dataset).planner.table
    assert (table.width[3], table.height[3]) == size


@pytest.mark.parametrize('missing', ['width', 'height'])
def test_says_which_image_has_no_size(make_sampler, five_images, chips_of, missing):
    dataset = DATASETS.build(chips_of(five_images(serialize_data=False)))
    image = dataset.dataset.data_list[3]
    Path(image['img_path']).write_text('no image')
    del image[missing]
    with pytest.raises(ValueError, match=r'3\.png: no width and height, and the header'):
        make_sampler(dataset)


def test_says_what_sizes_there_are_if_none_is_valid(make_sampler, make_coco, chips_of, pyramid):
    pyramid['levels'] = [dict(resize=dict(factor=2.0), valid_range=(4, 16))]
    boxes = [[10, 10, 12, 12], [30, 10, 50, 30]]
    with pytest.raises(ValueError, match='from 2.0 to 20.0, the valid ranges are') as caught:
        make_sampler(chips_of(make_coco([dict(size=(100, 100), boxes=boxes)])), pyramid=pyramid)
    assert '2 boxes of 1 images' in str(caught.value)
    assert '[4, 16). Change the valid ranges' in str(caught.value)


@pytest.mark.parametrize('crowd', [[1], None])
def test_says_that_there_is_no_box_at_all(make_sampler, make_coco, chips_of, crowd):
    image = dict(size=(100, 100), boxes=[[10, 10, 20, 20]] if crowd else [])
    none = 'none of the 1 images has a box to learn from: do the classes in metainfo'
    crowds = r'1 used \(1 of them crowds\); .* write iscrowd=0 for objects'
    with pytest.raises(ValueError, match=crowds if crowd else none):
        make_sampler(chips_of(make_coco([image | (dict(crowd=crowd) if crowd else {})])))
