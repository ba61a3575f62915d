"""An epoch's pixels are those that the network would see, whatever the pipeline does."""

import json
import math

import pytest
from mmengine.config import Config

from harness.pixel_budget import (
    epochs_for,
    epochs_with_mining,
    mining_pixels,
    part_of_an_epoch,
    pixels_per_epoch,
)

PYRAMID = dict(
    chip_size=32,
    levels=[
        dict(resize=dict(factor=1.0), valid_range=(0, 24)),
        dict(resize=dict(factor=0.25), valid_range=(16, None)),
    ],
)


def make_config(tmp_path, resizing, sampler, wrapper=None):
    """A config whose two images, 100x80 and 40x60 px, exist in the annotations only."""
    boxes = {1: [[0, 0, 10, 10], [80, 60, 10, 10], [10, 10, 60, 60]], 2: [[5, 5, 10, 10]]}
    content = dict(
        categories=[dict(id=1, name='thing')],
        images=[
            dict(id=1, file_name='gone_1.jpg', width=100, height=80),
            dict(id=2, file_name='gone_2.jpg', width=40, height=60),
        ],
        annotations=[
            dict(
                id=10 * image + i,
                image_id=image,
                category_id=1,
                iscrowd=0,
                bbox=box,
                area=box[2] * box[3],
            )
            for image, found in boxes.items()
            for i, box in enumerate(found)
        ],
    )
    (tmp_path / 'ann.json').write_text(json.dumps(content))
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True),
        *resizing,
        dict(type='RandomFlip', prob=0.5),
        dict(type='PackDetInputs'),
    ]
    dataset = dict(
        type='CocoDataset',
        ann_file=str(tmp_path / 'ann.json'),
        data_prefix=dict(img='none/'),
        metainfo=dict(classes=('thing',)),
    )
    if wrapper:
        dataset = dict(type=wrapper, dataset=dataset, pipeline=pipeline)
    else:
        dataset['pipeline'] = pipeline
    return Config(
        dict(
            custom_imports=dict(imports=['mmsniper.datasets'], allow_failed_imports=False),
            train_dataloader=dict(dataset=dataset, sampler=sampler),
        )
    )


def test_whole_images_at_one_scale(tmp_path):
    cfg = make_config(
        tmp_path,
        [dict(type='Resize', scale_factor=0.5, keep_ratio=True)],
        dict(type='DefaultSampler', shuffle=True),
    )
    assert pixels_per_epoch(cfg) == 50 * 40 + 20 * 30


def test_scales_drawn_at_random_count_by_their_mean(tmp_path):
    cfg = make_config(
        tmp_path,
        [dict(type='RandomChoiceResize', scales=[(100, 100), (50, 50)], keep_ratio=True)],
        dict(type='DefaultSampler', shuffle=True),
    )
    # 100x80 or 50x40, and 67x100 or 33x50.
    mean = (100 * 80 + 50 * 40) / 2 + (67 * 100 + 33 * 50) / 2
    assert pixels_per_epoch(cfg) == pytest.approx(mean, rel=0.03)


def test_chips_count_by_their_own_area(tmp_path):
    cfg = make_config(
        tmp_path,
        [dict(type='ChipSampler', pyramid=PYRAMID), dict(type='ScaleRangeFilter', pyramid=PYRAMID)],
        dict(type='ChipAwareSampler', pyramid=PYRAMID),
        wrapper='ChipDataset',
    )
    # Level 0: the two small boxes of the first image are too far apart for one chip, the second
    # image has one. Level 1: the large box, and a quarter of the 100x80 image is 25x20.
    assert pixels_per_epoch(cfg) == 3 * 32 * 32 + 25 * 20


def test_missing_annotations_are_an_error(tmp_path):
    cfg = make_config(tmp_path, [], dict(type='DefaultSampler', shuffle=True))
    (tmp_path / 'ann.json').unlink()
    with pytest.raises(FileNotFoundError, match=r'ann\.json'):
        pixels_per_epoch(cfg)


@pytest.mark.parametrize(
    ('pixels', 'per_epoch', 'epochs'),
    [(100, 10, 10), (104, 10, 10), (106, 10, 11), (3, 10, 1), (1e9, 3e8, 3)],
)
def test_epochs_come_nearest_to_the_pixels(pixels, per_epoch, epochs):
    assert epochs_for(pixels, per_epoch) == epochs
    assert math.isclose(epochs_for(pixels * 1e6, per_epoch * 1e6), epochs)


def chips_and_mining(tmp_path, **mining):
    cfg = make_config(
        tmp_path,
        [dict(type='ChipSampler', pyramid=PYRAMID), dict(type='ScaleRangeFilter', pyramid=PYRAMID)],
        dict(type='ChipAwareSampler', pyramid=PYRAMID),
        wrapper='ChipDataset',
    )
    cfg.train_dataloader.update(batch_size=1, num_workers=0)
    if mining:
        cfg.custom_hooks = [dict(type='NegativeChipHook', **mining)]
    return cfg


def test_mining_the_whole_pyramid_sees_every_level_of_every_image(tmp_path):
    cfg = chips_and_mining(tmp_path, warmup_epochs=2, share=1.0)
    assert mining_pixels(cfg) == 100 * 80 + 25 * 20 + 40 * 60 + 10 * 15


def test_mining_a_share_sees_less(tmp_path):
    cfg = chips_and_mining(tmp_path, warmup_epochs=2, share=0.3)
    assert 0 < mining_pixels(cfg) < 0.6 * (100 * 80 + 40 * 60)


@pytest.mark.parametrize(
    ('pixels', 'epochs'),
    # An epoch has 10,000, from the third on 2 * 2 * 1,024 more; mining costs 11,050 / 3.
    [(5_000, 1), (20_000, 2), (27_000, 3), (23_684 + 14_096, 3), (23_684 + 4 * 14_096, 6)],
)
def test_what_mining_costs_is_taken_from_the_epochs(tmp_path, pixels, epochs):
    cfg = chips_and_mining(tmp_path, warmup_epochs=2, share=1.0)
    assert epochs_with_mining(cfg, pixels, 10_000) == epochs


def test_without_mining_all_pixels_are_for_training(tmp_path):
    assert epochs_with_mining(chips_and_mining(tmp_path), 52_000, 10_000) == 5


def test_part_of_an_epoch_is_as_many_images_as_the_pixels_pay_for(tmp_path):
    cfg = make_config(tmp_path, [], dict(type='DefaultSampler', shuffle=True))
    cfg.train_dataloader.update(batch_size=1, num_workers=0)
    assert part_of_an_epoch(cfg, 100, per_epoch=100, seed=0) == {}
    drawn = [part_of_an_epoch(cfg, 50, per_epoch=100, seed=seed) for seed in range(20)]
    assert {len(*part.values()) for part in drawn} == {1}
    assert {key for part in drawn for key in part} == {'train_dataloader.dataset.indices'}
    assert len({str(part) for part in drawn}) == 2
    assert part_of_an_epoch(cfg, 50, per_epoch=100, seed=3) == drawn[3]
