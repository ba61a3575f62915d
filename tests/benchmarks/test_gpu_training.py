"""The GPU benchmark runs; what it measures here, on a CPU, means nothing."""

import json
import math

import numpy as np
import pytest
from scripts import load_script

from harness.coco_like import coco_like_boxes


@pytest.fixture(scope='module')
def benchmark():
    return load_script('benchmarks/gpu_training.py')


def test_it_measures_both_trainings(benchmark, tmp_path, capsys):
    out = tmp_path / 'results' / 'gpu_training.json'
    benchmark.main(['--device', 'cpu', '--tiny', '--steps', '1', '--out', str(out)])
    result = json.loads(out.read_text())
    for name in ('sniper', 'stock'):
        training = result[name]
        assert training['batch_size'] == 2
        assert training['timed_steps'] == 1
        assert not training['mixed_precision']
        for key in ('step_seconds', 'per_second', 'peak_memory_gb', 'loaded_per_second'):
            assert training[key] > 0, key
        assert training['per_second'] == pytest.approx(2 / training['step_seconds'])
        assert math.isfinite(training['final_loss'])
    assert 'stock_mixed_precision' not in result
    # Chips were planned for the 8 images that were made, and COCO has more than one for each.
    assert result['sniper']['samples_in_epoch_of_made_images'] > 8
    assert result['tiny'] is True
    assert result['device']
    assert {'python', 'torch', 'mmcv', 'mmdet', 'mmengine', 'mmsniper'} <= set(result['versions'])
    hours = result['coco_epoch_hours']
    assert hours['chips_per_image'] == 4.3
    assert hours['stock']['gpus_1'] == pytest.approx(118_287 / result['stock']['per_second'] / 3600)
    assert 'COCO epoch, sniper' in capsys.readouterr().out
    assert [p.name for p in out.parent.iterdir()] == ['gpu_training.json']


def test_the_configs_are_measured_as_they_are(benchmark, tmp_path):
    sniper = benchmark.sniper_config(tmp_path, workers=0, tiny=False)
    assert sniper.train_dataloader.batch_size == 20
    assert sniper.optim_wrapper.type == 'AmpOptimWrapper'
    assert (sniper.model.backbone.depth, sniper.model.roi_head.type) == (101, 'SNIPERRoIHead')
    stock = benchmark.stock_config(tmp_path, workers=0, tiny=False)
    assert stock.train_dataloader.batch_size == 2
    assert (stock.model.backbone.depth, stock.model.roi_head.type) == (101, 'StandardRoIHead')
    assert sniper.model.backbone.init_cfg is stock.model.backbone.init_cfg is None


def test_hours_of_an_epoch_worked_out_by_hand(benchmark):
    # 118287 images at 10 images/s: 3.2858 h. 2 chips each at 40 chips/s: half of that.
    hours = benchmark.epoch_hours(10.0, 40.0, chips_per_image=2.0)
    assert hours['stock']['gpus_1'] == pytest.approx(3.28575)
    assert hours['sniper']['gpus_1'] == pytest.approx(3.28575 / 2)
    assert hours['sniper']['gpus_8'] == pytest.approx(3.28575 / 16)
    assert hours['sniper_over_stock'] == pytest.approx(0.5)


def test_made_boxes_have_cocos_sizes(benchmark):
    rng = np.random.default_rng(0)
    boxes = np.concatenate([coco_like_boxes(rng, 640, 480) for _ in range(2000)])
    size = np.sqrt(boxes[:, 2] * boxes[:, 3])
    assert len(boxes) / 2000 == pytest.approx(7.3, abs=0.5)
    assert (size < 32).mean() == pytest.approx(0.41, abs=0.03)
    assert (size > 96).mean() == pytest.approx(0.24, abs=0.03)
    assert boxes.min() >= 0
    assert ((boxes[:, :2] + boxes[:, 2:]) <= [640, 480]).all()


def test_without_a_gpu_the_default_is_refused_with_the_way_out(benchmark, monkeypatch, capsys):
    monkeypatch.setattr(benchmark.torch.cuda, 'is_available', lambda: False)
    with pytest.raises(SystemExit):
        benchmark.parse_args([])
    assert '--device cpu --tiny' in capsys.readouterr().err


def test_a_tiny_or_cpu_run_never_writes_over_the_result_by_default(benchmark, monkeypatch):
    assert benchmark.parse_args(['--device', 'cpu']).out is None
    monkeypatch.setattr(benchmark.torch.cuda, 'is_available', lambda: True)
    assert benchmark.parse_args(['--tiny']).out is None
    assert benchmark.parse_args([]).out == benchmark.RESULT
