"""Negative chips are mined from what a detector's RPN proposes, whoever does the work."""

import copy
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmdet.registry import DATA_SAMPLERS, DATASETS, MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.hub import get_config
from mmengine.structures import InstanceData

from mmsniper.chips import NEGATIVE, NegativeChipPool
from mmsniper.chips.windows import LevelWindows
from mmsniper.mining import NegativeChipMiner, share_buffers
from mmsniper.mining import miner as mining
from mmsniper.mining import parts as mining_parts
from mmsniper.mining.parts import mined_images
from mmsniper.models.proposals import proposal_head

# Of the small images of conftest.py: how many, and which have no objects.
NUM_IMAGES, EMPTY = 8, (3, 6)
# As in the small run; windows of up to 128 px: the images are two or four windows at level 0.
# Placed anew: pools hold most then.
MINER = dict(share=1.0, min_proposals=2, num_proposals=30, window_size=128, placed='anew')
BATCH_PIXELS = 4 * 64 * 64
ARRAYS = (
    'img_path',
    'width',
    'height',
    'proposals_per_chip',
    'uncovered_image',
    'uncovered_level',
    'uncovered_box',
    'proposal_image',
    'proposal_box',
)
CHIP_ARRAYS = ('image', 'level', 'box', 'kind')


@pytest.fixture(autouse=True)
def _mmdet_scope():
    register_all_modules(init_default_scope=True)


def build_model(cfg):
    torch.manual_seed(0)
    return MODELS.build(cfg).train()


def build_sampler(cfg, dataset=None, **kwargs):
    settings = dict(pyramid=cfg.pyramid, seed=0) | kwargs
    for transform in cfg.train_dataloader.dataset.pipeline:
        if 'pyramid' in transform:
            transform['pyramid'] = settings['pyramid']
    dataset = DATASETS.build(dataset or cfg.train_dataloader.dataset)
    return DATA_SAMPLERS.build(dict(type='ChipAwareSampler', dataset=dataset, **settings))


@pytest.fixture(scope='module')
def once():
    """(function, path) -> what the function makes of the file's content, made once and copied."""
    made = {}

    def make(function, path):
        key = function, path.read_text()
        if key not in made:
            made[key] = function(path)
        return copy.deepcopy(made[key])

    return make


@pytest.fixture
def cfg(small_run, once):
    return once(Config.fromfile, small_run)


def model_of(path):
    return build_model(Config.fromfile(path).model)


@pytest.fixture
def model(small_run, once):
    return once(model_of, small_run)


@pytest.fixture
def sampler(cfg):
    return build_sampler(cfg)


def windows_of(sampler, window_size):
    """The windows of all images."""
    table, images = sampler.planner.table, mined_images(sampler)
    sizes = table.width[images], table.height[images]
    return LevelWindows(sampler.pyramid, *sizes, window_size, images)


def mine(model, sampler, parts_dir=None, **options):
    return NegativeChipMiner(**(MINER | options)).mine(
        model, sampler, batch_pixels=BATCH_PIXELS, parts_dir=parts_dir
    )


def assert_same(pool, other, *, origin=True):
    """Bit for bit."""
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(pool, name), getattr(other, name), err_msg=name)
    for name in CHIP_ARRAYS:
        ours, theirs = getattr(pool.chips, name), getattr(other.chips, name)
        np.testing.assert_array_equal(ours, theirs, err_msg=name)
        assert ours.dtype == theirs.dtype
    assert pool.statistics == other.statistics
    assert (pool.origin == other.origin) is origin


@pytest.fixture
def seen(monkeypatch):
    """(window, its proposals) of all windows that are proposed for, and the batches."""

    class Seen(list):
        batches: list = []
        stop_after = None

    seen, propose = Seen(), NegativeChipMiner._propose
    seen.batches = []

    def spy(self, model, data, batch, pyramid):
        if len(seen) == seen.stop_after:
            raise KeyboardInterrupt
        if seen.stop_after is not None:
            assert len(seen) < seen.stop_after, 'stop_after is in the middle of a batch'
        found = propose(self, model, data, batch, pyramid)
        seen.batches.append(list(batch))
        kept = [boxes[best] for boxes, _, best in found]
        seen.extend(zip(batch, kept, strict=True))
        return found

    monkeypatch.setattr(NegativeChipMiner, '_propose', spy)
    return seen


@pytest.fixture
def propose_boxes(monkeypatch):
    """Let the RPN see given boxes, a function of the image's file, in original pixels.

    As an RPN does, it sees what of a box lies in the window. Scores are 1, 1/2, 1/3, ... in the
    order of the boxes.
    """

    def use(boxes_of):
        def fake(model, batch):
            results = []
            for image, sample in zip(batch['inputs'], batch['data_samples'], strict=True):
                boxes = np.array(boxes_of(sample.img_path), float).reshape(-1, 4)
                m = sample.homography_matrix.astype(float)
                moved = boxes * np.tile(np.diag(m)[:2], 2) + np.tile(m[:2, 2], 2)
                h, w = image.shape[1:]
                moved = np.clip(moved, 0, [w, h, w, h])
                visible = (moved[:, 2:] - moved[:, :2] > 0.01).all(axis=1)
                results.append(
                    InstanceData(
                        bboxes=torch.tensor(moved[visible], dtype=torch.float32),
                        scores=torch.tensor(1 / (1 + np.flatnonzero(visible))),
                    )
                )
            return results

        monkeypatch.setattr(mining, 'propose', fake)

    return use


@pytest.fixture
def speckles(propose_boxes):
    """Let the RPN see 150 boxes in each image, which takes no time."""

    def boxes_of(path):
        rng = np.random.default_rng(int(Path(path).stem))
        corner = rng.uniform(0, 130, (150, 2))
        return np.concatenate([corner, corner + rng.uniform(6, 40, (150, 2))], axis=1)

    propose_boxes(boxes_of)


def found(seen, image=None, level=None):
    """Proposals of some windows."""
    return np.concatenate(
        [
            np.zeros((0, 4)),
            *(
                boxes
                for window, boxes in seen
                if image in (None, window.image) and level in (None, window.level)
            ),
        ]
    )


# --- whatever detector ----------------------------------------------------------------------------

STOCK = {
    'faster': 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'mask': 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    'cascade': 'mmdet::cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py',
    'rpn': 'mmdet::rpn/rpn_r50_fpn_1x_coco.py',
}


def small_detector(name):
    cfg = get_config(STOCK[name]).model
    cfg.backbone.update(depth=18, base_channels=8, init_cfg=None)
    cfg.neck.update(in_channels=[8, 16, 32, 64], out_channels=8)
    cfg.rpn_head.update(in_channels=8, feat_channels=8)
    cfg.rpn_head.anchor_generator.scales = [4]
    cfg.test_cfg.rpn.update(nms_pre=100, max_per_img=50)
    return build_model(cfg)


@pytest.mark.parametrize('name', STOCK)
def test_proposals_are_those_of_the_stock_pipeline_in_original_pixels(cfg, seen, name):
    """For images that are one window, at scales that give broken sizes (but no halves of pixels,
    which the two round differently)."""
    model = small_detector(name)
    pyramid = dict(
        chip_size=64,
        levels=[
            dict(resize=dict(factor=0.82), valid_range=(0, 40)),
            dict(resize=dict(long_side=101), valid_range=(30, None)),
        ],
    )
    sampler = build_sampler(cfg, pyramid=pyramid)
    pool = mine(model, sampler, window_size=200, batch_pixels=1, num_proposals=20)
    assert len(seen) == 2 * NUM_IMAGES
    assert pool.statistics.chips > 0
    model.eval()
    for window, boxes in seen:
        level = window.level
        stock = Compose(
            [
                dict(type='LoadImageFromFile'),
                dict(type='LevelResize', pyramid=pyramid, level=level),
                dict(type='PackDetInputs'),
            ]
        )
        info = dict(img_path=sampler.img_paths()[window.image], img_id=0)
        data = model.data_preprocessor(pseudo_collate([stock(info)]))
        with torch.no_grad():
            features = model.extract_feat(data['inputs'])
            (result,) = proposal_head(model).predict(features, data['data_samples'], rescale=True)
        expected = result.bboxes.numpy()
        size = np.sqrt((expected[:, 2:] - expected[:, :2]).prod(axis=1))
        expected = expected[(size < 40) if level == 0 else (size >= 30)][:20]
        assert len(expected) > 0
        np.testing.assert_allclose(boxes, expected, atol=1e-3)


def test_a_detector_without_an_rpn_is_refused_before_any_work(cfg, model, sampler):
    del model.rpn_head
    with pytest.raises(ValueError, match='FasterRCNN has no rpn_head'):
        mine(model, sampler)
    with pytest.raises(ValueError, match='FasterRCNN has no rpn_head'):
        NegativeChipMiner().check(model, sampler)


# --- however many processes -----------------------------------------------------------------------


def spoil_buffers(model, rank):
    """BatchNorm statistics as ranks have them after training on different chips."""
    for name, buffer in model.named_buffers():
        if name.endswith('running_mean'):
            buffer += 0.01 * (rank + 1)


def _rank_main(rank, world_size, folder, config_file, parts_dir):
    register_all_modules(init_default_scope=True)
    dist.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=world_size
    )
    cfg = Config.fromfile(config_file)
    model = build_model(cfg.model)
    spoil_buffers(model, rank)
    share_buffers(model)
    propose, count = NegativeChipMiner._propose, []

    def counting(self, model, data, batch, pyramid):
        count.extend(batch)
        return propose(self, model, data, batch, pyramid)

    NegativeChipMiner._propose = counting
    pool = mine(model, build_sampler(cfg), parts_dir and Path(parts_dir))
    pool.save(f'{folder}/rank{rank}.npz')
    Path(f'{folder}/windows{rank}').write_text(str(len(count)))
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture
def mined_by(tmp_path, small_run):
    """(number of processes) -> the pools that the ranks have, and how many windows each saw."""

    def run(world_size, parts_dir=None):
        folder = tmp_path / f'{world_size}_processes'
        folder.mkdir()
        parts_dir = parts_dir and str(parts_dir)
        mp.spawn(
            _rank_main, args=(world_size, str(folder), str(small_run), parts_dir), nprocs=world_size
        )
        ranks = range(world_size)
        return (
            [NegativeChipPool.from_file(folder / f'rank{i}.npz') for i in ranks],
            [int((folder / f'windows{i}').read_text()) for i in ranks],
        )

    return run


def test_the_pool_is_the_same_for_one_process_and_for_three(model, sampler, mined_by):
    """All of them have rank 0's buffers, which its checkpoint would have."""
    spoil_buffers(model, 0)
    alone = mine(model, sampler)
    assert alone.statistics.chips > 20
    pools, windows = mined_by(3)
    for pool in pools:
        assert_same(pool, alone)
    assert min(windows) > 0
    # Without their sharing the work, each would see them all.
    assert sum(windows) == windows_of(sampler, MINER['window_size']).count.sum()


def test_two_processes_go_on_where_one_was_interrupted(model, sampler, mined_by, seen, tmp_path):
    spoil_buffers(model, 0)
    alone = mine(model, sampler)
    windows, parts_dir = len(seen), tmp_path / 'parts'
    seen.clear()
    seen.stop_after = 20
    with pytest.raises(KeyboardInterrupt):
        mine(model, sampler, parts_dir)
    kept = sum(len(NegativeChipPool.from_file(f).img_path) for f in parts_dir.iterdir())
    assert 0 < kept < NUM_IMAGES
    pools, of_ranks = mined_by(2, parts_dir)
    for pool in pools:
        assert_same(pool, alone)
    counts = windows_of(sampler, MINER['window_size']).count.sum(axis=1)
    assert sum(of_ranks) == windows - counts[:kept].sum()
    assert min(of_ranks) > 0


def test_says_that_the_ranks_have_different_weights(model, sampler, monkeypatch):
    monkeypatch.setattr(mining_parts, 'all_gather_object', lambda mine: [mine, 'another'])
    with pytest.raises(RuntimeError, match=r'different things \(\w+, another\).*share_buffers'):
        mine(model, sampler)


# --- images larger than a window ------------------------------------------------------------------


def boxes_everywhere(cfg, sampler, level, image=0):
    """Boxes of all sizes up to a chip's, all over an image, and some centred where cores meet."""
    scale, side = sampler.pyramid.scales(150, 200)[level], 64 / (1.0, 0.5)[level]
    lo, hi = cfg.pyramid.levels[level]['valid_range']
    rng = np.random.default_rng(level)
    wh = rng.uniform(lo, min(hi or 1e9, side), (400, 2))
    wh[:50, 0] = side  # as wide as a chip
    wh[:50, 1] = np.maximum(lo**2 / side, 6)
    centre = rng.uniform(0, (150, 200), (400, 2))
    windows = windows_of(sampler, 90).of_image(image)
    cores = np.array([window.core for window in windows if window.level == level])
    centre[:40] = cores[np.arange(40) % len(cores), 2:] + 0.02 * (-1) ** np.arange(40)[:, None]
    boxes = np.clip(np.concatenate([centre - wh / 2, centre + wh / 2], axis=1), 0, [150, 200] * 2)
    size = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))
    assert scale == (1.0, 0.5)[level]
    sides = boxes[:, 2:] - boxes[:, :2]
    return boxes[(size >= lo) & (size < (hi or 1e9)) & (sides > 1).all(axis=1)]


@pytest.mark.parametrize('level', [0, 1])
def test_each_proposal_is_reported_once_whole_and_in_original_pixels(
    cfg, model, sampler, propose_boxes, seen, level
):
    boxes = boxes_everywhere(cfg, sampler, level)
    assert len(boxes) > 100
    propose_boxes(lambda path: boxes if path.endswith('/0.png') else [])
    mine(model, sampler, num_proposals=1000, window_size=90)
    assert sum(w.image == 0 and w.level == level for w, _ in seen) == (24, 2)[level]
    ours = found(seen, image=0, level=level)
    assert len(ours) == len(boxes)
    order = (np.lexsort(np.round(b, 1).T) for b in (ours, boxes))
    np.testing.assert_allclose(*(b[k] for b, k in zip((ours, boxes), order)), atol=0.01)


def test_a_proposal_centred_where_cores_meet_is_reported_once(model, sampler, propose_boxes, seen):
    # The odd images are 180x140: at level 0 two windows of 122 by two, that meet at (90, 70).
    box = [[85.0, 63.0, 95.0, 77.0]]
    propose_boxes(lambda path: box)
    mine(model, sampler)
    cores = {window.core for window, _ in seen if (window.image, window.level) == (1, 0)}
    assert cores == {(0, 0, 90, 70), (90, 0, 180, 70), (0, 70, 90, 140), (90, 70, 180, 140)}
    assert found(seen, image=1, level=0).tolist() == box


def test_proposals_centred_on_the_last_row_and_column_are_kept(model, sampler, seen, monkeypatch):
    """Some heads do not drop boxes that clipping has left without a width."""

    def fake(model, batch):
        results = []
        for image in batch['inputs']:
            height, width = image.shape[1:]
            boxes = [[width, 20, width, 40], [20, height, 40, height], [width, height] * 2]
            results.append(InstanceData(bboxes=torch.tensor(boxes).float(), scores=torch.ones(3)))
        return results

    monkeypatch.setattr(mining, 'propose', fake)
    mine(model, sampler, window_size=400)
    width, height = 150, 200
    assert found(seen, image=0, level=0).tolist() == [
        [width, 20, width, 40],
        [20, height, 40, height],
        [width, height, width, height],
    ]


def test_windows_hold_the_image_in_the_network_pixels_of_their_level(model, sampler, monkeypatch):
    """What the network sees of a window is that part of the image, at the level's scale."""
    from mmcv import imread, imresize

    seen = []

    def fake(model, batch):
        seen.extend(zip(batch['inputs'], batch['data_samples'], strict=True))
        return [
            InstanceData(bboxes=torch.zeros(0, 4), scores=torch.zeros(0)) for _ in batch['inputs']
        ]

    monkeypatch.setattr(mining, 'propose', fake)
    mine(model, sampler)
    assert {s.chip.level for _, s in seen} == {0, 1}
    for image, sample in seen:
        x1, y1, x2, y2 = (round(v) for v in sample.chip.box)
        np.testing.assert_allclose(sample.chip.box, (x1, y1, x2, y2), atol=0.5)
        scale = (1.0, 0.5)[sample.chip.level]
        if scale == 1.0 and sample.chip.box == (x1, y1, x2, y2):
            crop = imread(sample.img_path)[y1:y2, x1:x2]
            np.testing.assert_array_equal(image.permute(1, 2, 0), crop)
        elif scale == 0.5:
            assert sample.chip.box == (0, 0, *sample.ori_shape[::-1])
            crop = imresize(imread(sample.img_path), (x2 // 2, y2 // 2))
            np.testing.assert_array_equal(image.permute(1, 2, 0), crop)


def test_batches_are_no_larger_than_told_and_hardly_padded(
    model, sampler, propose_boxes, seen, monkeypatch
):
    propose_boxes(lambda path: [])
    # All windows of eight images in one part: 16 of 122x122, 24 of 110x110, and smaller ones.
    monkeypatch.setattr(mining_parts, 'part_starts', lambda windows: [0])
    mine(model, sampler, batch_pixels=60_000)
    for batch in seen.batches:
        height, width = (max(w.shape[i] for w in batch) for i in (0, 1))
        padded, own = len(batch) * height * width, sum(w.pixels for w in batch)
        assert padded <= 60_000
        assert padded <= 1.1 * own
    # Four of the large windows are 59,536 pixels; three of the others with one of those would do,
    # but for the padding.
    assert sum({w.shape for w in batch} == {(122, 122)} for batch in seen.batches) == 16 / 4
    assert sum({w.shape for w in batch} == {(110, 110)} for batch in seen.batches) == 24 / 4
    seen.batches.clear()
    mine(model, sampler, batch_pixels=1)
    assert {len(batch) for batch in seen.batches} == {1}


def test_progress_ends_at_what_was_announced(model, sampler, propose_boxes, monkeypatch):
    bars = []

    class Bar:
        def __init__(self, iterable, what, total, **options):
            self.total, self.n = total, 0
            bars.append(self)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

        def update(self, n):
            self.n += n

    propose_boxes(lambda path: [])
    monkeypatch.setattr(mining, 'progress', Bar)
    mine(model, sampler)
    (bar,) = bars
    # Four images each of two sizes, at 1 and at 1/2. At 1, windows overlap by 64: 180x140 is 2x2
    # windows of (180 + 64) / 2, 150x200 is 2x3 windows of (200 + 2 * 64) / 3.
    assert bar.total == bar.n == 4 * (4 * 122 * 122 + 90 * 70 + 6 * 110 * 110 + 75 * 100)
    assert NegativeChipMiner(**MINER).pixels(sampler) == bar.total


# --- options --------------------------------------------------------------------------------------


def grid(n, left=0, top=0, side=10, step=12):
    """n boxes side by side, in rows of 10."""
    x, y = left + step * (np.arange(n) % 10), top + step * (np.arange(n) // 10)
    return np.stack([x, y, x + side, y + side], axis=1)


def test_the_best_proposals_of_a_window_are_kept(model, sampler, propose_boxes, seen):
    propose_boxes(lambda path: grid(40))
    mine(model, sampler, num_proposals=7, window_size=400)
    kept = {len(boxes) for w, boxes in seen if w.level == 0}
    assert kept == {7}
    np.testing.assert_allclose(found(seen, image=0, level=0), grid(7), atol=1e-3)


def test_of_overlapping_windows_each_keeps_its_own_best(model, sampler, propose_boxes, seen):
    propose_boxes(lambda path: grid(100))
    mine(model, sampler, num_proposals=5)
    for window, boxes in seen:
        if window.level == 0 and window.image == 0:
            centre = grid(100)[:, :2] + 5
            inside = ((centre >= window.core[:2]) & (centre < window.core[2:])).all(axis=1)
            np.testing.assert_allclose(boxes, grid(100)[inside][:5], atol=1e-3)


def test_proposals_with_a_low_score_are_left_out(model, sampler, propose_boxes, seen):
    propose_boxes(lambda path: grid(30))  # of scores 1, 1/2, 1/3, ...
    mine(model, sampler, score_thr=0.1, window_size=400)
    np.testing.assert_allclose(found(seen, image=0, level=0), grid(10), atol=1e-3)


def test_proposals_out_of_the_level_s_range_take_no_place(model, sampler, propose_boxes, seen):
    # Valid ranges are [0, 24) and [16, inf).
    large, middle, small = [0, 0, 40, 40], [50, 50, 70, 70], [90, 90, 100, 100]
    propose_boxes(lambda path: [large, middle, small])
    mine(model, sampler, num_proposals=2, window_size=400)
    np.testing.assert_allclose(found(seen, image=0, level=0), [middle, small], atol=1e-3)
    np.testing.assert_allclose(found(seen, image=0, level=1), [large, middle], atol=1e-3)


def test_a_pool_s_chips_hold_more_than_min_proposals(model, sampler, propose_boxes):
    propose_boxes(lambda path: grid(4, left=80, top=100))  # 4 boxes far from every object
    few = mine(model, sampler, min_proposals=3)
    assert few.statistics.chips == NUM_IMAGES
    assert few.proposals_per_chip.tolist() == [4] * NUM_IMAGES
    assert set(few.chips.kind.tolist()) == {NEGATIVE}
    for i, (x1, y1, x2, y2) in zip(few.chips.image, few.chips.box.tolist()):
        assert (x1 <= 80, y1 <= 100, x2 >= 126, y2 >= 110) == (True,) * 4, few.img_path[i]
    assert mine(model, sampler, min_proposals=4).statistics.chips == 0


def test_a_pool_whose_chips_are_placed_anew_keeps_all_proposals(
    model, sampler, propose_boxes, tmp_path
):
    tiny = [[80, 60, 80.5, 60.5]]  # is no proposal
    propose_boxes(lambda path: np.concatenate([grid(5, left=80, top=60), tiny]))
    fixed = mine(model, sampler, min_proposals=1, covered='touched', placed='fixed')
    anew = mine(model, sampler, min_proposals=1, covered='touched', placed='anew')
    assert (fixed.options, len(fixed.proposal_box)) == (None, 0)
    assert anew.options == dict(min_proposals=1, max_per_image=None, covered='touched')
    assert len(anew.proposal_box) == anew.statistics.proposals > 0
    anew.save(tmp_path / 'pool.npz')
    assert_same(NegativeChipPool.from_file(tmp_path / 'pool.npz'), anew)
    np.testing.assert_array_equal(anew.chips.box, fixed.chips.box)
    plans = []
    for epoch in (1, 2):
        sampler.set_epoch(epoch)
        sampler.set_negatives(anew, per_image=99)
        plans.append(sampler.plan.take(sampler.plan.kind == NEGATIVE))
    assert len(plans[0]) > 0
    assert plans[0].box.tolist() != plans[1].box.tolist()


def test_at_most_so_many_chips_of_an_image(model, sampler, speckles):
    assert np.bincount(mine(model, sampler).chips.image).max() > 2
    capped = mine(model, sampler, max_per_image=2)
    assert np.bincount(capped.chips.image).tolist() == [2] * NUM_IMAGES


def test_of_a_share_the_coarse_level_is_seen_whole_and_chips_of_the_fine_one(model, sampler, seen):
    share = 0.25
    pool = mine(model, sampler, share=share)
    windows = [window for window, _ in seen]
    miner = NegativeChipMiner(**(MINER | dict(share=share)))
    whole = NegativeChipMiner(**MINER).pixels(sampler)
    assert sum(window.pixels for window in windows) == miner.pixels(sampler) < 0.8 * whole
    everything = windows_of(sampler, miner.window_size)
    coarse = {w for i in range(len(everything)) for w in everything.of_image(i) if w.level == 1}
    assert {w for w in windows if w.level == 1} == coarse
    fine = [w for w in windows if w.level == 0]
    assert fine
    assert {max(w.shape) for w in fine} == {sampler.pyramid.chip_size}
    assert pool.statistics.images == len(mined_images(sampler))
    assert pool.img_path.tolist() == sampler.img_paths()
    assert_same(mine(model, sampler, share=share), pool)
    # Workers stay from round to round.
    assert_same(mine(model, sampler, share=share, num_workers=2), pool)


def test_of_a_share_what_the_coarse_level_finds_is_seen_at_the_fine_one(
    model, sampler, seen, propose_boxes
):
    """Of boxes of 12 px at one place of each image, and nowhere else."""
    paths, positives = sampler.img_paths(), sampler.positives()
    places = {
        path: np.array([20 + 30 * (i % 4), 20 + 40 * (i % 3)]) for i, path in enumerate(paths)
    }
    propose_boxes(lambda path: np.concatenate([places[path] - 6, places[path] + 6]))
    mine(model, sampler, share=0.25)
    judged = 0
    for image, path in enumerate(paths):
        here = positives.box[(positives.image == image) & (positives.level == 0)]
        covered = ((here[:, :2] <= places[path]) & (here[:, 2:] >= places[path])).all(axis=1).any()
        fine = np.array([w.core for w, _ in seen if (w.image, w.level) == (image, 0)])
        if covered or not len(fine):
            continue
        inside = (fine[:, :2] <= places[path]) & (places[path] < fine[:, 2:])
        assert inside.all(axis=1).sum() == 1
        judged += 1
    assert judged > 2


def test_a_share_is_drawn_anew_in_each_epoch_and_recognised_by_it(model, sampler, seen):
    mine(model, sampler, share=0.4)
    miner = NegativeChipMiner(**(MINER | dict(share=0.4)))
    first, origin = [window.box for window, _ in seen], miner.origin(model, sampler)
    seen.clear()
    sampler.seed += 1
    assert miner.origin(model, sampler) != origin
    mine(model, sampler, share=0.4)
    assert [window.box for window, _ in seen] != first


@pytest.mark.parametrize('share', [0, -0.1, 1.01])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ValueError, match='share must be more than 0 and at most 1'):
        NegativeChipMiner(share=share)


def test_images_without_objects_are_mined_unless_told_otherwise(model, sampler, seen, speckles):
    pool = mine(model, sampler)
    assert {window.image for window, _ in seen} == set(range(NUM_IMAGES))
    assert set(pool.chips.image.tolist()) >= set(EMPTY)
    seen.clear()
    pool = mine(model, sampler, empty_images=False)
    assert {window.image for window, _ in seen} == set(range(NUM_IMAGES)) - set(EMPTY)
    # The pool knows all images all the same, or it could not be used with the data set.
    sampler.set_negatives(pool)
    negatives = sampler.plan.image[sampler.plan.kind == NEGATIVE]
    assert set(negatives.tolist()) == set(range(NUM_IMAGES)) - set(EMPTY)
    assert pool.statistics.images == NUM_IMAGES - len(EMPTY)


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('num_proposals', 0),
        ('num_proposals', 2.5),
        ('window_size', 0),
        ('window_size', 100.5),
        ('window_size', '128'),
        ('batch_pixels', 0),
        ('batch_pixels', True),
        ('num_workers', -1),
        ('min_proposals', -1),
        ('min_proposals', []),
        ('max_per_image', 0),
        ('covered', 'seen'),
        ('placed', 'again'),
    ],
)
def test_says_which_option_is_out_of_its_range(name, value):
    with pytest.raises(ValueError, match=rf'{name} must .*, got |{name} must .*; got '):
        NegativeChipMiner(**{name: value})


# --- data sets ------------------------------------------------------------------------------------


def test_repeated_images_are_mined_once_and_have_chips_at_every_repetition(
    cfg, model, seen, speckles
):
    repeated = dict(type='RepeatDataset', times=3, dataset=cfg.train_dataloader.dataset)
    sampler = build_sampler(cfg, repeated)
    pool = mine(model, sampler)
    assert {window.image for window, _ in seen} == set(range(NUM_IMAGES))
    assert pool.statistics.images == len(pool.img_path) == NUM_IMAGES
    sampler.set_negatives(pool, per_image=1)
    negatives = sampler.plan.image[sampler.plan.kind == NEGATIVE]
    assert negatives.tolist() == list(range(3 * NUM_IMAGES))


def test_class_balanced_images_are_mined_once(cfg, model, seen, speckles):
    balanced = dict(
        type='ClassBalancedDataset', oversample_thr=1.0, dataset=cfg.train_dataloader.dataset
    )
    sampler = build_sampler(cfg, balanced)
    assert len(sampler.dataset) > NUM_IMAGES - len(EMPTY)
    pool = mine(model, sampler)
    assert len(pool.img_path) == len(set(sampler.img_paths())) == pool.statistics.images
    assert len({window.image for window, _ in seen}) == len(pool.img_path)
    sampler.set_negatives(pool)


def test_the_parts_of_a_concatenation_are_mined_each_with_its_own_images(
    cfg, model, small_images, tmp_path, propose_boxes
):
    other = shutil.copytree(small_images, tmp_path / 'other')
    datasets = [cfg.train_dataloader.dataset.to_dict() for _ in range(2)]
    datasets[1]['dataset']['data_root'] = str(other)
    sampler = build_sampler(cfg, dict(type='ConcatDataset', datasets=datasets))
    here, there = grid(5, left=80, top=60), grid(5, left=20, top=120)
    propose_boxes(lambda path: here if Path(path).parent == small_images else there)
    pool = mine(model, sampler)
    assert sorted(pool.img_path.tolist()) == sorted(
        str(folder / f'{i}.png') for folder in (small_images, other) for i in range(NUM_IMAGES)
    )
    parents = [Path(path).parent for path in pool.img_path.tolist()]
    x, y = pool.uncovered_box[:, :2].min(axis=0), pool.uncovered_box[:, :2].max(axis=0)
    assert (x < y).all()
    for image, box in zip(pool.uncovered_image.tolist(), pool.uncovered_box.tolist()):
        expected = here if parents[image] == small_images else there
        assert np.abs(expected - box).max(axis=1).min() < 0.01


def test_the_training_data_set_is_left_as_it_was(model, sampler, speckles):
    pipeline = sampler.dataset.pipeline
    before = list(pipeline.transforms), repr(pipeline)
    mine(model, sampler)
    assert sampler.dataset.pipeline is pipeline
    assert (list(pipeline.transforms), repr(pipeline)) == before
    assert sampler.pyramid.chip_size == 64


def test_pipelines_that_need_annotations_do_not_get_in_the_way(cfg, model, sampler, speckles):
    expected = mine(model, sampler)
    cfg.train_dataloader.dataset.pipeline.insert(
        2, dict(type='FilterAnnotations', min_gt_bbox_wh=(1, 1), keep_empty=True)
    )
    assert_same(mine(model, build_sampler(cfg)), expected)


# --- interruptions --------------------------------------------------------------------------------


def files(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture
def interrupted(model, sampler, seen, tmp_path, speckles):
    """The folder with the parts of a mining that was interrupted, the whole pool, and how many
    windows there are."""
    whole = mine(model, sampler)
    windows = len(seen)
    seen.clear()
    seen.stop_after = 20
    with pytest.raises(KeyboardInterrupt):
        mine(model, sampler, tmp_path / 'parts')
    assert len(seen) == 20
    seen.stop_after = None
    seen.clear()
    assert 2 < len(files(tmp_path / 'parts')) < NUM_IMAGES
    return tmp_path / 'parts', whole, windows


def test_an_interrupted_mining_goes_on_where_it_was(model, sampler, interrupted, seen):
    parts_dir, whole, windows = interrupted
    there = files(parts_dir)
    pool = mine(model, sampler, parts_dir)
    assert_same(pool, whole)
    done = {
        path
        for file in there
        for path in NegativeChipPool.from_file(parts_dir / file).img_path.tolist()
    }
    paths = sampler.img_paths()
    assert {paths[window.image] for window, _ in seen} == set(paths) - done
    assert windows - 20 <= len(seen) < windows
    assert {name: files(parts_dir)[name] for name in there} == there


def test_a_finished_mining_does_nothing_a_second_time(model, sampler, interrupted, seen):
    parts_dir, whole, _ = interrupted
    mine(model, sampler, parts_dir)
    seen.clear()
    assert_same(mine(model, sampler, parts_dir), whole)
    assert not seen


@pytest.mark.parametrize('change', ['weights', 'positives', 'options'])
def test_parts_of_something_else_are_not_used(model, sampler, interrupted, seen, change):
    parts_dir, whole, windows = interrupted
    options = {}
    if change == 'weights':
        with torch.no_grad():
            model.rpn_head.rpn_reg.weight.mul_(1.01)
    elif change == 'positives':
        sampler.set_epoch(1)
    else:
        options = dict(num_proposals=29)
    expected = mine(model, sampler, **options)
    seen.clear()
    assert_same(mine(model, sampler, parts_dir, **options), expected)
    assert len(seen) == windows
    assert expected.origin != whole.origin


@pytest.mark.parametrize('damage', ['cut short', 'empty', 'other'])
def test_a_damaged_part_is_mined_again(model, sampler, interrupted, seen, damage):
    parts_dir, whole, _ = interrupted
    mine(model, sampler, parts_dir)
    seen.clear()
    victim = sorted(parts_dir.iterdir())[1]
    lost = set(NegativeChipPool.from_file(victim).img_path.tolist())
    content = victim.read_bytes()
    victim.write_bytes({'cut short': content[: len(content) // 2], 'empty': b''}.get(damage, b'PK'))
    assert_same(mine(model, sampler, parts_dir), whole)
    assert {sampler.img_paths()[window.image] for window, _ in seen} == lost
    assert victim.read_bytes() == content


def test_parts_that_another_version_has_cut_otherwise_are_not_used(
    model, sampler, interrupted, monkeypatch
):
    parts_dir, whole, _ = interrupted
    monkeypatch.setattr(mining_parts, 'part_starts', lambda windows: [0, 3, 5])
    assert_same(mine(model, sampler, parts_dir), mine(model, sampler))
    assert len(whole.img_path) == NUM_IMAGES


# --- what a pool is mined from --------------------------------------------------------------------


def test_the_origin_is_the_same_for_the_same_and_after_a_checkpoint(
    cfg, model, sampler, tmp_path, speckles
):
    miner = NegativeChipMiner(**MINER)
    origin = miner.origin(model, sampler)
    assert len(origin) == 16
    assert miner.origin(model.eval(), build_sampler(cfg)) == origin
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'c.pth')
    torch.manual_seed(5)
    other = MODELS.build(cfg.model)
    assert miner.origin(other, sampler) != origin
    other.load_state_dict(torch.load(tmp_path / 'c.pth')['state_dict'])
    assert miner.origin(other, sampler) == origin
    assert mine(model, sampler).origin == origin


def test_the_origin_does_not_tell_how_many_processes_load_images(model, sampler):
    origins = {NegativeChipMiner(num_workers=n).origin(model, sampler) for n in (None, 0, 5)}
    assert len(origins) == 1


CHANGES = {
    'a weight': lambda cfg, model: model.rpn_head.rpn_cls.bias.data.add_(1e-3),
    'a buffer': lambda cfg, model: model.backbone.bn1.running_var.mul_(1.01),
    'the mean colour': lambda cfg, model: model.data_preprocessor.mean.add_(1),
    'the number of proposals of the RPN': lambda cfg, model: model.rpn_head.test_cfg.update(
        max_per_img=49
    ),
    'a valid range': lambda cfg, model: cfg.pyramid.levels[0].update(valid_range=(0, 25)),
    'a resize rule': lambda cfg, model: cfg.pyramid.levels[1].update(resize=dict(factor=0.4)),
    'the files': lambda cfg, model: cfg.train_dataloader.dataset.dataset.update(
        data_root=cfg.train_dataloader.dataset.dataset.data_root + '/../small_images0'
    ),
    'the images': lambda cfg, model: cfg.train_dataloader.dataset.dataset.update(
        filter_cfg=dict(filter_empty_gt=True)
    ),
}


@pytest.mark.parametrize('change', CHANGES)
def test_the_origin_changes_with(cfg, model, sampler, change):
    miner = NegativeChipMiner(**MINER)
    before = miner.origin(model, sampler)
    cfg.pyramid = cfg.pyramid.to_dict()
    CHANGES[change](cfg, model)
    assert miner.origin(model, build_sampler(cfg)) != before


@pytest.mark.parametrize(
    'option',
    [
        dict(num_proposals=31),
        dict(score_thr=0.1),
        dict(min_proposals=3),
        dict(max_per_image=9),
        dict(empty_images=False),
        dict(window_size=129),
        dict(batch_pixels=7),
        dict(covered='touched'),
        dict(placed='fixed'),
    ],
    ids=str,
)
def test_the_origin_changes_with_the_options(model, sampler, option):
    before = NegativeChipMiner(**MINER).origin(model, sampler)
    assert NegativeChipMiner(**(MINER | option)).origin(model, sampler) != before


def test_the_origin_changes_with_the_positive_chips_of_the_epoch(cfg, model, sampler):
    miner = NegativeChipMiner(**MINER)
    before = miner.origin(model, sampler)
    sampler.set_epoch(1)
    assert miner.origin(model, sampler) != before
    sampler.set_epoch(0)
    assert miner.origin(model, sampler) == before
    assert miner.origin(model, build_sampler(cfg, seed=1)) != before


def test_the_origin_changes_with_the_images_that_count_as_empty(cfg, model, small_images, tmp_path):
    """A crowd makes no positive chip, yet its image has objects."""
    folder = shutil.copytree(small_images, tmp_path / 'data')
    cfg.train_dataloader.dataset.dataset.data_root = str(folder)
    before = build_sampler(cfg)
    coco = json.loads((folder / 'ann.json').read_text())
    coco['annotations'].append(
        dict(id=999, image_id=EMPTY[0], category_id=1, iscrowd=1, bbox=[5, 5, 30, 30], area=900)
    )
    (folder / 'ann.json').write_text(json.dumps(coco))
    after = build_sampler(cfg)
    for empty_images in (True, False):
        miner = NegativeChipMiner(empty_images=empty_images)
        same = miner.origin(model, before) == miner.origin(model, after)
        assert same is empty_images


# --- what it leaves alone -------------------------------------------------------------------------


def random_states():
    name, keys, position, *rest = np.random.get_state()
    return torch.get_rng_state().tolist(), random.getstate(), (name, keys.tolist(), position, rest)


@pytest.mark.parametrize('num_workers', [0, 2])
def test_random_states_and_modes_are_left_alone(model, sampler, num_workers):
    model.backbone.layer1.eval()
    before = random_states(), [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    pool = mine(model, sampler, num_workers=num_workers)
    assert random_states() == before[0]
    assert [module.training for module in model.modules()] == before[1]
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert pool.statistics.chips > 0


def test_modes_are_left_alone_after_an_interruption(model, sampler, seen, speckles):
    seen.stop_after = 0
    before = [module.training for module in model.modules()]
    with pytest.raises(KeyboardInterrupt):
        mine(model, sampler)
    assert [module.training for module in model.modules()] == before


def test_the_model_is_in_evaluation_mode_and_kernels_are_not_tried_out(model, sampler, monkeypatch):
    """On two ranks the kernels that are fastest may differ, and with them the last bits."""
    states = []

    def fake(model, batch):
        states.append((model.training, torch.backends.cudnn.benchmark))
        return [
            InstanceData(bboxes=torch.zeros(0, 4), scores=torch.zeros(0)) for _ in batch['inputs']
        ]

    monkeypatch.setattr(mining, 'propose', fake)
    monkeypatch.setattr(torch.backends.cudnn, 'benchmark', True)
    mine(model, sampler)
    assert set(states) == {(False, False)}
    assert torch.backends.cudnn.benchmark is True


def test_processes_that_load_images_find_the_same(model, sampler):
    assert_same(mine(model, sampler, num_workers=2), mine(model, sampler))


# --- mistakes -------------------------------------------------------------------------------------


@pytest.fixture
def broken(cfg, small_images, tmp_path):
    """Config of the small images of which 4.png is no image."""
    folder = shutil.copytree(small_images, tmp_path / 'broken')
    (folder / '4.png').write_bytes(b'no image')
    cfg.train_dataloader.dataset.dataset.data_root = str(folder)
    return cfg


@pytest.mark.parametrize('num_workers', [0, 1])
def test_says_which_image_cannot_be_read(broken, model, speckles, num_workers):
    with pytest.raises(RuntimeError, match=r'broken/4\.png'):
        mine(model, build_sampler(broken), num_workers=num_workers)


@pytest.mark.parametrize(
    ('ignore_empty', 'message'),
    [
        (False, r'4\.png.* Do data_root and data_prefix point'),
        # Stock data sets would put another image in its place.
        (True, r'4\.png.*a transform returned None'),
    ],
)
def test_says_that_an_image_is_missing(broken, model, speckles, ignore_empty, message):
    broken.train_dataloader.dataset.pipeline[0].ignore_empty = ignore_empty
    Path(broken.train_dataloader.dataset.dataset.data_root, '4.png').unlink()
    with pytest.raises(RuntimeError, match=message):
        mine(model, build_sampler(broken))


def test_says_that_an_image_has_another_size_than_its_annotations(broken, small_images, model):
    folder = Path(broken.train_dataloader.dataset.dataset.data_root)
    shutil.copy(small_images / '5.png', folder / '4.png')
    with pytest.raises(RuntimeError, match=r'4\.png is 180x140 px, but its annotations say'):
        mine(model, build_sampler(broken))


def test_says_that_there_is_no_chip_sampler(cfg, model):
    del cfg.train_dataloader.dataset.pipeline[2:4]
    sampler = build_sampler(cfg)
    for check in (NegativeChipMiner(**MINER).check, mine):
        with pytest.raises(ValueError, match='no ChipSampler .*LoadImageFromFile'):
            check(model, sampler)


@pytest.mark.parametrize('window_size', [63, 64])
def test_says_that_windows_must_be_larger_than_chips(model, sampler, window_size):
    with pytest.raises(ValueError, match=f'window_size {window_size} must exceed the chip size'):
        mine(model, sampler, window_size=window_size)
    with pytest.raises(ValueError, match=f'window_size {window_size} must exceed the chip size'):
        NegativeChipMiner(window_size=window_size).check(model, sampler)


@pytest.mark.parametrize(
    ('images', 'parts', 'windows'), [(640, 64, 30), (120_000, 1875, 192), (2_000_000, 2000, 3000)]
)
def test_a_large_data_set_has_many_parts_but_no_millions_of_files(images, parts, windows):
    starts = mining_parts.part_starts(np.full(images, 3))
    assert len(starts) == parts
    assert 3 * int(np.diff(starts).max()) == windows
