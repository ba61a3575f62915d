"""Every config trains on the data that it asks for and, tested, finds boxes that make sense.

At reduced size, on a few made-up images that lie where the config looks for its data set: its own
pipeline, sampler, pyramid, losses, optimizer, hooks and evaluator. A new config is found by itself.
"""

import json
import math
import re
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

import mmcv
import numpy as np
import pytest
import torch
from dataset_files import WRITERS, Scene, write_dataset
from mmdet.registry import DATASETS, MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.hooks import Hook
from torch.nn.modules.batchnorm import _BatchNorm

from harness.reduced import reduced
from mmsniper.convert import load_config
from mmsniper.datasets.wrappers import read_datasets

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
PATHS = sorted(
    str(path.relative_to(CONFIGS))
    for path in CONFIGS.rglob('*.py')
    if path.relative_to(CONFIGS).parts[0] != '_base_'
)
# Detectors of MMDetection that have no config here, made SNIPER's by the fragment.
STOCK = [
    'free_anchor/freeanchor_r50_fpn_1x_coco.py',
    'centernet/centernet-update_r50-caffe_fpn_ms-1x_coco.py',
    'nas_fcos/nas-fcos_r50-caffe_fpn_nashead-gn-head_4xb4-1x_coco.py',
    'pisa/retinanet-r50_fpn_pisa_1x_coco.py',
    'detr/detr_r50_8xb2-150e_coco.py',
    'conditional_detr/conditional-detr_r50_8xb2-50e_coco.py',
    'dab_detr/dab-detr_r50_8xb2-50e_coco.py',
]

WIDTH, HEIGHT = 300, 240
# Of 17 to 150 px, so that there is something at every level; the last is a crowd, or difficult.
BOXES = np.array(
    [
        (10, 10, 28, 26),
        (40, 12, 84, 50),
        (100, 10, 170, 74),
        (190, 10, 290, 110),
        (10, 90, 170, 230),
        (200, 130, 280, 220),
    ]
)
MOVES = ((0, 0), (4, 3), (-6, 6))
TRAIN, VAL, EMPTY = ('a', 'b', 'c'), ('d',), 'empty'
# Numbers of classes that are in files of the data set, not in MMDetection.
VOCABULARY = {'OpenImagesDataset': 601, 'V3DetDataset': 13204}

# Of FCOS, ATSS, VFNet, YOLOX and RTMDet-Ins heads: what a level has to itself, which may be too
# coarse for any object of a chip.
WITHOUT_OBJECTS = {'scales', 'scales_refine'}
WITHOUT_OBJECTS |= {'multi_level_cls_convs', 'multi_level_conv_cls', 'multi_level_conv_reg'}
WITHOUT_OBJECTS |= {'kernel_convs', 'rtm_kernel', 'rtm_reg'}


# What starts at zero, the sampling offsets of deformable attention, stops gradients in the first.
STEPS = 2


class EnoughError(Exception):
    """Raised to end a training."""


class FirstSteps(Hook):
    """Keeps the gradients and losses of the first steps, and ends the training."""

    def __init__(self):
        self.gradients, self.losses = {}, []

    def before_train(self, runner):
        self.frozen = [n for n, p in runner.model.named_parameters() if not p.requires_grad]
        for name, parameter in runner.model.named_parameters():
            if parameter.requires_grad:
                self.gradients[name] = grads = []
                parameter.register_hook(lambda grad, to=grads: to.append(grad.detach().clone()))

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append({name: float(value) for name, value in outputs.items()})
        if len(self.losses) == STEPS:
            raise EnoughError


class Predictions(Hook):
    """Keeps what a test predicts."""

    def __init__(self):
        self.samples = []

    def before_test_iter(self, runner, batch_idx, data_batch=None):
        # A detector that has learned nothing has no statistics, and signals die away in it.
        for module in runner.model.modules():
            if isinstance(module, _BatchNorm):
                module.train()
                module.eps = module.eps or 1e-5  # NAS-FCOS, frozen, has none

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.samples += outputs


@pytest.fixture(scope='module', autouse=True)
def _registered():
    register_all_modules()


@pytest.fixture
def small(request, tmp_path, monkeypatch):
    """The config at reduced size, with made-up data in place of its own."""
    file = CONFIGS / request.param
    # Rotated boxes have other data: tests/rotated.
    if request.param not in STOCK and re.search('mmrotate|rotated', file.read_text()):
        pytest.skip('tests/rotated has the configs of rotated boxes')
    if request.param in STOCK:
        fragments = [f'{CONFIGS}/_base_/{name}' for name in ('sniper.py', 'pyramids/coco_paper.py')]
        file = tmp_path / 'of_stock.py'
        file.write_text(f'_base_ = {[f"mmdet::{request.param}", *fragments]}')
    cfg = reduced(load_config(file))
    if cfg.val_evaluator.type == 'LVISMetric':
        pytest.importorskip('lvis', reason='LVIS needs lvis')
        monkeypatch.setattr(np, 'float', float, raising=False)  # which lvis 0.5.3 asks for
    roots = {
        data.data_root
        for part in ('train', 'val', 'test')
        for data in read_datasets(cfg[f'{part}_dataloader'].dataset)
    }
    cfg = Config(moved(cfg.to_dict(), roots, tmp_path))
    for part in ('train', 'val', 'test'):
        loader = cfg[f'{part}_dataloader']
        loader.update(num_workers=0, persistent_workers=False)
        for data in read_datasets(loader.dataset):
            make_images(data, (*TRAIN, EMPTY) if part == 'train' else VAL)
    cfg.train_dataloader.batch_size = 2 if 'num_queries' in cfg.model else 4
    if cfg.test_evaluator.get('format_only'):
        cfg.test_evaluator.outfile_prefix = str(tmp_path / 'detections')
    cfg.update(
        work_dir=str(tmp_path / 'work'),
        experiment_name=tmp_path.name,
        launcher='none',
        randomness=dict(seed=0),
    )
    return cfg


def moved(node, roots, folder):
    """The same nested settings with all paths under these roots moved into a folder."""
    if isinstance(node, dict):
        return {key: moved(value, roots, folder) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return type(node)(moved(item, roots, folder) for item in node)
    under = isinstance(node, str) and any(node.startswith(root) for root in roots)
    return f'{folder}/{node}' if under else node


def make_images(data, names):
    """Write images and annotations where a data set's config looks for them."""
    root, cls = Path(data.data_root), DATASETS.get(data.type)
    classes = (data.get('metainfo') or cls.METAINFO).get('classes')
    names = [f'{Path(data.ann_file).stem}_{name}' for name in names]
    if data.type in WRITERS:
        classes = classes or [f'class {i}' for i in range(VOCABULARY[data.type])]
        write_dataset(data, [scene(name, i, len(classes)) for i, name in enumerate(names)], classes)
        return
    xml = 'sub_data_root' in data.data_prefix
    folder = root / data.data_prefix['sub_data_root' if xml else 'img']
    images = folder / 'JPEGImages' if xml else folder
    for i, name in enumerate(names):
        mmcv.imwrite(picture(objects_of(name, i)), str(images / f'{name}.jpg'))
    path = root / data.ann_file
    path.parent.mkdir(parents=True, exist_ok=True)
    if not xml:
        path.write_text(json.dumps(coco_annotations(names, classes)))
        return
    path.write_text('\n'.join(names))
    (folder / 'Annotations').mkdir(exist_ok=True)
    for i, name in enumerate(names):
        voc_annotation(objects_of(name, i), classes).write(folder / 'Annotations' / f'{name}.xml')


def scene(name, i, classes):
    boxes = objects_of(name, i)
    order = range(len(boxes))
    special = [j == len(BOXES) - 1 for j in order]
    return Scene(name, picture(boxes), boxes.tolist(), [j % classes for j in order], special)


def objects_of(name, i):
    return BOXES[:0] if name.endswith(EMPTY) else BOXES + np.tile(MOVES[i % len(MOVES)], 2)


def picture(boxes):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 60, (HEIGHT, WIDTH, 3), np.uint8)
    for x1, y1, x2, y2 in boxes:
        image[y1:y2, x1:x2] += rng.integers(60, 190, 3, np.uint8)
    return image


def coco_annotations(names, classes):
    annotations = []
    for i, name in enumerate(names):
        for j, (x1, y1, x2, y2) in enumerate(objects_of(name, i).tolist()):
            crowd, (w, h) = j == len(BOXES) - 1, (x2 - x1, y2 - y1)
            outline = [[x1, y1, x2, y1, x2, y2, x1, y2]]
            columns = [x1 * HEIGHT, w * HEIGHT, (WIDTH - x2) * HEIGHT]
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=i + 1,
                    category_id=j % len(classes) + 1,
                    bbox=[x1, y1, w, h],
                    area=w * h,
                    iscrowd=int(crowd),
                    segmentation=dict(size=[HEIGHT, WIDTH], counts=columns) if crowd else outline,
                )
            )
    return dict(
        images=[
            dict(id=i + 1, file_name=f'{name}.jpg', width=WIDTH, height=HEIGHT)
            for i, name in enumerate(names)
        ],
        annotations=annotations,
        categories=[dict(id=i + 1, name=name) for i, name in enumerate(classes)],
    )


def voc_annotation(boxes, classes):
    root = ElementTree.Element('annotation')
    size = ElementTree.SubElement(root, 'size')
    for tag, value in (('width', WIDTH), ('height', HEIGHT), ('depth', 3)):
        ElementTree.SubElement(size, tag).text = str(value)
    for j, box in enumerate(boxes):
        item = ElementTree.SubElement(root, 'object')
        ElementTree.SubElement(item, 'name').text = classes[j % len(classes)]
        ElementTree.SubElement(item, 'difficult').text = str(int(j == len(BOXES) - 1))
        corners = ElementTree.SubElement(item, 'bndbox')
        for tag, value in zip(('xmin', 'ymin', 'xmax', 'ymax'), box):
            ElementTree.SubElement(corners, tag).text = str(value + 1)
    return ElementTree.ElementTree(root)


def test_there_are_configs():
    assert len(PATHS) >= 9


@pytest.mark.parametrize('small', PATHS + STOCK, indirect=True, ids=PATHS + STOCK)
def test_it_trains_with_a_gradient_in_every_part(small, load_tool):
    if small.model.get('bbox_head', {}).get('type') == 'SNIPERPAAHead':
        pytest.importorskip('sklearn', reason='PAA needs scikit-learn')
    steps = FirstSteps()
    runner = load_tool('_launch').build_runner(small)
    runner.register_hook(steps, priority='VERY_LOW')
    with pytest.raises(EnoughError):
        runner.train()

    for losses in steps.losses:
        assert len(losses) > 1
        assert all(math.isfinite(value) for value in losses.values()), losses
    # Distributed training waits for a gradient of every parameter, be it 0.
    assert not [name for name, grads in steps.gradients.items() if len(grads) != STEPS]
    learns = defaultdict(bool)
    for name, grads in steps.gradients.items():
        assert all(torch.isfinite(grad).all() for grad in grads), name
        learns[part_of(name)] |= any(bool(grad.any()) for grad in grads)
    assert not [part for part, yes in learns.items() if not yes]
    assert all('backbone' in name.split('.')[:2] for name in steps.frozen)


def part_of(parameter):
    """The part of the detector that a parameter is in, such as ``roi_head.bbox_head.0``."""
    names = parameter.split('.')[:-1]
    if WITHOUT_OBJECTS & set(names[1:2]):
        names = names[:2]
    return '.'.join(names[:3])


@pytest.mark.parametrize('small', PATHS + STOCK, indirect=True, ids=PATHS + STOCK)
def test_its_detections_make_sense(small, load_tool, request):
    is_rpn, name = small.model.type == 'RPN', request.node.callspec.params['small']
    is_detr, is_baseline = 'num_queries' in small.model, name.startswith('baselines/')
    has_queries = small.model.get('rpn_head', {}).get('type') == 'EmbeddingRPNHead'
    if is_baseline and 'tta_model' in small:
        load_tool('test').use_tta(small)
    elif not is_baseline and not is_rpn:
        kind = 'AutoFocus' if name.startswith('autofocus/') else 'PyramidDetector'
        assert small.model.type == kind, 'it is tested at every level'
    predictions = Predictions()
    runner = load_tool('_launch').build_runner(small)
    if is_detr or has_queries:  # which are otherwise whatever was in memory, also NaN
        runner.model.init_weights()
    runner.register_hook(predictions)
    metrics = runner.test()

    if small.test_evaluator.get('format_only'):  # for a server that keeps the annotations
        assert json.loads(Path(f'{small.test_evaluator.outfile_prefix}.bbox.json').read_text())
    else:
        assert metrics
    (sample,) = predictions.samples
    found = sample.pred_instances
    boxes = found.bboxes
    assert sample.ori_shape == (HEIGHT, WIDTH)
    assert len(found) > 0
    assert (boxes[:, 2:] >= boxes[:, :2]).all()
    # Those of queries and of YOLOX are not clipped.
    if not (has_queries or 'YOLOX' in small.model.get('detector', small.model.type)):
        assert (boxes >= -1e-3).all()
        assert (boxes <= torch.tensor([WIDTH, HEIGHT] * 2) + 1e-3).all()
    assert ((found.scores > 0) & (found.scores <= 1)).all()
    if 'segm' in metrics_of(small.test_evaluator):
        assert found.masks.shape == (len(found), HEIGHT, WIDTH)
        assert {'coco/segm_mAP', 'lvis/segm_AP'} & set(metrics)
    if not is_rpn:
        assert set(found.labels.tolist()) <= set(range(num_classes(small.model)))


@pytest.mark.parametrize('path', PATHS)
def test_its_weights_are_those_of_the_detector_that_mmdetection_makes_of_the_file(path):
    """Of what builds the model without converting the config, such as DetInferencer."""
    if re.search('mmrotate|rotated', (CONFIGS / path).read_text()):
        pytest.skip('tests/rotated has the configs of rotated boxes')
    file = Config.fromfile(CONFIGS / path)
    stock = MODELS.build(reduced(file).model).state_dict()
    mine = MODELS.build(reduced(load_config(CONFIGS / path)).model).state_dict()
    mine = {name: weight for name, weight in mine.items() if not name.startswith('focus_head.')}
    assert {name: w.shape for name, w in mine.items()} == {n: w.shape for n, w in stock.items()}


def metrics_of(evaluator):
    metric = evaluator.get('metric', 'bbox')
    return [metric] if isinstance(metric, str) else metric


def num_classes(model):
    model = model.get('module') or model
    if 'panoptic_head' in model:
        return model.panoptic_head.num_things_classes
    heads = model.roi_head.bbox_head if 'roi_head' in model else model.bbox_head
    return (heads[0] if isinstance(heads, list) else heads).num_classes
