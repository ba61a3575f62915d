"""Class-aware epochs of ChipAwareSampler, and repeated images."""

import logging
from collections import Counter

import pytest
import torch
from mmdet.registry import DATA_SAMPLERS, DATASETS
from mmengine.runner import Runner

from mmsniper.chips import NEGATIVE, POSITIVE
from mmsniper.datasets import samplers


@pytest.fixture
def images(make_coco):
    """Eight images; class b is in one box of the last, where one of class a is as well."""
    spots = [(10, 10), (150, 20), (20, 150), (150, 150)]
    boxes = [[x, y, x + 14, y + 14] for x, y in spots]
    common = dict(size=(220, 240), boxes=boxes)
    rare = dict(size=(220, 240), boxes=boxes[:2], categories=[2, 1])
    return make_coco([common] * 7 + [rare])


@pytest.fixture
def dataset(images, chips_of):
    return DATASETS.build(chips_of(images))


def chips(indices):
    return [(int(index), index.chip) for index in indices]


def of_rare(chips):
    """Those of the last image that show its box of class b."""
    return [chip for image, chip in chips if image == 7 and chip.box[0] <= 10 and chip.box[1] <= 10]


@pytest.mark.parametrize('options', [{}, dict(lanes=4), dict(background=0.01), dict(shuffle=False)])
@pytest.mark.parametrize('strategy', ['minimum', 'grid'])
def test_half_of_the_chips_are_of_each_of_two_classes_and_an_epoch_is_as_long_as_ever(
    make_sampler, dataset, strategy, options
):
    """The sizes of all boxes, 14, are learned at two levels: 2 * 30 chips, 2 of the rare class."""
    options = dict(options, strategy=strategy)
    ordinary = make_sampler(dataset, **options)
    sampler = make_sampler(dataset, num_sample_class=1, **options)
    for epoch in range(2):
        sampler.set_epoch(epoch)
        ordinary.set_epoch(epoch)
        epoch_chips = list(sampler)
        positive = [index for index in epoch_chips if index.chip.kind == POSITIVE]
        assert len(sampler) == len(epoch_chips) == len(ordinary)
        assert len(positive) == 60
        rare = Counter(chip.level for chip in of_rare(chips(positive)))
        assert rare == {0: 15, 1: 15}
        assert sorted(chips(epoch_chips)) == sorted(
            (int(plan.image[i]), (int(plan.level[i]), tuple(plan.box[i].tolist()), plan.kind[i]))
            for plan in [sampler.plan]
            for i in range(len(plan))
        )


def test_a_chip_that_comes_again_shows_the_rare_object_at_another_place(make_sampler, dataset):
    sampler = make_sampler(dataset, num_sample_class=1)
    seen = of_rare(chips(sampler))
    assert len({chip.box for chip in seen}) == len(seen) == 30
    assert all(chip.box[2] >= 24 and chip.box[3] >= 24 for chip in seen), 'it is whole'


def test_negative_chips_and_what_they_are_planned_around_stay(make_sampler, dataset):
    options = dict(background=0.05)
    ordinary = make_sampler(dataset, **options)
    balanced = make_sampler(dataset, num_sample_class=1, **options)
    for epoch in range(2):
        ordinary.set_epoch(epoch)
        balanced.set_epoch(epoch)
        assert balanced.positives().box.tolist() == ordinary.positives().box.tolist()
        mine, theirs = (
            [chip for chip in chips(sampler) if chip[1].kind == NEGATIVE]
            for sampler in (balanced, ordinary)
        )
        assert sorted(mine) == sorted(theirs)
        assert mine


@pytest.mark.parametrize('lanes', [0, 4])
def test_a_resumed_run_has_the_epochs_of_the_uninterrupted_one(make_sampler, dataset, lanes):
    options = dict(num_sample_class=2, lanes=lanes)
    uninterrupted, epochs = make_sampler(dataset, **options), []
    for epoch in range(3):
        uninterrupted.set_epoch(epoch)
        epochs.append(chips(uninterrupted))
    assert len({str(sorted(epoch)) for epoch in epochs}) == 3
    for epoch in (2, 1):
        resumed = make_sampler(dataset, **options)
        resumed.set_epoch(epoch)
        assert chips(resumed) == epochs[epoch]
    assert chips(make_sampler(dataset, seed=1, **options)) != epochs[0]


@pytest.mark.parametrize('world_size', [2, 3, 8])
def test_ranks_have_equally_many_and_together_the_epoch(
    make_sampler, dataset, monkeypatch, world_size
):
    shares, whole = [], make_sampler(dataset, num_sample_class=1)
    for rank in range(world_size):
        monkeypatch.setattr(samplers, 'get_dist_info', lambda rank=rank: (rank, world_size))
        sampler = make_sampler(dataset, num_sample_class=1)
        shares.append(chips(sampler))
        assert len(sampler) == len(shares[-1])
    assert {len(share) for share in shares} == {-(-60 // world_size)}
    together = Counter(chip for share in shares for chip in share)
    whole = Counter(chips(whole))
    assert set(together) == set(whole)
    assert sum((together - whole).values()) < world_size


def test_the_objects_come_out_of_a_data_loader(images, chips_of, pyramid):
    loader = Runner.build_dataloader(
        dict(
            batch_size=6,
            num_workers=2,
            sampler=dict(type='ChipAwareSampler', pyramid=pyramid, num_sample_class=1),
            dataset=chips_of(images),
        ),
        seed=0,
    )
    labels = [sample.gt_instances.labels for batch in loader for sample in batch['data_samples']]
    assert len(labels) == 60
    assert sum(1 in label for label in labels) == 30
    assert torch.cat(labels).bincount()[1] == 30


def test_it_says_what_classes_have(make_sampler, dataset, monkeypatch):
    said = []
    monkeypatch.setattr(
        samplers, 'print_log', lambda msg, logger, level=logging.INFO: said.append(msg)
    )
    told = (
        'class-aware: an epoch has about 30 chips of each of 2 classes, of which there are 2 to 58'
    )
    for strategy in ('minimum', 'grid'):
        make_sampler(dataset, num_sample_class=1, strategy=strategy)
        assert told in said[-1]
    make_sampler(dataset)
    assert 'class-aware' not in said[-1]


@pytest.mark.parametrize('wrong', [0, -1, 1.5, True])
def test_says_what_num_sample_class_must_be(make_sampler, dataset, wrong):
    with pytest.raises(ValueError, match='num_sample_class must be a whole number of at least 1'):
        make_sampler(dataset, num_sample_class=wrong)


def test_as_mmdetections_sampler_where_every_image_is_one_chip(make_coco, chips_of):
    """Numbers of images of each class are those that ClassAwareSampler gives."""
    categories = [1] * 20 + [2] * 4
    images = [dict(size=(60, 50), boxes=[[5, 5, 30, 30]], categories=[c]) for c in categories]
    pyramid = dict(chip_size=64, levels=[dict(resize=dict(factor=1.0), valid_range=(0, None))])
    config = chips_of(make_coco(images))
    for transform in config['pipeline']:
        if 'pyramid' in transform:
            transform['pyramid'] = pyramid
    dataset = DATASETS.build(config)
    for each in (1, 3):
        counts = []
        for kind, more in (('ClassAwareSampler', {}), ('ChipAwareSampler', dict(pyramid=pyramid))):
            sampler = DATA_SAMPLERS.build(
                dict(type=kind, dataset=dataset, num_sample_class=each, seed=0, **more)
            )
            shown = [int(index) for index in sampler]
            of_class = Counter(int(index >= 20) for index in shown)
            rare = Counter(index for index in shown if index >= 20)
            counts.append((len(shown), of_class[0], of_class[1], sorted(rare.values())))
        assert counts[0] == counts[1]


# --- repeated images ------------------------------------------------------------------------------


def test_images_that_class_balanced_dataset_repeats_have_repeated_chips(
    make_sampler, images, chips_of
):
    """Class b is in 1 of 8 images; with a threshold of 1/2 it comes sqrt(1/2 / 1/8) = 2 times."""
    chips_of_images = chips_of(images)
    balanced = dict(type='ClassBalancedDataset', oversample_thr=0.5, dataset=chips_of_images)
    for options in ({}, dict(num_sample_class=1)):
        sampler = make_sampler(balanced, **options)
        assert len(sampler.dataset) == 9
        indices = list(sampler)
        assert len(indices) == 64
        samples = [sampler.dataset[index] for index in indices]
        of = Counter(sample['data_samples'].img_id for sample in samples)
        rare = sum(1 in sample['data_samples'].gt_instances.labels for sample in samples)
        if options:
            assert rare == 32
        else:
            assert of == {**dict.fromkeys(range(7), 8), 7: 8}
            assert rare == 4
            seen = [sample['data_samples'].chip.box for sample in samples]
            assert len(set(seen)) == 64, 'each time it is placed anew'
