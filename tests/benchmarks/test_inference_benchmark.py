"""The benchmark of inference makes scenes with truth, and compares like with like."""

import importlib.util
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from pycocotools.coco import COCO
from scripts import load_script

from harness import large_toy_scenes
from harness.costs import cost_of
from harness.large_toy_scenes import SceneSize, write_scenes
from harness.slicing import SlicedDetector, Slicing
from mmsniper.convert import load_config
from mmsniper.models.autofocus import AutoFocus

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / 'configs/autofocus/faster_rcnn_r18_autofocus_toy.py'
BLOCK = 200


@pytest.fixture(scope='module')
def benchmark():
    return load_script('benchmarks/inference.py')


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(large_toy_scenes, 'BLOCK', BLOCK)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    from mmdet.utils import register_all_modules

    register_all_modules(init_default_scope=True)
    torch.manual_seed(0)
    model = MODELS.build(load_config(CONFIG).model)
    path = tmp_path_factory.mktemp('weights') / 'epoch_1.pth'
    torch.save(dict(state_dict=model.state_dict(), meta={}), path)
    return path


# Scenes -------------------------------------------------------------------------------------------


def test_objects_are_where_the_annotations_say(tmp_path):
    sizes = [SceneSize(1, 1, count=2), SceneSize(3, 2)]
    content = write_scenes(tmp_path, sizes)
    assert [image['width'] for image in content['images']] == [200, 200, 600]
    assert [image['size'] for image in content['images']] == [
        '1 MP, objects in 1 MP',
        '1 MP, objects in 1 MP',
        '9 MP, objects in 2 MP',
    ]
    ids = [one['id'] for one in content['annotations']]
    assert len(set(ids)) == len(ids)
    # Of the large scene the objects lie in two blocks, and there the picture is that of the scene.
    boxes = np.array([one['bbox'] for one in content['annotations'] if one['image_id'] == 3])
    blocks = {tuple(corner) for corner in (boxes[:, :2] // BLOCK).astype(int).tolist()}
    assert 1 <= len(blocks) <= 2
    assert (boxes[:, :2] + boxes[:, 2:] <= 600).all()
    scene = cv2.imread(str(tmp_path / 'images' / content['images'][2]['file_name'])).astype(int)
    assert scene.shape == (600, 600, 3)
    spec = large_toy_scenes.ToyDatasetSpec(
        seed=1, num_train=1, num_val=4, min_side=BLOCK, max_side=BLOCK
    )
    rendered = [large_toy_scenes.render_scene(spec.scene('val', i)).astype(int) for i in (2, 3)]
    tiles = [
        scene[y : y + BLOCK, x : x + BLOCK]
        for y in range(0, 600, BLOCK)
        for x in range(0, 600, BLOCK)
    ]
    near = [[np.abs(tile - whole).mean() < 6 for tile in tiles] for whole in rendered]
    assert [sum(row) for row in near] == [1, 1]


def test_scenes_are_made_once_and_anew_for_others(tmp_path, monkeypatch):
    first = write_scenes(tmp_path, [SceneSize(1, 1)])
    with monkeypatch.context() as patch:
        patch.setattr(large_toy_scenes, 'render_scene', lambda scene: 1 / 0)
        assert write_scenes(tmp_path, [SceneSize(1, 1)]) == json.loads(json.dumps(first))
    assert len(write_scenes(tmp_path, [SceneSize(1, 1, count=2)])['images']) == 2
    with pytest.raises(ValueError, match='5 of 4 blocks cannot have objects'):
        SceneSize(2, 5)


# Costs --------------------------------------------------------------------------------------------


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='memory is told by Linux only')
def test_memory_is_the_most_beyond_what_there_was():
    kept = np.ones(60_000_000, np.uint8)

    def work():
        np.ones(100_000_000, np.uint8)
        np.ones(40_000_000, np.uint8)
        return 'done'

    result, cost = cost_of(work, 'cpu')
    if cost.peak_bytes is None:
        pytest.skip('the peak cannot be forgotten here')
    assert (result, cost.device_bytes) == ('done', None)
    assert 95e6 < cost.peak_bytes < 130e6
    assert cost.cpu_seconds > 0
    assert cost_of(lambda: None, 'cpu')[1].peak_bytes < 20e6
    assert kept.all()


# Accuracy -----------------------------------------------------------------------------------------


@pytest.fixture
def truth():
    coco = COCO()
    places = [[40 * i, 0, 20, 20] for i in range(150)]
    coco.dataset = dict(
        info={},
        images=[dict(id=1, width=6000, height=20), dict(id=2, width=9, height=9)],
        categories=[dict(id=1, name='a'), dict(id=2, name='b')],
        annotations=[
            dict(id=i, image_id=1, category_id=1, bbox=box, area=400, iscrowd=0)
            for i, box in enumerate(places, 1)
        ],
    )
    coco.createIndex()
    return coco


def found(count, label=0):
    boxes = np.array([[40.0 * i, 0, 40 * i + 20, 20] for i in range(count)]).reshape(-1, 4)
    return boxes, np.linspace(1, 0.5, count), np.full(count, label)


def test_more_than_a_hundred_detections_of_an_image_count(benchmark, truth):
    nothing = found(0)
    perfect = benchmark.average_precision(truth, [1, 2], [found(150), nothing])
    assert perfect == dict(AP=1.0, AP_small=1.0)
    part = benchmark.average_precision(truth, [1, 2], [found(75), nothing])
    assert part['AP'] == pytest.approx(51 / 101)  # recall 0 to 0.5
    wrong = benchmark.average_precision(truth, [1, 2], [found(150, label=1), nothing])
    assert wrong['AP'] == 0
    assert benchmark.average_precision(truth, [1, 2], [nothing] * 2) == dict(AP=0.0, AP_small=0.0)


# The comparison -----------------------------------------------------------------------------------


def row(name, ap, cpu):
    return dict(name=name, AP=ap, cpu=cpu)


def test_sahi_at_its_best_and_its_fastest_with_hardly_less(benchmark):
    rows = [
        row('AutoFocus', 0.8, 1.0),
        row('SAHI: a', 0.75, 9.0),
        row('SAHI: b', 0.73, 3.0),
        row('SAHI: c', 0.71, 0.5),
    ]
    assert [one['name'] for one in benchmark.best_slicings(rows, 'cpu')] == ['SAHI: a', 'SAHI: b']
    text = benchmark.verdict('1 MP', rows, 'cpu')
    assert 'AutoFocus, AP 0.800: 9.00 times less time than SAHI: a, AP 0.750; 3.00 times' in text
    assert benchmark.verdict('1 MP', rows[:1], 'cpu').endswith('without SAHI')


def test_larger_scenes_see_few_settings_of_sahi(benchmark):
    grid = {f'SAHI: {name}': None for name in 'abcd'} | {benchmark.DEFAULT_SAHI: None}
    cpu = dict(zip(grid, (9.0, 3.0, 0.5, 4.0, 5.0)))
    ap = dict(zip(grid, (0.75, 0.73, 0.71, 0.72, 0.1)))
    rows = [row(name, ap[name], cpu[name]) for name in grid]
    result = dict(time='cpu', sizes=[dict(size='4 MP, objects in 2 MP', rows=rows)])
    few = [list(benchmark._few(grid, result, SceneSize(blocks, 1))) for blocks in (4, 10)]
    best = ['SAHI: a', 'SAHI: b', benchmark.DEFAULT_SAHI]
    assert few == [best, best[1:]]
    assert benchmark._few({}, dict(time='cpu', sizes=[]), SceneSize(4, 1)) == {}
    with pytest.raises(ValueError, match='chosen on --sizes 4 first'):
        benchmark._few(grid, dict(time='cpu', sizes=[]), SceneSize(4, 1))


def test_every_way_sees_the_same_scenes(benchmark, checkpoint, tmp_path, monkeypatch):
    sizes = (SceneSize(1, 1, count=2, rounds=2), SceneSize(2, 1))
    monkeypatch.setattr(benchmark, 'SIZES', sizes)
    sahi = importlib.util.find_spec('sahi') is not None
    if sahi:
        grid = {benchmark.DEFAULT_SAHI: Slicing(512), 'SAHI: 160 px': Slicing(160, overlap=0.0)}
        monkeypatch.setattr(benchmark, 'slicings', lambda: grid)
    out = tmp_path / 'out' / 'result.json'
    result = benchmark.main(
        [str(checkpoint), '--folder', str(tmp_path), '--out', str(out), '--device', 'cpu']
    )
    assert json.loads(out.read_text()) == json.loads(json.dumps(result))
    assert [part['size'] for part in result['sizes']] == [size.name for size in sizes]
    for part, pixels, scenes in zip(result['sizes'], (48_000, 192_000), (2, 1)):
        rows = {one['name']: one for one in part['rows']}
        # By hand: 200x200, or 400x400, at factors 1, 0.4 and 0.2.
        assert rows['full pyramid']['Mpx'] == pytest.approx(scenes * pixels / 1e6)
        assert rows['full pyramid']['inputs'] == 3 * scenes
        assert rows['one scale, own pixels']['inputs'] == scenes
        assert rows['AutoFocus']['cpu'] == rows['AutoFocus']['clock'] == 1
        assert len(rows['AutoFocus']['seconds']) == part['rounds']
        assert {name in rows for name in ('all scenes together', 'no scene read ahead')} == {
            scenes > 1
        }
        assert rows.get('no scene read ahead', rows['AutoFocus'])['AP'] == rows['AutoFocus']['AP']
        assert {'SAHI: 160 px' in rows, benchmark.DEFAULT_SAHI in rows} == {sahi}
    # One size anew, the other is kept.
    options = ['--folder', str(tmp_path), '--out', str(out), '--device', 'cpu', '--rounds', '1']
    again = benchmark.main([str(checkpoint), '--sizes', '4', *options])
    assert again['sizes'][0] == result['sizes'][0]
    assert again['sizes'][1]['rows'][0]['seconds'] != result['sizes'][1]['rows'][0]['seconds']
    page = out.with_suffix('.md').read_text()
    assert '## 1 MP, objects in 1 MP: options' in page
    assert page.count('| AutoFocus |') == 4


def test_with_random_weights_nothing_is_trained(benchmark, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, 'SIZES', (SceneSize(1, 1),))
    monkeypatch.setattr(benchmark, 'train', None)
    options = ['--random-weights', '--without-sahi', '--device', 'cpu', '--folder', str(tmp_path)]
    result = benchmark.main([*options, '--out', str(tmp_path / 'result.json')])
    assert result['command'].endswith('inference.py --random-weights --without-sahi')
    assert result['sizes'][0]['rows'][0]['name'] == 'AutoFocus'
    weights = torch.load(tmp_path / 'autofocus.pth')['state_dict']
    background, focus = weights['focus_head.cls.bias'].unflatten(0, (-1, 2)).T
    assert (focus - background < -8).all()


def test_a_checkpoint_and_random_weights_are_refused(benchmark, capsys):
    with pytest.raises(SystemExit):
        benchmark.parse_args(['epoch_1.pth', '--random-weights'])
    assert 'give a checkpoint or --random-weights, not both' in capsys.readouterr().err


def test_options_are_taken_back(benchmark):
    model = AutoFocus.__new__(AutoFocus, detector='FasterRCNN')
    vars(model).update(read_ahead=1, thresholds=(0.1,))
    with benchmark._set(model, dict(read_ahead=0)):
        assert (model.read_ahead, model.thresholds) == (0, (0.1,))
    assert model.read_ahead == 1


def test_sizes_that_there_are_none_of_are_refused(benchmark, capsys):
    with pytest.raises(SystemExit):
        benchmark.parse_args(['--sizes', '2'])
    assert 'must be some of [1, 4, 16, 100], got [2]' in capsys.readouterr().err


def test_sahi_runs_where_it_is_told_or_on_the_gpu_if_there_is_one(tmp_path, monkeypatch):
    assert SlicedDetector(None, None, tmp_path, 'cpu').device == 'cpu'
    for there, device in ((True, 'cuda:0'), (False, 'cpu')):
        monkeypatch.setattr(torch.cuda, 'is_available', lambda there=there: there)
        assert SlicedDetector(None, None, tmp_path).device == device
