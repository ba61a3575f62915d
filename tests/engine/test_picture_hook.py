"""test.py --show-dir on images of any bands and depth."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import LoadImageFromFile
from mmdet.structures import DetDataSample
from mmdet.visualization import DetLocalVisualizer
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.structures import InstanceData
from small_tiff import scene, tiff_bytes

from mmsniper.datasets import LoadLargeImageFromFile
from mmsniper.engine import PictureHook, picture_hook


@pytest.fixture
def hook():
    """The hook, drawing; a visualizer is a process's under its name."""
    visualizer = DetLocalVisualizer.get_instance('test_picture_hook')
    visualizer.dataset_meta = dict(classes=('a',), palette=[(255, 0, 0)])
    return PictureHook(draw=True, test_out_dir='seen', interval=2)


@pytest.fixture
def runner(tmp_path):
    def make(**options):
        loader = options.pop('loader', LoadImageFromFile)(**options)
        read = SimpleNamespace(pipeline=Compose([loader]))
        data = SimpleNamespace(dataset=SimpleNamespace(datasets=[read, None]))  # concatenated
        return SimpleNamespace(
            work_dir=str(tmp_path),
            timestamp='now',
            iter=4,
            test_dataloader=data,
            val_dataloader=data,
        )

    return make


def sample(path, score=0.9):
    found = InstanceData(
        bboxes=torch.tensor([[10.0, 10, 30, 20]]),
        labels=torch.tensor([0]),
        scores=torch.tensor([score]),
    )
    return DetDataSample(metainfo=dict(img_path=str(path)), pred_instances=found)


@pytest.mark.parametrize('loader', [LoadImageFromFile, LoadLargeImageFromFile])
@pytest.mark.parametrize('bands', [0, 4])
def test_twelve_bits_are_drawn_visibly(hook, runner, tmp_path, loader, bands):
    path = tmp_path / 'x.tif'
    path.write_bytes(tiff_bytes(scene(60, 80, bands, 'u2', 4095)))
    run = runner(loader=loader, color_type='unchanged')
    hook.before_test(run)
    hook.after_test_iter(run, 0, {}, [sample(path)])
    drawn = cv2.imread(str(tmp_path / 'now' / 'seen' / 'x.tif.png'))
    assert drawn.shape == (60, 160, 3)  # the ground truth, of which there is none, and beside it
    drawn = drawn[:, 80:]
    assert 100 < drawn[30:].mean() < 155
    assert (drawn[30:, :, 0] == drawn[30:, :, 1]).all() == (bands == 0)
    assert drawn[10, 10:30, 2].min() > drawn[10, 10:30, 1].max()  # the box, red


def test_what_cannot_be_drawn_is_told_and_the_others_are_drawn(hook, runner, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(picture_hook, 'print_log', lambda text, **_: said.append(text))
    (tmp_path / 'bands.tif').write_bytes(tiff_bytes(scene(60, 80, 8, 'u2', 4095)))
    cv2.imwrite(str(tmp_path / 'x.jpg'), np.full((60, 80, 3), 128, np.uint8))
    run = runner()
    hook.before_test(run)
    outputs = [sample(tmp_path / name) for name in ('bands.tif', 'missing.png', 'x.jpg')]
    hook.after_test_iter(run, 0, {}, outputs)
    assert [path.name for path in (tmp_path / 'now' / 'seen').iterdir()] == ['x.jpg']
    assert len(said) == 2
    assert 'bands.tif cannot be drawn: ImageDecodingError' in said[0]
    assert 'tifffile' in said[0]
    assert 'missing.png cannot be drawn: FileNotFoundError' in said[1]


def test_in_validation_the_first_image_of_some_batches(hook, runner, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        hook._visualizer,
        'add_datasample',
        lambda name, image, step, **_: drawn.append((name, step)),
    )
    cv2.imwrite(str(tmp_path / 'x.png'), np.zeros((60, 80, 3), np.uint8))
    for batch in range(4):
        hook.after_val_iter(runner(), batch, {}, [sample(tmp_path / 'x.png')] * 2)
    assert drawn == [('val_img', 4), ('val_img', 6)]
    hook.draw = False
    hook.after_val_iter(runner(), 0, {}, [sample(tmp_path / 'x.png')])
    hook.after_test_iter(runner(), 0, {}, [sample(tmp_path / 'x.png')])
    assert len(drawn) == 2


def test_the_test_tool_takes_it_for_the_stock_one(load_tool):
    tool = load_tool('test')
    for kind, wanted in (('DetVisualizationHook', 'PictureHook'), ('MyHook', 'MyHook')):
        cfg = Config(dict(default_hooks=dict(visualization=dict(type=kind, draw=True))))
        tool.draw_any_image(cfg)
        assert cfg.default_hooks.visualization == dict(type=wanted, draw=True)
