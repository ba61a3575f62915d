"""infer.py detects in image files, in three ways, and loses nothing."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.apis import DetInferencer, inference_detector
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import Config, ConfigDict
from mmengine.hub import get_config
from mmengine.structures import InstanceData
from pycocotools.coco import COCO

from mmsniper.apis import SNIPERInferencer, find_images
from mmsniper.apis.images import pack_as_it_is
from mmsniper.apis.modes import mode_config
from mmsniper.apis.pictures import Pictures
from mmsniper.apis.results import Classes
from mmsniper.convert import load_config
from mmsniper.testing import CLASSES

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


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """Weights of the AutoFocus config, at random, but the same every time."""
    register_all_modules()
    torch.manual_seed(0)
    model = MODELS.build(load_config(AUTOFOCUS).model)
    with torch.no_grad():  # scores and FocusPixels that differ from place to place
        model.detector.roi_head.bbox_head.fc_cls.weight.mul_(30)
        model.focus_head.cls.weight.mul_(30)
    path = tmp_path_factory.mktemp('weights') / 'autofocus.pth'
    torch.save(dict(state_dict=model.state_dict(), meta={}), path)
    return path


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
        mode='autofocus',
        *options,
        config=AUTOFOCUS,
        inputs=(images,),
        out=tmp_path / 'out',
        cfg_options=(),
        weights=checkpoint,
        pictures=False,
    ):
        options = [*options, *([] if pictures else ['--no-pictures'])]
        tool.main(
            [
                *map(str, inputs),
                str(config),
                str(weights),
                '--mode',
                mode,
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
    """Names of the images that are detected from now on; the run dies at ``stop_at``."""
    names, detect = [], SNIPERInferencer.detect

    def counted(self, path, picture_side):
        if path.name == stop_at:
            raise KeyboardInterrupt
        names.append(path.name)
        return detect(self, path, picture_side)

    monkeypatch.setattr(SNIPERInferencer, 'detect', counted)
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


def test_nothing_to_detect_is_said_before_anything_is_loaded(infer, tmp_path):
    assert 'nowhere does not exist' in error_of(infer, inputs=[tmp_path / 'nowhere'])
    (tmp_path / 'empty').mkdir()
    message = error_of(infer, inputs=[tmp_path / 'empty'], weights='no.pth')
    assert 'there are no images in' in message
    assert '.jpg' in message


# Modes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize('config', [AUTOFOCUS, SNIPER], ids=['autofocus', 'sniper'])
@pytest.mark.parametrize('mode', ['single', 'pyramid', 'autofocus'])
def test_every_mode_works_with_autofocus_and_sniper_configs(
    infer, annotations, tmp_path, mode, config
):
    # Pictures take the most time by far.
    infer(mode, config=config, cfg_options=[annotations], pictures=config == AUTOFOCUS)
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
    if mode == 'autofocus':
        made += [f'focus/{name}.png' for name in names]
    assert files_in(tmp_path / 'out') == sorted(made)
    assert all(('focus_chips' in image) == (mode == 'autofocus') for image in coco.imgs.values())


@pytest.mark.parametrize('config', [AUTOFOCUS, SNIPER], ids=['autofocus', 'sniper'])
def test_autofocus_that_looks_everywhere_is_the_pyramid(infer, tmp_path, config):
    whole, _ = infer('pyramid', config=config, out=tmp_path / 'pyramid')
    focus, images = infer('autofocus', '--thresholds', '0', config=config, out=tmp_path / 'focus')
    assert focus == whole
    assert images['images'][0]['focus_chips'] == [[[0, 0, 250, 170]]] * 3
    sides = [(250, 170), (100, 68), (50, 34)]
    assert images['images'][0]['focus_pixels'] == sum(w * h for w, h in sides)


def test_thresholds_can_be_set_and_chips_are_told_fine_to_coarse(infer):
    _, images = infer('autofocus', '--thresholds', '1.1')
    assert images['images'][0]['focus_chips'] == [[], [], [[0, 0, 250, 170]]]
    assert images['images'][0]['focus_pixels'] == 50 * 34
    _, images = infer('autofocus', '--thresholds', '0', '1.1')
    assert images['images'][0]['focus_chips'] == [[]] + [[[0, 0, 250, 170]]] * 2
    _, images = infer(cfg_options=['model.thresholds=(1.1,0)'])
    assert images['images'][0]['focus_chips'] == [[], [], [[0, 0, 250, 170]]]
    assert 'each of the 2 steps' in error_of(infer, 'autofocus', '--thresholds', '0', '0', '0')
    error_of(infer, 'single', '--thresholds', '0')


def test_single_is_mmdetections_inference_by_the_validation_pipeline(infer, images, checkpoint):
    found, _ = infer('single')
    cfg = load_config(AUTOFOCUS)
    model = SNIPERInferencer(cfg, checkpoint, 'single', device='cpu').model
    model.cfg = cfg
    from mmcv.transforms import Compose

    expected = inference_detector(
        model, str(images / 'a.jpg'), Compose(cfg.val_dataloader.dataset.pipeline)
    ).pred_instances
    mine = [item for item in found if item['image_id'] == 1]
    assert len(mine) == len(expected) > 0
    x1, y1, x2, y2 = expected.bboxes.numpy().T
    assert np.allclose(
        [item['bbox'] for item in mine], np.stack([x1, y1, x2 - x1, y2 - y1], 1), atol=1e-3
    )
    assert np.allclose([item['score'] for item in mine], expected.scores, atol=1e-6)
    assert [item['category_id'] - 1 for item in mine] == expected.labels.tolist()


def test_without_an_annotation_file_category_ids_are_labels_from_1(infer, capsys):
    found, images = infer('single')
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


def test_a_config_without_what_the_mode_needs_names_the_modes_that_work(infer):
    message = error_of(infer, 'autofocus', config=SINGLE_SCALE)
    assert '--mode autofocus needs a model of type' in message
    assert 'With it works: --mode single' in message
    message = error_of(infer, 'pyramid', config=SINGLE_SCALE)
    assert 'needs tta_model and tta_pipeline' in message


def test_only_pipelines_that_load_files_are_taken(infer):
    message = error_of(
        infer,
        'single',
        config=SNIPER,
        cfg_options=['test_dataloader.dataset.pipeline.0.type=LoadImageFromNDArray'],
    )
    assert 'begins with LoadImageFromNDArray; image files need LoadImageFromFile' in message


def test_images_are_loaded_without_a_second_copy_and_not_copied_for_autofocus():
    _, pipeline = mode_config(load_config(AUTOFOCUS), 'autofocus')
    assert [transform.type for transform in pipeline] == ['mmdet.LoadLargeImageFromFile']
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
    plain = {
        key.removeprefix('detector.'): value
        for key, value in state.items()
        if key.startswith('detector.')
    }
    torch.save(dict(state_dict=plain), tmp_path / 'plain.pth')
    infer(config=SNIPER, weights=tmp_path / 'plain.pth')
    message = error_of(infer, 'autofocus', weights=tmp_path / 'plain.pth')
    assert 'lacks 4 of the weights' in message
    assert 'Without a FocusHead use the SNIPER config' in message
    plain['neck.fpn_convs.0.conv.bias'] = torch.zeros(3)
    torch.save(dict(state_dict=plain), tmp_path / 'other.pth')
    message = error_of(infer, 'single', weights=tmp_path / 'other.pth')
    assert 'lacks 1 of the weights' in message
    assert 'neck.fpn_convs.0.conv.bias' in message
    assert 'there is no checkpoint' in error_of(infer, weights=tmp_path / 'none.pth')


def test_masks_are_not_predicted(tmp_path):
    cfg = get_config('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py').model
    cfg.backbone.update(depth=18, base_channels=8, init_cfg=None)
    cfg.neck.update(in_channels=[8, 16, 32, 64], out_channels=8)
    cfg.rpn_head.update(in_channels=8, feat_channels=8)
    cfg.roi_head.bbox_roi_extractor.out_channels = 8
    cfg.roi_head.bbox_head.update(in_channels=8, fc_out_channels=16, num_classes=3)
    cfg.roi_head.mask_roi_extractor.out_channels = 8
    cfg.roi_head.mask_head.update(in_channels=8, conv_out_channels=8, num_classes=3, num_convs=1)
    built = MODELS.build(cfg)
    assert built.with_mask
    torch.save(dict(state_dict=built.state_dict()), tmp_path / 'mask.pth')
    pyramid = dict(chip_size=64, levels=[dict(resize=dict(factor=1.0), valid_range=(0, None))])
    wrapped = ConfigDict(type='AutoFocus', detector=cfg, pyramid=pyramid)
    loader = dict(dataset=dict(type='CocoDataset', pipeline=[dict(type='LoadImageFromFile')]))
    for config, mode in ((cfg, 'single'), (wrapped, 'autofocus')):
        whole = Config(dict(model=config, test_dataloader=loader))
        model = SNIPERInferencer(whole, tmp_path / 'mask.pth', mode, device='cpu').model
        assert not getattr(model, 'detector', model).with_mask


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
    assert all(f'  {name}: ' in message for name in ('b.png', 'cut.jpg', 'empty.jpg'))
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
    results = infer('autofocus', *options, pictures=pictures, **same)
    assert names == again
    assert results == infer('autofocus', *options, out=tmp_path / 'fresh', **same)


def test_what_is_added_after_a_line_that_was_cut_short_can_be_read_again(progress_of, tmp_path):
    path, run, image = tmp_path / 'progress.jsonl', dict(mode='single'), tmp_path / 'image'
    image.write_text('pixels')
    progress = progress_of(path, run)
    for name in 'ab':
        progress.add(name, image, dict(width=1))
    path.write_bytes(path.read_bytes()[:-5])
    progress_of(path, run).add('c', image, dict(width=3))
    again = progress_of(path, run)
    assert [(line['name'], line['width']) for line in again.lines('abc')] == [('a', 1), ('c', 3)]


def test_a_file_of_something_else_in_the_place_of_the_progress_is_replaced(progress_of, tmp_path):
    path = tmp_path / 'progress.jsonl'
    path.write_text('no JSON\nat all\n')
    progress_of(path, dict(mode='single'))
    assert path.read_text() == '{"mode": "single"}\n'


def test_no_images_done_is_an_empty_result(infer, images, tmp_path):
    for path in images.rglob('*.*'):
        path.write_text('no image')
    assert error_of(infer).startswith('3 images could not be done')
    found, listed = read(tmp_path / 'out')
    assert (found, listed['images']) == ([], [])


# Pictures -----------------------------------------------------------------------------------------


def test_pictures_of_large_images_are_reduced_and_results_are_not(infer, tmp_path):
    whole, _ = infer('single')
    assert files_in(tmp_path / 'out') == ['detections.json', 'images.json']
    found, listed = infer('single', '--picture-side', '100', pictures=True)
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
    args = tool.parse_args(['a', 'b', '--mode', 'single', 'c.py', 'd.pth', '--out-dir', 'o'])
    assert (args.images, args.config, args.checkpoint) == (['a', 'b'], 'c.py', 'd.pth')
    with pytest.raises(SystemExit):
        tool.parse_args(
            ['a', 'c.py', 'd.pth', '--mode', 'single', '--out-dir', 'o', '--picture-side', '0']
        )


def test_mmdetections_inferencer_detects_the_same_and_draws_it(infer, images, checkpoint, tmp_path):
    """From the file, and from an array as applications have it."""
    detections, known = infer()
    (number,) = (image['id'] for image in known['images'] if image['file_name'].endswith('a.jpg'))
    ours = [one for one in detections if one['image_id'] == number]
    inferencer = DetInferencer(
        load_config(AUTOFOCUS), str(checkpoint), device='cpu', show_progress=False
    )
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
    annotations = dict(
        images=[dict(id=1, file_name='a.jpg', width=250, height=170)],
        annotations=[
            dict(id=1, image_id=1, category_id=3, bbox=[9, 9, 50, 40], area=2000, iscrowd=0)
        ],
        categories=[dict(id=i, name=name) for i, name in enumerate(CLASSES)],
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
