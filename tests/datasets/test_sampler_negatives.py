"""Negative chips in the epochs of ChipAwareSampler."""

import logging
from dataclasses import replace

import numpy as np
import pytest
from mmdet.registry import DATASETS
from negative_pools import pool_of

from mmsniper.chips import (
    NEGATIVE,
    POSITIVE,
    AnnotationTable,
    ChipPlan,
    ScalePyramid,
    plan_negative_chips,
)
from mmsniper.chips.drawn_chips import drawn_chips
from mmsniper.datasets import samplers


@pytest.fixture
def dataset(five_images, chips_of):
    return DATASETS.build(chips_of(five_images()))


@pytest.fixture
def pool(dataset, pyramid):
    """Several negative chips of every image, at every level."""
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    rng, images = np.random.default_rng(0), []
    for info in infos:
        start = rng.uniform(0, 180, (60, 2))
        side = np.repeat([8, 25, 40], 20)[:, None]
        boxes = np.concatenate([start, start + side], axis=1)
        images.append((info['width'], info['height'], boxes, None))
    table, pyramid = AnnotationTable.from_images(images), ScalePyramid.from_config(pyramid)
    found = plan_negative_chips(table, ChipPlan.empty(), pyramid, 2)
    return pool_of(pyramid, [info['img_path'] for info in infos], table, found)


def of_kind(sampler, kind):
    return [(int(i), i.chip) for i in sampler if i.chip.kind == kind]


@pytest.mark.parametrize('per_image', [0, 1, 2])
def test_an_epoch_has_so_many_negative_chips_of_each_image_beside_the_positive(
    make_sampler, dataset, pool, per_image
):
    sampler = make_sampler(dataset)
    positive = of_kind(sampler, POSITIVE)
    sampler.set_negatives(pool, per_image)
    assert sampler.negatives_per_image == per_image
    negative = of_kind(sampler, NEGATIVE)
    assert sorted(image for image, _ in negative) == sorted([*range(5)] * per_image)
    assert sorted(of_kind(sampler, POSITIVE)) == sorted(positive)
    assert len(sampler) == len(positive) + 5 * per_image
    known = {
        (int(pool.chips.image[i]), int(pool.chips.level[i]), tuple(pool.chips.box[i].tolist()))
        for i in range(len(pool.chips))
    }
    assert {(image, chip.level, chip.box) for image, chip in negative} <= known
    assert (np.diff(sampler.plan.image) >= 0).all()


def test_other_epochs_have_other_negative_chips(make_sampler, dataset, pool):
    sampler = make_sampler(dataset)
    sampler.set_negatives(pool, 1)
    first = of_kind(sampler, NEGATIVE)
    sampler.set_epoch(1)
    assert sorted(of_kind(sampler, NEGATIVE)) != sorted(first)


def test_a_file_gives_the_sampler_the_pool(make_sampler, dataset, pool, tmp_path):
    pool.save(tmp_path / 'pool.npz')
    sampler = make_sampler(dataset)
    sampler.set_negatives(pool)
    by_file = make_sampler(dataset, negatives=str(tmp_path / 'pool.npz'))
    assert list(by_file) == list(sampler)
    assert len(of_kind(by_file, NEGATIVE)) == 10  # 2 of each image
    one = make_sampler(dataset, negatives=str(tmp_path / 'pool.npz'), negatives_per_image=1)
    assert len(of_kind(one, NEGATIVE)) == 5
    assert of_kind(make_sampler(dataset, negatives_per_image=3), NEGATIVE) == []


def test_a_second_pool_replaces_the_first_and_the_number_stays(make_sampler, dataset, pool):
    sampler = make_sampler(dataset)
    sampler.set_negatives(pool, 1)
    sampler.set_negatives(replace(pool, chips=pool.chips.take(pool.chips.image == 3)))
    assert [image for image, _ in of_kind(sampler, NEGATIVE)] == [3]


def test_the_log_tells_what_an_epoch_is_made_of(make_sampler, dataset, pool, monkeypatch):
    lines = []
    monkeypatch.setattr(samplers, 'print_log', lambda text, **_: lines.append(text))
    sampler = make_sampler(dataset)
    positive = len(sampler)
    sampler.set_negatives(pool, 1)
    assert lines[-1] == (
        f'{len(pool.chips)} negative chips in the pool; an epoch takes up to 1 of an image, 5 in '
        f'all, beside {positive} positive chips'
    )


@pytest.mark.parametrize('per_image', [-1, float('nan')])
def test_a_negative_number_is_refused(make_sampler, dataset, pool, per_image):
    with pytest.raises(ValueError, match='negatives_per_image must not be negative, got'):
        make_sampler(dataset).set_negatives(pool, per_image)


def test_a_pool_of_another_pyramid_or_other_images_is_refused_by_its_name(
    make_sampler, dataset, pool, pyramid, tmp_path
):
    other = ScalePyramid.from_config(dict(pyramid, chip_size=96))
    replace(pool, pyramid=other).save(tmp_path / 'pool.npz')
    with pytest.raises(ValueError, match='pool.npz belongs to another pyramid: its chip_size'):
        make_sampler(dataset, negatives=str(tmp_path / 'pool.npz'))
    wide = replace(pool, width=pool.width + 1)
    with pytest.raises(ValueError, match='mine belongs to other images'):
        make_sampler(dataset).set_negatives(wide, name='mine')


def test_ranks_that_plan_different_chips_are_refused(make_sampler, dataset, pool, monkeypatch):
    sampler = make_sampler(dataset)

    def gathered(mine):
        return [mine, mine if isinstance(mine, dict) else (mine[0], mine[1] + 1)]

    monkeypatch.setattr(samplers, 'all_gather_object', gathered)
    with pytest.raises(RuntimeError, match='have planned different chips .* have read the same'):
        sampler.set_negatives(pool)


def test_what_is_planned_is_logged(make_sampler, dataset, monkeypatch):
    lines = []
    monkeypatch.setattr(samplers, 'print_log', lambda text, **more: lines.append((text, more)))
    make_sampler(dataset)
    told = lines[-1][0].split('\n  ')
    assert 'chips for 5 images' in told[0]
    assert [line[:7] for line in told[1:]] == [f'level {i}' for i in range(len(told) - 1)]
    assert len(told) == 1 + make_sampler(dataset).pyramid.num_levels
    assert logging.WARNING not in [more.get('level') for _, more in lines]


def test_background_is_drawn_for_every_epoch_where_it_has_no_positive_chip(make_sampler, dataset):
    plain, sampler = make_sampler(dataset), make_sampler(dataset, background=0.9)
    table, drawn = plain.planner.table, []
    for epoch in (0, 1, 0):
        plain.set_epoch(epoch)
        sampler.set_epoch(epoch)
        key = sampler.seed, epoch
        sizes = sampler.pyramid, table.width, table.height
        chips = drawn_chips(*sizes, 0.9, plain.positives(), key)
        assert sorted(of_kind(sampler, POSITIVE)) == sorted(of_kind(plain, POSITIVE))
        drawn.append(sorted((image, chip.box) for image, chip in of_kind(sampler, NEGATIVE)))
        expected = zip(chips.image.tolist(), map(tuple, chips.box.tolist()))
        assert drawn[-1] == sorted(expected)
        assert len(sampler) == len(plain) + len(chips)
    assert drawn[0]
    assert drawn[0] == drawn[2] != drawn[1]


def test_background_comes_beside_mined_chips(make_sampler, dataset, pool):
    sampler = make_sampler(dataset, background=0.9)
    background = of_kind(sampler, NEGATIVE)
    sampler.set_negatives(pool, 1)
    both = of_kind(sampler, NEGATIVE)
    assert len(both) == len(background) + 5
    assert {(i, c.box) for i, c in background} < {(i, c.box) for i, c in both}


@pytest.mark.parametrize('background', [-0.1, 1.5, float('nan')])
def test_background_that_is_no_share_is_refused(make_sampler, dataset, background):
    with pytest.raises(ValueError, match=r'background must be from 0 to 1, .* got'):
        make_sampler(dataset, background=background)
