"""browse_chips.py draws the chips that training would have."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from negative_pools import pool_of
from scripts import load_script

from mmsniper.chips import (
    NEGATIVE,
    POSITIVE,
    AnnotationTable,
    ChipPlan,
    ScalePyramid,
    draw_negative_chips,
    plan_negative_chips,
)
from mmsniper.datasets import Chip
from mmsniper.testing import CLASSES, ToyDatasetSpec, make_toy_dataset
from mmsniper.visualization import INVALID, VALID

PYRAMID = {
    'chip_size': 128,
    'levels': [
        {'resize': {'factor': 1.0}, 'valid_range': (0, 48)},
        {'resize': {'long_side': 128}, 'valid_range': (32, None)},
    ],
}
PIPELINE = [
    {'type': 'LoadImageFromFile'},
    {'type': 'LoadAnnotations', 'with_bbox': True},
    {'type': 'ChipSampler', 'pyramid': PYRAMID},
    {'type': 'ScaleRangeFilter', 'pyramid': PYRAMID},
    {'type': 'RandomFlip', 'prob': 1.0},
    {'type': 'PackDetInputs'},
]


@pytest.fixture(scope='module')
def tool():
    return load_script('tools/analysis_tools/browse_chips.py')


@pytest.fixture(scope='module')
def coco(tmp_path_factory):
    root = tmp_path_factory.mktemp('toy')
    make_toy_dataset(
        root, ToyDatasetSpec(num_train=4, num_val=1, min_side=300, max_side=400), processes=1
    )
    return {
        'type': 'CocoDataset',
        'data_root': str(root),
        'ann_file': 'annotations/train.json',
        'data_prefix': {'img': 'train/'},
        'metainfo': {'classes': CLASSES},
        'pipeline': [],
    }


@pytest.fixture(scope='module')
def pool(coco):
    """Negative chips of the toy images, from proposals strewn at random, which it all keeps."""
    content = json.loads((Path(coco['data_root']) / coco['ann_file']).read_text())
    rng = np.random.default_rng(0)
    images = []
    for image in content['images']:
        corner = rng.uniform(0, (image['width'] - 90, image['height'] - 90), (60, 2))
        boxes = np.concatenate([corner, corner + rng.choice([20, 90], (60, 1))], axis=1)
        images.append((image['width'], image['height'], boxes, None))
    table = AnnotationTable.from_images(images)
    found = plan_negative_chips(table, ChipPlan.empty(), ScalePyramid.from_config(PYRAMID), 3)
    assert (np.bincount(found.chips.image) > 2).all()
    paths = [f'elsewhere/train/{image["file_name"]}' for image in content['images']]
    # In no order: nothing says that they are in any.
    uncovered = found.uncovered.take(np.arange(len(found.uncovered))[::-1])
    return pool_of(ScalePyramid.from_config(PYRAMID), paths, table, found, uncovered)


def write_config(path, dataset, sampler=None, pyramid=PYRAMID, **others):
    loader = {
        'batch_size': 2,
        'num_workers': 0,
        'dataset': dataset,
        'sampler': sampler or {'type': 'ChipAwareSampler', 'pyramid': PYRAMID},
    }
    settings = {
        **others,
        'train_dataloader': loader,
        'randomness': {'seed': 3},
        'custom_imports': {'imports': ['mmsniper.datasets'], 'allow_failed_imports': False},
    }
    if pyramid is not None:
        settings['pyramid'] = pyramid
    Config(settings).dump(path)
    return str(path)


@pytest.fixture
def chip_config(coco, tmp_path):
    dataset = {'type': 'ChipDataset', 'dataset': coco, 'pipeline': PIPELINE}
    return write_config(tmp_path / 'config.py', dataset)


def record_drawings(tool, monkeypatch):
    drawings = []
    draw = tool.draw_chips

    def recorded(image, boxes, chips, levels, pyramid, **kwargs):
        drawings.append((image, boxes, chips, levels, kwargs['views']))
        return draw(image, boxes, chips, levels, pyramid, **kwargs)

    monkeypatch.setattr(tool, 'draw_chips', recorded)
    return drawings


def record_layers(tool, monkeypatch):
    """What is drawn, by image, as keywords; nothing really is."""
    layers = {}

    def recorded(image, boxes, chips, levels, pyramid, **kwargs):
        number = int(kwargs['title'].split('.')[0])
        layers[number - 1] = {'chips': chips, 'levels': levels, **kwargs}

    monkeypatch.setattr(tool, 'draw_chips', recorded)
    monkeypatch.setattr(tool, 'save_figure', lambda figure, path: None)
    return layers


def negatives_of(layers):
    """The negative chips drawn on each image."""
    return {image: one['chips'][one['kinds'] == NEGATIVE].tolist() for image, one in layers.items()}


def chips_in(plan):
    return {image: plan.box[plan.image == image].tolist() for image in range(4)}


def test_it_draws_the_asked_number_of_images(tool, chip_config, tmp_path, capsys):
    tool.main([chip_config, '--out-dir', str(tmp_path / 'out'), '--num', '2'])
    pictures = sorted((tmp_path / 'out').iterdir())
    assert [p.suffix for p in pictures] == ['.png', '.png']
    assert '2 pictures in' in capsys.readouterr().out
    assert all(cv2.imread(str(p)).shape[0] > 500 for p in pictures)


def test_chips_are_cut_at_their_places_and_their_boxes_tell_what_is_valid(
    tool, chip_config, tmp_path, monkeypatch
):
    drawings = record_drawings(tool, monkeypatch)
    tool.main([chip_config, '--out-dir', str(tmp_path / 'out')])
    seen = set()
    for image, boxes, chips, levels, views in drawings:
        assert len(views) == len(chips) > 0
        sizes = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))
        for chip, level, view in zip(chips, levels, views, strict=True):
            assert view.level == level
            if level == 0:
                x, y = np.floor(chip[:2] + 2e-3).astype(int)
                source = image[y : y + 129, x : x + 129]
                assert np.abs(source.mean(axis=(0, 1)) - view.image.mean(axis=(0, 1))).max() < 2
            inside = ((boxes[:, :2] >= chip[:2] - 1e-2) & (boxes[:, 2:] <= chip[2:] + 1e-2)).all(1)
            low, high = ((0, 48), (32, np.inf))[level]
            expected = ((sizes >= low) & (sizes < high))[inside].sum()
            assert (view.states == VALID).sum() >= expected > 0
            seen |= set(view.states.tolist())
            assert set(view.names) <= set(CLASSES)
    assert seen == {VALID, INVALID}


def test_augmentations_are_shown_on_demand(tool, chip_config, tmp_path, monkeypatch):
    drawings = record_drawings(tool, monkeypatch)
    out = ['--out-dir', str(tmp_path / 'out'), '--num', '1']
    tool.main([chip_config, *out])
    tool.main([chip_config, *out, '--augment'])
    for plain, flipped in zip(drawings[0][4], drawings[1][4], strict=True):
        assert np.array_equal(plain.image[:, ::-1], flipped.image)


def test_epochs_have_chips_of_their_own(tool, chip_config, tmp_path, monkeypatch):
    drawings = record_drawings(tool, monkeypatch)
    for epoch in ('0', '0', '1'):
        tool.main([chip_config, '--out-dir', str(tmp_path / 'out'), '--num', '1', '--epoch', epoch])
    first, again, other = (drawing[2] for drawing in drawings)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    'wrap',
    [
        lambda coco: {
            'type': 'RepeatDataset',
            'times': 2,
            'dataset': {'type': 'ChipDataset', 'dataset': coco, 'pipeline': PIPELINE},
        },
        lambda coco: {
            'type': 'ConcatDataset',
            'datasets': [{'type': 'ChipDataset', 'dataset': coco, 'pipeline': PIPELINE}] * 2,
        },
        lambda coco: {**coco, 'pipeline': PIPELINE},
        lambda coco: {**coco, 'pipeline': PIPELINE[:2] + PIPELINE[-1:]},
    ],
    ids=['repeated', 'concatenated', 'stock data set with ChipSampler', 'stock data set'],
)
def test_wrapped_and_stock_data_sets(tool, coco, tmp_path, wrap):
    sampler = (
        {'type': 'DefaultSampler', 'shuffle': True} if wrap(coco)['type'] == 'CocoDataset' else None
    )
    config = write_config(tmp_path / 'config.py', wrap(coco), sampler)
    tool.main([config, '--out-dir', str(tmp_path / 'out'), '--num', '2'])
    assert len(list((tmp_path / 'out').glob('*.png'))) == 2


def test_a_chip_that_an_augmentation_drops_is_left_out(tool):
    class Refetching:
        metainfo = {'classes': CLASSES}

        def __getitem__(self, index):
            return {'chip': Chip(0, (0.0, 0.0, 9.0, 9.0), 0)}

    plan = ChipPlan(np.array([0]), np.array([0]), np.array([[0.0, 0, 9, 9]]), np.array([0]))
    assert list(tool.chip_views(Refetching(), 0, plan, None, ())) == []


def test_errors_say_what_is_missing(tool, coco, tmp_path, chip_config):
    def error_of(config, *args):
        with pytest.raises(SystemExit) as info:
            tool.main([config, '--out-dir', str(tmp_path / 'out'), *args])
        return str(info.value)

    no_pyramid = write_config(tmp_path / 'a.py', coco, pyramid=None)
    assert 'has no pyramid' in error_of(no_pyramid)
    repeated = write_config(
        tmp_path / 'b.py', {'type': 'RepeatDataset', 'times': 2, 'dataset': coco}
    )
    assert 'there is no ChipDataset in the RepeatDataset' in error_of(repeated)
    assert '2' in error_of(chip_config, '--num', '0')


def test_an_image_that_cannot_be_read_is_told_in_a_line(tool, coco, tmp_path, chip_config):
    files = sorted(Path(coco['data_root'], coco['data_prefix']['img']).iterdir())
    contents = {file: file.read_bytes() for file in files}
    try:
        for file in files:
            file.write_text('not found')
        with pytest.raises(SystemExit) as info:
            tool.main([chip_config, '--out-dir', str(tmp_path / 'out')])
    finally:
        for file, content in contents.items():
            file.write_bytes(content)
    assert f'error: cannot load {files[0]}. It is text, not an image' in str(info.value)


def test_negative_chips_of_the_epoch_are_drawn_with_the_proposals_of_the_pool(
    tool, chip_config, pool, tmp_path, monkeypatch
):
    layers = record_layers(tool, monkeypatch)
    pool.save(tmp_path / 'pool.npz')
    tool.main(
        [
            chip_config,
            '--out-dir',
            str(tmp_path),
            '--epoch',
            '5',
            '--negatives',
            str(tmp_path / 'pool.npz'),
        ]
    )
    assert negatives_of(layers) == chips_in(draw_negative_chips(pool.chips, 2, seed=3, epoch=5))
    for image, one in layers.items():
        assert (one['kinds'] == POSITIVE).any()
        assert [view.kind for view in one['views']] == one['kinds'].tolist()
        mine = pool.uncovered_image == image
        assert np.array_equal(one['proposals'], pool.uncovered_box[mine])
        assert np.array_equal(one['proposal_levels'], pool.uncovered_level[mine])


def test_all_negative_chips_are_drawn_on_demand(tool, chip_config, pool, tmp_path, monkeypatch):
    layers = record_layers(tool, monkeypatch)
    pool.save(tmp_path / 'pool.npz')
    out = ['--out-dir', str(tmp_path), '--negatives', str(tmp_path / 'pool.npz')]
    tool.main([chip_config, *out])
    positives = {i: one['chips'][one['kinds'] == POSITIVE].tolist() for i, one in layers.items()}
    tool.main([chip_config, *out, '--all-negatives'])
    assert negatives_of(layers) == chips_in(pool.chips)
    assert positives == {
        i: one['chips'][one['kinds'] == POSITIVE].tolist() for i, one in layers.items()
    }


def test_pictures_of_negative_chips_are_written(tool, chip_config, pool, tmp_path):
    pool.save(tmp_path / 'pool.npz')
    tool.main(
        [
            chip_config,
            '--out-dir',
            str(tmp_path / 'out'),
            '--num',
            '1',
            '--negatives',
            str(tmp_path / 'pool.npz'),
        ]
    )
    (picture,) = (tmp_path / 'out').iterdir()
    assert cv2.imread(str(picture)).shape[0] > 500


def of_one_image(pool, image):
    """The pool without the chips of all but one image, so that it can be told apart."""
    mine = pool.chips.image == image
    return replace(
        pool, chips=pool.chips.take(mine), proposals_per_chip=pool.proposals_per_chip[mine]
    )


def test_the_pool_is_the_given_one_else_the_samplers_else_that_in_the_work_directory(
    tool, coco, pool, tmp_path, monkeypatch, capsys
):
    layers = record_layers(tool, monkeypatch)
    files = [tmp_path / name for name in ('given.npz', 'sampler.npz', 'run/negative_chips.npz')]
    for image, file in enumerate(files):
        of_one_image(pool, image).save(file)
    dataset = {'type': 'ChipDataset', 'dataset': coco, 'pipeline': PIPELINE}
    sampler = {'type': 'ChipAwareSampler', 'pyramid': PYRAMID}
    run = {'work_dir': str(tmp_path / 'run')}
    mined = write_config(tmp_path / 'mined.py', dataset, **run)
    both = write_config(
        tmp_path / 'both.py', dataset, {**sampler, 'negatives': str(files[1])}, **run
    )

    def images_with_negatives(config, *args):
        tool.main([config, '--out-dir', str(tmp_path), *args])
        return [image for image, chips in negatives_of(layers).items() if chips]

    assert images_with_negatives(both, '--negatives', str(files[0])) == [0]
    assert images_with_negatives(both) == [1]
    assert 'negative_chips.npz' not in capsys.readouterr().out
    assert images_with_negatives(mined) == [2]
    assert f'negative chips are those of {files[2]}' in capsys.readouterr().out
    files[1].unlink()  # which --negatives none must not need
    for config in (both, mined):
        tool.main([config, '--out-dir', str(tmp_path), '--negatives', 'none'])
        assert not any('kinds' in one or 'proposals' in one for one in layers.values())


def test_the_work_directory_is_by_default_that_of_the_configs_name(
    tool, coco, pool, tmp_path, monkeypatch
):
    layers = record_layers(tool, monkeypatch)
    monkeypatch.chdir(tmp_path)
    dataset = {'type': 'ChipDataset', 'dataset': coco, 'pipeline': PIPELINE}
    config = write_config(tmp_path / 'mine.py', dataset)
    pool.save('work_dirs/mine/negative_chips.npz')
    tool.main([config, '--out-dir', 'out'])
    assert all(len(chips) == 2 for chips in negatives_of(layers).values())


@pytest.mark.parametrize(
    ('sampler', 'hooks', 'expected'),
    [
        ({}, [], 2),
        ({'negatives_per_image': 1}, [], 1),
        ({'negatives_per_image': 2}, [{'type': 'NegativeChipHook', 'chips_per_image': 1}], 1),
    ],
)
def test_an_image_has_as_many_negative_chips_as_in_training(
    tool, coco, pool, tmp_path, monkeypatch, sampler, hooks, expected
):
    layers = record_layers(tool, monkeypatch)
    pool.save(tmp_path / 'pool.npz')
    config = write_config(
        tmp_path / 'config.py',
        {'type': 'ChipDataset', 'dataset': coco, 'pipeline': PIPELINE},
        {'type': 'ChipAwareSampler', 'pyramid': PYRAMID, **sampler},
        custom_hooks=hooks,
    )
    tool.main([config, '--out-dir', str(tmp_path), '--negatives', str(tmp_path / 'pool.npz')])
    assert [len(chips) for chips in negatives_of(layers).values()] == [expected] * 4


def test_an_image_without_objects_is_drawn_with_its_negative_chips(
    tool, coco, pool, tmp_path, monkeypatch
):
    content = json.loads((Path(coco['data_root']) / coco['ann_file']).read_text())
    empty = content['images'][1]['id']
    content['annotations'] = [a for a in content['annotations'] if a['image_id'] != empty]
    (tmp_path / 'some.json').write_text(json.dumps(content))
    pool.save(tmp_path / 'pool.npz')
    layers = record_layers(tool, monkeypatch)
    dataset = {**coco, 'ann_file': str(tmp_path / 'some.json')}
    config = write_config(
        tmp_path / 'config.py', {'type': 'ChipDataset', 'dataset': dataset, 'pipeline': PIPELINE}
    )
    tool.main([config, '--out-dir', str(tmp_path), '--negatives', str(tmp_path / 'pool.npz')])
    assert layers[1]['kinds'].tolist() == [NEGATIVE, NEGATIVE]
    assert len(layers[1]['views']) == 2


@pytest.mark.parametrize(('others', 'parity'), [(1997, 0), (1997, 1), (0, 0)])
def test_the_title_says_where_the_pool_has_not_kept_the_proposals(
    tool, chip_config, pool, tmp_path, monkeypatch, others, parity
):
    more = np.array([f'elsewhere/train/more_{i}.jpg' for i in range(others)], pool.img_path.dtype)
    sizes = [
        np.concatenate([size, np.full(others, 100, np.int32)]) for size in (pool.width, pool.height)
    ]
    kept = pool.uncovered_image % 2 == parity
    replace(
        pool,
        img_path=np.concatenate([pool.img_path, more]),
        width=sizes[0],
        height=sizes[1],
        uncovered_image=pool.uncovered_image[kept],
        uncovered_box=pool.uncovered_box[kept],
        uncovered_level=pool.uncovered_level[kept],
    ).save(tmp_path / 'pool.npz')
    layers = record_layers(tool, monkeypatch)
    out = ['--out-dir', str(tmp_path), '--negatives', str(tmp_path / 'pool.npz')]
    tool.main([chip_config, *out])
    said = [layers[i]['title'].endswith('the pool has not kept its proposals') for i in range(4)]
    assert said == [i % 2 != parity for i in range(4)]
    assert ['proposals' in layers[i] for i in range(4)] == [i % 2 == parity for i in range(4)]
    # All have negative chips; those with proposals come first.
    layers.clear()
    tool.main([chip_config, *out, '--num', '2'])
    assert sorted(layers) == [parity, parity + 2]


def test_an_image_in_which_nothing_was_proposed_has_no_proposals_rather_than_unkept_ones(
    tool, chip_config, pool, tmp_path, monkeypatch
):
    layers = record_layers(tool, monkeypatch)
    chips, kept = pool.chips.image != 1, pool.uncovered_image != 1
    replace(
        pool,
        chips=pool.chips.take(chips),
        proposals_per_chip=pool.proposals_per_chip[chips],
        uncovered_image=pool.uncovered_image[kept],
        uncovered_box=pool.uncovered_box[kept],
        uncovered_level=pool.uncovered_level[kept],
    ).save(tmp_path / 'pool.npz')
    tool.main([chip_config, '--out-dir', str(tmp_path), '--negatives', str(tmp_path / 'pool.npz')])
    assert layers[1]['proposals'].shape == (0, 4)
    assert not layers[1]['title'].endswith('kept its proposals')


def some_chips(image, kind):
    count = len(image)
    return ChipPlan(
        np.array(image, np.int32),
        np.zeros(count, np.int8),
        np.zeros((count, 4), np.float32),
        np.full(count, kind, np.int8),
    )


def test_images_that_show_most_come_first_and_each_choice_is_spread(tool):
    positives, negatives = some_chips(range(100), POSITIVE), some_chips(range(0, 100, 5), NEGATIVE)
    plan, proposals = ChipPlan.joined([positives, negatives]), some_chips(range(40), NEGATIVE)
    chosen = tool.choose_images
    assert chosen(positives, ChipPlan.empty(), 3).tolist() == [0, 49, 99]
    assert chosen(plan, proposals, 3).tolist() == [0, 15, 35]
    both, either = set(range(0, 40, 5)), set(range(40)) | set(range(0, 100, 5))
    ten = chosen(plan, proposals, 10).tolist()
    assert both < set(ten) < either
    assert ten == sorted(ten)
    assert len(ten) == 10
    assert chosen(plan, proposals, 1000).tolist() == list(range(100))


def test_a_pool_that_does_not_belong_is_refused_in_its_own_words(tool, chip_config, pool, tmp_path):
    def error_of(pool, *args):
        pool.save(tmp_path / 'pool.npz')
        with pytest.raises(SystemExit) as info:
            tool.main([chip_config, '--out-dir', str(tmp_path), *args])
        return str(info.value)

    given = '--negatives', str(tmp_path / 'pool.npz')
    others = replace(pool, img_path=np.array([f'{i}.jpg' for i in range(4)]))
    assert f'error: {given[1]} belongs to other images: 4 of the 4' in error_of(others, *given)
    smaller = ScalePyramid.from_config({**PYRAMID, 'chip_size': 64})
    message = error_of(replace(pool, pyramid=smaller), *given)
    assert f'error: {given[1]} belongs to another pyramid: its chip_size is 64' in message
    assert 'there is no pool of negative chips' in error_of(pool, '--negatives', 'missing.npz')
    assert 'is not a whole .npz file' in error_of(pool, '--negatives', chip_config)
    assert 'name one with --negatives' in error_of(pool, '--all-negatives')
