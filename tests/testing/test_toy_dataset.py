"""The toy data set on disk: reproducible, valid COCO, resumable, never mixed with another."""

import dataclasses
import json
import shutil

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from mmsniper.testing import CLASSES, ToyDatasetSpec, make_toy_dataset, plan_scene, toy_dataset
from mmsniper.testing.toy_scenes import shape_coverage

SPEC = ToyDatasetSpec(seed=4, num_train=3, num_val=2)
ROTATED = ToyDatasetSpec(seed=4, num_train=2, num_val=1, rotated=True)


@pytest.fixture(scope='module')
def toy(tmp_path_factory):
    out_dir = tmp_path_factory.mktemp('toy')
    make_toy_dataset(out_dir, SPEC, processes=1)
    return out_dir


@pytest.fixture(scope='module')
def rotated(tmp_path_factory):
    out_dir = tmp_path_factory.mktemp('rotated')
    make_toy_dataset(out_dir, ROTATED, processes=1)
    return out_dir


def contents(out_dir):
    return {
        str(path.relative_to(out_dir)): path.read_bytes()
        for path in sorted(out_dir.rglob('*'))
        if path.is_file()
    }


def test_layout(toy):
    assert sorted(contents(toy)) == [
        'annotations/train.json',
        'annotations/val.json',
        'toy_dataset.json',
        'train/000001.jpg',
        'train/000002.jpg',
        'train/000003.jpg',
        'val/000001.jpg',
        'val/000002.jpg',
    ]


def test_files_do_not_depend_on_the_number_of_processes(toy, tmp_path):
    make_toy_dataset(tmp_path, SPEC, processes=2)
    assert contents(tmp_path) == contents(toy)


def test_another_seed_makes_other_files(toy, tmp_path):
    make_toy_dataset(tmp_path, ToyDatasetSpec(seed=5, num_train=1, num_val=1), processes=1)
    other, mine = contents(tmp_path), contents(toy)
    assert other['train/000001.jpg'] != mine['train/000001.jpg']
    assert other['train/000001.jpg'] != other['val/000001.jpg']


def test_annotations_load_as_coco_and_match_images_and_scenes(toy, capsys):
    for split, count in (('train', 3), ('val', 2)):
        coco = COCO(toy / 'annotations' / f'{split}.json')
        assert [c['id'] for c in coco.loadCats(coco.getCatIds())] == [1, 2, 3, 4]
        assert tuple(c['name'] for c in coco.loadCats(coco.getCatIds())) == CLASSES
        assert len(coco.getImgIds()) == count
        for image_id in coco.getImgIds():
            info = coco.loadImgs(image_id)[0]
            image = cv2.imread(str(toy / split / info['file_name']))
            assert image.shape[:2] == (info['height'], info['width'])
            scene = plan_scene(SPEC.seed, split, image_id - 1)
            found = coco.loadAnns(coco.getAnnIds(image_id))
            assert [a['category_id'] - 1 for a in found] == [o.label for o in scene.labelled]
            for annotation, item in zip(found, scene.labelled, strict=True):
                x, y, w, h = annotation['bbox']
                assert np.allclose([x, y, x + w, y + h], item.box, atol=0.0051)
                assert annotation['area'] == pytest.approx(w * h, abs=0.01)
                assert annotation['iscrowd'] == 0


def test_segmentations_cover_what_is_drawn_ring_holes_included(toy, capsys):
    coco = COCO(toy / 'annotations' / 'train.json')
    labels = set()
    for annotation in coco.loadAnns(coco.getAnnIds()):
        info = coco.loadImgs(annotation['image_id'])[0]
        outline = np.reshape(annotation['segmentation'][0], (-1, 2))
        coverage, left, top = shape_coverage(outline, info['width'], info['height'])
        drawn = np.zeros((info['height'], info['width']), bool)
        drawn[top : top + coverage.shape[0], left : left + coverage.shape[1]] = coverage > 0.5
        mask = coco.annToMask(annotation).astype(bool)
        # pycocotools rounds outlines to pixels, so allow an error of half a pixel of outline.
        perimeter = np.hypot(*np.diff(outline, axis=0).T).sum()
        assert (mask ^ drawn).sum() <= 0.5 * perimeter + 4
        labels.add(annotation['category_id'])
    assert labels == {1, 2, 3, 4}


def test_a_rotated_data_set_has_corners_in_the_format_of_dota(rotated):
    written = {name for name in contents(rotated) if name.startswith('annfiles/')}
    assert written == {f'annfiles/{n}.txt' for n in ('train/000001', 'train/000002', 'val/000001')}
    for name in written:
        split, number = name.removesuffix('.txt').split('/')[1:]
        scene = plan_scene(ROTATED.seed, split, int(number) - 1, rotated=True)
        lines = [line.split() for line in (rotated / name).read_text().splitlines()]
        assert [line[8:] for line in lines] == [[CLASSES[o.label], '0'] for o in scene.labelled]
        corners = [np.array(line[:8], float).reshape(4, 2) for line in lines]
        assert np.allclose(corners, [o.corners for o in scene.labelled], atol=0.0051)


def test_a_scene_without_objects_has_no_lines():
    empty = plan_scene(0, 'train', 0, (300, 320))
    empty = dataclasses.replace(empty, objects=empty.lookalikes)
    assert toy_dataset.dota_annotations(empty) == ''


def test_its_coco_annotations_are_the_enclosing_boxes_with_the_corners(rotated, capsys):
    coco = COCO(rotated / 'annotations' / 'train.json')
    items = [o for i in (0, 1) for o in ROTATED.scene('train', i).labelled]
    annotations = coco.loadAnns(coco.getAnnIds())
    for annotation, item in zip(annotations, items, strict=True):
        corners = np.reshape(annotation['segmentation'], (4, 2))
        assert np.allclose(corners, item.corners, atol=0.0051)
        x, y, w, h = annotation['bbox']
        assert np.allclose([(x, y), (x + w, y + h)], [corners.min(0), corners.max(0)], atol=0.011)
        assert annotation['area'] == pytest.approx(item.size**2, abs=0.0051)
        assert annotation['area'] < w * h


def test_a_data_set_is_rotated_or_not(toy, rotated, tmp_path):
    out_dir = shutil.copytree(rotated, tmp_path / 'toy')
    upright = dataclasses.replace(ROTATED, rotated=False)
    with pytest.raises(
        FileExistsError, match=r'made with rotated=True \(asked for: False\); choose'
    ):
        make_toy_dataset(out_dir, upright, processes=1)
    make_toy_dataset(out_dir, upright, processes=1, overwrite=True)
    assert not any(name.startswith('annfiles/') for name in contents(out_dir))
    with pytest.raises(
        FileExistsError, match=r'made with rotated=False \(asked for: True\); choose'
    ):
        make_toy_dataset(out_dir, ROTATED, processes=1)
    assert 'rotated' not in json.loads((toy / 'toy_dataset.json').read_text())


def test_lookalikes_are_recorded_beside_the_annotations(toy):
    data = json.loads((toy / 'annotations' / 'train.json').read_text())
    scenes = [plan_scene(SPEC.seed, 'train', index) for index in range(3)]
    expected = [(i + 1, o.label + 1) for i, s in enumerate(scenes) for o in s.lookalikes]
    assert expected
    assert [(d['image_id'], d['category_id']) for d in data['distractors']] == expected
    boxes = {tuple(a['bbox']) for a in data['annotations']}
    assert boxes.isdisjoint(tuple(d['bbox']) for d in data['distractors'])


def test_info_names_the_arguments(toy):
    info = json.loads((toy / 'annotations' / 'val.json').read_text())['info']
    assert info['split'] == 'val'
    assert {k: info[k] for k in ('seed', 'num_train', 'num_val', 'min_side', 'max_side')} == {
        'seed': 4,
        'num_train': 3,
        'num_val': 2,
        'min_side': 800,
        'max_side': 1200,
    }


def test_a_complete_data_set_is_left_alone(toy, monkeypatch):
    before = {p: p.stat().st_mtime_ns for p in toy.rglob('*')}
    monkeypatch.setattr(toy_dataset, 'render_scene', None)
    files = make_toy_dataset(toy, SPEC)
    assert files == {s: toy / 'annotations' / f'{s}.json' for s in ('train', 'val')}
    assert {p: p.stat().st_mtime_ns for p in toy.rglob('*')} == before


def test_an_interrupted_generation_is_finished_and_nothing_is_made_twice(
    toy, tmp_path, monkeypatch
):
    rendered = []
    render = toy_dataset.render_scene

    def interrupted(scene):
        if len(rendered) == 2:
            raise KeyboardInterrupt
        rendered.append(scene.entropy)
        return render(scene)

    monkeypatch.setattr(toy_dataset, 'render_scene', interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_toy_dataset(tmp_path, SPEC, processes=1)
    assert not list(tmp_path.rglob('annotations/*.json'))
    (tmp_path / 'train' / '.000003.jpg.tmp').write_bytes(b'half an image')  # as a kill -9 leaves

    rendered.append(None)
    make_toy_dataset(tmp_path, SPEC, processes=1)
    assert len(set(rendered)) == len(rendered) == 6
    assert contents(tmp_path) == contents(toy)


def test_progress_sees_every_image_that_is_made(tmp_path):
    seen = []

    def progress(images, total):
        for image in images:
            seen.append(total)
            yield image

    spec = ToyDatasetSpec(num_train=1, num_val=1, min_side=300, max_side=400)
    make_toy_dataset(tmp_path, spec, processes=1, progress=progress)
    assert seen == [2, 2]


def test_a_data_set_of_other_arguments_is_refused_unless_it_may_be_replaced(toy, tmp_path):
    out_dir = shutil.copytree(toy, tmp_path / 'toy')
    other = ToyDatasetSpec(seed=9, num_train=1, num_val=1)
    with pytest.raises(FileExistsError, match=r'seed=4 \(asked for: 9\), num_train=3'):
        make_toy_dataset(out_dir, other, processes=1)
    assert contents(out_dir) == contents(toy)

    make_toy_dataset(out_dir, other, processes=1, overwrite=True)
    make_toy_dataset(tmp_path / 'fresh', other, processes=1)
    assert contents(out_dir) == contents(tmp_path / 'fresh')


@pytest.mark.parametrize('overwrite', [False, True])
def test_somebody_elses_data_set_is_never_touched(tmp_path, overwrite):
    (tmp_path / 'train').mkdir()
    (tmp_path / 'train' / '000001.jpg').write_bytes(b'precious')
    with pytest.raises(FileExistsError, match='not a toy data set'):
        make_toy_dataset(tmp_path, SPEC, overwrite=overwrite)
    assert contents(tmp_path) == {'train/000001.jpg': b'precious'}


def test_a_broken_record_is_named(tmp_path):
    (tmp_path / 'toy_dataset.json').write_text('{')
    with pytest.raises(FileExistsError, match=r'toy_dataset\.json is not the record'):
        make_toy_dataset(tmp_path, SPEC)


@pytest.mark.parametrize(
    ('field', 'value', 'message'),
    [
        ('seed', -1, 'seed must be an integer of at least 0, got -1'),
        ('num_train', 0, 'num_train must be an integer of at least 1, got 0'),
        ('num_val', 2.5, 'num_val must be an integer of at least 1, got 2.5'),
        ('min_side', 100, 'min_side must be an integer of at least 200, got 100'),
        ('max_side', 700, r'max_side must be an integer of at least min_side \(800\), got 700'),
    ],
)
def test_impossible_specs_are_refused(field, value, message):
    with pytest.raises(ValueError, match=message):
        ToyDatasetSpec(**{field: value})
