"""Overfitting every family: which images, what stays of a config, and what counts as passed."""

import json
from copy import deepcopy
from pathlib import Path

import mmcv
import numpy as np
import pytest
import torch
from mmdet.datasets import CocoDataset
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.runner import Runner
from scripts import load_script

from harness import comparison
from harness.reduced import reduced
from harness.training_run import METRICS, RunError
from mmsniper.convert import load_config

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def script():
    return load_script('benchmarks/overfit.py')


@pytest.fixture
def data(tmp_path):
    """A COCO data set of three images with three objects each: (annotation file, image folder)."""
    classes = CocoDataset.METAINFO['classes']
    content = coco({1: 3, 2: 3, 3: 3})
    content['categories'] = [dict(id=i + 1, name=name) for i, name in enumerate(classes)]
    for image in content['images']:
        picture = np.full((image['height'], image['width'], 3), 60, np.uint8)
        mmcv.imwrite(picture, str(tmp_path / 'images' / image['file_name']))
    ann_file = tmp_path / 'annotations.json'
    ann_file.write_text(json.dumps(content))
    return ann_file, tmp_path / 'images'


@pytest.fixture
def _uncounted(monkeypatch, tmp_path):
    """Do not count an epoch's pixels, which takes a second for each config."""
    monkeypatch.setattr(comparison, 'pixels_per_epoch', lambda cfg: 1.0)
    monkeypatch.chdir(tmp_path)


def coco(numbers, crowded=()):
    """COCO annotations of images by their ids, each with so many objects of 30, 60, ... px."""
    annotations = []
    for image, number in numbers.items():
        for i in range(number):
            side = 30.0 * (i + 1)
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image,
                    category_id=i + 1,
                    bbox=[5.0, 5.0, side, side],
                    area=side**2,
                    iscrowd=int(image in crowded and i == 0),
                )
            )
    images = [dict(id=i, file_name=f'{i}.jpg', width=320, height=200) for i in numbers]
    return dict(images=images, annotations=annotations, categories=[])


def test_the_images_are_the_first_with_3_to_10_objects_and_no_crowd(script):
    content = coco({9: 3, 4: 10, 5: 2, 6: 11, 7: 4, 8: 5}, crowded=[7])
    chosen = script.choose_images(content, 2)
    assert [image['id'] for image in chosen['images']] == [4, 8]
    assert [item['image_id'] for item in chosen['annotations']] == [4] * 10 + [8] * 5
    assert [image['id'] for image in script.choose_images(content, 3)['images']] == [4, 8, 9]
    with pytest.raises(ValueError, match='only 3 of 6'):
        script.choose_images(content, 4)


def test_there_is_a_family_for_every_detector_that_has_a_coco_config(script):
    """R-101 and R-50 are one family, and the RPN on its own detects nothing."""
    there = {path.stem for path in (ROOT / 'configs' / 'sniper').glob('*_sniper.py')}
    assert set(script.FAMILIES.values()) == there - {'faster_rcnn_r101_sniper', 'rpn_r101_sniper'}
    assert set(script.SET_PREDICTION) <= set(script.FAMILIES)


@pytest.mark.parametrize('family', ['mask_rcnn', 'rtmdet', 'dino', 'faster_rcnn_mobilenetv2'])
def test_detector_pipeline_and_sampler_are_those_of_the_config(script, family, data):
    cfg = script.overfit_config(family, *data, epochs=10)
    whole = load_config(ROOT / script.path_of(family))
    theirs = reduced(whole, script.SIZE, unfreeze=True)
    theirs.model.test_cfg = whole.model.test_cfg
    theirs.merge_from_dict(script.CHANGES.get(family, {}))

    def transforms(config):
        return [transform.type for transform in config.train_dataloader.dataset.pipeline]

    assert transforms(cfg) == transforms(theirs)
    assert cfg.train_dataloader.sampler.type == 'ChipAwareSampler'
    for part in (cfg, theirs):
        for item in script._dicts(part._cfg_dict):
            item.pop('pyramid', None)
        part.model.data_preprocessor.batch_augments[0].pop('size')
    assert cfg.model == theirs.model
    assert cfg.test_dataloader.dataset.pipeline == theirs.test_dataloader.dataset.pipeline


def test_all_families_have_one_schedule_one_pyramid_and_the_same_images(script, data):
    seen = []
    for name in ('faster_rcnn', 'fcos', 'deformable_detr'):
        cfg = script.overfit_config(name, *data, epochs=10)
        assert 'NegativeChipHook' not in [hook['type'] for hook in cfg.custom_hooks]
        pyramids = [d['pyramid'] for d in script._dicts(cfg._cfg_dict) if 'pyramid' in d]
        assert len(pyramids) >= 5
        assert all(pyramid == script.PYRAMID for pyramid in pyramids)
        assert cfg.model.data_preprocessor.batch_augments[0]['size'] == (192, 192)
        for part in ('val', 'test'):
            assert cfg[f'{part}_dataloader'].dataset.ann_file == str(data[0])
            assert cfg[f'{part}_evaluator'].ann_file == str(data[0])
        assert cfg.param_scheduler[1]['milestones'] == [8]
        keys = ('optim_wrapper', 'param_scheduler', 'train_cfg', 'randomness', 'test_dataloader')
        seen.append([cfg[key] for key in keys] + [cfg.train_dataloader.batch_size])
    assert seen[0] == seen[1] == seen[2]


def test_a_stock_config_gets_our_fragment(script, data):
    cfg = script.overfit_config('mmdet::free_anchor/freeanchor_r50_fpn_1x_coco.py', *data)
    assert cfg.model.bbox_head.type == 'SNIPERFreeAnchorRetinaHead'
    assert cfg.model.backbone.depth == 18
    assert cfg.train_dataloader.sampler.pyramid == script.PYRAMID


def test_a_config_that_counts_iterations_is_trained_by_epochs_too(script, data):
    cfg = script.overfit_config('mask2former', *data, epochs=10)
    assert cfg.train_cfg == dict(type='EpochBasedTrainLoop', max_epochs=10, val_interval=10)
    assert cfg.default_hooks.checkpoint.by_epoch
    assert cfg.log_processor.by_epoch


@pytest.mark.parametrize('family', ['mask_rcnn', 'fcos'])
def test_one_scale_is_the_stock_detector_with_the_same_weights(script, family, data):
    cfg = script.overfit_config(family, *data, epochs=10)
    before = deepcopy(cfg.to_dict())
    one = script.one_scale_config(cfg)
    assert cfg.to_dict() == before
    model, stock = MODELS.build(cfg.model), MODELS.build(one.model)
    assert type(stock) is MODELS.get(cfg.model.detector)
    assert stock.state_dict().keys() == model.state_dict().keys()
    scales = [step.get('scale') for step in one.test_dataloader.dataset.pipeline]
    assert scales == [None, (1333, 800), None]
    metric = ['bbox', 'segm'] if family == 'mask_rcnn' else 'bbox'
    assert cfg.test_evaluator.metric == one.test_evaluator.metric == metric


def test_the_written_config_trains(script, data, tmp_path, monkeypatch):
    cfg = script.overfit_config('fcos', *data, epochs=1)
    script.write_config(cfg, tmp_path / 'fcos.py')
    written = Config.fromfile(tmp_path / 'fcos.py')
    assert written.model == cfg.model
    written.merge_from_dict(
        {
            'work_dir': str(tmp_path / 'work'),
            'train_dataloader.num_workers': 0,
            'train_dataloader.persistent_workers': False,
            'train_cfg.val_begin': 2,
            'val_dataloader.num_workers': 0,
            'val_dataloader.persistent_workers': False,
        }
    )
    runner = Runner.from_cfg(written)
    runner.train()
    first, last = script.loss_fall(tmp_path / 'work' / 'epoch_1.pth')
    losses = [float(v) for v in runner.message_hub.get_scalar('train/loss').data[0]]
    assert first == last == pytest.approx(np.mean(losses))


def checkpoint(path, losses):
    hub = dict(log_scalars={'train/loss': HistoryBuffer(losses, [1] * len(losses))})
    torch.save(dict(message_hub=hub), path)


def test_the_fall_of_the_loss_is_from_its_first_to_its_last_20_iterations(script, tmp_path):
    checkpoint(tmp_path / 'a.pth', [4.0] * 20 + [99.0] * 5 + [1.0] * 10 + [3.0] * 10)
    assert script.loss_fall(tmp_path / 'a.pth') == (4.0, 2.0)


def fake_execute_all(ap50s, losses=(4.0, 2.0), masks=(), masks_at_one_scale=()):
    """Stand in for ``execute_all``: leave results with the given AP50 at every level."""
    at_one_scale = {**dict.fromkeys(METRICS, 0.25), **dict(masks_at_one_scale)}

    def execute_all(contestants, jobs, console):
        for item in contestants:
            (run,) = item.runs
            if ap50s[item.name] is None:
                continue
            run.work_dir.mkdir(parents=True)
            checkpoint(run.checkpoint, [losses[0]] * 20 + [losses[1]] * 20)
            train = dict(
                epochs=1,
                iterations=40,
                train_pixels=2e6,
                train_seconds=90.0,
                train_cpu_seconds=60.0,
            )
            for stage, content in (
                ('train', train),
                ('test', {**dict.fromkeys(METRICS, 0.125), 'AP50': ap50s[item.name]} | dict(masks)),
                ('one_scale', at_one_scale),
            ):
                run.result_file(stage).write_text(json.dumps(content))
        if None in ap50s.values():
            raise RunError('out of luck')

    return execute_all


def run_script(script, data, tmp_path, *argv):
    ann_file, img_dir = data
    script.main(
        [
            *argv,
            '--images',
            '2',
            '--epochs',
            '1',
            '--ann-file',
            str(ann_file),
            '--img-dir',
            str(img_dir),
            '--work-dir',
            str(tmp_path / 'work'),
            '--out-dir',
            str(tmp_path / 'out'),
        ]
    )
    (file,) = (tmp_path / 'out').glob('*.json')
    return json.loads(file.read_text())


@pytest.mark.usefixtures('_uncounted')
def test_families_are_judged_by_ap50_and_set_prediction_by_the_fall_of_its_loss(
    script, data, tmp_path, monkeypatch
):
    ap50s = dict(fcos=0.5, atss=0.49, deformable_detr=0.0)
    monkeypatch.setattr(script, 'execute_all', fake_execute_all(ap50s))
    families = run_script(script, data, tmp_path, *ap50s)['families']
    assert [item['passed'] for item in families] == [True, False, True]
    assert [item['every_level']['AP50'] for item in families] == list(ap50s.values())
    page = (tmp_path / 'out' / 'overfit_fcos_atss_deformable_detr.md').read_text()
    cells = '0.490, 0.250 | 0.125, 0.250 | - | AP50 >= 0.5 | NO |'
    assert f'| atss | 40 | 1.0 | 4.00 to 2.00 | {cells}' in page
    assert '`python benchmarks/overfit.py fcos atss deformable_detr --images 2' in page
    assert str(tmp_path / 'work') not in page


@pytest.mark.usefixtures('_uncounted')
@pytest.mark.parametrize(('masks', 'passed'), [(0.6, True), (0.5, False)])
def test_masks_must_be_better_at_all_levels_than_at_one_scale(
    script, data, tmp_path, monkeypatch, masks, passed
):
    found = fake_execute_all(
        dict(mask_rcnn=0.9), masks={'mask AP': masks}, masks_at_one_scale={'mask AP': 0.5}
    )
    monkeypatch.setattr(script, 'execute_all', found)
    (family,) = run_script(script, data, tmp_path, 'mask_rcnn')['families']
    assert family['passed'] is passed
    page = (tmp_path / 'out' / 'overfit_mask_rcnn.md').read_text()
    assert f'| {masks:.3f}, 0.500 | AP50 >= 0.5, masks better than at one scale |' in page


@pytest.mark.usefixtures('_uncounted')
def test_any_config_file_is_judged_by_the_fall_of_its_loss(script, data, tmp_path, monkeypatch):
    mine = tmp_path / 'mine.py'
    mine.write_text(f"_base_ = '{ROOT / script.path_of('retinanet')}'")
    monkeypatch.setattr(script, 'execute_all', fake_execute_all(dict(fcos=0.5, mine=0.0)))
    families = run_script(script, data, tmp_path, 'fcos', str(mine))['families']
    assert [(item['family'], item['goal'], item['passed']) for item in families] == [
        ('fcos', 'AP50 >= 0.5', True),
        ('mine', 'loss halved', True),
    ]
    assert (tmp_path / 'out' / 'overfit_fcos_mine.md').is_file()


@pytest.mark.usefixtures('_uncounted')
def test_stock_queryinst_gives_as_many_boxes_as_it_has_queries(script, data):
    """For its masks it needs the queries of all that it gives."""
    cfg = script.overfit_config('queryinst', *data)
    assert script.one_scale_config(cfg).model.test_cfg.rcnn.max_per_img == 50
    assert cfg.model.test_cfg.rcnn.max_per_img == 100


@pytest.mark.usefixtures('_uncounted')
def test_a_loss_that_falls_by_less_than_half_fails(script, data, tmp_path, monkeypatch):
    monkeypatch.setattr(script, 'execute_all', fake_execute_all(dict(dino=1.0), (4.0, 2.1)))
    assert [f['passed'] for f in run_script(script, data, tmp_path, 'dino')['families']] == [False]


@pytest.mark.usefixtures('_uncounted')
def test_a_family_that_breaks_does_not_hide_the_others(script, data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, 'execute_all', fake_execute_all(dict(fcos=0.75, atss=None)))
    with pytest.raises(SystemExit, match='out of luck'):
        run_script(script, data, tmp_path, 'fcos', 'atss')
    assert '0.750' in capsys.readouterr().out
    assert not (tmp_path / 'out').exists()


@pytest.mark.usefixtures('_uncounted')
def test_a_finished_family_is_not_trained_again(script, data, tmp_path):
    args = script.parse_args(
        [
            'fcos',
            '--images',
            '2',
            '--epochs',
            '1',
            '--ann-file',
            str(data[0]),
            '--img-dir',
            str(data[1]),
        ]
    )
    (before,), (again,) = (script.plan_families(args, tmp_path)[0].runs for _ in range(2))
    assert not any('indices' in name for name in before.options)  # whole epochs
    assert before.work_dir == again.work_dir
    args.epochs = 2
    assert script.plan_families(args, tmp_path)[0].runs[0].work_dir != before.work_dir


def test_some_of_the_families_do_not_replace_the_results_of_all(script):
    assert script.parse_args(['fcos']).out_dir is None
    assert script.parse_args(['fcos', 'atss']).name == 'overfit_fcos_atss'
    assert script.parse_args(['fcos', '--name', 'points']).name == 'points'
    everything = script.parse_args([])
    assert everything.out_dir == ROOT / 'benchmarks' / 'results'
    assert everything.name == 'overfit'
    assert everything.families == list(script.FAMILIES)


@pytest.mark.parametrize(
    ('argv', 'message'), [(['fox'], 'no family fox'), (['--images', '0'], 'at least 1')]
)
def test_a_wrong_command_line_is_told_of(script, argv, message, capsys):
    with pytest.raises(SystemExit):
        script.parse_args(argv)
    assert message in capsys.readouterr().err
