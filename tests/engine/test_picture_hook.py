"""Pictures of tests, on images of any bands and depth, and of what a training sees."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import LoadImageFromFile
from mmdet.structures import DetDataSample
from mmdet.visualization import DetLocalVisualizer
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.structures import InstanceData
from mmengine.visualization import LocalVisBackend, TensorboardVisBackend
from negative_pools import pool_of
from small_tiff import scene, tiff_bytes

from mmsniper.chips import (
    NEGATIVE,
    POSITIVE,
    AnnotationTable,
    ChipPlan,
    ScalePyramid,
    plan_negative_chips,
)
from mmsniper.datasets import Chip, LoadLargeImageFromFile
from mmsniper.engine import PictureHook, picture_hook
from mmsniper.visualization.chips import PROPOSAL, draw_chip_views


@pytest.fixture
def hook():
    """The hook, drawing; a visualizer is a process's under its name."""
    visualizer = DetLocalVisualizer.get_instance('test_picture_hook')
    visualizer.dataset_meta = dict(classes=('a',), palette=[(255, 0, 0)])
    return PictureHook(draw=True, test_out_dir='seen', interval=2)


@pytest.fixture
def runner(tmp_path):
    def make(**options):
        loader = options.pop('loader', LoadImageFromFile)(**options)
        read = SimpleNamespace(pipeline=Compose([loader]))
        data = SimpleNamespace(dataset=SimpleNamespace(datasets=[read, None]))  # concatenated
        return SimpleNamespace(
            work_dir=str(tmp_path),
            timestamp='now',
            iter=4,
            test_dataloader=data,
            val_dataloader=data,
        )

    return make


def sample(path, score=0.9):
    found = InstanceData(
        bboxes=torch.tensor([[10.0, 10, 30, 20]]),
        labels=torch.tensor([0]),
        scores=torch.tensor([score]),
    )
    return DetDataSample(metainfo=dict(img_path=str(path)), pred_instances=found)


@pytest.mark.parametrize('loader', [LoadImageFromFile, LoadLargeImageFromFile])
@pytest.mark.parametrize('bands', [0, 4])
def test_twelve_bits_are_drawn_visibly(hook, runner, tmp_path, loader, bands):
    path = tmp_path / 'x.tif'
    path.write_bytes(tiff_bytes(scene(60, 80, bands, 'u2', 4095)))
    run = runner(loader=loader, color_type='unchanged')
    hook.before_test(run)
    hook.after_test_iter(run, 0, {}, [sample(path)])
    drawn = cv2.imread(str(tmp_path / 'now' / 'seen' / 'x.tif.png'))
    assert drawn.shape == (60, 160, 3)  # the ground truth, of which there is none, and beside it
    drawn = drawn[:, 80:]
    assert 100 < drawn[30:].mean() < 155
    assert (drawn[30:, :, 0] == drawn[30:, :, 1]).all() == (bands == 0)
    assert drawn[10, 10:30, 2].min() > drawn[10, 10:30, 1].max()  # the box, red


def test_what_cannot_be_drawn_is_told_and_the_others_are_drawn(hook, runner, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(picture_hook, 'print_log', lambda text, **_: said.append(text))
    (tmp_path / 'bands.tif').write_bytes(tiff_bytes(scene(60, 80, 8, 'u2', 4095)))
    cv2.imwrite(str(tmp_path / 'x.jpg'), np.full((60, 80, 3), 128, np.uint8))
    run = runner()
    hook.before_test(run)
    outputs = [sample(tmp_path / name) for name in ('bands.tif', 'missing.png', 'x.jpg')]
    hook.after_test_iter(run, 0, {}, outputs)
    assert [path.name for path in (tmp_path / 'now' / 'seen').iterdir()] == ['x.jpg']
    assert len(said) == 2
    assert 'bands.tif cannot be drawn: ImageDecodingError' in said[0]
    assert 'tifffile' in said[0]
    assert 'missing.png cannot be drawn: FileNotFoundError' in said[1]


def test_in_validation_the_first_image_of_some_batches(hook, runner, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        hook._visualizer,
        'add_datasample',
        lambda name, image, step, **_: drawn.append((name, step)),
    )
    cv2.imwrite(str(tmp_path / 'x.png'), np.zeros((60, 80, 3), np.uint8))
    for batch in range(4):
        hook.after_val_iter(runner(), batch, {}, [sample(tmp_path / 'x.png')] * 2)
    assert drawn == [('val_img', 4), ('val_img', 6)]
    hook.draw = False
    hook.after_val_iter(runner(), 0, {}, [sample(tmp_path / 'x.png')])
    hook.after_test_iter(runner(), 0, {}, [sample(tmp_path / 'x.png')])
    assert len(drawn) == 2


def test_the_test_tool_takes_it_for_the_stock_one(load_tool):
    tool = load_tool('test')
    for kind, wanted in (('DetVisualizationHook', 'PictureHook'), ('MyHook', 'MyHook')):
        cfg = Config(dict(default_hooks=dict(visualization=dict(type=kind, draw=True))))
        tool.draw_any_image(cfg)
        assert cfg.default_hooks.visualization == dict(type=wanted, draw=True)


def chip_sample(level, kind=POSITIVE, path='x.png'):
    metainfo = dict(level=level, homography_matrix=np.eye(3, dtype=np.float32), img_path=path)
    return DetDataSample(metainfo=dict(metainfo, chip=Chip(level, (0, 0, 16, 16), kind)))


def batch_of(*samples):
    return dict(
        inputs=[torch.zeros(3, 16, 16, dtype=torch.uint8)] * len(samples),
        data_samples=list(samples),
    )


@pytest.fixture
def epoch(tmp_path):
    """Run a hook through an epoch of batches."""

    def run(hook, batches, record=None):
        hub = SimpleNamespace(runtime_info=dict(negative_chips=record))
        state = SimpleNamespace(iter=10, work_dir=str(tmp_path), message_hub=hub)
        hook.before_train_epoch(state)
        for i, batch in enumerate(batches):
            hook.before_train_iter(state, i, batch)
            state.iter += 1
        hook.after_train_epoch(state)

    return run


@pytest.fixture
def training(epoch, monkeypatch):
    """Run a hook through an epoch; the names, heights and steps of its pictures."""

    def run(hook, batches, record=None):
        pictures = []

        def add_image(name, image, step):
            pictures.append((name, len(image), step))

        monkeypatch.setattr(hook._visualizer, 'add_image', add_image)
        epoch(hook, batches, record)
        return pictures

    return run


def test_an_epoch_has_one_picture_of_each_level_and_kind(hook, training):
    batch = batch_of(chip_sample(0), chip_sample(0), chip_sample(1), chip_sample(0, NEGATIVE))
    names = ['negative_chips/level_0', 'train_chips/level_0', 'train_chips/level_1']
    assert [(name, step) for name, _, step in training(hook, [batch] * 3)] == [
        (name, 13)
        for name in names  # at the end of a short epoch
    ]
    hook.chip_iters = 2
    assert [(name, step) for name, _, step in training(hook, [batch] * 9)] == [
        (name, 11) for name in names
    ]


@pytest.mark.parametrize(('chips', 'rows'), [(1, 1), (2, 1), (3, 2), (7, 3)])
def test_a_picture_has_so_many_chips_at_most(hook, training, chips, rows):
    hook.chips = chips
    ((_, height, _),) = training(hook, [batch_of(*[chip_sample(0)] * 3)] * 4)
    assert height == rows * (16 * 13 + 24) + 36


def test_inputs_that_are_made_for_no_level_are_not_drawn(hook, training):
    assert training(hook, [batch_of(DetDataSample())]) == []


def test_nothing_is_collected_when_nothing_is_to_be_drawn(hook, training, monkeypatch):
    monkeypatch.setattr(hook, '_collect', pytest.fail)
    hook.draw = False
    assert training(hook, [batch_of(chip_sample(0))]) == []
    hook.draw = True
    monkeypatch.setattr(picture_hook, 'is_main_process', lambda: False)
    assert training(hook, [batch_of(chip_sample(0))]) == []


def test_chips_that_cannot_be_drawn_are_told_once_and_the_training_goes_on(
    hook, training, monkeypatch
):
    said = []
    monkeypatch.setattr(picture_hook, 'print_log', lambda text, **_: said.append(text))
    good = batch_of(chip_sample(0))
    assert [name for name, *_ in training(hook, [good, {}, {}])] == ['train_chips/level_0']
    assert said == ["the picture of training chips cannot be drawn: KeyError: 'inputs'"]
    assert len(training(hook, [good])) == 1


def test_negative_chips_are_drawn_with_what_they_were_mined_for(
    hook, training, tmp_path, monkeypatch
):
    pyramid = ScalePyramid(64, [dict(resize=dict(factor=1.0), valid_range=(0, None))])
    table = AnnotationTable.from_images([(90, 70, [[1, 2, 9, 10], [3, 4, 15, 16]], None)])
    found = plan_negative_chips(table, ChipPlan.empty(), pyramid, 1)
    pool_of(pyramid, ['x.png'], table, found).save(tmp_path / 'pool.npz')
    views = []
    monkeypatch.setattr(
        picture_hook, 'draw_chip_views', lambda of: views.append(of) or draw_chip_views(of)
    )
    batch = batch_of(chip_sample(0, NEGATIVE), chip_sample(0, NEGATIVE, 'y.png'), chip_sample(0))
    training(hook, [batch], dict(file='pool.npz'))
    (here, elsewhere), (positive,) = views
    assert here.boxes.tolist() == [[1, 2, 9, 10], [3, 4, 15, 16]]
    assert here.states.tolist() == [PROPOSAL] * 2
    assert len(elsewhere.boxes) == len(positive.boxes) == 0
    training(hook, [batch], dict(file='gone.npz'))
    assert len(views[2][0].boxes) == 0


def test_a_pool_that_cannot_be_read_is_told_and_its_chips_are_drawn(
    hook, training, tmp_path, monkeypatch
):
    said = []
    monkeypatch.setattr(picture_hook, 'print_log', lambda text, **_: said.append(text))
    (tmp_path / 'pool.npz').write_bytes(b'no')
    assert len(training(hook, [batch_of(chip_sample(0, NEGATIVE))], dict(file='pool.npz'))) == 1
    assert len(said) == 1
    assert 'proposals in negative chips' in said[0]


def two_levels(path):
    found = InstanceData(
        bboxes=torch.tensor([[10.0, 10, 30, 20], [40.0, 30, 70, 50], [1.0, 1, 5, 5]]),
        labels=torch.tensor([0, 0, 0]),
        scores=torch.tensor([0.9, 0.9, 0.1]),
        levels=torch.tensor([1, 0, 1]),
    )
    return DetDataSample(metainfo=dict(img_path=str(path)), pred_instances=found)


@pytest.fixture
def local(hook, tmp_path, monkeypatch):
    """The folder to which MMDetection's default backend writes."""
    backend = LocalVisBackend(save_dir=str(tmp_path / 'vis'))
    monkeypatch.setattr(hook._visualizer, '_vis_backends', dict(local=backend))
    return tmp_path / 'vis' / 'vis_image'


def reds(path):
    """Columns and rows within which a picture has pixels that are red."""
    bgr = cv2.imread(str(path)).astype(int)
    y, x = np.nonzero((bgr[..., 2] > 180) & (bgr[..., :2] < 80).all(axis=2))
    return [x.min(), y.min(), x.max(), y.max()]


@pytest.mark.parametrize('name', ['val_img', 'test_img'])
def test_each_level_has_a_picture_of_what_it_has_found(hook, runner, tmp_path, local, name):
    cv2.imwrite(str(tmp_path / 'x.png'), np.full((60, 80, 3), 128, np.uint8))
    hook.test_out_dir = None
    hook._test_index = 3
    run = runner()
    after = hook.after_val_iter if name == 'val_img' else hook.after_test_iter
    after(run, 0, {}, [two_levels(tmp_path / 'x.png')])
    step = 4
    pictures = sorted(str(path.relative_to(local)) for path in local.rglob('*.png'))
    levels = [f'{name}/level_{level}_{step}.png' for level in (0, 1)]
    assert pictures == [*levels, f'{name}_{step}.png']
    for path, box in zip(levels, ([40, 30, 70, 50], [10, 10, 30, 20])):
        np.testing.assert_allclose(reds(local / path), box, atol=4)


def test_pictures_for_a_folder_are_not_multiplied_by_the_levels(hook, runner, tmp_path, local):
    cv2.imwrite(str(tmp_path / 'x.png'), np.full((60, 80, 3), 128, np.uint8))
    run = runner()
    hook.before_test(run)
    hook.after_test_iter(run, 0, {}, [two_levels(tmp_path / 'x.png')])
    assert [path.name for path in (tmp_path / 'now' / 'seen').rglob('*.*')] == ['x.png']
    assert not local.exists()


def test_processes_without_backends_load_no_image(hook, runner, tmp_path, monkeypatch):
    monkeypatch.setattr(picture_hook, 'is_main_process', lambda: False)
    monkeypatch.setattr(picture_hook, '_load', pytest.fail)
    hook.after_val_iter(runner(), 0, {}, [sample(tmp_path / 'missing.png')])


@pytest.mark.parametrize('wrong', [dict(chips=0), dict(chip_iters=1.5)])
def test_numbers_that_are_none_are_refused(hook, wrong):
    with pytest.raises(ValueError, match=f'{next(iter(wrong))} must be a whole number'):
        PictureHook(**wrong)


def test_local_files_are_written_into_a_folder_of_each_kind(hook, epoch, local):
    epoch(hook, [batch_of(chip_sample(0), chip_sample(1))])
    written = sorted(str(path.relative_to(local)) for path in local.rglob('*.png'))
    assert written == [f'train_chips/level_{level}_11.png' for level in (0, 1)]


def test_tensorboard_has_the_pictures(hook, epoch, runner, tmp_path, monkeypatch):
    pytest.importorskip('tensorboard')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    backend = TensorboardVisBackend(save_dir=str(tmp_path / 'events'))
    monkeypatch.setattr(hook._visualizer, '_vis_backends', dict(tensorboard=backend))
    epoch(hook, [batch_of(chip_sample(0), chip_sample(1, NEGATIVE))])
    cv2.imwrite(str(tmp_path / 'x.png'), np.full((60, 80, 3), 128, np.uint8))
    hook.after_val_iter(runner(), 0, {}, [two_levels(tmp_path / 'x.png')])
    backend.close()
    events = EventAccumulator(str(tmp_path / 'events')).Reload()
    levels = ['train_chips/level_0', 'negative_chips/level_1', 'val_img/level_0', 'val_img/level_1']
    assert set(events.Tags()['images']) == {'val_img', *levels}
    (picture,) = events.Images('train_chips/level_0')
    drawn = cv2.imdecode(np.frombuffer(picture.encoded_image_string, np.uint8), cv2.IMREAD_COLOR)
    assert (picture.step, drawn.shape) == (11, (36 + 24 + 208, 9 + 208 + 9, 3))
