"""browse_chips.py draws the chips that training would have."""

import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from mmsniper.datasets import Chip
from mmsniper.testing import CLASSES, ToyDatasetSpec, make_toy_dataset
from mmsniper.visualization import INVALID, VALID

ROOT = Path(__file__).resolve().parents[2]
PYRAMID = {'chip_size': 128, 'levels': [
    {'resize': {'factor': 1.0}, 'valid_range': (0, 48)},
    {'resize': {'long_side': 128}, 'valid_range': (32, None)}]}
PIPELINE = [
    {'type': 'LoadImageFromFile'}, {'type': 'LoadAnnotations', 'with_bbox': True},
    {'type': 'ChipSampler', 'pyramid': PYRAMID}, {'type': 'ScaleRangeFilter', 'pyramid': PYRAMID},
    {'type': 'RandomFlip', 'prob': 1.0}, {'type': 'PackDetInputs'}]


@pytest.fixture(scope='module')
def tool():
    path = ROOT / 'tools' / 'analysis_tools' / 'browse_chips.py'
    spec = importlib.util.spec_from_file_location('browse_chips', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def coco(tmp_path_factory):
    root = tmp_path_factory.mktemp('toy')
    make_toy_dataset(root, ToyDatasetSpec(num_train=4, num_val=1, min_side=300, max_side=400),
                     processes=1)
    return {'type': 'CocoDataset', 'data_root': str(root), 'ann_file': 'annotations/train.json',
            'data_prefix': {'img': 'train/'}, 'metainfo': {'classes': CLASSES}, 'pipeline': []}


def write_config(path, dataset, sampler=None, pyramid=PYRAMID):
    loader = {'batch_size': 2, 'num_workers': 0, 'dataset': dataset,
              'sampler': sampler or {'type': 'ChipAwareSampler', 'pyramid': PYRAMID}}
    settings = {'train_dataloader': loader, 'randomness': {'seed': 3},
                'custom_imports': {'imports': ['mmsniper.datasets'],
                                   'allow_failed_imports': False}}
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


def test_it_draws_the_asked_number_of_images(tool, chip_config, tmp_path, capsys):
    tool.main([chip_config, '--out-dir', str(tmp_path / 'out'), '--num', '2'])
    pictures = sorted((tmp_path / 'out').iterdir())
    assert [p.suffix for p in pictures] == ['.png', '.png']
    assert '2 pictures in' in capsys.readouterr().out
    assert all(cv2.imread(str(p)).shape[0] > 500 for p in pictures)


def test_chips_are_cut_at_their_places_and_their_boxes_tell_what_is_valid(tool, chip_config,
                                                                          tmp_path, monkeypatch):
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
                source = image[y:y + 129, x:x + 129]
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


@pytest.mark.parametrize('wrap', [
    lambda coco: {'type': 'RepeatDataset', 'times': 2, 'dataset': {
        'type': 'ChipDataset', 'dataset': coco, 'pipeline': PIPELINE}},
    lambda coco: {'type': 'ConcatDataset', 'datasets': [
        {'type': 'ChipDataset', 'dataset': coco, 'pipeline': PIPELINE}] * 2},
    lambda coco: {**coco, 'pipeline': PIPELINE},
    lambda coco: {**coco, 'pipeline': PIPELINE[:2] + PIPELINE[-1:]},
], ids=['repeated', 'concatenated', 'stock data set with ChipSampler', 'stock data set'])
def test_wrapped_and_stock_data_sets(tool, coco, tmp_path, wrap):
    sampler = {'type': 'DefaultSampler', 'shuffle': True} if wrap(coco)['type'] == 'CocoDataset' \
        else None
    config = write_config(tmp_path / 'config.py', wrap(coco), sampler)
    tool.main([config, '--out-dir', str(tmp_path / 'out'), '--num', '2'])
    assert len(list((tmp_path / 'out').glob('*.png'))) == 2


def test_a_chip_that_an_augmentation_drops_is_left_out(tool):
    class Refetching:
        metainfo = {'classes': CLASSES}

        def __getitem__(self, index):
            return {'chip': Chip(0, (0.0, 0.0, 9.0, 9.0), 0)}

    plan = tool.ChipPlan(np.array([0]), np.array([0]), np.array([[0.0, 0, 9, 9]]), np.array([0]))
    assert list(tool.chip_views(Refetching(), 0, plan, None)) == []


def test_errors_say_what_is_missing(tool, coco, tmp_path, chip_config):
    def error_of(config, *args):
        with pytest.raises(SystemExit) as info:
            tool.main([config, '--out-dir', str(tmp_path / 'out'), *args])
        return str(info.value)

    no_pyramid = write_config(tmp_path / 'a.py', coco, pyramid=None)
    assert 'has no pyramid' in error_of(no_pyramid)
    repeated = write_config(tmp_path / 'b.py', {'type': 'RepeatDataset', 'times': 2,
                                                'dataset': coco})
    assert 'there is no ChipDataset in the RepeatDataset' in error_of(repeated)
    assert '2' in error_of(chip_config, '--num', '0')
