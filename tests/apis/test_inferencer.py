"""SNIPERInferencer: files, folders and arrays in; COCO results and MMDetection's own out."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.apis import DetInferencer
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from pycocotools.coco import COCO

from mmsniper.apis import MODES, SNIPERInferencer
from mmsniper.convert import load_config

ROOT = Path(__file__).resolve().parents[2]
AUTOFOCUS = ROOT / 'configs' / 'autofocus' / 'faster_rcnn_r18_autofocus_toy.py'
SNIPER = ROOT / 'configs' / 'sniper' / 'faster_rcnn_r18_sniper_toy.py'
SIZES = {'a.jpg': (250, 170), 'below/b.png': (150, 100)}  # width, height


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """Weights of the AutoFocus config, at random, but the same every time."""
    torch.manual_seed(0)
    model = MODELS.build(load_config(AUTOFOCUS).model)
    with torch.no_grad():  # scores and FocusPixels that differ from place to place
        model.detector.roi_head.bbox_head.fc_cls.weight.mul_(30)
        model.focus_head.cls.weight.mul_(30)
    path = tmp_path_factory.mktemp('weights') / 'autofocus.pth'
    torch.save(dict(state_dict=model.state_dict(), meta={}), path)
    return path


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp('images')
    rng = np.random.default_rng(0)
    for name, (width, height) in SIZES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        noise = rng.integers(0, 256, (height // 10, width // 10, 3), np.uint8)
        cv2.imwrite(str(folder / name), cv2.resize(noise, (width, height)))
    return folder


def inferencer(config, checkpoint, mode, **options):
    return SNIPERInferencer(config, checkpoint, mode, device='cpu', show_progress=False, **options)


@pytest.fixture(scope='module')
def everywhere(checkpoint):
    """AutoFocus that looks everywhere: scores do not decide what is seen."""
    return inferencer(AUTOFOCUS, checkpoint, 'autofocus', thresholds=0)


@pytest.mark.parametrize('mode', MODES)
def test_a_folder_gives_coco_results_of_all_images_below_it(checkpoint, images, mode):
    results = inferencer(AUTOFOCUS, checkpoint, mode)(images)
    coco = COCO()
    coco.dataset = results['images']
    coco.createIndex()
    assert [Path(image['file_name']) for image in coco.imgs.values()] == [images / n for n in SIZES]
    assert [(i['width'], i['height']) for i in coco.imgs.values()] == list(SIZES.values())
    assert [item['name'] for item in coco.cats.values()] == ['disc', 'ring', 'square', 'cross']
    assert all(('focus_chips' in image) == (mode == 'autofocus') for image in coco.imgs.values())
    found = coco.loadRes(results['detections'])
    for number, prediction in enumerate(results['predictions'], 1):
        mine = found.loadAnns(found.getAnnIds(imgIds=[number]))
        x1, y1, x2, y2 = np.array(prediction['bboxes']).T
        boxes = np.stack([x1, y1, x2 - x1, y2 - y1], axis=1)
        assert len(mine) == len(boxes) > 0
        assert np.abs(boxes - [one['bbox'] for one in mine]).max() < 1e-3
        assert [one['category_id'] - 1 for one in mine] == prediction['labels']


def test_single_is_mmdetections_inferencer(checkpoint, images):
    path = str(images / 'a.jpg')
    cfg = load_config(SNIPER)
    state = torch.load(checkpoint)['state_dict']
    plain = images.parent / 'plain.pth'
    prefix = 'detector.'
    weights = {k.removeprefix(prefix): w for k, w in state.items() if k.startswith(prefix)}
    meta = dict(dataset_meta=cfg.test_dataloader.dataset.metainfo.to_dict())
    torch.save(dict(state_dict=weights, meta=meta), plain)
    [theirs] = DetInferencer(cfg, str(plain), 'cpu', show_progress=False)(path)['predictions']
    [ours] = inferencer(SNIPER, plain, 'single')(path)['predictions']
    assert ours == theirs
    assert len(ours['scores']) > 0


def test_arrays_and_files_in_batches_give_the_same(everywhere, images):
    paths = [images / name for name in SIZES]
    files = everywhere(paths, batch_size=2)
    arrays = everywhere([cv2.imread(str(path)) for path in paths])
    assert files['predictions'] == arrays['predictions']
    assert files['detections'] == arrays['detections']
    assert [image['file_name'] for image in arrays['images']['images']] == ['1', '2']
    assert everywhere(paths[0])['detections'] == [
        one for one in files['detections'] if one['image_id'] == 1
    ]


def test_mmdetections_own_outputs_are_there(everywhere, images, tmp_path):
    image = cv2.imread(str(images / 'a.jpg'))
    results = everywhere(image, return_datasamples=True, return_vis=True, out_dir=str(tmp_path))
    [sample], [drawn] = results['predictions'], results['visualization']
    assert isinstance(sample, DetDataSample)
    assert len(results['detections']) == len(sample.pred_instances)
    assert drawn.shape == image.shape
    assert len(list((tmp_path / 'vis').iterdir())) == 1


def test_config_and_checkpoint_must_belong_together(checkpoint, tmp_path):
    state = torch.load(checkpoint)['state_dict']
    torch.save(dict(state_dict=dict(list(state.items())[1:])), tmp_path / 'less.pth')
    with pytest.raises(ValueError, match=r'less\.pth is of another model: it lacks 1 of'):
        inferencer(AUTOFOCUS, tmp_path / 'less.pth', 'single')
    with pytest.raises(FileNotFoundError, match='there is no checkpoint'):
        inferencer(AUTOFOCUS, tmp_path / 'none.pth', 'single')
    with pytest.raises(ValueError, match="one of single, pyramid, autofocus, got 'both'"):
        inferencer(AUTOFOCUS, checkpoint, 'both')


def test_a_stock_config_with_a_fragment_of_ours_is_converted(checkpoint):
    with pytest.raises(ValueError, match='is of another model'):
        inferencer(
            Config.fromfile(ROOT / 'configs/sniper/retinanet_r50_sniper.py'), checkpoint, 'pyramid'
        )
