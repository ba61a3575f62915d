"""The control changes how detections are merged, and nothing else of a test."""

from pathlib import Path

import pytest
from scripts import load_script

from mmsniper.convert import load_config

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = {
    'SNIPER': 'sniper/faster_rcnn_r18_sniper_bccd.py',
    'single-scale': 'baselines/faster_rcnn_r18_single_scale_bccd.py',
    'multi-scale': 'baselines/faster_rcnn_r18_multi_scale_bccd.py',
}


def controls():
    module = load_script('benchmarks/nms_control.py')
    return module.CONTROLS


@pytest.mark.parametrize('control', controls(), ids=lambda c: f'{c[0]}, {c[1]}')
def test_it_changes_the_nms_that_decides_and_nothing_else(control):
    name, how, change, tta = control
    cfg = load_config(ROOT / 'configs' / CONFIGS[name])
    before = cfg.to_dict()
    change(cfg)
    after = cfg.to_dict()
    per_scale = after['model']['test_cfg']['rcnn']
    if name == 'SNIPER':
        assert not tta, 'its test sees all levels as it is'
        deciding = dict(per_scale, **after['model']['merge_cfg'])
    else:
        deciding = after['tta_model']['tta_cfg'] if tta else per_scale
    assert deciding['nms']['type'] == ('soft_nms' if 'Soft-NMS' in how else 'nms')
    assert deciding['max_per_img'] == 100
    for side in (before, after):
        side['model']['test_cfg'].pop('rcnn')
        side['model'].pop('merge_cfg', None)
        side.get('tta_model', {}).pop('tta_cfg', None)
    assert after == before
