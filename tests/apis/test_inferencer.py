"""SNIPERInferencer: files, folders and arrays in; COCO results and MMDetection's own out."""

import threading
from copy import deepcopy
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from embedded_words import GROUNDING_DINO, make_small
from mmdet.apis import DetInferencer
from mmdet.evaluation import DumpDetResults
from mmdet.models.detectors import grounding_dino
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from pycocotools.coco import COCO
from random_weights import AUTOFOCUS, autofocus_checkpoint

from harness.reduced import reduced
from mmsniper.apis import MODES, SNIPERInferencer
from mmsniper.apis.pictures import Pictures
from mmsniper.apis.texts import text_names
from mmsniper.convert import load_config
from mmsniper.models.masks import EncodedMasks

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / 'configs'
SNIPER = CONFIGS / 'sniper' / 'faster_rcnn_r18_sniper_toy.py'
STOCK = CONFIGS / 'baselines' / 'faster_rcnn_r18_single_scale_toy.py'
FRAGMENT = ('sniper', 'pyramids/toy')
SIZES = {'a.jpg': (250, 170), 'below/b.png': (150, 100)}  # width, height


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """Weights of the AutoFocus config, at random, but the same every time."""
    return autofocus_checkpoint(tmp_path_factory.mktemp('weights'))


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp('images')
    rng = np.random.default_rng(0)
    for name, (width, height) in SIZES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        noise = rng.integers(0, 256, (height // 10, width // 10, 3), np.uint8)
        cv2.imwrite(str(folder / name), cv2.resize(noise, (width, height)))
    return folder


def inferencer(config, checkpoint, mode=None, **options):
    return SNIPERInferencer(config, checkpoint, mode, device='cpu', show_progress=False, **options)


@pytest.fixture(scope='module')
def everywhere(checkpoint):
    """AutoFocus that looks everywhere: scores do not decide what is seen."""
    return inferencer(AUTOFOCUS, checkpoint, 'autofocus', thresholds=0)


@pytest.mark.parametrize('mode', [None, *MODES])
def test_a_folder_gives_coco_results_of_all_images_below_it(checkpoint, images, mode):
    results = inferencer(AUTOFOCUS, checkpoint, mode)(images)
    coco = COCO()
    coco.dataset = results['images']
    coco.createIndex()
    assert [Path(image['file_name']) for image in coco.imgs.values()] == [images / n for n in SIZES]
    assert [(i['width'], i['height']) for i in coco.imgs.values()] == list(SIZES.values())
    assert [item['name'] for item in coco.cats.values()] == ['disc', 'ring', 'square', 'cross']
    focused = mode in (None, 'autofocus')
    assert all(('focus_chips' in image) == focused for image in coco.imgs.values())
    found = coco.loadRes(results['detections'])
    for number, prediction in enumerate(results['predictions'], 1):
        mine = found.loadAnns(found.getAnnIds(imgIds=[number]))
        x1, y1, x2, y2 = np.array(prediction['bboxes']).T
        boxes = np.stack([x1, y1, x2 - x1, y2 - y1], axis=1)
        assert len(mine) == len(boxes) > 0
        assert np.abs(boxes - [one['bbox'] for one in mine]).max() < 1e-3
        assert [one['category_id'] - 1 for one in mine] == prediction['labels']


@pytest.fixture(scope='module')
def plain(checkpoint, tmp_path_factory):
    """The weights without those of the branch: of the detector."""
    state = torch.load(checkpoint)['state_dict']
    weights = {key: w for key, w in state.items() if not key.startswith('focus_head.')}
    meta = dict(dataset_meta=load_config(SNIPER).val_dataloader.dataset.metainfo.to_dict())
    path = tmp_path_factory.mktemp('weights') / 'plain.pth'
    torch.save(dict(state_dict=weights, meta=meta), path)
    return path


@pytest.mark.parametrize('config', [SNIPER, STOCK], ids=['sniper', 'stock'])
def test_by_default_it_is_mmdetections_inferencer(plain, images, config):
    """With the same weights: at all levels, and at one scale by the stock config."""
    path = str(images / 'a.jpg')
    [ours] = inferencer(config, plain)(path)['predictions']
    found = DetInferencer(load_config(config), str(plain), 'cpu', show_progress=False)(path)
    assert [ours] == found['predictions']
    assert len(ours['scores']) > 0


def test_the_mode_of_a_config_is_its_models(checkpoint, plain, images):
    def found(*args):
        return inferencer(*args)(images)['detections']

    assert found(AUTOFOCUS, checkpoint) == found(AUTOFOCUS, checkpoint, 'autofocus')
    assert found(SNIPER, plain) == found(SNIPER, checkpoint, 'pyramid') != found(STOCK, plain)
    assert found(AUTOFOCUS, checkpoint, 'pyramid') == found(AUTOFOCUS, plain, 'pyramid')


def test_the_single_mode_is_the_stock_detector_on_the_image_as_it_is(checkpoint, plain, images):
    def found(*args):
        return inferencer(*args)(images)['detections']

    own_pixels = load_config(STOCK)
    pipeline = own_pixels.test_dataloader.dataset.pipeline
    pipeline[1] = dict(type='Resize', scale_factor=1.0, keep_ratio=True)
    chips = load_config(SNIPER).chip_samples.test_cfg.rpn
    own_pixels.model.test_cfg.rpn.update(chips)
    once = found(own_pixels, plain)
    assert found(SNIPER, plain, 'single') == found(AUTOFOCUS, checkpoint, 'single') == once
    assert found(STOCK, plain, 'single') == found(STOCK, plain)


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


@pytest.mark.parametrize('config', [AUTOFOCUS, STOCK], ids=['autofocus', 'stock'])
def test_half_precision_is_of_any_detector(checkpoint, images, config):
    whole, half = (
        inferencer(config, checkpoint, precision=precision)(images)['predictions']
        for precision in (None, 'bf16')
    )
    assert half != whole
    assert half[0]['scores'][:3] == pytest.approx(whole[0]['scores'][:3], abs=0.2)
    with pytest.raises(ValueError, match='precision must be one of bf16, fp16, or None'):
        inferencer(config, checkpoint, precision='fp8')
    with pytest.raises(ValueError, match="'fp16' is for GPUs: on a CPU take 'bf16'"):
        inferencer(config, checkpoint, precision='fp16')(images)


def test_images_are_loaded_while_one_is_detected(everywhere, images, monkeypatch):
    events, ready = [], threading.Event()
    load, forward = type(everywhere.pipeline).load, SNIPERInferencer.forward

    def noted_load(self, image):
        events.append(Path(image).name)
        if len(events) == 2:
            ready.set()
        return load(self, image)

    def waiting_forward(self, *args, **kwargs):
        assert 'seen' in events or not events[2:]
        ready.wait(30)
        events.append('seen')
        return forward(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(type(everywhere.pipeline), 'load', noted_load)
        patch.setattr(SNIPERInferencer, 'forward', waiting_forward)
        everywhere([images / 'a.jpg', images / 'below' / 'b.png'])
        assert events[:3] == ['a.jpg', 'b.png', 'seen']
    # But not while the one is large.
    events.clear()
    monkeypatch.setattr('mmsniper.apis.images.LARGE_BYTES', 0)
    monkeypatch.setattr(type(everywhere.pipeline), 'load', noted_load)
    monkeypatch.setattr(
        SNIPERInferencer, 'forward', lambda *args: events.append('seen') or forward(*args)
    )
    everywhere([images / 'a.jpg', images / 'below' / 'b.png'])
    assert events == ['a.jpg', 'seen', 'b.png', 'seen']


def test_mmdetections_own_outputs_are_there(everywhere, images, tmp_path):
    image = cv2.imread(str(images / 'a.jpg'))
    results = everywhere(image, return_datasamples=True, return_vis=True, out_dir=str(tmp_path))
    [sample], [drawn] = results['predictions'], results['visualization']
    assert isinstance(sample, DetDataSample)
    assert len(results['detections']) == len(sample.pred_instances)
    assert drawn.shape == image.shape
    assert len(list((tmp_path / 'vis').iterdir())) == 1


def test_config_and_checkpoint_must_belong_together(checkpoint, plain, tmp_path):
    state = torch.load(checkpoint)['state_dict']
    torch.save(dict(state_dict=dict(list(state.items())[1:])), tmp_path / 'less.pth')
    with pytest.raises(ValueError, match=r'less\.pth: it is of another model: it lacks'):
        inferencer(AUTOFOCUS, tmp_path / 'less.pth')
    with pytest.raises(ValueError, match='4 weights are missing.*Without a FocusHead use'):
        inferencer(AUTOFOCUS, plain)
    with pytest.raises(FileNotFoundError, match='there is no checkpoint'):
        inferencer(AUTOFOCUS, tmp_path / 'none.pth')


def test_what_the_model_does_not_know_is_refused(checkpoint, plain):
    with pytest.raises(ValueError, match="one of single, pyramid, autofocus, got 'whole'"):
        inferencer(AUTOFOCUS, checkpoint, 'whole')
    for mode in ('pyramid', 'autofocus'):
        with pytest.raises(ValueError, match=rf'--mode {mode} needs .*has a FasterRCNN: leave'):
            inferencer(STOCK, plain, mode)
    for config, mode in ((SNIPER, None), (AUTOFOCUS, 'pyramid'), (STOCK, None)):
        with pytest.raises(ValueError, match="thresholds are AutoFocus's, but the model is a"):
            inferencer(config, checkpoint, mode, thresholds=0.5)
    assert inferencer(SNIPER, plain, 'autofocus', thresholds=0.5).model.thresholds == (0.5, 0.5)


def test_a_config_with_a_fragment_of_ours_that_was_only_read_is_converted(checkpoint):
    with pytest.raises(ValueError, match='is of another model'):
        inferencer(
            Config.fromfile(CONFIGS / 'sniper' / 'retinanet_r50_sniper.py'), checkpoint, 'pyramid'
        )


# Texts -------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def texts(tmp_path_factory):
    """A small Grounding DINO that sees all levels, with random weights, for two classes."""
    folder = tmp_path_factory.mktemp('texts')
    bases = [GROUNDING_DINO, *(f'{CONFIGS}/_base_/{name}.py' for name in FRAGMENT)]
    (folder / 'texts.py').write_text(f'_base_ = {bases}')
    cfg = load_config(folder / 'texts.py')
    make_small(cfg.model, 2)
    cfg.test_dataloader.dataset.metainfo = dict(classes=('disc', 'ring'))
    torch.manual_seed(0)
    model = MODELS.build(deepcopy(cfg.model))  # DINO writes into its config
    model.init_weights()
    torch.save(dict(state_dict=model.state_dict()), folder / 'texts.pth')
    return inferencer(cfg, folder / 'texts.pth')


def named(results, image=1):
    """Names of what was found in an image."""
    names = {item['id']: item['name'] for item in results['images']['categories']}
    return {names[d['category_id']] for d in results['detections'] if d['image_id'] == image}


def test_a_detector_that_takes_texts_finds_the_classes_or_what_a_text_names(texts, images):
    path = images / 'a.jpg'
    assert named(texts(path)) == {'disc', 'ring'}
    told = texts(path, texts='traffic light . car .', custom_entities=True, out_dir='')
    assert named(told) == {'traffic light', 'car'}
    [sample] = texts(path, texts='a . b . c', custom_entities=True, return_datasamples=True)[
        'predictions'
    ]
    assert sample.text == ('a', 'b', 'c')
    found = sample.pred_instances
    assert found.label_names == ['abc'[label] for label in found.labels.tolist()]
    assert named(texts(path)) == {'disc', 'ring'}  # the text was of that call only


def test_images_may_have_texts_of_their_own_and_a_name_is_one_category(texts, images):
    paths = [images / name for name in SIZES]
    results = texts(paths, texts=['a . b', 'b . c'], custom_entities=True)
    assert [item['name'] for item in results['images']['categories']] == ['a', 'b', 'c']
    assert (named(results, 1), named(results, 2)) == ({'a', 'b'}, {'b', 'c'})
    with pytest.raises(ValueError, match='2 images need as many texts, got 1'):
        texts(paths, texts=['a'])


def test_the_noun_phrases_of_a_sentence_are_the_classes(texts, images, monkeypatch, tmp_path):
    """nltk finds them; where they are is not asked here."""
    monkeypatch.setattr(grounding_dino, 'run_ner', lambda text: ([[[0, 5]], [[6, 9]]], ['x', 'y']))
    classes, told = texts.classes, texts.pipeline.texts
    texts.look_for('a car beside a disc')
    try:
        assert list(texts.classes.names) == ['x', 'y']
        assert named(texts(images / 'a.jpg', out_dir=str(tmp_path))) == {'x', 'y'}
        data, _ = texts.load(images / 'a.jpg', picture_side=100)
        assert data['data_samples'].text == 'a car beside a disc'
    finally:
        texts.classes, texts.pipeline.texts = classes, told
    assert (tmp_path / 'vis' / 'a.jpg').is_file()


def test_a_detector_without_texts_refuses_them(everywhere, images):
    with pytest.raises(ValueError, match='takes no texts, it finds the classes'):
        everywhere(images / 'a.jpg', texts='a . b', custom_entities=True)
    with pytest.raises(ValueError, match='takes no texts'):
        everywhere.look_for('a', custom_entities=True)


@pytest.mark.parametrize(
    ('text', 'names'),
    [
        ('person . car', ('person', 'car')),
        (' traffic light. car. ', ('traffic light', 'car')),
        ('U.S. plane .', ('U.S', 'plane')),
        ('car', ('car',)),
    ],
)
def test_names_in_a_text_have_full_stops_between_them(text, names):
    assert text_names(text) == names


# Masks -------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def masks(tmp_path_factory):
    """Config and checkpoint of a Mask R-CNN, with weights at random."""
    folder = tmp_path_factory.mktemp('masks')
    bases = ['mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py']
    bases += [f'{CONFIGS}/_base_/{name}.py' for name in FRAGMENT]
    (folder / 'fragment.py').write_text(f'_base_ = {bases}')
    cfg = reduced(load_config(folder / 'fragment.py', {'model.merge_cfg.max_per_img': 12}))
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    with torch.no_grad():  # scores and masks that differ from place to place
        model.roi_head.bbox_head.fc_cls.weight.mul_(30)
        model.roi_head.mask_head.conv_logits.weight.mul_(30)
    torch.save(dict(state_dict=model.state_dict()), folder / 'masks.pth')
    return cfg, folder / 'masks.pth'


@pytest.mark.parametrize('mode', MODES)
def test_detections_have_masks_as_coco_wants_them(masks, images, mode):
    results = inferencer(*masks, mode)(images)
    coco = COCO()
    coco.dataset = results['images']
    coco.createIndex()
    found = coco.loadRes(results['detections'])
    drawn = 0
    for annotation in found.anns.values():
        image = coco.imgs[annotation['image_id']]
        mask = found.annToMask(annotation)
        assert mask.shape == (image['height'], image['width'])
        x, y, width, height = annotation['bbox']
        ys, xs = mask.nonzero()
        assert ((xs >= x - 1) & (xs <= x + width + 1)).all()
        assert ((ys >= y - 1) & (ys <= y + height + 1)).all()
        drawn += len(xs) > 0
    assert drawn > len(found.anns) / 2 > 0


def test_masks_are_the_same_where_they_are_too_large_for_a_tensor(
    masks, images, monkeypatch, tmp_path
):
    detect, path = inferencer(*masks), images / 'a.jpg'
    whole = detect(path)
    drawn = picture(detect, path, tmp_path / 'tensor')
    np.random.seed(0)  # of the colours of masks, which are jittered
    [expected] = detect(path, return_vis=True)['visualization']
    monkeypatch.setattr('mmsniper.models.masks.MAX_MASK_PIXELS', 0)
    assert detect(path)['detections'] == whole['detections']
    assert detect(path)['predictions'] == whole['predictions']
    assert np.array_equal(picture(detect, path, tmp_path / 'rles'), drawn)
    # MMDetection's own picture, and what tools/test.py --out writes.
    np.random.seed(0)
    results = detect(path, return_vis=True, return_datasamples=True)
    [sample], [vis] = results['predictions'], results['visualization']
    assert isinstance(sample.pred_instances.masks, EncodedMasks)
    assert np.array_equal(vis, expected)
    dump = DumpDetResults(str(tmp_path / 'out.pkl'))
    dump.process({}, [sample.to_dict()])
    counts = [rle['counts'].decode() for rle in dump.results[0]['pred_instances']['masks']]
    assert counts == [one['segmentation']['counts'] for one in whole['detections']]


def picture(detect, path, folder):
    """What infer.py draws of an image, with masks and without: they are seen."""
    data, image = detect.load(path, picture_side=100)
    [sample] = detect.detect([data])
    pictures = Pictures(folder, detect.classes, score_thr=0)
    np.random.seed(0)
    pictures.draw('masks.png', sample, image)
    drawn = cv2.imread(str(folder / 'vis' / 'masks.png'))
    del sample.pred_instances.masks
    pictures.draw('boxes.png', sample, image)
    assert drawn.shape[:2] == image.shape[:2] == (68, 100)
    assert not np.array_equal(drawn, cv2.imread(str(folder / 'vis' / 'boxes.png')))
    return drawn
