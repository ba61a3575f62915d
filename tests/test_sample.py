"""The committed sample of HIT-UAV: small, credited, split by day, and made as its tool makes it."""

import json
from pathlib import Path

import cv2
import pytest
import torch

from mmsniper.convert import load_config

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / 'demo' / 'hituav_sample'
SPLITS = ('train', 'val')
WHOLE = [folder / 'data' / 'hituav' for folder in (ROOT, ROOT.parent / 'shared')]


def content(folder, split):
    return json.loads((folder / f'{split}.json').read_text('utf-8'))


def test_all_of_it_is_under_5_megabytes():
    files = [path for path in SAMPLE.rglob('*') if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 5e6
    # Nothing is there that a checkout does not have.
    assert {path.name for path in files if path.parent == SAMPLE} == {
        'README.md',
        'detector.py',
        'train.json',
        'val.json',
        'weights.pth',
    }


def test_its_images_are_those_of_its_files_and_no_day_is_in_both():
    parts = {split: content(SAMPLE, split) for split in SPLITS}
    images = [image for part in parts.values() for image in part['images']]
    names = [image['file_name'] for image in images]
    assert len(names) == len(set(names)) == 40
    assert {path.name for path in (SAMPLE / 'images').iterdir()} == set(names)
    for image in images:
        height, width = cv2.imread(str(SAMPLE / 'images' / image['file_name'])).shape[:2]
        assert (width, height) == (image['width'], image['height'])
    days = [{image['day'] for image in part['images']} for part in parts.values()]
    assert not days[0] & days[1]
    for part in parts.values():
        assert {item['image_id'] for item in part['annotations']} == {
            image['id'] for image in part['images']
        }


def test_its_weights_are_numbers_of_16_bits_and_name_the_classes():
    checkpoint = torch.load(SAMPLE / 'weights.pth', map_location='cpu', weights_only=True)
    weights = [w for w in checkpoint['state_dict'].values() if w.is_floating_point()]
    assert {weight.dtype for weight in weights} == {torch.float16}
    assert all(weight.isfinite().all() for weight in weights)
    names = [category['name'] for category in content(SAMPLE, 'val')['categories']]
    assert list(checkpoint['meta']['dataset_meta']['classes']) == names


def test_a_training_goes_on_from_its_weights_and_leaves_the_folded_norms(monkeypatch, tmp_path):
    """Whatever there is in data/weights: here nothing."""
    monkeypatch.chdir(tmp_path)
    cfg = load_config(SAMPLE / 'detector.py')
    assert Path(cfg.load_from) == SAMPLE / 'weights.pth'
    backbone = cfg.model.backbone
    assert (backbone.norm_eval, backbone.norm_cfg.requires_grad) == (True, False)
    assert backbone.init_cfg is None
    weights = torch.load(SAMPLE / 'weights.pth', map_location='cpu', weights_only=True)
    means = [w for k, w in weights['state_dict'].items() if k.endswith('running_mean')]
    assert means
    assert not any(mean.any() for mean in means)  # so those of the images would be new


def test_it_is_credited():
    text = (SAMPLE / 'README.md').read_text('utf-8')
    address = 'https://github.com/suojiashun/HIT-UAV-Infrared-Thermal-Dataset'
    for needed in (address, 'Suo', 'CC BY 4.0', 'creativecommons.org/licenses/by/4.0', 'Changed'):
        assert needed in text
    assert 'Apache-2.0' in text  # of the weights that the training started from


def test_weights_are_halved_and_nothing_but_the_classes_is_kept_beside_them(load_tool, tmp_path):
    state = {'conv.weight': torch.full((2, 2), 0.1), 'bn.num_batches_tracked': torch.tensor(70000)}
    meta = dict(cfg='...', dataset_meta=dict(classes=['a', 'b'], palette=[0]))
    torch.save(dict(state_dict=state, meta=meta, optimizer={}), tmp_path / 'epoch_1.pth')
    made = load_tool('dev/make_sample').half_precision(tmp_path / 'epoch_1.pth')
    assert made['state_dict']['conv.weight'].dtype == torch.float16
    assert made['state_dict']['bn.num_batches_tracked'] == 70000
    assert made == dict(
        state_dict=made['state_dict'], meta=dict(dataset_meta=dict(classes=('a', 'b')))
    )


def test_the_tool_makes_it_of_the_whole_data_set(load_tool, tmp_path):
    data = next((folder for folder in WHOLE if folder.is_dir()), None)
    if data is None:
        pytest.skip('HIT-UAV is not in data/hituav')
    load_tool('dev/make_sample').main([str(data), '--out-dir', str(tmp_path)])
    made = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob('*') if path.is_file())
    assert len(made) == 42
    for path in made:
        assert (tmp_path / path).read_bytes() == (SAMPLE / path).read_bytes()
