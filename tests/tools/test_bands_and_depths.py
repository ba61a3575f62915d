"""One channel, 16 bit, four bands: a training step, mining, inference and pictures of them.

The config of four bands is that of docs/own_data.md.
"""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from small_tiff import tiff_bytes

from mmsniper.chips import ScalePyramid
from mmsniper.chips.windows import Window
from mmsniper.convert import load_config
from mmsniper.mining.window_dataset import window_dataset, window_index

ROOT = Path(__file__).resolve().parents[2]
AUTOFOCUS = ROOT / 'configs' / 'autofocus' / 'faster_rcnn_r18_autofocus_toy.py'
PAGE = (ROOT / 'docs' / 'own_data.md').read_text()
WIDTH, HEIGHT = 160, 120

(FOUR_BANDS,) = (
    code
    for code in re.findall(r'^```python\n(.*?)^```', PAGE, re.M | re.S)
    if 'BandDataPreprocessor' in code
)


def plain(color_type, mean, std, channels):
    """A config as the table of the page has it."""
    return f"""
loading = dict(type='LoadImageFromFile', color_type={color_type!r})
annotations, packing = dict(type='LoadAnnotations', with_bbox=True), dict(type='PackDetInputs')
flips = dict(type='RandomFlip', prob=0.5)
train_dataloader = dict(dataset=dict(pipeline=[loading, annotations, flips, packing]))
val_dataloader = test_dataloader = dict(dataset=dict(pipeline=[loading, annotations, packing]))
model = dict(
    data_preprocessor=dict(mean={mean}, std={std}, bgr_to_rgb={channels == 3}),
    backbone=dict(in_channels={channels}))
"""


# Config; bands, 0 for no axis; type and largest value; suffix.
KINDS = dict(
    four_bands=(FOUR_BANDS, 4, 'u2', 4095, '.tif'),
    grey=(plain('grayscale', [100.0], [50.0], 1), 0, 'u1', 255, '.png'),
    colour_16=(plain('unchanged', [2e3] * 3, [1e3] * 3, 3), 3, 'u2', 4095, '.png'),
    grey_16=(plain('unchanged', [2e3], [1e3], 1), 0, 'u2', 4095, '.png'),
    floats=(plain('unchanged', [0.5], [0.2], 1), 0, 'f4', 1, '.tif'),
)


def picture(bands, dtype, most):
    """Brighter to the right, with a bright square: (h, w) or (h, w, bands)."""
    ramp = np.tile(np.linspace(0.1, 0.7, WIDTH), (HEIGHT, 1))
    ramp[30:54, 40:64] = 1
    image = np.stack([ramp * (1 - 0.1 * band) for band in range(max(bands, 1))], axis=2)
    return ((image if bands else image[..., 0]) * most).astype(dtype)


@pytest.fixture
def kind(request):
    return KINDS[request.param]


def kinds(*names):
    return pytest.mark.parametrize('kind', names or list(KINDS), indirect=True)


@pytest.fixture
def images(kind, tmp_path):
    _, bands, dtype, most, suffix = kind
    folder = tmp_path / 'images'
    folder.mkdir()
    image = picture(bands, dtype, most)
    if suffix == '.tif':
        (folder / '0.tif').write_bytes(tiff_bytes(image))
    else:
        cv2.imwrite(str(folder / f'0{suffix}'), image)
    return folder


@pytest.fixture
def config(kind, images, tmp_path):
    """A config file of these images."""
    code, *_, suffix = kind
    names = ('disc', 'ring', 'square', 'cross')
    box = dict(id=1, image_id=0, category_id=1, bbox=[40, 30, 24, 24], area=576, iscrowd=0)
    coco = dict(
        images=[dict(id=0, file_name=f'0{suffix}', width=WIDTH, height=HEIGHT)],
        annotations=[box],
        categories=[dict(id=i + 1, name=name) for i, name in enumerate(names)],
    )
    ann_file = tmp_path / 'ann.json'
    ann_file.write_text(json.dumps(coco))
    (tmp_path / 'base.py').write_text(f"""
_base_ = {str(AUTOFOCUS)!r}
data = dict(
    data_root='', ann_file={str(ann_file)!r}, data_prefix=dict(img={f'{images}/'!r}))
train_dataloader = val_dataloader = test_dataloader = dict(dataset=data)
val_evaluator = test_evaluator = dict(ann_file={str(ann_file)!r})
""")
    path = tmp_path / 'config.py'
    path.write_text("_base_ = 'base.py'\n" + code)
    return path


@kinds()
def test_all_bands_and_bits_reach_the_network_in_training_and_mining(kind, config):
    _, bands, _, most, _ = kind
    channels = max(bands, 1)
    cfg = load_config(config)
    init_default_scope('mmdet')
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    windows = window_dataset(dataset, ScalePyramid.from_config(cfg.pyramid))
    whole = (0.0, 0.0, WIDTH, HEIGHT)
    window = windows[window_index(Window(0, 0, whole, whole, (HEIGHT, WIDTH)))]
    sample = dataset[0]
    for one in (window, sample):
        assert len(one['inputs']) == channels
        assert one['inputs'].numpy().max() > 0.9 * most * (1 - 0.1 * (channels - 1))
    model = MODELS.build(cfg.model)
    data = model.data_preprocessor(pseudo_collate([sample]), True)
    assert data['inputs'].dtype == torch.float32
    assert data['inputs'].shape[1] == channels
    assert data['inputs'].abs().max() < 12
    loss, _ = model.parse_losses(model.loss(data['inputs'], data['data_samples']))
    assert torch.isfinite(loss)


def correlation(drawn, wanted):
    drawn = cv2.cvtColor(cv2.resize(drawn, (WIDTH, HEIGHT)), cv2.COLOR_BGR2GRAY)
    return np.corrcoef(drawn.ravel().astype(float), wanted.ravel().astype(float))[0, 1]


@kinds('four_bands', 'grey', 'colour_16')
def test_they_are_detected_in_and_drawn(kind, config, images, tmp_path, load_tool):
    _, bands, dtype, most, suffix = kind
    image = picture(bands, dtype, most)
    init_default_scope('mmdet')
    torch.manual_seed(0)
    state = MODELS.build(load_config(config).model).state_dict()
    torch.save(dict(state_dict=state, meta={}), tmp_path / 'weights.pth')
    infer = load_tool('infer')
    for mode in ('autofocus', 'pyramid'):
        out = tmp_path / mode
        paths = [images, config, tmp_path / 'weights.pth']
        options = ['--mode', mode, '--device', 'cpu', '--score-thr', '0.99']
        infer.main([*map(str, paths), *options, '--out-dir', str(out)])
        assert len(json.loads((out / 'images.json').read_text())['images']) == 1
        drawn = cv2.imread(str(out / 'vis' / ('0.png' if suffix == '.png' else f'0{suffix}.png')))
        assert drawn.shape == (HEIGHT, WIDTH, 3)
        assert drawn.max() > 200
        seen = image.reshape(HEIGHT, WIDTH, -1)[..., 0]
        assert correlation(drawn, seen) > 0.95
        assert correlation(drawn[:, ::-1], seen) < 0.5
    assert len(list((tmp_path / 'autofocus' / 'focus').iterdir())) == 1
    browse = load_tool('analysis_tools/browse_chips')
    browse.main([str(config), '--out-dir', str(tmp_path / 'chips'), '--num', '1', '--augment'])
    assert len(list((tmp_path / 'chips').iterdir())) == 1
