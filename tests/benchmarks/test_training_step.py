"""The benchmark of a training step runs, and counts what it should; CPU times mean nothing."""

import json

import pytest
import torch
import training_step as benchmark
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData


def test_what_it_writes(tmp_path, capsys):
    out = tmp_path / 'results' / 'step.json'
    tiny = ['--device', 'cpu', '--tiny', '--rounds', '1', '--warmup', '0', '--out', str(out)]
    benchmark.main([*tiny, '--configs', 'faster_rcnn_r50'])
    result = json.loads(out.read_text())
    assert result['chips'] == 4
    assert result['boxes_per_chip'] > 0
    found = result['detectors']['faster_rcnn_r50']
    assert list(found['variants']) == ['A', 'B', 'C']
    for variant in found['variants'].values():
        assert set(variant['phases']) == {'preprocessing', 'forward', 'backward', 'optimizer'}
        assert variant['step'] > 0
        assert variant['cpu_step'] > 0
    assert found['rois']['A'] > 0
    counts = found['synchronisations']
    # Every assigner asks for each object whether it has an anchor; ours for nothing beside.
    assert counts['totals']['A'] > counts['totals']['B'] / 2 > counts['totals']['C'] / 2 > 0
    assert not [row for row in counts['more_in_A'] if row['source'].startswith('mmsniper/')]
    assert counts['operations']['A'] < 1.06 * counts['operations']['B']
    assert 0 < found['host_time']['share_of_ours'] < 0.5
    assert len(found['host_time']['functions']) == 15
    page = out.with_suffix('.md').read_text()
    assert 'A: SNIPER, chips' in page
    assert 'mmsniper/models/dense_heads.py' in page
    assert 'stock, 4 chips an image' in capsys.readouterr().out


def test_small_chips_have_the_same_objects_on_fewer_pixels():
    name = 'faster_rcnn_r101'
    large, small = (benchmark.read_config(name, True, small_chips=s) for s in (False, True))
    assert (large.pyramid.chip_size, small.pyramid.chip_size) == (512, 64)
    assert [level.resize for level in small.pyramid.levels] == [
        dict(factor=3.0 / 8),
        dict(factor=1.667 / 8),
        dict(long_side=64),
    ]
    assert small.model.roi_head.pyramid == small.model.pyramid == small.pyramid
    assert small.model.rpn_head.anchor_generator.scales == [1]
    assert benchmark.read_config('retinanet_r50', True, True).pyramid == small.pyramid


def test_four_chips_side_by_side():
    def chip(value, height, boxes, ignored):
        sample = DetDataSample(metainfo=dict(img_shape=(height, 8)))
        for key, rows in (('gt_instances', boxes), ('ignored_instances', ignored)):
            labels = torch.full((len(rows),), value)
            tensor = HorizontalBoxes(torch.tensor(rows).float().reshape(-1, 4))
            setattr(sample, key, InstanceData(bboxes=tensor, labels=labels))
        return torch.full((3, height, 8), value, dtype=torch.uint8), sample

    chips = [
        chip(1, 8, [[0, 0, 2, 2]], []),
        chip(2, 6, [[1, 1, 3, 3]], [[0, 0, 1, 1]]),
        chip(3, 8, [], []),
        chip(4, 8, [[5, 5, 8, 8]], []),
        chip(5, 8, [], []),  # the fifth makes no image
    ]
    images, samples = zip(*chips)
    batch = benchmark.side_by_side(dict(inputs=images, data_samples=samples), chip_size=8)
    [image], [sample] = batch['inputs'], batch['data_samples']
    assert image.shape == (3, 16, 16)
    assert image[0, ::8, ::8].tolist() == [[1, 2], [3, 4]]
    assert image[0, 6:8, 8:].sum() == 0, 'a chip may be smaller'
    boxes = [[0, 0, 2, 2], [9, 1, 11, 3], [13, 13, 16, 16]]
    assert sample.gt_instances.bboxes.tolist() == boxes
    assert sample.gt_instances.labels.tolist() == [1, 2, 4]
    assert sample.ignored_instances.bboxes.tolist() == [[8, 0, 9, 1]]
    assert sample.img_shape == (16, 16)


def test_images_get_as_many_proposals_and_samples_as_their_chips():
    sampler = dict(num=256)
    train = dict(
        rpn=dict(sampler=sampler),
        rpn_proposal=dict(nms_pre=2000, max_per_img=300, nms=dict(type='nms')),
        rcnn=dict(sampler=dict(num=1024)),
    )
    model = ConfigDict(data_preprocessor=dict(batch_augments=[1]), train_cfg=train)
    changed = benchmark.for_images(model)
    assert changed.train_cfg.rpn.sampler.num == 1024
    proposals = changed.train_cfg.rpn_proposal
    assert (proposals.nms_pre, proposals.max_per_img) == (8000, 1200)
    assert proposals.nms.split_thr > 5 * 5 * 8000, 'else NMS goes class by class'
    assert changed.train_cfg.rcnn.sampler.num == 4096
    assert model.train_cfg.rpn.sampler.num == 256
    assert benchmark.for_images(ConfigDict(data_preprocessor={}, train_cfg={})).train_cfg == {}


@pytest.mark.parametrize('name', ['faster_rcnn_r101', 'retinanet_r50', 'rtmdet_s'])
def test_stock_differs_in_nothing_but_our_parts(name):
    cfg = benchmark.read_config(name, tiny=True)
    text = str(benchmark.stock_training(cfg.model))
    for ours in ('SNIPER', 'ValidRange', 'IgnoreInvalid', 'Pyramid', 'pyramid', 'ignore_iou_thr'):
        assert ours in str(cfg.model) or ours not in ('Pyramid', 'pyramid')
        assert ours not in text
    assert benchmark.stock_training(cfg.model).train_cfg.keys() == cfg.model.train_cfg.keys()


def test_without_a_gpu_the_default_is_refused_with_the_way_out(monkeypatch, capsys):
    monkeypatch.setattr(benchmark.torch.cuda, 'is_available', lambda: False)
    with pytest.raises(SystemExit):
        benchmark.parse_args([])
    assert '--device cpu --tiny' in capsys.readouterr().err
    assert benchmark.parse_args(['--device', 'cpu']).out is None
