"""The benchmark of AutoFocus counts what enters the network and compares like with like."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from scripts import load_script
from torch import nn

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def benchmark():
    return load_script('benchmarks/autofocus.py')


@pytest.fixture
def scene(tmp_path):
    """A data set of one image of 240x160 px, and random weights, as files."""
    from mmdet.utils import register_all_modules

    from mmsniper.convert import load_config

    register_all_modules(init_default_scope=True)
    rng = np.random.default_rng(0)
    (tmp_path / 'val').mkdir()
    (tmp_path / 'annotations').mkdir()
    cv2.imwrite(str(tmp_path / 'val/1.jpg'), rng.integers(0, 255, (160, 240, 3), np.uint8))
    classes = ('disc', 'ring', 'square', 'cross')
    truth = dict(
        images=[dict(id=7, file_name='1.jpg', width=240, height=160)],
        categories=[dict(id=i, name=name) for i, name in enumerate(classes, start=11)],
        annotations=[
            dict(id=1, image_id=7, category_id=11, bbox=[20, 30, 20, 20], area=400, iscrowd=0)
        ],
    )
    (tmp_path / 'annotations/val.json').write_text(json.dumps(truth))
    config = tmp_path / 'config.py'
    base = ROOT / 'configs/autofocus/faster_rcnn_r18_autofocus_toy.py'
    config.write_text(
        f'_base_ = {str(base)!r}\n'
        f'test_dataloader = dict(dataset=dict(data_root={str(tmp_path)!r} + "/"))\n'
    )
    torch.manual_seed(0)
    model = MODELS.build(load_config(config).model)
    checkpoint = tmp_path / 'epoch_1.pth'
    torch.save(
        dict(state_dict=model.state_dict(), meta=dict(dataset_meta=dict(classes=classes))),
        checkpoint,
    )
    return config, checkpoint


def test_true_focus_pixels_lead_to_chips_around_small_objects(benchmark, scene):
    bench = benchmark.Bench(*scene, benchmark.BASELINES['toy'])
    seen = []
    detect = bench.model.detect
    bench.model.detect = lambda *args: (seen.append(detect(*args)), seen[-1])[1]
    bench.true_focus(0)
    ((scenes, _),) = seen
    coarse, *finer = scenes[0].chips
    assert coarse.tolist() == [[0, 0, 240, 160]]
    for chips in finer:  # the object is small at both
        assert len(chips) == 1
        assert (chips[0, :2] <= [20, 30]).all()
        assert (chips[0, 2:] >= [40, 50]).all()
    bench.truth.imgToAnns.clear()
    bench.true_focus(0)
    assert [len(chips) for chips in seen[-1][0][0].chips] == [1, 0, 0]


def run(benchmark, scene, tmp_path, *options):
    config, checkpoint = scene
    return benchmark.main(
        [
            'toy',
            str(checkpoint),
            '--config',
            str(config),
            '--rounds',
            '2',
            '--out',
            str(tmp_path / 'out' / 'result'),
            *options,
        ]
    )


def open_bench(benchmark, scene):
    return benchmark.Bench(*scene, benchmark.BASELINES['toy'])


def without_sahi(benchmark, monkeypatch):
    find = benchmark.importlib.util.find_spec
    monkeypatch.setattr(
        benchmark.importlib.util,
        'find_spec',
        lambda name, *args: None if name == 'sahi' else find(name, *args),
    )


def row(name, group='AutoFocus', **numbers):
    return dict(dict(name=name, group=group, AP=0.5, pixels=1.0, time=1.0), **numbers)


def test_every_way_is_measured_on_the_same_images_and_written(
    benchmark, scene, tmp_path, monkeypatch
):
    without_sahi(benchmark, monkeypatch)
    result = run(benchmark, scene, tmp_path)
    rows = {one['name']: one for one in result['rows']}
    assert {one['group'] for one in result['rows']} == {
        'full pyramid',
        'coarse level',
        'one scale',
        'AutoFocus, true FocusPixels',
        'AutoFocus',
        'AutoFocus, own detections',
        'AutoFocus, own detections, smaller chips',
    }
    # By hand: 240x160 at factors 1, 0.4, 0.2; at one scale it becomes 500x333.
    assert rows['full pyramid']['Mpx'] == round((38400 + 6144 + 1536) / 1e6, 2)
    assert rows['coarse level']['pixels'] == round(1536 / 46080, 4)
    assert rows['one scale']['pixels'] == round(500 * 333 / 46080, 4)
    assert rows['full pyramid']['inputs'] == 3
    assert rows['full pyramid']['time_of_rounds'] == [1.0, 1.0]
    written = tmp_path / 'out'
    assert json.loads((written / 'result.json').read_text()) == json.loads(json.dumps(result))
    assert 'Without SAHI.' in (written / 'result.md').read_text()
    assert (written / 'result.png').stat().st_size


def test_without_sahi_it_says_so(benchmark, scene, tmp_path, monkeypatch, capsys):
    without_sahi(benchmark, monkeypatch)
    assert not run(benchmark, scene, tmp_path)['sahi']
    assert 'requirements/benchmark.txt' in capsys.readouterr().err


def test_sahi_can_be_left_out(benchmark, scene, tmp_path, capsys):
    result = run(benchmark, scene, tmp_path, '--without-sahi')
    assert not result['sahi']
    assert result['command'].endswith(' --without-sahi')
    assert {one['group'] for one in result['rows']} & {'SAHI'} == set()


def test_one_scale_is_a_pass_of_the_stock_detector_with_the_same_weights(benchmark, scene):
    bench = open_bench(benchmark, scene)
    assert type(bench.stock) is MODELS.get('FasterRCNN')
    ours = bench.model.state_dict()
    assert all(torch.equal(ours[key], value) for key, value in bench.stock.state_dict().items())


def test_without_thresholds_autofocus_is_the_full_pyramid(benchmark, scene):
    bench = open_bench(benchmark, scene)
    everywhere = bench.focus(0.0, bench.focus_head, min_rpn_proposals=None)(0)
    del bench.cfg.model['thresholds'], bench.cfg.model['focus_head']
    del bench.cfg.model['min_rpn_proposals']
    pyramid = MODELS.build(dict(bench.cfg.model, type='PyramidDetector')).eval()
    own = bench.model.state_dict()
    pyramid.load_state_dict({key: own[key] for key in pyramid.state_dict()})
    assert everywhere
    assert bench._test(pyramid, bench.coarse_to_fine, 0) == everywhere


def test_slices_are_counted_at_the_scale_of_the_image(benchmark, scene, tmp_path):
    pytest.importorskip('sahi')
    bench = open_bench(benchmark, scene)
    slicer = benchmark.Slicer.of_bench(bench, tmp_path)
    slicing = benchmark.Slicing(160, overlap=0.0)
    for full, pixels in ((False, 2 * 160 * 160), (True, 2 * 160 * 160 + 160 * 107)):
        before = bench.counter.pixels
        slicer.detect(replace(slicing, full_image=full))(0)
        assert bench.counter.pixels - before == pixels


def test_sahi_has_the_stock_detector_with_as_many_proposals_as_a_level(benchmark, scene, tmp_path):
    bench = open_bench(benchmark, scene)
    model = benchmark.Slicer.of_bench(bench, tmp_path).detector._config(confidence=0.01).model
    assert model.type == 'FasterRCNN'
    assert (model.test_cfg.rpn.nms_pre, model.test_cfg.rpn.max_per_img) == (200, 100)
    assert model.test_cfg.rcnn.score_thr == 0.01
    weights = torch.load(tmp_path / 'detector.pth', weights_only=False)['state_dict']
    MODELS.build(model).load_state_dict(weights)


def test_sahi_has_the_weights_of_the_detector(benchmark, scene, tmp_path):
    pytest.importorskip('sahi')
    bench = open_bench(benchmark, scene)
    theirs = (
        benchmark.Slicer.of_bench(bench, tmp_path)
        .detector.model(benchmark.Slicing(160))
        .model.model.state_dict()
    )
    ours = bench.model.state_dict()
    assert theirs.keys() == {key for key in ours if not key.startswith('focus_head.')}
    assert all(torch.equal(theirs[key], ours[key]) for key in theirs)


def test_a_detector_that_was_trained_on_tiles_is_sliced_as_well(benchmark, scene, tmp_path):
    pytest.importorskip('sahi')
    bench = open_bench(benchmark, scene)
    weights = tmp_path / 'tiles.pth'
    torch.save(
        dict(state_dict=bench.stock.state_dict(), meta=dict(dataset_meta=bench.meta)), weights
    )
    tiles = str(benchmark.BASELINES['toy']), str(weights)
    with benchmark.all_ways(bench, True, tiles) as ways:
        own, theirs = (
            [way for way in ways if way.group == group]
            for group in (benchmark.SLICES, benchmark.TILES)
        )
        assert [way.settings for way in own] == [way.settings for way in theirs]
        before = bench.counter.pixels
        theirs[0].detect(0)
        # One slice, the image, enlarged to what the detector sees of slices.
        assert bench.counter.pixels - before == 512 * 341


def test_what_autofocus_is_told_for_one_way_is_taken_back(benchmark, scene):
    bench = open_bench(benchmark, scene)
    before = bench.model.thresholds, bench.model.dilation, bench.model.focus_head
    bench.focus(0.7, None, dilation=1)(0)
    assert (bench.model.thresholds, bench.model.dilation, bench.model.focus_head) == before


def test_pixels_are_counted_before_padding(benchmark):
    counter, module = benchmark.InputCounter(), nn.Identity()
    counter.watch(module)
    module(dict(inputs=[torch.zeros(3, 5, 7), torch.zeros(3, 2, 2)]))
    assert (counter.pixels, counter.inputs) == (39, 2)


def test_a_ratio_is_that_of_one_round(benchmark):
    way = benchmark.Way('full pyramid', {}, None), benchmark.Way('AutoFocus', dict(t=0.5), None)
    measured = {
        'full pyramid': benchmark.Measured(pixels=10, seconds=[1.0, 2.0, 4.0]),
        'AutoFocus: t 0.5': benchmark.Measured(pixels=5, seconds=[0.5, 1.0, 4.0]),
    }

    class NoTruth:
        infos = [None]

        def evaluate(self, detections):
            return dict(AP=0, AP_small=0)

    rows = benchmark.as_rows(NoTruth(), way, measured)
    assert rows[1]['time_of_rounds'] == [0.5, 0.5, 1.0]
    assert rows[1]['time'] == rows[1]['pixels'] == 0.5


def test_the_frontier_has_what_no_other_beats(benchmark):
    rows = [
        row('a', AP=0.2, pixels=0.1),
        row('b', AP=0.1, pixels=0.2),
        row('c', AP=0.4, pixels=0.3),
        row('d', AP=0.3, pixels=0.1),
    ]
    assert [one['name'] for one in benchmark.frontier(rows, 'pixels')] == ['d', 'c']


def test_the_verdict_takes_what_is_within_half_a_point(benchmark):
    full = row('full', 'full pyramid', AP=0.8)
    text = benchmark.verdict(
        [
            full,
            row('near', AP=0.796, pixels=0.4, time=0.5),
            row('far', AP=0.79, pixels=0.1, time=0.1),
            row('slices', 'SAHI', AP=0.9, pixels=0.01),
        ]
    )
    assert '2.50 times fewer pixels (near) and 2.00 times less time (near)' in text
    assert benchmark.verdict([full, row('far', AP=0.79)]).startswith('No AutoFocus')


def test_a_threshold_that_was_chosen_elsewhere_is_judged_here(benchmark):
    def rows(*aps):
        full, *others = aps
        named = zip('ab', others, (0.5, 0.25))
        return [row('full', 'full pyramid', AP=full)] + [
            row(name, AP=ap, pixels=pixels, time=2 * pixels) for name, ap, pixels in named
        ]

    there = dict(images=9, rows=rows(0.8, 0.796, 0.79))
    text = benchmark.chosen(rows(0.6, 0.59, 0.6), there)
    assert 'Chosen on 9 images' in text
    assert ': a. Here it has 0.590, and the full pyramid 0.600, with 2.00 times fewer' in text
    assert 'no AutoFocus' in benchmark.chosen(
        rows(0.6, 0.6, 0.6), dict(there, rows=rows(0.8, 0, 0))
    )


@pytest.mark.parametrize('options', [['--rounds', '0'], ['--images', '0']])
def test_there_is_at_least_one_round_and_image(benchmark, options, capsys):
    with pytest.raises(SystemExit):
        benchmark.parse_args(['toy', 'x.pth', *options])
    assert 'at least 1' in capsys.readouterr().err
