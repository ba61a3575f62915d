"""Data sets of large vocabularies, and CrowdHuman, in their own files: what chips have of them."""

import json
import sys
from collections import Counter, defaultdict
from types import SimpleNamespace

import numpy as np
import pytest
from dataset_files import Scene, write_dataset
from mmdet.datasets import Objects365V1Dataset, Objects365V2Dataset
from mmdet.datasets.lvis import LVISV1Dataset
from mmdet.registry import DATASETS

from mmsniper.chips import POSITIVE
from mmsniper.datasets import Chip, ChipIndex, read_annotations

WIDTH, HEIGHT = 240, 200
# Sizes are learned at the levels of the conftest's pyramid: 14 at two of them, 60 at the coarsest.
BOXES = [(10, 10, 24, 24), (150, 20, 164, 34), (60, 100, 120, 160)]
LABELS = [[0, 1, 2], [0, 0, 1], [0, 2, 2], [1, 0, 0]]
SPECIAL = [[False] * 3, [False] * 3, [False, False, True], [False] * 3]  # a crowd, or a group

WORDS = dict(
    LVISV1Dataset=LVISV1Dataset.METAINFO['classes'],
    V3DetDataset=[f'word {i}' for i in range(50)],
    Objects365V1Dataset=Objects365V1Dataset.METAINFO['classes'],
    Objects365V2Dataset=Objects365V2Dataset.METAINFO['classes'],
    OpenImagesDataset=[f'word {i}' for i in range(50)],
    CrowdHumanDataset=['person'],
)
FILES = dict(
    OpenImagesDataset=dict(
        ann_file='boxes.csv',
        label_file='classes.csv',
        hierarchy_file='hierarchy.json',
        meta_file='sizes.pkl',
    ),
    CrowdHumanDataset=dict(ann_file='annotation_train.odgt'),
    V3DetDataset=dict(ann_file='train.json', label_file='words.txt'),
)
KINDS = list(WORDS)


class StandIn:
    """What LVISV1Dataset asks of the LVIS of the package lvis."""

    def __init__(self, path):
        with open(path) as file:
            self.content = json.load(file)
        self.images = {image['id']: image for image in self.content['images']}
        self.annotations = {one['id']: one for one in self.content['annotations']}
        self.cat_img_map = defaultdict(list)
        for one in self.annotations.values():
            self.cat_img_map[one['category_id']].append(one['image_id'])

    def get_cat_ids(self):
        return [category['id'] for category in self.content['categories']]

    def get_img_ids(self):
        return list(self.images)

    def load_imgs(self, ids):
        return [self.images[i] for i in ids]

    def get_ann_ids(self, img_ids):
        return [i for i, one in self.annotations.items() if one['image_id'] in img_ids]

    def load_anns(self, ids):
        return [self.annotations[i] for i in ids]


@pytest.fixture(autouse=True)
def _lvis(monkeypatch):
    try:
        import lvis  # noqa: F401
    except ImportError:
        monkeypatch.setitem(sys.modules, 'lvis', SimpleNamespace(LVIS=StandIn))


@pytest.fixture
def config_of(tmp_path):
    """Write the four images in the files of a data set, and return its config."""

    def make(kind, **more):
        files = dict(ann_file='train.json') | FILES.get(kind, {})
        data = dict(type=kind, data_root=str(tmp_path), data_prefix=dict(img='images'), **files)
        one = len(WORDS[kind]) == 1
        scenes = [
            Scene(f's{i}', picture(i), BOXES, [0] * 3 if one else labels, special)
            for i, (labels, special) in enumerate(zip(LABELS, SPECIAL))
        ]
        write_dataset(data, scenes, WORDS[kind])
        return data | more

    return make


def picture(i):
    return np.full((HEIGHT, WIDTH, 3), 40 + 10 * i, np.uint8)


def ignored(kind):
    """LVIS has no crowds, and of Open Images groups are objects, as in MMDetection."""
    return kind not in ('LVISV1Dataset', 'OpenImagesDataset')


def labels_of(kind):
    flat = [label for labels in LABELS for label in labels]
    if kind == 'CrowdHumanDataset':
        flat = [0] * 12
        flat[8] = -1
    return flat


@pytest.mark.parametrize('kind', KINDS)
def test_sizes_boxes_labels_and_what_is_ignored_are_those_of_the_files(config_of, chips_of, kind):
    table = read_annotations(DATASETS.build(chips_of(config_of(kind))), labels=True)
    assert table.width.tolist() == [WIDTH] * 4
    assert table.height.tolist() == [HEIGHT] * 4
    np.testing.assert_allclose(table.boxes, np.array(BOXES * 4), atol=1e-3)
    assert table.label.tolist() == labels_of(kind)
    assert table.ignore.tolist() == [j == 8 and ignored(kind) for j in range(12)]


@pytest.mark.parametrize('kind', KINDS)
def test_a_chip_shows_the_object_or_leaves_the_region_alone(config_of, chips_of, kind):
    """The box of 60 px, which is a crowd, a group or ignored in the third image."""
    dataset = DATASETS.build(chips_of(config_of(kind)))
    for image, label in ((1, 1), (2, 2)):
        sample = dataset[ChipIndex(image, Chip(2, (40.0, 72.0, 168.0, 200.0), POSITIVE))]
        found = sample['data_samples']
        label = 0 if kind == 'CrowdHumanDataset' else label
        region = image == 2 and ignored(kind)
        assert found.gt_instances.labels.tolist() == [label] * (not region)
        assert found.ignored_instances.labels.tolist() == [-1] * region


@pytest.mark.parametrize('kind', KINDS)
def test_the_objects_of_all_classes_are_in_chips(config_of, chips_of, make_sampler, kind):
    """Boxes of 14 px are learned at two levels, those of 60 at one."""
    sampler = make_sampler(chips_of(config_of(kind)))
    learned = Counter()
    for index in sampler:
        learned.update(sampler.dataset[index]['data_samples'].gt_instances.labels.tolist())
    least = Counter()
    for j, label in enumerate(labels_of(kind)):
        if not (j == 8 and ignored(kind)):
            least[label] += 1 if j % 3 == 2 else 2
    assert set(learned) == set(least)
    assert all(learned[label] >= least[label] for label in least)


@pytest.mark.parametrize('kind', [kind for kind in KINDS if kind != 'CrowdHumanDataset'])
def test_classes_come_equally_often_in_class_aware_epochs(config_of, chips_of, make_sampler, kind):
    sampler = make_sampler(chips_of(config_of(kind)), num_sample_class=1)
    assert len(sampler) == len(make_sampler(sampler.dataset))
    learned = Counter()
    for index in sampler:
        learned.update(set(sampler.dataset[index]['data_samples'].gt_instances.labels.tolist()))
    # A third of the chips is drawn for each of the three classes, and others may show it, too.
    assert set(learned) == {0, 1, 2}
    assert min(learned.values()) >= len(sampler) // 3


@pytest.mark.parametrize('kind', ['LVISV1Dataset', 'V3DetDataset'])
def test_images_of_rare_classes_are_repeated_with_their_chips(
    config_of, chips_of, make_sampler, kind
):
    """Class 2 is in half of the images; with a threshold of 2 they come twice, the others once."""
    data = config_of(kind, filter_cfg=dict(filter_empty_gt=True, min_size=4))
    once = make_sampler(chips_of(data))
    balanced = dict(type='ClassBalancedDataset', oversample_thr=2.0, dataset=chips_of(data))
    sampler = make_sampler(balanced)
    chips_of_image = Counter(once.dataset[index]['data_samples'].img_id for index in once)
    repeated = Counter(sampler.dataset[index]['data_samples'].img_id for index in sampler)
    times = Counter(sampler.dataset.get_data_info(i)['img_id'] for i in range(len(sampler.dataset)))
    assert max(times.values()) > 1
    assert repeated == {image: n * times[image] for image, n in chips_of_image.items()}


def test_crowdhuman_finds_the_sizes_of_images_once_and_keeps_them(config_of, tmp_path):
    """They are in none of its annotations."""
    data = config_of('CrowdHumanDataset')
    assert len(DATASETS.build(data)) == 4
    kept = json.loads((tmp_path / 'id_hw_train.json').read_text())
    assert kept == {f's{i}': [HEIGHT, WIDTH] for i in range(4)}
    for image in (tmp_path / 'images').iterdir():
        image.unlink()
    assert read_annotations(DATASETS.build(data)).width.tolist() == [WIDTH] * 4
