"""focus_curve.py tests an AutoFocus at several thresholds and says which is cheap enough."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules

from mmsniper.convert import load_config

ROOT = Path(__file__).resolve().parents[2]
AUTOFOCUS = ROOT / 'configs' / 'autofocus' / 'faster_rcnn_r18_autofocus_toy.py'
SIZE = (240, 160)  # width and height; levels have factors 1, 0.4 and 0.2


@pytest.fixture
def tool(load_tool):
    return load_tool('analysis_tools/focus_curve')


@pytest.fixture
def run(tool, tmp_path):
    """Run the tool on two images with a random detector; returns its rows."""
    register_all_modules()
    torch.manual_seed(0)
    weights = MODELS.build(load_config(AUTOFOCUS).model).state_dict()
    torch.save(dict(state_dict=weights, meta={}), tmp_path / 'model.pth')
    noise = np.random.default_rng(0).integers(0, 256, (2, 16, 24, 3), dtype=np.uint8)
    for i, image in enumerate(noise):
        cv2.imwrite(str(tmp_path / f'{i}.png'), cv2.resize(image, SIZE))
    (tmp_path / 'val.json').write_text(
        json.dumps(
            dict(
                images=[
                    dict(id=i + 1, file_name=f'{i}.png', width=240, height=160) for i in range(2)
                ],
                annotations=[
                    dict(id=1, image_id=1, category_id=1, bbox=[9, 9, 50, 40], area=2000, iscrowd=0)
                ],
                categories=[
                    dict(id=i, name=name)
                    for i, name in enumerate(('disc', 'ring', 'square', 'cross'))
                ],
            )
        )
    )
    data = 'test_dataloader.dataset.'

    def run_(*options, config=AUTOFOCUS):
        return tool.main(
            [
                str(config),
                str(tmp_path / 'model.pth'),
                '--out-dir',
                str(tmp_path / 'out'),
                *options,
                '--cfg-options',
                f'{data}data_root={tmp_path}/',
                f'{data}ann_file=val.json',
                f'{data}data_prefix.img=',
                f'test_evaluator.ann_file={tmp_path}/val.json',
                'test_dataloader.num_workers=0',
                'test_dataloader.persistent_workers=False',
            ]
        )

    return run_


def row(t, score, pixels):
    return dict(thresholds=(t,), metrics=dict(mAP=score), pixels=pixels, images=1)


def test_each_threshold_is_tested_and_what_was_seen_is_counted(run, tmp_path, capsys):
    full, coarse = run('--thresholds', '0', '2')
    # By hand, of two images: all three levels, and the coarse level alone.
    assert full['pixels'] == 2 * (240 * 160 + 96 * 64 + 48 * 32)
    assert coarse['pixels'] == 2 * 48 * 32
    assert (full['chips'], coarse['chips']) == ([2, 2, 2], [0, 0, 2])
    assert full['images'] == 2
    assert full['thresholds'] == (0, 0)
    assert 'coco/bbox_mAP' in full['metrics']
    out = tmp_path / 'out'
    assert json.loads((out / 'focus_curve.json').read_text()) == json.loads(
        json.dumps([full, coarse])
    )
    assert (out / 'focus_curve.png').stat().st_size
    said = capsys.readouterr().out
    assert 'Cheapest within 0.005 of the full pyramid' in said
    assert 'Average Precision' not in said


def test_what_was_measured_is_kept_if_a_later_test_fails(run, tool, tmp_path, monkeypatch):
    test = tool.test

    def fails(runner, thresholds, *args):
        if thresholds == (0.5, 0.5):
            raise KeyboardInterrupt
        return test(runner, thresholds, *args)

    monkeypatch.setattr(tool, 'test', fails)
    with pytest.raises(KeyboardInterrupt):
        run('--thresholds', '2', '0.5')
    (kept,) = json.loads((tmp_path / 'out' / 'focus_curve.json').read_text())
    assert kept['thresholds'] == [2, 2]


def test_a_threshold_is_for_all_steps_or_one_for_each(run):
    both = run('--thresholds', '0.1', '0.02,0.2')
    assert [row['thresholds'] for row in both] == [(0.1, 0.1), (0.02, 0.2)]


@pytest.mark.parametrize('given', ['0.1,0.2,0.3', '-0.1'])
def test_thresholds_that_cannot_be_are_refused(run, given):
    with pytest.raises(SystemExit, match='each of the 2 steps'):
        run('--thresholds', given)


def test_thresholds_are_numbers(tool, capsys):
    with pytest.raises(SystemExit):
        tool.parse_args(['c.py', 'x.pth', '--thresholds', 'low'])
    assert "'low'" in capsys.readouterr().err


def test_the_cheapest_that_is_near_the_full_pyramid_is_advised(tool):
    rows = [row(0, 0.5, 1000), row(0.1, 0.499, 400), row(0.3, 0.496, 300), row(0.5, 0.49, 200)]
    said = tool.advice(rows, 'mAP', 0.005)
    assert 'thresholds 0.3, mAP 0.496 instead of 0.500, 3.33 times fewer pixels' in said
    said = tool.advice(rows[1:], 'mAP', 0.001)
    assert 'within 0.001 of the best, 0.1: thresholds 0.1' in said


def test_the_metric_is_the_one_asked_for_or_a_map(tool):
    metrics = {'coco/bbox_mAP_50': 0.3, 'coco/bbox_mAP': 0.2}
    assert tool.chosen_metric(metrics, None) == 'coco/bbox_mAP'
    assert tool.chosen_metric(metrics, 'coco/bbox_mAP_50') == 'coco/bbox_mAP_50'
    assert tool.chosen_metric({'recall': 0.3}, None) == 'recall'
    with pytest.raises(ValueError, match=r"no metric 'AP'.*coco/bbox_mAP_50"):
        tool.chosen_metric(metrics, 'AP')
    with pytest.raises(ValueError, match='none of detections that are none'):
        tool.chosen_metric({}, None)


def test_only_an_autofocus_has_thresholds(run):
    with pytest.raises(SystemExit, match='PyramidDetector, not AutoFocus'):
        run(config=ROOT / 'configs' / 'sniper' / 'faster_rcnn_r18_sniper_toy.py')
