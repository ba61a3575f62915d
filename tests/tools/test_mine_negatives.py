"""mine_negatives.py: pools of negative chips from a checkpoint or from a file of proposals."""

import json
import os
import pickle
import subprocess
import sys
from copy import deepcopy
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.evaluation.metrics import DumpProposals
from mmdet.registry import DATA_SAMPLERS, DATASETS, MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.runner import Runner
from mmengine.structures import InstanceData

from mmsniper.chips import NEGATIVE, NegativeChipPool
from mmsniper.mining import NegativeChipMiner
from mmsniper.mining.planning import PoolPlanner

TOOLS = Path(__file__).resolve().parents[2] / 'tools'
STOCK = {
    'faster': 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'rpn': 'mmdet::rpn/rpn_r50_fpn_1x_coco.py',
    'cascade': 'mmdet::cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py',
    'retina': 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
}
PYRAMID = dict(
    chip_size=64,
    levels=[
        dict(resize=dict(factor=1.0), valid_range=(0, 24)),
        dict(resize=dict(factor=0.5), valid_range=(16, None)),
    ],
)
PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='ChipSampler', pyramid=PYRAMID),
    dict(type='ScaleRangeFilter', pyramid=PYRAMID),
    dict(type='PackDetInputs'),
]
STOCK_PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(50, 50)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
SIZE = (150, 120)
BOX = (10, 10, 24, 24)
"""Of all images but the last, whose positive chip of 64 px shows none of x, y >= 74."""


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    register_all_modules()
    monkeypatch.setenv('LOCAL_RANK', '0')  # so that what the tool sets does not stay


@pytest.fixture
def tool(load_tool):
    return load_tool('analysis_tools/mine_negatives')


@pytest.fixture(scope='module')
def coco(tmp_path_factory):
    """Five noisy images, the last without objects, and the config of their CocoDataset."""
    folder = tmp_path_factory.mktemp('data') / 'train'
    folder.mkdir()
    rng = np.random.default_rng(0)
    content = dict(images=[], annotations=[], categories=[dict(id=1, name='a')])
    for i in range(5):
        cv2.imwrite(str(folder / f'{i}.png'), rng.integers(0, 256, (*SIZE[::-1], 3), np.uint8))
        content['images'].append(
            dict(id=i + 10, file_name=f'{i}.png', width=SIZE[0], height=SIZE[1])
        )
        if i < 4:
            x1, y1, x2, y2 = BOX
            content['annotations'].append(
                dict(
                    id=i,
                    image_id=i + 10,
                    category_id=1,
                    bbox=[x1, y1, x2 - x1, y2 - y1],
                    iscrowd=0,
                    area=(x2 - x1) * (y2 - y1),
                )
            )
    (folder / 'ann.json').write_text(json.dumps(content))
    return dict(
        type='CocoDataset',
        data_root=str(folder),
        ann_file='ann.json',
        data_prefix=dict(img=''),
        metainfo=dict(classes=('a',)),
        filter_cfg=dict(filter_empty_gt=False),
    )


@cache
def stock_config(name):
    return get_config(STOCK[name])


def small_model(name):
    """A detector of MMDetection with ResNet-18 and 8 base channels."""
    model = deepcopy(stock_config(name).model)
    model.backbone.update(depth=18, base_channels=8, init_cfg=None)
    model.neck.update(in_channels=[8, 16, 32, 64], out_channels=8)
    if name == 'retina':
        model.bbox_head.update(in_channels=8, feat_channels=8)
        return model
    model.rpn_head.update(in_channels=8, feat_channels=8)
    model.rpn_head.anchor_generator.scales = [4]
    model.test_cfg.rpn.update(nms_pre=100, max_per_img=40)
    if name != 'rpn':
        model.roi_head.bbox_roi_extractor.out_channels = 8
        heads = model.roi_head.bbox_head
        for head in heads if isinstance(heads, list) else [heads]:
            head.update(in_channels=8, fc_out_channels=16, num_classes=1)
    return model


@pytest.fixture
def write_config(tmp_path, coco):
    """Write a config with a small detector and the chips of the five images."""

    def write(name='faster', dataset=None, sampler=None, **settings):
        chips = dict(type='ChipDataset', dataset={**coco, 'pipeline': []}, pipeline=PIPELINE)
        loader = dict(
            batch_size=4,
            num_workers=0,
            dataset=dataset or chips,
            sampler=sampler or dict(type='ChipAwareSampler', pyramid=PYRAMID),
        )
        content = (
            dict(
                custom_imports=dict(
                    imports=['mmsniper.datasets', 'mmsniper.engine'], allow_failed_imports=False
                ),
                default_scope='mmdet',
                pyramid=PYRAMID,
                model=small_model(name).to_dict(),
                train_dataloader=loader,
                randomness=dict(seed=0),
            )
            | settings
        )
        path = tmp_path / f'{name}.py'
        path.write_text('\n'.join(f'{k} = {v!r}' for k, v in content.items() if v is not None))
        return str(path)

    return write


@pytest.fixture
def checkpoint(tmp_path):
    """Random weights of a small detector, in a file."""

    def save(name='faster'):
        torch.manual_seed(0)
        model = MODELS.build(small_model(name))
        model.init_weights()
        path = tmp_path / f'{name}.pth'
        torch.save(model.state_dict(), path)
        return str(path)

    return save


@pytest.fixture
def out(tmp_path):
    return tmp_path / 'pools' / 'F.npz'


MINING = ['--min-proposals', '0', '--num-proposals', '30', '--window-size', '100']


def assert_same(first, second):
    for name in (
        'img_path',
        'width',
        'height',
        'proposals_per_chip',
        'uncovered_image',
        'uncovered_box',
    ):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), name)
    for name in ('image', 'level', 'box'):
        np.testing.assert_array_equal(getattr(first.chips, name), getattr(second.chips, name), name)
    assert first.statistics == second.statistics


def sampler_with(config, negatives):
    """The sampler of a config, with a file of negative chips as a training would have it."""
    loader = Config.fromfile(config).train_dataloader
    dataset = DATASETS.build(loader.dataset)
    return DATA_SAMPLERS.build(
        {**loader.sampler, 'negatives': str(negatives)}, default_args=dict(dataset=dataset, seed=0)
    )


def error_of(tool, *args):
    with pytest.raises(SystemExit) as caught:
        tool.main([str(arg) for arg in args])
    message = caught.value.code
    assert isinstance(message, str)
    assert message.startswith('error: ')
    assert '\n' not in message
    return message


# From a checkpoint --------------------------------------------------------------------------------


@pytest.mark.parametrize('name', ['faster', 'rpn', 'cascade'])
def test_a_training_takes_the_chips_that_any_rpn_has_mined(
    tool, write_config, checkpoint, out, name, capsys
):
    config = write_config(name)
    tool.main([config, checkpoint(name), '--out', str(out), '--share', '1', *MINING])
    pool = NegativeChipPool.from_file(out)
    found = pool.statistics
    assert found.images == 5
    assert found.proposals > 0
    assert 0 < found.covered < found.valid
    assert found.images_with_chips == 5
    assert [path.name for path in out.parent.iterdir()] == ['F.npz']

    sampler = sampler_with(config, out)
    negative = sampler.plan.take(sampler.plan.kind == NEGATIVE)
    assert np.bincount(negative.image).tolist() == [2] * 5

    printed = capsys.readouterr().out
    for number in (found.proposals, found.covered, found.chips, *found.chips_per_level):
        assert f'{number:,}' in printed


def test_two_processes_mine_what_one_does(tool, write_config, checkpoint, out, tmp_path):
    config, weights = write_config(), checkpoint()
    one = tool.main([config, weights, '--out', str(out), *MINING])
    names = ('PORT', 'NNODES', 'NODE_RANK', 'MASTER_ADDR')
    env = {
        **os.environ,
        **dict.fromkeys(names, ''),
        'PYTHON': sys.executable,
        'CUDA_VISIBLE_DEVICES': '',
        'OMP_NUM_THREADS': '1',
    }
    both = tmp_path / 'two.npz'
    done = subprocess.run(
        [TOOLS / 'dist_mine_negatives.sh', config, weights, '2', '--out', both, *MINING],
        env=env,
        cwd=tmp_path,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, done.stdout
    assert 'by 2 processes' in done.stdout
    two = NegativeChipPool.from_file(both)
    assert two.origin == one.origin
    assert_same(one, two)
    assert done.stdout.count('images with negative chips') == 1
    assert not both.with_suffix('.parts').exists()


def test_the_pool_is_that_which_the_configs_hook_mines(tool, write_config, out, tmp_path):
    """Epoch, options and weights are those of the hook if the command line says nothing else."""
    hook = dict(
        type='NegativeChipHook',
        warmup_epochs=1,
        min_proposals=1,
        num_proposals=20,
        window_size=100,
        max_per_image=3,
    )
    config = write_config(
        custom_hooks=[hook],
        work_dir=str(tmp_path / 'run'),
        train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=2),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.001)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1)),
    )
    runner = Runner.from_cfg(Config.fromfile(config))
    runner.train()
    mined = NegativeChipPool.from_file(tmp_path / 'run' / 'negative_chips.npz')
    pool = tool.main([config, str(tmp_path / 'run' / 'epoch_1.pth'), '--out', str(out)])
    assert pool.origin == mined.origin
    assert_same(pool, mined)
    assert pool.statistics.chips > 0


def test_the_command_line_goes_before_the_hook(tool, write_config):
    hook = dict(
        type='NegativeChipHook',
        warmup_epochs=3,
        min_proposals=[7, 3],
        score_thr=0.2,
        max_per_image=9,
        empty_images=False,
        chips_per_image=1,
    )
    cfg = Config.fromfile(write_config(custom_hooks=[hook]))

    def options(*args):
        return tool.mining_options(cfg, tool.parse_args(['c', 'w', '--out', 'F.npz', *args]))

    miner, epoch = options()
    assert (list(miner.min_proposals), miner.score_thr, miner.max_per_image) == ([7, 3], 0.2, 9)
    assert (miner.empty_images, miner.num_proposals, epoch) == (False, 300, 3)
    miner, epoch = options(
        '--min-proposals',
        '4',
        '--score-thr',
        '0',
        '--max-per-image',
        '2',
        '--empty-images',
        '--epoch',
        '0',
        '--num-proposals',
        '5',
    )
    assert (miner.min_proposals, miner.score_thr, miner.max_per_image) == (4, 0, 2)
    assert (miner.empty_images, miner.num_proposals, epoch) == (True, 5, 0)
    cfg.pop('custom_hooks')
    assert options()[0] == NegativeChipMiner()
    assert options()[1] == 0
    assert options('--min-proposals', '8', '4', '--no-empty-images')[0] == (
        NegativeChipMiner(min_proposals=[8, 4], empty_images=False)
    )
    assert options('--covered', 'touched', '--placed', 'anew')[0] == (
        NegativeChipMiner(covered='touched', placed='anew')
    )


def test_full_and_wrapped_checkpoints_hold_the_same_weights(
    tool, write_config, checkpoint, out, tmp_path, capsys
):
    config, weights = write_config(), checkpoint()
    pool = tool.main([config, weights, '--out', str(out), *MINING])
    state = torch.load(weights)
    full, wrapped = tmp_path / 'full.pth', tmp_path / 'wrapped.pth'
    torch.save(dict(state_dict=state, meta=dict(epoch=1), optimizer={}, message_hub={}), full)
    torch.save({f'module.{name}': value for name, value in state.items()}, wrapped)
    for path in (full, wrapped):
        capsys.readouterr()
        assert_same(tool.main([config, str(path), '--out', str(out), *MINING]), pool)
        assert 'mined before from the same: nothing to do' in capsys.readouterr().out


def test_an_interrupted_mining_goes_on_where_it_was(
    tool, write_config, checkpoint, out, tmp_path, monkeypatch
):
    config, weights = write_config(), checkpoint()
    whole = tool.main([config, weights, '--out', str(tmp_path / 'whole.npz'), *MINING])
    plan, seen = PoolPlanner.plan, []

    def interrupted(self, images, boxes):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(set(images.tolist()))
        return plan(self, images, boxes)

    monkeypatch.setattr(PoolPlanner, 'plan', interrupted)
    with pytest.raises(KeyboardInterrupt):
        tool.main([config, weights, '--out', str(out), *MINING])
    assert not out.exists()
    assert len(list((out.parent / 'F.parts').glob('*/*.npz'))) == 2

    monkeypatch.setattr(
        PoolPlanner,
        'plan',
        lambda self, images, boxes: seen.append(set(images.tolist())) or plan(self, images, boxes),
    )
    assert_same(tool.main([config, weights, '--out', str(out), *MINING]), whole)
    assert sum(map(len, seen)) == len(set.union(*seen)) == 5
    assert [path.name for path in out.parent.iterdir()] == ['F.npz']


def test_a_file_of_another_origin_is_replaced_on_demand_only(tool, write_config, checkpoint, out):
    command = [write_config(), checkpoint(), '--out', out, *MINING]
    tool.main([str(arg) for arg in command])
    before = out.read_bytes()
    for change in (
        ['--epoch', '1'],
        ['--score-thr', '0.1'],
        ['--cfg-options', 'randomness.seed=1'],
        ['--cfg-options', 'train_dataloader.sampler.strategy=grid'],
    ):
        message = error_of(tool, *command, *change)
        assert f'{out} exists and was mined from something else' in message
        assert '--overwrite' in message
    assert out.read_bytes() == before
    tool.main([str(arg) for arg in (*command, '--epoch', '1', '--overwrite')])
    assert out.read_bytes() != before
    out.write_text('notes')
    assert 'exists and was mined from something else' in error_of(tool, *command)


@pytest.mark.parametrize(
    'wrap',
    [
        lambda coco: dict(coco, pipeline=STOCK_PIPELINE),
        lambda coco: dict(coco, pipeline=PIPELINE),
        lambda coco: dict(
            type='RepeatDataset', times=2, dataset=dict(coco, pipeline=STOCK_PIPELINE)
        ),
        lambda coco: dict(
            type='MultiImageMixDataset',
            pipeline=[dict(type='Mosaic')],
            dataset=dict(coco, pipeline=STOCK_PIPELINE),
        ),
        lambda coco: dict(
            type='ConcatDataset',
            datasets=[
                dict(coco, pipeline=STOCK_PIPELINE, indices=[0, 1, 2]),
                dict(coco, pipeline=STOCK_PIPELINE, indices=[3, 4]),
            ],
        ),
    ],
    ids=['stock', 'stock with ChipSampler', 'repeated', 'mixed', 'concatenated'],
)
def test_a_stock_data_set_is_mined_as_its_chips_would_be(
    tool, write_config, checkpoint, out, coco, wrap
):
    weights = checkpoint()
    chips = tool.main([write_config(), weights, '--out', str(out), *MINING])
    config = write_config(dataset=wrap(coco), sampler=dict(type='DefaultSampler', shuffle=True))
    stock = tool.main([config, weights, '--out', str(out.with_name('G.npz')), *MINING])
    assert_same(stock, chips)


def test_images_are_loaded_as_the_training_loads_them(tool):
    load, own = dict(type='mmdet.LoadImageFromFile', imdecode_backend='tifffile'), dict(type='Own')
    leaf = dict(type='CocoDataset', ann_file='a.json')

    def pipeline(*transforms):
        made = tool.with_chips(dict(leaf, pipeline=list(transforms)), PYRAMID)
        assert made['dataset'] == dict(leaf, pipeline=[])
        return made['pipeline']

    cut, pack = dict(type='ChipSampler', pyramid=PYRAMID), dict(type='PackDetInputs')
    assert pipeline(load, own, pack) == [load, cut, pack]
    assert pipeline() == [dict(type='LoadImageFromFile'), cut, pack]
    # What is done to an image before it is cut belongs to loading it.
    assert pipeline(load, own, cut, pack) == [load, own, cut, pack]


def test_a_config_that_already_names_the_file_can_make_it(tool, write_config, checkpoint, out):
    sampler = dict(type='ChipAwareSampler', pyramid=PYRAMID, negatives=str(out))
    assert (
        len(
            tool.main(
                [write_config(sampler=sampler), checkpoint(), '--out', str(out), *MINING]
            ).chips
        )
        > 0
    )


def test_an_empty_pool_says_what_to_change(tool, write_config, checkpoint, out, capsys):
    command = [write_config(), checkpoint(), '--out', str(out), '--window-size', '100']
    pool = tool.main([*command, '--min-proposals', '999'])
    assert pool.statistics.chips == 0
    assert 'No window holds more than 999 proposals' in capsys.readouterr().out
    assert (sampler_with(command[0], out).plan.kind != NEGATIVE).all()


# From proposals -----------------------------------------------------------------------------------


def spot(count, corner=(100, 80), side=16, score=0.5):
    """Proposals of one size within a few pixels."""
    shift = np.arange(count)[:, None] % 4
    boxes = np.tile([*corner, corner[0] + side, corner[1] + side], (count, 1)) + shift
    return InstanceData(bboxes=boxes.astype(np.float32), scores=np.full(count, score, np.float32))


NOTHING = InstanceData(bboxes=np.zeros((0, 4), np.float32), scores=np.zeros(0, np.float32))


@pytest.fixture
def proposals_file(tmp_path):
    """Proposals: image 0 has 9 far from its object, 1 has 9 around it, 2 and the empty 4 have 5."""
    path = tmp_path / 'proposals.pkl'
    found = [spot(9), spot(9, corner=BOX[:2], side=10), spot(5), NOTHING, spot(5)]
    path.write_bytes(pickle.dumps({f'train/{i}.png': item for i, item in enumerate(found)}))
    return str(path)


def held(pool):
    """(image, level, proposals) of each chip."""
    return list(
        zip(pool.chips.image.tolist(), pool.chips.level.tolist(), pool.proposals_per_chip.tolist())
    )


def test_proposals_outside_positive_chips_make_chips_without_any_model(
    tool, write_config, out, proposals_file
):
    """16 px are valid at both levels; a coarse positive chip would show 128 px of the 150."""
    config = write_config('retina', model=None)
    pool = tool.main(
        [config, '--proposals', proposals_file, '--out', str(out), '--min-proposals', '4']
    )
    assert held(pool) == [(0, 0, 9), (0, 1, 9), (2, 0, 5), (2, 1, 5), (4, 0, 5), (4, 1, 5)]
    assert (pool.chips.box[:, :2] <= (100, 80)).all()
    assert (pool.chips.box[:, 2:] >= (119, 99)).all()
    found = pool.statistics
    assert (found.images, found.proposals) == (5, 28)
    # The 9 of image 1 are of 10 px: valid at the fine level, in the positive chip of the object.
    assert (found.valid, found.covered) == (19 * 2 + 9, 9)
    sampler = sampler_with(config, out)
    assert (sampler.plan.kind == NEGATIVE).sum() == 6


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        (['--min-proposals', '5', '4'], [(0, 0, 9), (0, 1, 9), (2, 1, 5), (4, 1, 5)]),
        (['--min-proposals', '4', '--max-per-image', '1'], [(0, 0, 9), (2, 0, 5), (4, 0, 5)]),
        (
            ['--min-proposals', '4', '--no-empty-images'],
            [(0, 0, 9), (0, 1, 9), (2, 0, 5), (2, 1, 5)],
        ),
        (
            ['--min-proposals', '4', '--num-proposals', '7'],
            [(0, 0, 7), (0, 1, 7), (2, 0, 5), (2, 1, 5), (4, 0, 5), (4, 1, 5)],
        ),
    ],
)
def test_options_count_for_proposals_too(
    tool, write_config, out, proposals_file, options, expected
):
    pool = tool.main([write_config(), '--proposals', proposals_file, '--out', str(out), *options])
    assert held(pool) == expected


def test_only_proposals_of_enough_score_count(tool, write_config, out, tmp_path):
    both = InstanceData.cat([spot(6, score=0.1), spot(8, score=0.7)])
    path = tmp_path / 'p.pkl'
    found = [both, NOTHING, NOTHING, NOTHING, NOTHING]
    path.write_bytes(pickle.dumps({f'train/{i}.png': item for i, item in enumerate(found)}))
    command = [write_config(), '--proposals', str(path), '--out', str(out), '--min-proposals', '0']
    pool = tool.main([*command, '--score-thr', '0.5'])
    assert held(pool) == [(0, 0, 8), (0, 1, 8)]
    assert 'no proposal of the 5 images has a score of at least score_thr, 0.9' in error_of(
        tool, *command, '--score-thr', '0.9', '--overwrite'
    )


def test_what_dump_proposals_writes_is_planned_as_the_same_coco_results(
    tool, write_config, out, tmp_path, coco
):
    rng = np.random.default_rng(0)
    metric = DumpProposals(output_dir=str(tmp_path), proposals_file='dumped.pkl')
    results = []
    for i in (3, 1, 4, 0, 2):
        corners = np.sort(rng.integers(0, 121, (30, 2, 2)), axis=1).reshape(-1, 4)
        boxes, scores = corners.astype(np.float32), rng.random(30).astype(np.float32)
        pred = dict(bboxes=torch.tensor(boxes), scores=torch.tensor(scores))
        metric.process({}, [dict(img_path=f'{coco["data_root"]}/{i}.png', pred_instances=pred)])
        results += [
            dict(
                image_id=i + 10,
                score=float(s),
                bbox=[float(v) for v in (b[0], b[1], b[2] - b[0], b[3] - b[1])],
            )
            for b, s in zip(boxes, scores)
        ]
    metric.evaluate(size=5)
    (tmp_path / 'coco.json').write_text(json.dumps(results))
    config = write_config()
    pools = [
        tool.main(
            [config, '--proposals', str(tmp_path / file), '--out', str(out), *MINING, '--overwrite']
        )
        for file in ('dumped.pkl', 'coco.json')
    ]
    assert len(pools[0].chips) > 10
    assert_same(*pools)


def test_the_same_proposals_are_not_planned_twice(tool, write_config, out, proposals_file, capsys):
    command = [write_config(), '--proposals', proposals_file, '--out', str(out)]
    tool.main(command)
    tool.main(command)
    assert 'nothing to do' in capsys.readouterr().out
    found = pickle.loads(Path(proposals_file).read_bytes())
    found['train/0.png'].bboxes += 1
    Path(proposals_file).write_bytes(pickle.dumps(found))
    assert 'other weights or proposals' in error_of(tool, *command)


# Mistakes -----------------------------------------------------------------------------------------


def test_a_detector_without_rpn_is_told_of_the_way_out(tool, write_config, checkpoint, out):
    message = error_of(tool, write_config('retina'), checkpoint('retina'), '--out', out)
    assert 'RetinaNet has no rpn_head' in message
    assert '--proposals FILE' in message


def test_weights_that_leave_the_rpn_at_random_are_refused(tool, write_config, checkpoint, out):
    message = error_of(tool, write_config('rpn'), checkpoint('faster'), '--out', out)
    assert 'faster.pth has not the weights of this detector: 6 of ' in message
    assert 'such as rpn_head' in message or 'such as bbox_head.rpn' in message
    config = write_config('faster')
    options = [
        '--cfg-options',
        'model.backbone.base_channels=16',
        'model.neck.in_channels=[16,32,64,128]',
    ]
    assert 'of another shape, such as backbone.conv1.weight' in error_of(
        tool, config, checkpoint('faster'), '--out', out, *options
    )
    assert not out.exists()


def test_other_classes_or_no_roi_head_do_not_matter_to_an_rpn(
    tool, write_config, checkpoint, out, tmp_path
):
    weights = torch.load(checkpoint())
    torch.save(
        {k: v for k, v in weights.items() if not k.startswith('roi_head')}, tmp_path / 'part.pth'
    )
    pool = tool.main([write_config(), str(tmp_path / 'part.pth'), '--out', str(out), *MINING])
    assert len(pool.chips) > 0


def test_checkpoints_that_cannot_be_read_are_named(tool, write_config, checkpoint, out, tmp_path):
    config, weights = write_config(), checkpoint()
    assert 'cannot load none.pth' in error_of(tool, config, 'none.pth', '--out', out)
    short = tmp_path / 'short.pth'
    short.write_bytes(Path(weights).read_bytes()[:500])
    assert f'{short}: is cut short' in error_of(tool, config, short, '--out', out)


@pytest.mark.parametrize('workers', [0, 1])
def test_an_image_that_cannot_be_read_is_named(
    tool, write_config, checkpoint, out, coco, tmp_path, workers
):
    broken = deepcopy(coco)
    broken.update(data_prefix=dict(img=str(tmp_path / 'nowhere')), pipeline=[])
    config = write_config(dataset=dict(type='ChipDataset', dataset=broken, pipeline=PIPELINE))
    message = error_of(
        tool,
        config,
        checkpoint(),
        '--out',
        out,
        *MINING,
        '--cfg-options',
        f'train_dataloader.num_workers={workers}',
    )
    assert 'nowhere/' in message
    assert 'Do data_root and data_prefix point at the images?' in message


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (
            dict(pyramid=None, sampler=dict(type='DefaultSampler', shuffle=True)),
            'has no pyramid; add one to _base_',
        ),
        (dict(train_dataloader=None), 'has no train_dataloader'),
        (dict(model=None), 'has no model'),
        (
            dict(
                pyramid=dict(chip_size=0, levels=[]),
                sampler=dict(type='DefaultSampler', shuffle=True),
            ),
            'chip_size must be positive, got 0',
        ),
    ],
)
def test_what_a_config_lacks_is_told_in_one_line(
    tool, write_config, checkpoint, out, settings, message
):
    assert message in error_of(tool, write_config('faster', **settings), checkpoint(), '--out', out)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--window-size', '64'], 'window_size 64 must exceed the chip size, 64'),
        (['--num-proposals', '0'], 'num_proposals must be'),
        (['--min-proposals', '-1'], 'min_proposals must be a number'),
        (['--max-per-image', '0'], 'max_per_image must be'),
        (['--cfg-options', 'train_dataloader.dataset.dataset.ann_file=none.json'], 'none.json'),
    ],
)
def test_impossible_options_are_told_in_one_line(
    tool, write_config, checkpoint, out, options, message
):
    assert message in error_of(tool, write_config(), checkpoint(), '--out', out, *options)


def test_a_config_that_is_missing_or_no_python_is_told_in_one_line(tool, tmp_path, out):
    assert 'none.py' in error_of(tool, tmp_path / 'none.py', 'x.pth', '--out', out)
    (tmp_path / 'broken.py').write_text('pyramid = (')
    assert 'broken.py is not a config' in error_of(tool, tmp_path / 'broken.py', 'x', '--out', out)


def test_a_refused_pickle_is_told_in_one_line(tool, write_config, out, tmp_path):
    (tmp_path / 'p.pkl').write_bytes(pickle.dumps({'train/0.png': os.system}))
    message = error_of(tool, write_config(), '--proposals', tmp_path / 'p.pkl', '--out', out)
    assert 'p.pkl is refused: it asks for posix.system' in message


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['c', '--out', 'F.npz'], 'give either a CHECKPOINT, whose RPN is run, or --proposals'),
        (['c', 'w', '--out', 'F.npz', '--proposals', 'p.pkl'], 'give either a CHECKPOINT'),
        (['c', '--out', 'F.npz', '--proposals', 'p.pkl', '--launcher', 'pytorch'], 'one process'),
        (['c', 'w', '--out', 'F.pkl'], '--out F.pkl: the file must end in .npz'),
        (['c', 'w'], '--out'),
    ],
)
def test_arguments_that_do_not_go_together(tool, capsys, arguments, message):
    with pytest.raises(SystemExit):
        tool.parse_args(arguments)
    assert message in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason='other launchers work with a GPU')
def test_a_launcher_that_needs_a_gpu_says_so(tool, write_config, checkpoint, out):
    message = error_of(tool, write_config(), checkpoint(), '--out', out, '--launcher', 'slurm')
    assert "launcher 'slurm' needs a GPU" in message


def test_the_script_without_arguments_says_how_it_is_used():
    script = TOOLS / 'dist_mine_negatives.sh'
    done = subprocess.run([script, 'c', 'w', '2'], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f'usage: {script} CONFIG CHECKPOINT N --out F.npz')
