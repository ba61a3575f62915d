"""The benchmark of mining compares what it says it does; how fast that is, is its own business."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from scripts import load_script

from mmsniper.convert import load_config
from mmsniper.mining import NegativeChipMiner
from mmsniper.testing import ToyDatasetSpec, make_toy_dataset

ROOT = Path(__file__).resolve().parents[2]
# Of the miner: windows are seen one at a time.
OPTIONS = dict(num_proposals=50, window_size=700, batch_pixels=1)


@pytest.fixture(scope='module')
def benchmark():
    return load_script('benchmarks/mining.py')


@pytest.fixture(scope='module')
def config(benchmark, tmp_path_factory):
    """The benchmark's config on three small toy scenes."""
    folder = tmp_path_factory.mktemp('toy')
    spec = ToyDatasetSpec(num_train=3, num_val=1, min_side=300, max_side=400)
    make_toy_dataset(folder, spec, processes=1)
    cfg = load_config(benchmark.CONFIG)
    cfg.train_dataloader.dataset.dataset.data_root = str(folder)
    cfg.custom_hooks = [
        dict(
            type='NegativeChipHook',
            warmup_epochs=3,
            interval=2,
            priority='NORMAL',
            chips_per_image=1,
            **OPTIONS,
        )
    ]
    cfg.model.test_cfg.rpn.update(nms_pre=50, max_per_img=50)
    cfg.dump(folder / 'config.py')
    return folder / 'config.py'


def test_what_it_writes(benchmark, config, tmp_path, capsys):
    out = tmp_path / 'results' / 'mining.json'
    benchmark.main(['--config', str(config), '--images', '2', '--repeats', '2', '--out', str(out)])
    result = json.loads(out.read_text())
    assert (result['images'], result['levels'], result['repeats']) == (2, 3, 2)
    assert result['weights'] == 'Random weights'
    assert result['command'] == (
        'python benchmarks/mining.py --config config.py --images 2 --repeats 2 --num-workers 0'
    )
    assert set(result['seconds']) == {'mining', 'detector', 'rpn'}
    for kinds in result['seconds'].values():
        assert all(len(values) == 2 and min(values) > 0 for values in kinds.values())
    # Whole images, but for rounding up to whole pixels.
    assert 1 <= result['pixels']['mining'] / result['pixels']['images'] < 1.03
    table = out.with_suffix('.md').read_text()
    assert capsys.readouterr().out.endswith(table)
    for name in ('detector', 'rpn'):
        assert f'{result["ratios"][f"{name}_clock"]:.2f} times' in table
    for text in (table, out.read_text()):
        assert str(ROOT) not in text
        assert str(Path.home()) not in text


def test_toy_scenes_are_made_where_there_are_no_data(benchmark, config, tmp_path, monkeypatch):
    small = partial(ToyDatasetSpec, min_side=300, max_side=320)
    monkeypatch.setattr(benchmark, 'ToyDatasetSpec', small)
    cfg = Config.fromfile(config)
    cfg.train_dataloader.dataset.dataset.data_root = 'nowhere'
    cfg.dump(tmp_path / 'config.py')
    options = ['--toy-scenes', '--images', '2', '--repeats', '1']
    paths = ['--config', str(tmp_path / 'config.py'), '--out', str(tmp_path / 'mining.json')]
    result = benchmark.main([*options, *paths])
    assert result['images'] == 2
    assert 300**2 < result['pixels']['images'] / 2 < 3 * 320**2
    assert result['command'] == (
        'python benchmarks/mining.py --config config.py --images 2 --repeats 1 --num-workers 0 '
        '--toy-scenes'
    )


def test_ratios_are_those_of_medians(benchmark):
    seconds = {
        'mining': {'clock': [3.0, 2.0, 90.0], 'cpu': [1.0, 1.0, 1.0]},
        'detector': {'clock': [4.0, 0.0, 5.0], 'cpu': [2.0, 3.0, 1.0]},
        'rpn': {'clock': [2.0, 2.0, 2.0], 'cpu': [0.8, 0.8, 0.8]},
    }
    assert benchmark.ratios(seconds) == dict(
        detector_clock=0.75, detector_cpu=0.5, rpn_clock=1.5, rpn_cpu=1.25
    )


def test_the_options_of_the_hook_are_those_of_the_miner_that_sees_all(benchmark, config):
    cfg = Config.fromfile(config)
    assert benchmark.miner_of(cfg) == NegativeChipMiner(**OPTIONS, share=1.0)
    cfg.custom_hooks = []
    assert benchmark.miner_of(cfg) == NegativeChipMiner(share=1.0)


def test_all_passes_show_the_network_the_same_images(benchmark, config, monkeypatch):
    """Every image once at every level, in the same pixels."""
    args = benchmark.parse_args(['--config', str(config), '--images', '2'])
    cfg = Config.fromfile(config)
    model = benchmark.build_model(cfg, None)
    sampler = benchmark.build_sampler(cfg, 2)
    inputs = []
    extract = model.extract_feat

    def spy(batch):
        inputs.append(batch.numpy().copy())
        assert not model.training
        return extract(batch)

    monkeypatch.setattr(model, 'extract_feat', spy)
    seen = {}
    for name, run in benchmark.passes(cfg, args, model, sampler).items():
        inputs.clear()
        run()
        seen[name] = sorted(inputs, key=lambda x: (x.shape, x.sum()))
    assert {name: len(x) for name, x in seen.items()} == {'mining': 6, 'detector': 6, 'rpn': 6}
    for name in ('detector', 'rpn'):
        for mine, theirs in zip(seen['mining'], seen[name], strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_weights_come_from_a_checkpoint(benchmark, config, tmp_path):
    cfg = Config.fromfile(config)
    model = benchmark.build_model(cfg, None)
    with torch.no_grad():
        model.rpn_head.rpn_cls.bias.fill_(7)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'c.pth')
    loaded = benchmark.build_model(cfg, tmp_path / 'c.pth')
    assert (loaded.rpn_head.rpn_cls.bias == 7).all()


@pytest.mark.parametrize('option', ['--images', '--repeats'])
def test_says_that_numbers_must_be_positive(benchmark, option, capsys):
    with pytest.raises(SystemExit):
        benchmark.parse_args([option, '0'])
    assert f'argument {option}: must be at least 1, got 0' in capsys.readouterr().err
