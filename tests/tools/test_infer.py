"""infer.py detects in image files, as the config tests or in another mode, and loses nothing."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.apis import DetInferencer, inference_detector, init_detector
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.structures import InstanceData
from PIL import Image
from pycocotools.coco import COCO

from harness.reduced import reduced
from mmsniper.apis import SNIPERInferencer, find_images
from mmsniper.apis import images as image_files
from mmsniper.apis.images import pack_as_it_is
from mmsniper.apis.modes import mode_config
from mmsniper.apis.pictures import Pictures
from mmsniper.apis.results import Classes, ImageIds
from mmsniper.convert import load_config
from mmsniper.models import PyramidDetector

ROOT = Path(__file__).resolve().parents[2]
AUTOFOCUS = ROOT / 'configs' / 'autofocus' / 'faster_rcnn_r18_autofocus_toy.py'
SNIPER = ROOT / 'configs' / 'sniper' / 'faster_rcnn_r18_sniper_toy.py'
SINGLE_SCALE = ROOT / 'configs' / 'baselines' / 'faster_rcnn_r18_single_scale_toy.py'
# The order and the numbers of an annotation file are its own.
CATEGORIES = [
    dict(id=7, name='disc'),
    dict(id=3, name='ring'),
    dict(id=4, name='other'),
    dict(id=9, name='square'),
    dict(id=5, name='cross'),
]
NO_ANNOTATIONS = 'test_dataloader.dataset.ann_file=nowhere.json'


@pytest.fixture
def images(tmp_path):
    """A folder with three images of different sizes, one of them in a folder below."""
    rng, folder = np.random.default_rng(0), tmp_path / 'images'
    for name, size in (('a.jpg', (170, 250)), ('b.png', (100, 150)), ('below/c.png', (90, 60))):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        noise = rng.integers(0, 256, (*(side // 10 for side in size), 3), dtype=np.uint8)
        cv2.imwrite(str(folder / name), cv2.resize(noise, size[::-1]))
    (folder / 'notes.txt').write_text('no image')
    return folder


@pytest.fixture
def tool(load_tool):
    return load_tool('infer')


@pytest.fixture
def progress_of(load_tool):
    return load_tool('_infer_files').Progress


@pytest.fixture
def annotations(tmp_path):
    path = tmp_path / 'val.json'
    path.write_text(json.dumps(dict(images=[], annotations=[], categories=CATEGORIES)))
    return f'test_dataloader.dataset.ann_file={path}'


@pytest.fixture
def infer(tool, images, checkpoint, tmp_path):
    """Run the tool; returns detections and images of its results."""

    def run(
        mode=None,
        *options,
        config=AUTOFOCUS,
        inputs=(images,),
        out=tmp_path / 'out',
        cfg_options=(),
        weights=checkpoint,
        pictures=False,
    ):
        options = [*options, *([] if pictures else ['--no-pictures'])]
        options += [] if mode is None else ['--mode', mode]
        tool.main(
            [
                *map(str, inputs),
                str(config),
                str(weights),
                '--out-dir',
                str(out),
                '--device',
                'cpu',
                *options,
                '--cfg-options',
                NO_ANNOTATIONS,
                *cfg_options,
            ]
        )
        return read(out)

    return run


def read(out):
    return [json.loads((out / name).read_text()) for name in ('detections.json', 'images.json')]


def error_of(run, *args, **kwargs):
    with pytest.raises(SystemExit) as info:
        run(*args, **kwargs)
    return str(info.value)


def files_in(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob('*') if p.is_file())


def count_detected(monkeypatch, stop_at=None):
    """Names of the images that are loaded from now on; the run dies at ``stop_at``."""
    names, load = [], SNIPERInferencer.load

    def counted(self, path, picture_side):
        if path.name == stop_at:
            raise KeyboardInterrupt
        names.append(path.name)
        return load(self, path, picture_side)

    monkeypatch.setattr(SNIPERInferencer, 'load', counted)
    return names


# Images -------------------------------------------------------------------------------------------


def test_images_are_found_in_folders_and_below_and_named_from_the_folder(images, tmp_path):
    found = find_images([str(images)], tmp_path / 'out')
    assert list(found) == ['a.jpg', 'b.png', 'below/c.png']
    assert found['below/c.png'] == images / 'below' / 'c.png'


def test_files_of_any_suffix_and_several_inputs_have_names_of_their_own(images, tmp_path):
    other = tmp_path / 'other' / 'a.jpg'
    other.parent.mkdir()
    shutil.copy(images / 'a.jpg', other)
    odd = shutil.copy(images / 'a.jpg', images / 'scan.dat')
    found = find_images([str(images / 'a.jpg'), str(other), odd, odd], tmp_path / 'out')
    assert list(found) == ['images/a.jpg', 'images/scan.dat', 'other/a.jpg']
    assert list(find_images([odd], tmp_path)) == ['scan.dat']


def test_pictures_that_were_written_are_no_input(images):
    for folder in ('vis', 'focus'):
        (images / folder).mkdir()
        shutil.copy(images / 'b.png', images / folder / 'b.png')
    assert list(find_images([str(images)], images)) == ['a.jpg', 'b.png', 'below/c.png']


@pytest.fixture
def said(monkeypatch):
    """What find_images logs."""
    lines = []
    monkeypatch.setattr(image_files, 'print_log', lambda message, **kwargs: lines.append(message))
    return lines


def test_folders_behind_links_are_searched_and_circles_are_not(images, tmp_path, said):
    other = tmp_path / 'other'
    other.mkdir()
    shutil.copy(images / 'a.jpg', other / 'a.jpg')
    (images / 'linked').symlink_to(other)
    (images / 'file.jpg').symlink_to(other / 'a.jpg')
    (images / 'below' / 'up').symlink_to(images)
    (other / 'round').symlink_to(images)  # images/linked/round/linked/...
    (images / 'below' / 'away').symlink_to('/')
    names = ['a.jpg', 'b.png', 'below/c.png', 'file.jpg', 'linked/a.jpg']
    assert list(find_images([images])) == names
    assert said == [
        'left out: 1 files with other suffixes (notes.txt); 3 links to a folder above them '
        '(away, round, up)'
    ]
    (tmp_path / 'only_links').mkdir()
    (tmp_path / 'only_links' / 'val').symlink_to(other)
    # From here the link in `other` leads to `images`, where no link goes back up but its own.
    assert 'val/a.jpg' in find_images([tmp_path / 'only_links'])


def test_what_macos_and_jupyter_add_is_left_out_and_said(images, said):
    (images / '._a.jpg').write_bytes(b'\0\5\x16\7\0\2\0\0Mac OS X')
    shutil.copy(images / 'a.jpg', images / '._mine.jpg')  # an image, whatever its name
    (images / '.ipynb_checkpoints').mkdir()
    shutil.copy(images / 'a.jpg', images / '.ipynb_checkpoints' / 'a-checkpoint.jpg')
    (images / 'UPPER.JPG').symlink_to('a.jpg')
    (images / 'gone.jpg').symlink_to('nowhere.jpg')
    assert list(find_images([images])) == [
        '._mine.jpg',
        'UPPER.JPG',
        'a.jpg',
        'b.png',
        'below/c.png',
    ]
    (line,) = said
    assert '1 folders of copies (.ipynb_checkpoints)' in line
    assert '1 files that macOS keeps beside others (._a.jpg)' in line
    assert '1 links to nowhere, or no files (gone.jpg)' in line


def test_a_folder_that_may_not_be_read_is_said(images, said, monkeypatch):
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == 'below':
            raise PermissionError(13, 'Permission denied', str(path))
        return scandir(path)

    monkeypatch.setattr(os, 'scandir', refuse)
    assert list(find_images([images])) == ['a.jpg', 'b.png']
    assert f'1 folders that may not be read ({images / "below"})' in said[0]


def test_a_pattern_that_no_shell_has_filled_in(images):
    assert list(find_images([f'{images}/*.png'])) == ['b.png']
    assert list(find_images([f'{images}/**/*.png'])) == ['b.png', 'below/c.png']
    (images / '[1].png').symlink_to('b.png')
    assert list(find_images([images / '[1].png'])) == ['[1].png']


def test_an_input_that_does_not_exist_is_told_what_there_is(images):
    with pytest.raises(FileNotFoundError, match=r'B.png does not exist. There is .*/b.png: upper'):
        find_images([images / 'B.png'])
    with pytest.raises(FileNotFoundError, match='is an address, not a file: download the images'):
        find_images(['https://example.com/a.jpg'])


def test_nothing_to_detect_is_said_before_anything_is_loaded(infer, tmp_path):
    assert 'nowhere does not exist' in error_of(infer, inputs=[tmp_path / 'nowhere'])
    (tmp_path / 'empty').mkdir()
    message = error_of(infer, inputs=[tmp_path / 'empty'], weights='no.pth')
    assert 'there are no images in' in message
    assert '.jpg' in message


# Modes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize('config', [AUTOFOCUS, SNIPER], ids=['autofocus', 'sniper'])
@pytest.mark.parametrize('mode', [None, 'pyramid', 'autofocus'])
def test_every_mode_works_with_autofocus_and_sniper_configs(
    infer, annotations, tmp_path, mode, config
):
    # Pictures take the most time by far.
    infer(mode, config=config, cfg_options=[annotations], pictures=config == AUTOFOCUS)
    focused = mode == 'autofocus' or (mode is None and config == AUTOFOCUS)
    coco = COCO(str(tmp_path / 'out' / 'images.json'))
    found = coco.loadRes(str(tmp_path / 'out' / 'detections.json'))
    assert [image['file_name'] for image in coco.imgs.values()] == ['a.jpg', 'b.png', 'below/c.png']
    assert [coco.imgs[1][key] for key in ('width', 'height')] == [250, 170]
    assert coco.cats == {item['id']: item for item in CATEGORIES if item['name'] != 'other'}
    for number, image in coco.imgs.items():
        boxes = found.loadAnns(found.getAnnIds(imgIds=[number]))
        assert boxes
        for box in boxes:
            x, y, width, height = box['bbox']
            assert min(x, y) >= 0
            assert width > 0
            assert height > 0
            assert x + width <= image['width'] + 0.01
            assert y + height <= image['height'] + 0.01
    names = [image['file_name'] for image in coco.imgs.values()] if config == AUTOFOCUS else []
    made = ['detections.json', 'images.json', *(f'vis/{name}' for name in names)]
    if focused:
        made += [f'focus/{name}.png' for name in names]
    assert files_in(tmp_path / 'out') == sorted(made)
    assert all(('focus_chips' in image) == focused for image in coco.imgs.values())


@pytest.mark.parametrize('config', [AUTOFOCUS, SNIPER], ids=['autofocus', 'sniper'])
def test_autofocus_that_looks_everywhere_is_the_pyramid(infer, tmp_path, config):
    whole, _ = infer('pyramid', config=config, out=tmp_path / 'pyramid')
    focus, images = infer('autofocus', '--thresholds', '0', config=config, out=tmp_path / 'focus')
    assert focus == whole
    assert images['images'][0]['focus_chips'] == [[[0, 0, 250, 170]]] * 3
    sides = [(250, 170), (100, 68), (50, 34)]
    assert images['images'][0]['focus_pixels'] == sum(w * h for w, h in sides)


def test_thresholds_can_be_set_and_chips_are_told_fine_to_coarse(infer):
    _, images = infer(None, '--thresholds', '1.1')
    assert images['images'][0]['focus_chips'] == [[], [], [[0, 0, 250, 170]]]
    assert images['images'][0]['focus_pixels'] == 50 * 34
    _, images = infer(None, '--thresholds', '0', '1.1')
    assert images['images'][0]['focus_chips'] == [[]] + [[[0, 0, 250, 170]]] * 2
    _, images = infer(cfg_options=['model.thresholds=(1.1,0)'])
    assert images['images'][0]['focus_chips'] == [[], [], [[0, 0, 250, 170]]]
    assert 'each of the 2 steps' in error_of(infer, None, '--thresholds', '0', '0', '0')
    for mode, config in (('pyramid', AUTOFOCUS), (None, SNIPER), (None, SINGLE_SCALE)):
        message = error_of(infer, mode, '--thresholds', '0', config=config)
        assert "thresholds are AutoFocus's" in message


def test_a_stock_config_is_tested_as_mmdetection_does(infer, images, checkpoint, tmp_path):
    """A detector at one scale, without a mode; weights of an AutoFocus fit, too."""
    found, _ = infer(config=SINGLE_SCALE)
    model = init_detector(str(SINGLE_SCALE), str(checkpoint), device='cpu')
    expected = inference_detector(model, str(images / 'a.jpg')).pred_instances
    mine = [item for item in found if item['image_id'] == 1]
    assert len(mine) == len(expected) > 0
    x1, y1, x2, y2 = expected.bboxes.numpy().T
    assert np.allclose(
        [item['bbox'] for item in mine], np.stack([x1, y1, x2 - x1, y2 - y1], 1), atol=1e-3
    )
    assert np.allclose([item['score'] for item in mine], expected.scores, atol=1e-6)
    assert [item['category_id'] - 1 for item in mine] == expected.labels.tolist()


def test_without_an_annotation_file_category_ids_are_labels_from_1(infer, capsys):
    found, images = infer()
    assert images['categories'] == [
        dict(id=number, name=name)
        for number, name in enumerate(('disc', 'ring', 'square', 'cross'), 1)
    ]
    assert {item['category_id'] for item in found} <= {1, 2, 3, 4}
    assert 'category ids: label + 1' in capsys.readouterr().out


def test_class_names_of_the_checkpoint_come_before_those_of_the_config():
    meta = dict(dataset_meta=dict(CLASSES=('ring', 'new')))
    classes = Classes.of(load_config(SNIPER), dict(meta=meta))
    assert (list(classes.names), list(classes.ids)) == (['ring', 'new'], [1, 2])
    assert (classes.name(1), classes.name(5), classes.category(5)) == ('new', 'class 5', 6)


def two_orders(folder, train, test):
    """The toy config on two annotation files, whose categories are in these orders."""
    cfg = load_config(SNIPER)
    names = cfg.test_dataloader.dataset.metainfo.classes
    image = dict(id=1, file_name='a.png', width=300, height=240)
    for key, order in (('train', train), ('test', test)):
        categories = [dict(id=10 + names.index(name), name=name) for name in order]
        content = dict(images=[image], annotations=[], categories=categories)
        (folder / f'{key}.json').write_text(json.dumps(content))
    inner = cfg.train_dataloader.dataset.dataset
    inner.update(data_root='', ann_file=str(folder / 'train.json'))
    cfg.test_dataloader.dataset.update(data_root='', ann_file=str(folder / 'test.json'))
    return cfg, list(names)


@pytest.mark.parametrize('saved', [False, True])
def test_labels_are_named_in_the_order_of_the_training_file(tmp_path, saved):
    """By which MMDetection numbers them, whatever metainfo and the checkpoint say."""
    cfg, names = two_orders(tmp_path, *[['cross', 'square', 'ring', 'disc']] * 2)
    meta = dict(dataset_meta=dict(classes=names)) if saved else {}
    classes = Classes.of(cfg, dict(meta=meta))
    assert classes.names == names[::-1] == ['cross', 'square', 'ring', 'disc']
    assert classes.ids == [13, 12, 11, 10]
    assert 'in another order than' in classes.doubt


def test_ids_are_found_by_name_in_a_test_file_of_another_order(tmp_path):
    cfg, names = two_orders(
        tmp_path, ['disc', 'ring', 'square', 'cross'], ['cross', 'square', 'ring', 'disc']
    )
    classes = Classes.of(cfg, dict(meta=dict(dataset_meta=dict(classes=names))))
    assert (classes.names, classes.ids, classes.doubt) == (names, [10, 11, 12, 13], '')
    (tmp_path / 'train.json').unlink()
    classes = Classes.of(cfg, dict(meta=dict(dataset_meta=dict(classes=names))))
    assert classes.names == names
    assert 'names are those of the checkpoint' in classes.doubt


def test_images_have_the_ids_of_the_annotation_file(tmp_path):
    cfg, _ = two_orders(tmp_path, [], ['disc', 'ring', 'square', 'cross'])
    images = [
        dict(id=8, file_name='a.png', width=9, height=9),
        dict(id=3, file_name='sub/b.png', width=9, height=9),
        dict(id=5, file_name='other/b.png', width=9, height=9),
    ]
    content = dict(images=images, annotations=[], categories=[])
    (tmp_path / 'test.json').write_text(json.dumps(content))

    def ids(*names):
        found = ImageIds.of(cfg, {name: Path('/data') / name for name in names})
        return list(found.ids.values()), found.source, found.doubt

    numbers, source, doubt = ids('a.png', 'sub/b.png')
    assert (numbers, doubt) == ([8, 3], '')
    assert 'test.json, by file name' in source
    # What is in no entry, or in two, gets a number that the file has not.
    numbers, _, doubt = ids('a.png', 'b.png', 'new.png')
    assert numbers == [8, 9, 10]
    assert '2 of 3 images are not in' in doubt
    numbers, source, doubt = ids('x.png', 'y.png')
    assert (numbers, doubt) == ([1, 2], '')
    assert 'none of them is in' in source
    assert ids('one/a.png', 'two/a.png')[0] == [1, 2]  # which of them is it?


@pytest.mark.parametrize('mode', ['pyramid', 'autofocus'])
def test_a_stock_config_has_no_modes(infer, mode):
    message = error_of(infer, mode, config=SINGLE_SCALE)
    assert f'--mode {mode} needs a model of type PyramidDetector or AutoFocus' in message
    assert 'has a FasterRCNN: leave --mode out' in message


def test_only_pipelines_that_load_files_are_taken(infer):
    message = error_of(
        infer,
        config=SNIPER,
        cfg_options=['test_dataloader.dataset.pipeline.0.type=LoadImageFromNDArray'],
    )
    assert 'begins with LoadImageFromNDArray; image files need LoadImageFromFile' in message


def test_transforms_of_ones_own_in_the_test_pipeline_stay():
    cfg = load_config(SNIPER)
    cfg.test_dataloader.dataset.pipeline.insert(1, dict(type='Corrupt', corruption='fog'))
    cfg.model.val_levels = [0]  # of which AutoFocus would leave one out
    for mode in (None, 'pyramid', 'autofocus'):
        model, pipeline = mode_config(cfg, mode)
        types = [transform['type'] for transform in pipeline]
        assert types == ['mmdet.LoadLargeImageFromFile', 'Corrupt', 'PackDetInputs']
        assert 'val_levels' not in model


def test_images_are_loaded_without_a_second_copy_and_given_to_the_model_as_they_are():
    for config in (AUTOFOCUS, SNIPER):
        for mode in (None, 'pyramid', 'autofocus'):
            _, pipeline = mode_config(load_config(config), mode)
            assert [step.type for step in pipeline] == ['mmdet.LoadImageWindows']
    image = np.zeros((20, 30, 3), np.uint8)
    packed = pack_as_it_is(
        dict(img=image, img_id=0, img_path='', ori_shape=(20, 30), img_shape=(20, 30))
    )
    assert packed['inputs'].shape == (3, 20, 30)
    assert packed['inputs'].data_ptr() == image.ctypes.data
    assert 'scale_factor' not in packed['data_samples'].metainfo


# Weights ------------------------------------------------------------------------------------------


def test_a_checkpoint_that_lacks_weights_is_refused(infer, checkpoint, tmp_path):
    state = torch.load(checkpoint)['state_dict']
    plain = {key: w for key, w in state.items() if not key.startswith('focus_head.')}
    torch.save(dict(state_dict=plain), tmp_path / 'plain.pth')
    infer(config=SNIPER, weights=tmp_path / 'plain.pth')
    message = error_of(infer, weights=tmp_path / 'plain.pth')
    assert "lacks focus_head.conv.conv.weight of the config's (4 weights are missing)" in message
    assert 'Without a FocusHead use the SNIPER config' in message
    plain['neck.fpn_convs.0.conv.bias'] = torch.zeros(3)
    torch.save(dict(state_dict=plain), tmp_path / 'other.pth')
    message = error_of(infer, 'pyramid', weights=tmp_path / 'other.pth')
    assert 'neck.fpn_convs.0.conv.bias has the shape (3,), and (' in message
    assert 'it lacks' not in message
    assert 'there is no checkpoint' in error_of(infer, weights=tmp_path / 'none.pth')


@pytest.fixture
def masks(tmp_path):
    """A fragment config of a small Mask R-CNN, and random weights."""
    bases = ['mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py']
    bases += [f'{ROOT}/configs/_base_/{name}.py' for name in ('sniper', 'pyramids/toy')]
    config, weights = tmp_path / 'masks.py', tmp_path / 'masks.pth'
    config.write_text(f'_base_ = {bases}')
    reduced(load_config(config)).dump(config)
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(config).model)
    with torch.no_grad():
        model.roi_head.bbox_head.fc_cls.weight.mul_(30)
    torch.save(dict(state_dict=model.state_dict()), weights)
    return config, weights


def test_masks_are_written_and_drawn_and_a_run_goes_on_with_them(
    infer, masks, images, tmp_path, monkeypatch
):
    config, weights = masks
    given = dict(config=config, weights=weights, cfg_options=['model.merge_cfg.max_per_img=5'])
    with monkeypatch.context() as patch:
        count_detected(patch, stop_at='c.png')
        with pytest.raises(KeyboardInterrupt):
            infer(**given, pictures=True)
    infer(**given, pictures=True)
    coco = COCO(str(tmp_path / 'out' / 'images.json'))
    found = coco.loadRes(str(tmp_path / 'out' / 'detections.json'))
    assert {one['image_id'] for one in found.anns.values()} == {1, 2, 3}
    for one in found.anns.values():
        image = coco.imgs[one['image_id']]
        assert found.annToMask(one).shape == (image['height'], image['width'])
    assert (tmp_path / 'out' / 'vis' / 'a.jpg').is_file()


@pytest.mark.parametrize(
    ('scores', 'said'),
    [
        (
            [[0.9, 0.1], [0.4]],
            '2 pictures in out/vis, with boxes of scores above 0.3 (--score-thr)',
        ),
        (
            [[0.9], [0.2999, 0.1], [0.05]],
            '2 of them have no box, the best score there is 0.3: try --score-thr 0.29',
        ),
        ([[0.3]], '1 of them has no box, the best score there is 0.3: try --score-thr 0.29'),
        ([[0.004]], '1 of them has no box, the best score there is 0.004: try --score-thr 0'),
        ([[]], '1 picture in out/vis, with boxes of scores above 0.3 (--score-thr); 1 of them has'),
        ([[], []], '2 of them have no box, as nothing is detected there'),
        ([], ''),
    ],
)
def test_pictures_without_a_box_are_counted_with_a_threshold_that_shows_one(
    load_tool, scores, said
):
    done = [dict(detections=[dict(score=score) for score in image]) for image in scores]
    line = load_tool('_infer_files')._about_pictures(done, Path('out'), 0.3)
    assert said in line
    assert ('of them' in line) == ('of them' in said)


def test_the_threshold_of_the_pictures_is_said_unless_there_are_none(infer, capsys):
    infer('pyramid', '--pred-score-thr', '0.999', pictures=True)
    assert '3 pictures in ' in (said := capsys.readouterr().out)
    assert 'with boxes of scores above 0.999 (--score-thr); 3 of them have no box' in said
    infer('pyramid')
    assert 'pictures in ' not in capsys.readouterr().out


def test_texts_are_for_detectors_that_take_them(infer, capsys):
    assert 'takes no texts' in error_of(infer, 'pyramid', '--texts', 'disc . ring')
    error_of(infer, 'pyramid', '--custom-entities')
    assert '--custom-entities says what --texts are' in capsys.readouterr().err


def test_texts_are_told_to_the_detector_and_name_the_categories(infer, monkeypatch):
    """With a stub of one: a text needs transformers."""
    told = []

    def named(self, text, custom_entities, *_):
        return None, None, None, list(text)

    def noted(self, loaded):
        told.extend(one['data_samples'].text for one in loaded)
        return detect(self, loaded)

    detect = SNIPERInferencer.detect
    monkeypatch.setattr(PyramidDetector, 'get_tokens_positive_and_prompts', named, raising=False)
    monkeypatch.setattr(SNIPERInferencer, 'detect', noted)
    _, known = infer('pyramid', '--texts', 'ring . disc . dog . cat', '--custom-entities')
    assert told == [('ring', 'disc', 'dog', 'cat')] * 3
    assert [item['name'] for item in known['categories']] == ['ring', 'disc', 'dog', 'cat']
    told.clear()
    infer('pyramid')  # the classes of the config, other results than those above
    assert told == [('disc', 'ring', 'square', 'cross')] * 3


def test_nothing_is_said_that_no_user_can_do_anything_about(images, checkpoint, tmp_path):
    tool = [sys.executable, ROOT / 'tools' / 'infer.py', images / 'below', AUTOFOCUS, checkpoint]
    options = ['--out-dir', tmp_path / 'out', '--no-pictures', '--mode', 'single']
    done = subprocess.run(
        [str(part) for part in (*tool, *options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )
    assert 'detections of 1 image in' in done.stdout
    assert 'pkg_resources' not in done.stdout
    assert 'Failed to search registry' not in done.stdout


# Nothing is lost ----------------------------------------------------------------------------------


def test_bad_files_are_named_and_the_others_done_and_tried_again(
    infer, images, tmp_path, monkeypatch, capsys
):
    good = (images / 'b.png').read_bytes()
    (images / 'b.png').write_text('no image')
    (images / 'cut.jpg').write_bytes((images / 'a.jpg').read_bytes()[:500])
    (images / 'empty.jpg').touch()
    message = error_of(infer)
    assert message.startswith('3 images could not be done')
    assert "  b.png: It is text, not an image, and begins with 'no image'" in message
    assert '  cut.jpg: It is a JPEG that is cut short' in message
    assert '  empty.jpg: It is empty (0 bytes)' in message
    assert 'or take it out of the images' in message
    assert str(images / 'cut.jpg') in capsys.readouterr().err
    found, listed = read(tmp_path / 'out')
    assert [(image['id'], image['file_name']) for image in listed['images']] == [
        (1, 'a.jpg'),
        (3, 'below/c.png'),
    ]
    assert {item['image_id'] for item in found} == {1, 3}

    (images / 'b.png').write_bytes(good)
    names = count_detected(monkeypatch)
    assert error_of(infer).startswith('2 images could not be done')
    assert names == ['b.png', 'cut.jpg', 'empty.jpg']
    _, listed = read(tmp_path / 'out')
    assert [image['file_name'] for image in listed['images']] == ['a.jpg', 'b.png', 'below/c.png']


def test_a_picture_that_fails_is_named_and_its_detections_are_kept(
    infer, tmp_path, monkeypatch, capsys
):
    whole, listed = infer('pyramid')
    draw = Pictures.draw

    def failing(self, name, *args):
        if name == 'b.png':
            raise RuntimeError('no room for it')
        draw(self, name, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Pictures, 'draw', failing)
        message = error_of(infer, 'pyramid', pictures=True)
    assert message.startswith('1 picture could not be drawn, but what was detected is in det')
    assert message.endswith('  b.png: RuntimeError: no room for it')
    assert 'b.png: no picture: RuntimeError: no room for it' in capsys.readouterr().err
    assert read(tmp_path / 'out') == [whole, listed]
    assert (tmp_path / 'out' / 'vis' / 'a.jpg').is_file()
    # The same command draws it.
    names = count_detected(monkeypatch)
    assert infer('pyramid', pictures=True) == [whole, listed]
    assert names == ['b.png']
    assert (tmp_path / 'out' / 'vis' / 'b.png').is_file()


def test_odd_images_are_detected_and_a_video_is_told(infer, images, tmp_path):
    noise = cv2.imread(str(images / 'b.png'))
    cv2.imwrite(str(images / 'alpha.PNG'), np.dstack([noise, noise[..., 0]]))
    Image.fromarray(noise).convert('CMYK').save(images / 'cmyk.jpg')
    name = os.fsdecode('größe.png'.encode('latin-1'))  # no UTF-8
    (images / name).write_bytes((images / 'b.png').read_bytes())
    clip = images / 'clip.avi'
    video = cv2.VideoWriter(str(clip), cv2.VideoWriter_fourcc(*'MJPG'), 5, (150, 100))
    video.write(noise)
    video.release()
    message = error_of(infer, inputs=[images, clip], pictures=True)
    assert message.startswith('1 image could not be done')
    assert '  clip.avi: It is a video (AVI), not an image: cut it into images first' in message
    _, listed = read(tmp_path / 'out')
    assert [image['file_name'] for image in listed['images']] == [
        'a.jpg',
        'alpha.PNG',
        'b.png',
        'below/c.png',
        'cmyk.jpg',
        'gr\\xf6\\xdfe.png',
    ]
    assert (tmp_path / 'out' / 'vis' / name).is_file()


def test_an_interrupted_run_goes_on_where_it_was(infer, tmp_path, monkeypatch):
    whole = infer(out=tmp_path / 'whole')
    assert not (tmp_path / 'whole' / 'progress.jsonl').exists()
    with monkeypatch.context() as patch:
        count_detected(patch, stop_at='c.png')
        with pytest.raises(KeyboardInterrupt):
            infer()
    assert not (tmp_path / 'out' / 'detections.json').exists()
    names = count_detected(monkeypatch)
    assert infer() == whole
    assert names == ['c.png']
    assert files_in(tmp_path / 'out') == files_in(tmp_path / 'whole')


@pytest.mark.parametrize('change', ['settings', 'config', 'weights', 'image', 'picture', 'line'])
def test_what_no_longer_holds_is_done_again(
    infer, images, checkpoint, tmp_path, monkeypatch, change
):
    weights, pictures = tmp_path / 'weights.pth', change == 'picture'
    shutil.copy(checkpoint, weights)
    with monkeypatch.context() as patch:
        count_detected(patch, stop_at='c.png')
        with pytest.raises(KeyboardInterrupt):
            infer(weights=weights, pictures=pictures)
    options, cfg_options, again = [], [], ['a.jpg', 'b.png', 'c.png']
    if change == 'settings':
        options = ['--thresholds', '0.7']
    elif change == 'config':
        cfg_options = ['model.edge=5']
    elif change == 'weights':
        weights.touch()
    elif change == 'image':
        cv2.imwrite(str(images / 'b.png'), np.zeros((70, 80, 3), np.uint8))
        again = ['b.png', 'c.png']
    elif change == 'picture':
        (tmp_path / 'out' / 'focus' / 'a.jpg.png').unlink()
        again = ['a.jpg', 'c.png']
    elif change == 'line':  # as a killed process leaves it
        file = tmp_path / 'out' / 'progress.jsonl'
        file.write_bytes(file.read_bytes()[:-20])
        again = ['b.png', 'c.png']
    names = count_detected(monkeypatch)
    same = dict(weights=weights, cfg_options=cfg_options)
    results = infer(None, *options, pictures=pictures, **same)
    assert names == again
    assert results == infer(None, *options, out=tmp_path / 'fresh', **same)


def test_what_is_added_after_a_line_that_was_cut_short_can_be_read_again(progress_of, tmp_path):
    path, run, image = tmp_path / 'progress.jsonl', dict(mode='pyramid'), tmp_path / 'image'
    image.write_text('pixels')
    progress = progress_of(path, run)
    for name in 'ab':
        progress.add(name, image, dict(width=1))
    path.write_bytes(path.read_bytes()[:-5])
    progress_of(path, run).add('c', image, dict(width=3))
    again = progress_of(path, run)
    assert [(line['name'], line['width']) for line in again.lines('abc')] == [('a', 1), ('c', 3)]


def test_an_image_that_finds_no_room_leaves_those_before_it_whole(progress_of, tmp_path):
    def room(number):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (number, most))

    run, path = dict(mode='pyramid'), tmp_path / 'progress.jsonl'
    now, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.getsignal(signal.SIGXFSZ)
    progress = progress_of(path, run)
    progress.add('a', path, dict(detections=[1]))
    size = path.stat().st_size
    try:
        room(size + 20)
        with pytest.raises(OSError, match='It has the 1 images that were detected before b'):
            progress.add('b', path, dict(detections=list(range(100))))
    finally:
        room(now)
        signal.signal(signal.SIGXFSZ, before)
    assert path.stat().st_size == size
    progress_of(path, run).add('b', path, dict(detections=[2]))
    lines = progress_of(path, run).lines(['a', 'b'])
    assert [line['detections'] for line in lines] == [[1], [2]]


def test_a_file_of_something_else_in_the_place_of_the_progress_is_replaced(progress_of, tmp_path):
    path = tmp_path / 'progress.jsonl'
    path.write_text('no JSON\nat all\n')
    progress_of(path, dict(mode='pyramid'))
    assert path.read_text() == '{"mode": "pyramid"}\n'


def test_images_in_batches_and_ahead_give_the_same(infer, images, tmp_path, monkeypatch):
    whole = infer('pyramid', out=tmp_path / 'whole')
    sizes, detect = [], SNIPERInferencer.detect

    def counted(self, loaded):
        sizes.append(len(loaded))
        return detect(self, loaded)

    monkeypatch.setattr(SNIPERInferencer, 'detect', counted)
    (images / 'a0.jpg').write_text('no image')
    options = ['--batch-size', '2', '--read-ahead', '0']
    assert error_of(infer, 'pyramid', *options).startswith('1 image could not be done')
    assert sizes == [2, 1]
    found, listed = read(tmp_path / 'out')
    assert [image['file_name'] for image in listed['images']] == ['a.jpg', 'b.png', 'below/c.png']
    boxes = [[one[key] for one in found] for key in ('bbox', 'score')]
    expected = [[one[key] for one in whole[0]] for key in ('bbox', 'score')]
    np.testing.assert_allclose(boxes[0], expected[0], atol=1e-2)
    np.testing.assert_allclose(boxes[1], expected[1], atol=1e-4)
    # Large images go alone.
    sizes.clear()
    monkeypatch.setattr('mmsniper.apis.images.LARGE_BYTES', 0)
    error_of(infer, 'pyramid', '--batch-size', '2', out=tmp_path / 'alone')
    assert sizes == [1, 1, 1]


def test_an_image_that_fails_in_a_batch_leaves_the_others(infer, tmp_path, monkeypatch):
    detect = SNIPERInferencer.detect

    def failing(self, loaded):
        if any(one['data_samples'].img_path.endswith('b.png') for one in loaded):
            raise MemoryError('too much')
        return detect(self, loaded)

    monkeypatch.setattr(SNIPERInferencer, 'detect', failing)
    message = error_of(infer, 'pyramid', '--batch-size', '3')
    assert message.endswith('  b.png: MemoryError: too much')
    _, listed = read(tmp_path / 'out')
    assert [image['file_name'] for image in listed['images']] == ['a.jpg', 'below/c.png']


def test_no_images_done_is_an_empty_result(infer, images, tmp_path):
    for path in images.rglob('*.*'):
        path.write_text('no image')
    assert error_of(infer).startswith('3 images could not be done')
    found, listed = read(tmp_path / 'out')
    assert (found, listed['images']) == ([], [])


# Pictures -----------------------------------------------------------------------------------------


def test_pictures_of_large_images_are_reduced_and_results_are_not(infer, tmp_path):
    whole, _ = infer('pyramid')
    assert files_in(tmp_path / 'out') == ['detections.json', 'images.json']
    found, listed = infer('pyramid', '--picture-side', '100', pictures=True)
    assert found == whole
    assert listed['images'][0]['width'] == 250
    assert cv2.imread(str(tmp_path / 'out' / 'vis' / 'a.jpg')).shape == (68, 100, 3)
    assert cv2.imread(str(tmp_path / 'out' / 'vis' / 'below' / 'c.png')).shape == (90, 60, 3)


def test_detections_are_drawn_where_they_are_if_their_score_is_enough(tmp_path):
    classes = Classes(['cat'], [1], [(255, 0, 0)], '')
    found = InstanceData(
        bboxes=torch.tensor([[40.0, 40, 160, 120], [200, 40, 300, 120]]),
        labels=torch.tensor([0, 0]),
        scores=torch.tensor([0.9, 0.3]),
    )
    picture = np.zeros((100, 200, 3), np.uint8)  # the image is twice as large
    sample = DetDataSample(metainfo=dict(ori_shape=(200, 400)), pred_instances=found)
    Pictures(tmp_path, classes, score_thr=0.5).draw('x.tif', sample, picture)
    drawn = cv2.imread(str(tmp_path / 'vis' / 'x.tif.png')).astype(int)
    assert drawn.shape == (100, 200, 3)
    assert drawn[50, 78:83, 2].max() > 150  # red, at the right edge of the first
    assert drawn[50, 78:83, :2].max() < 50
    assert drawn[:, 90:].max() < 20
    assert picture.max() == 0


def test_a_label_that_has_no_name_is_drawn(tmp_path):
    classes = Classes([], range(0), 'random', '')
    found = InstanceData(
        bboxes=torch.tensor([[4.0, 4, 16, 12]]),
        labels=torch.tensor([2]),
        scores=torch.tensor([0.9]),
    )
    sample = DetDataSample(metainfo=dict(ori_shape=(20, 40)), pred_instances=found)
    picture = np.zeros((20, 40, 3), np.uint8)
    Pictures(tmp_path, classes, score_thr=0.5).draw('x.png', sample, picture)
    assert cv2.imread(str(tmp_path / 'vis' / 'x.png')).max() > 0


def test_images_come_first_and_options_anywhere(tool):
    args = tool.parse_args(['a', 'b', '--mode', 'pyramid', 'c.py', 'd.pth', '--out-dir', 'o'])
    assert (args.images, args.config, args.checkpoint) == (['a', 'b'], 'c.py', 'd.pth')
    assert tool.parse_args(['a', 'c.py', 'd.pth', '--out-dir', 'o']).mode is None
    for wrong in (['--picture-side', '0'], ['--mode', 'whole']):
        with pytest.raises(SystemExit):
            tool.parse_args(['a', 'c.py', 'd.pth', '--out-dir', 'o', *wrong])


def test_mmdetections_inferencer_detects_the_same_and_draws_it(infer, images, checkpoint, tmp_path):
    """From a file, and from an array as applications have it; by the config of the work folder."""
    dumped = tmp_path / 'config.py'
    load_config(AUTOFOCUS).dump(dumped)
    detections, known = infer()
    (number,) = (image['id'] for image in known['images'] if image['file_name'].endswith('a.jpg'))
    ours = [one for one in detections if one['image_id'] == number]
    inferencer = DetInferencer(str(dumped), str(checkpoint), device='cpu', show_progress=False)
    path = str(images / 'a.jpg')
    for image, folder in ((path, tmp_path / 'drawn'), (cv2.imread(path), None)):
        (theirs,) = inferencer(image, out_dir=str(folder or ''))['predictions']
        assert len(theirs['scores']) == len(ours) > 0
        x1, y1, x2, y2 = np.array(theirs['bboxes']).T
        boxes = np.stack([x1, y1, x2 - x1, y2 - y1], axis=1)
        assert np.abs(boxes - [one['bbox'] for one in ours]).max() < 0.01
        assert np.abs(np.array(theirs['scores']) - [one['score'] for one in ours]).max() < 1e-4
    assert (tmp_path / 'drawn' / 'vis' / 'a.jpg').exists()


def test_the_test_tool_draws_what_an_autofocus_finds(images, checkpoint, tmp_path):
    """`tools/test.py --show-dir`, with the ground truth beside the detections."""
    classes = load_config(AUTOFOCUS).val_dataloader.dataset.metainfo.classes
    annotations = dict(
        images=[dict(id=1, file_name='a.jpg', width=250, height=170)],
        annotations=[
            dict(id=1, image_id=1, category_id=3, bbox=[9, 9, 50, 40], area=2000, iscrowd=0)
        ],
        categories=[dict(id=i, name=name) for i, name in enumerate(classes)],
    )
    path = tmp_path / 'val.json'
    path.write_text(json.dumps(annotations))
    data = 'test_dataloader.dataset.'
    # A process of its own: visualizers live as long as their process, under their names.
    subprocess.run(
        [
            sys.executable,
            str(ROOT / 'tools' / 'test.py'),
            str(AUTOFOCUS),
            str(checkpoint),
            '--work-dir',
            str(tmp_path / 'work'),
            '--show-dir',
            'seen',
            '--cfg-options',
            f'{data}ann_file={path}',
            f'{data}data_root={images}/',
            f'{data}data_prefix.img=',
            f'test_evaluator.ann_file={path}',
            'test_dataloader.num_workers=0',
            'test_dataloader.persistent_workers=False',
        ],
        check=True,
    )
    assert len(list((tmp_path / 'work').rglob('seen/a.jpg'))) == 1
