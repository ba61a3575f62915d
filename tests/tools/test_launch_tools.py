"""train.py, test.py and the shell scripts that start them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmdet.registry import TRANSFORMS
from mmengine.config import Config

from mmsniper.engine import PoolError

TOOLS = Path(__file__).resolve().parents[2] / 'tools'

# A run of a fraction of a second: one weight, eight numbers. The hook notes what each process saw.
TINY_MODULE = """
import json
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, HOOKS, MODELS

@MODELS.register_module()
class TinyModel(BaseModel):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
    def forward(self, inputs, mode='tensor'):
        return dict(loss=(self.weight * torch.stack(inputs)).mean())

@DATASETS.register_module()
class TinyData(torch.utils.data.Dataset):
    def __len__(self):
        return 8
    def __getitem__(self, index):
        return dict(inputs=torch.tensor(float(index)))

@HOOKS.register_module()
class NoteHook(Hook):
    def __init__(self, folder):
        self.folder, self.seen = folder, []
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.seen += [int(number) for number in data_batch['inputs']]
    def after_train_epoch(self, runner):
        name = f'{self.folder}/epoch{runner.epoch}-rank{runner.rank}-of{runner.world_size}.json'
        seed = runner.train_dataloader.sampler.seed
        json.dump(dict(seed=seed, seen=self.seen), open(name, 'w'))
        self.seen = []
"""
TINY_CONFIG = """
custom_imports = dict(imports=['tiny_module'], allow_failed_imports=False)
model = dict(type='TinyModel')
train_dataloader = dict(
    batch_size=2, num_workers=0, dataset=dict(type='TinyData'),
    sampler=dict(type='DefaultSampler', shuffle=True), collate_fn=dict(type='pseudo_collate'))
train_cfg = dict(by_epoch=True, max_epochs=2)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=0.1))
param_scheduler = [dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=4)]
default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1))
custom_hooks = [dict(type='NoteHook', folder='{folder}')]
log_level = 'WARNING'
"""


@pytest.fixture
def tiny(tmp_path):
    """Write the tiny run to a folder and return it."""
    (tmp_path / 'tiny_module.py').write_text(TINY_MODULE)
    (tmp_path / 'tiny.py').write_text(TINY_CONFIG.format(folder=tmp_path))
    return tmp_path


def run(folder, *command, **env):
    """Run a command in a folder, on the CPU; return its output, stderr included."""
    env = {**os.environ, 'CUDA_VISIBLE_DEVICES': '', 'PYTHONPATH': str(folder), **env}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def note(folder, epoch, rank=0, world=1):
    return json.loads((folder / f'epoch{epoch}-rank{rank}-of{world}.json').read_text())


# Arguments ---------------------------------------------------------------------------------------


def test_train_takes_mmdetections_arguments(load_tool):
    parse = load_tool('train').parse_args
    args = parse(['c.py', '--work-dir', 'w', '--amp', '--auto-scale-lr', '--resume'])
    assert (args.config, args.work_dir, args.amp, args.auto_scale_lr) == ('c.py', 'w', True, True)
    assert args.resume == 'auto'
    args = parse(['c.py', '--resume', 'x.pth', '--launcher', 'slurm', '--local-rank', '3'])
    assert (args.resume, args.launcher, args.local_rank) == ('x.pth', 'slurm', 3)
    args = parse(['c.py', '--cfg-options', 'a.b=1', 'c="[2,3]"', 'd=x,y'])
    assert args.cfg_options == {'a.b': 1, 'c': [2, 3], 'd': ['x', 'y']}
    assert parse(['c.py']).resume is None


def test_test_takes_mmdetections_arguments(load_tool):
    parse = load_tool('test').parse_args
    args = parse(['c.py', 'x.pth', '--tta', '--out', 'o.pkl', '--show-dir', 's', '--local_rank=1'])
    assert (args.config, args.checkpoint, args.tta, args.out) == ('c.py', 'x.pth', True, 'o.pkl')
    assert (args.show, args.show_dir, args.wait_time, args.local_rank) == (False, 's', 2, 1)


def test_out_must_be_a_pickle_file(load_tool, capsys):
    with pytest.raises(SystemExit):
        load_tool('test').parse_args(['c.py', 'x.pth', '--out', 'o.json'])
    assert '--out o.json: the file must end in .pkl' in capsys.readouterr().err


def test_the_work_dir_comes_from_the_arguments_then_the_config_then_its_name(load_tool, tiny):
    load_config, parse = load_tool('_launch').load_config, load_tool('train').parse_args
    config = str(tiny / 'tiny.py')
    sys.path.insert(0, str(tiny))
    try:
        assert load_config(parse([config])).work_dir == 'work_dirs/tiny'
        options = ['--cfg-options', 'work_dir=here', 'train_cfg.max_epochs=9']
        cfg = load_config(parse([config, *options]))
        assert (cfg.work_dir, cfg.train_cfg.max_epochs) == ('here', 9)
        assert load_config(parse([config, *options, '--work-dir', 'there'])).work_dir == 'there'
    finally:
        sys.path.remove(str(tiny))


def test_scaling_the_lr_needs_the_batch_size_it_was_chosen_for(load_tool):
    check = load_tool('train').check_base_batch_size
    with pytest.raises(ValueError, match='needs auto_scale_lr.base_batch_size'):
        check(Config(dict(auto_scale_lr=dict(enable=False))))
    check(Config(dict(auto_scale_lr=dict(base_batch_size=160))))


def test_what_the_lr_is_scaled_by_is_said_when_the_command_line_asks_for_it(
    load_tool, tmp_path, monkeypatch
):
    train, notes = load_tool('train'), []
    monkeypatch.setattr('mmsniper.convert.config.print_log', lambda text, **_: notes.append(text))
    config = str(Path(__file__).parents[2] / 'configs' / 'sniper' / 'faster_rcnn_r50_sniper.py')
    args = [config, '--work-dir', str(tmp_path), '--auto-scale-lr']
    cfg = train.training_config(train.parse_args([*args, '--cfg-options', 'sniper.batch_size=4']))
    assert cfg.auto_scale_lr == dict(enable=True, base_batch_size=160)
    assert 'is scaled as one for batches of 160 chips over all GPUs' in ''.join(notes)


@pytest.mark.skipif(torch.cuda.is_available(), reason='mixed precision works on a GPU')
def test_mixed_precision_without_a_gpu_is_refused_with_the_way_out(load_tool):
    cfg = Config(dict(optim_wrapper=dict(type='AmpOptimWrapper'), launcher='none'))
    with pytest.raises(SystemExit, match='^error: .*--cfg-options optim_wrapper.type=OptimWrapper'):
        load_tool('_launch').build_runner(cfg)


# Checkpoints of a test ---------------------------------------------------------------------------


@pytest.mark.parametrize('options', [(), ('--tta',)])
def test_weights_of_another_number_of_classes_are_refused_before_anything_is_built(
    load_tool, monkeypatch, tmp_path, options
):
    """Also of a checkpoint that says nothing of its classes."""
    test, sample = load_tool('test'), TOOLS.parent / 'demo' / 'hituav_sample'
    weights = tmp_path / 'weights.pth'
    torch.save(torch.load(sample / 'weights.pth')['state_dict'], weights)
    (tmp_path / 'two.py').write_text(
        f"""
_base_ = '{sample}/detector.py'
model = dict(roi_head=dict(bbox_head=dict(num_classes=2)))
test_dataloader = dict(dataset=dict(
    data_root='{sample}/', metainfo=dict(classes=('person', 'vehicle'))))
test_evaluator = dict(ann_file='{sample}/val.json')
"""
    )
    command = ['test.py', tmp_path / 'two.py', weights, '--work-dir', tmp_path / 'run', *options]
    monkeypatch.setattr('sys.argv', [str(part) for part in command])
    monkeypatch.setattr(test, 'build_runner', lambda cfg: pytest.fail('a Runner is built'))
    with pytest.raises(SystemExit, match="it is of 3 classes, the config's model of 2: roi_head"):
        test.main()


# Test-time augmentation --------------------------------------------------------------------------


def test_tta_puts_its_pipeline_into_every_innermost_data_set(load_tool):
    leaf = dict(type='CocoDataset', pipeline=[dict(type='PackDetInputs')])
    other = dict(type='CocoDataset', ann_file='b.json', pipeline=[dict(type='PackDetInputs')])
    wrapped = dict(type='RepeatDataset', dataset=other)
    cfg = Config(
        dict(
            model=dict(type='PyramidDetector', detector='FasterRCNN'),
            test_dataloader=dict(dataset=dict(type='ConcatDataset', datasets=[leaf, wrapped])),
            tta_model=dict(type='SNIPERTTAModel'),
            tta_pipeline=[dict(type='TestTimeAug')],
        )
    )
    load_tool('test').use_tta(cfg)
    assert cfg.model == dict(
        type='SNIPERTTAModel', module=dict(type='PyramidDetector', detector='FasterRCNN')
    )
    first, second = cfg.test_dataloader.dataset.datasets
    assert first.pipeline == second.dataset.pipeline == [dict(type='TestTimeAug')]
    assert 'pipeline' not in second


def test_tta_without_settings_flips_the_image(load_tool):
    load = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(640, 480))]
    dataset = dict(type='CocoDataset', pipeline=[*load, dict(type='PackDetInputs')])
    cfg = Config(dict(model=dict(type='RetinaNet'), test_dataloader=dict(dataset=dataset)))
    load_tool('test').use_tta(cfg)
    assert cfg.model.type == 'DetTTAModel'
    *before, augment = cfg.test_dataloader.dataset.pipeline
    assert before == load
    flips, pack = augment.transforms
    assert [flip.prob for flip in flips] == [1.0, 0.0]
    packed = TRANSFORMS.build(pack[0]).meta_keys
    assert {'flip', 'flip_direction'} <= set(packed)


# Resume ------------------------------------------------------------------------------------------


def test_validation_and_test_say_which_image_they_cannot_load(load_tool, tmp_path):
    loading = dict(type='LoadImageFromFile', color_type='unchanged')
    other = dict(type='PackDetInputs')
    inner = dict(type='CocoDataset', pipeline=[loading, other])
    cfg = Config(
        dict(
            train_dataloader=dict(dataset=inner),
            val_dataloader=dict(dataset=dict(type='RepeatDataset', times=2, dataset=inner)),
            test_dataloader=dict(dataset=dict(type='CocoDataset', pipeline=[other])),
        )
    )
    loaders = dict(_val_dataloader=cfg.val_dataloader, _test_dataloader=cfg.test_dataloader)
    load_tool('_launch').tell_unreadable_images(SimpleNamespace(**loaders))
    step, packing = cfg.val_dataloader.dataset.dataset.pipeline
    assert cfg.train_dataloader.dataset.pipeline[0] == loading
    assert packing == cfg.test_dataloader.dataset.pipeline[0] == other
    transform = TRANSFORMS.build(step)
    assert transform.color_type == 'unchanged'
    (tmp_path / 'a.jpg').touch()
    with pytest.raises(OSError, match=rf'cannot load {tmp_path}/a.jpg. It is empty'):
        transform(dict(img_path=str(tmp_path / 'a.jpg')))


def test_a_misspelt_type_ends_in_a_line(load_tool, monkeypatch):
    train = load_tool('train')

    class Unbuilt:
        def train(self):
            TRANSFORMS.build(dict(type='ChipSamplr'))

    monkeypatch.setattr(train, 'parse_args', lambda: None)
    monkeypatch.setattr(train, 'training_config', lambda args: Config())
    monkeypatch.setattr(train, 'build_runner', lambda cfg: Unbuilt())
    with pytest.raises(SystemExit, match='Did you mean ChipSampler'):
        train.main()


def test_a_pool_that_is_gone_ends_in_a_line(load_tool, monkeypatch):
    train = load_tool('train')

    class Resumed:
        def train(self):
            raise PoolError('negative_chips.npz is gone')

    monkeypatch.setattr(train, 'parse_args', lambda: None)
    monkeypatch.setattr(train, 'training_config', lambda args: Config())
    monkeypatch.setattr(train, 'refuse_wrong', lambda *args: None)
    monkeypatch.setattr(train, 'build_runner', lambda cfg: Resumed())
    with pytest.raises(SystemExit, match=r'^error: negative_chips.npz is gone$'):
        train.main()


def test_resume_without_a_checkpoint_starts_from_scratch(load_tool, tmp_path, capsys):
    cfg = Config(dict(work_dir=str(tmp_path), resume=True, load_from=None))
    load_tool('train').prepare_resume(cfg)
    assert cfg.resume is False
    assert 'training starts from scratch' in capsys.readouterr().out


def test_resume_without_a_checkpoint_keeps_the_weights_that_the_config_starts_from(
    load_tool, tmp_path, capsys
):
    train = load_tool('train')
    coco = str(tmp_path / 'coco.pth')
    cfg = Config(dict(work_dir=str(tmp_path), load_from=coco))
    train.prepare_resume(cfg, find=True)
    assert (cfg.resume, cfg.load_from) == (False, coco)
    assert f'starts with the weights of {coco}' in capsys.readouterr().out

    torch.save(dict(meta=dict(seed=11), message_hub={}), tmp_path / 'epoch_1.pth')
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_1.pth'))
    train.prepare_resume(cfg, find=True)
    assert (cfg.resume, cfg.load_from) == (True, str(tmp_path / 'epoch_1.pth'))


def test_the_resume_argument_keeps_the_weights_of_the_config(load_tool, tiny, monkeypatch):
    train = load_tool('train')
    monkeypatch.syspath_prepend(str(tiny))
    given = [str(tiny / 'tiny.py'), '--resume', '--cfg-options', 'load_from=coco.pth']
    cfg = train.training_config(train.parse_args(given))
    assert (cfg.resume, cfg.load_from) == (False, 'coco.pth')


def test_resume_takes_over_the_seed_of_the_checkpoint(load_tool, tmp_path):
    train = load_tool('train')
    torch.save(dict(meta=dict(seed=11), message_hub={}), tmp_path / 'epoch_1.pth')
    # The note of a run that was started in another folder.
    (tmp_path / 'last_checkpoint').write_text('some/where/else/epoch_1.pth')
    cfg = Config(dict(work_dir=str(tmp_path), resume=True, randomness=dict(deterministic=True)))
    train.prepare_resume(cfg)
    assert cfg.randomness == dict(deterministic=True, seed=11)
    assert cfg.load_from == str(tmp_path / 'epoch_1.pth')


def test_resume_from_a_checkpoint_that_is_gone_lists_the_others(load_tool, tmp_path):
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_2.pth'))
    torch.save({}, tmp_path / 'epoch_1.pth')
    with pytest.raises(
        FileNotFoundError, match=r'epoch_2.pth.*is gone.*--resume PATH.*: epoch_1.pth'
    ):
        load_tool('train').last_checkpoint(tmp_path)


def test_resume_from_a_broken_or_unfit_file_says_so(load_tool, tmp_path):
    seed_of = load_tool('train').checkpoint_seed
    path = tmp_path / 'epoch_1.pth'
    torch.save(dict(state_dict={}), path)
    with pytest.raises(ValueError, match=f'load_from={path}'):
        seed_of(str(path))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r'cannot resume from .*epoch_1.pth'):
        seed_of(str(path))
    with pytest.raises(ValueError, match='can not be found'):
        seed_of(str(tmp_path / 'none.pth'))


def test_what_a_user_gets_wrong_is_told_in_one_line(load_tool, tiny, monkeypatch):
    train, missing = load_tool('train'), tiny / 'none.pth'
    monkeypatch.syspath_prepend(str(tiny))
    given = [str(tiny / 'tiny.py'), '--resume', str(missing)]
    with pytest.raises(SystemExit, match=f'^error: cannot resume from {missing}: '):
        train.training_config(train.parse_args(given))
    with pytest.raises(SystemExit, match=r'^error: .*no.py'):
        train.training_config(train.parse_args(['no.py']))


def test_a_resumed_run_goes_on_with_the_seed_and_the_state_of_the_first(tiny):
    train = [sys.executable, TOOLS / 'train.py', 'tiny.py', '--work-dir', 'w', '--resume']
    run(tiny, *train, '--cfg-options', 'train_cfg.max_epochs=1')
    first = note(tiny, epoch=0)
    run(tiny, *train)
    second = note(tiny, epoch=1)
    assert second['seed'] == first['seed']
    assert sorted(first['seen']) == sorted(second['seen']) == list(range(8))
    saved = torch.load(tiny / 'w' / 'epoch_2.pth')
    assert saved['optimizer']['state'][0]['step'] == 8
    assert saved['meta']['iter'] == 8


# Several processes -------------------------------------------------------------------------------


def test_dist_train_splits_the_data_over_processes_without_a_gpu(tiny):
    env = {'PYTHON': sys.executable, 'OMP_NUM_THREADS': '1'}
    for name in ('PORT', 'NNODES', 'NODE_RANK', 'MASTER_ADDR'):
        env[name] = ''
    options = ['--cfg-options', 'train_cfg.max_epochs=1']
    run(tiny, TOOLS / 'dist_train.sh', 'tiny.py', 2, *options, **env)
    parts = [note(tiny, epoch=0, rank=rank, world=2)['seen'] for rank in (0, 1)]
    assert [len(part) for part in parts] == [4, 4]
    assert sorted(parts[0] + parts[1]) == list(range(8))
    assert (tiny / 'work_dirs' / 'tiny' / 'epoch_1.pth').is_file()


@pytest.fixture
def spy(tmp_path):
    """Make a program that prints its arguments, a line each."""
    program = tmp_path / 'bin' / 'srun'
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    return program


def test_several_machines_meet_where_the_environment_says(tmp_path, spy):
    env = {'NNODES': '2', 'NODE_RANK': '1', 'MASTER_ADDR': '10.0.0.1', 'PORT': '2222'}
    out = run(tmp_path, TOOLS / 'dist_test.sh', 'c.py', 'x.pth', 8, '--tta', PYTHON=str(spy), **env)
    words = out.split()
    assert words[:2] == ['-m', 'torch.distributed.run']
    assert {'--nnodes=2', '--node_rank=1', '--master_addr=10.0.0.1', '--master_port=2222'} <= set(
        words
    )
    assert '--nproc_per_node=8' in words
    assert words[-6:] == [str(TOOLS / 'test.py'), 'c.py', 'x.pth', '--launcher', 'pytorch', '--tta']


@pytest.mark.parametrize(
    ('script', 'arguments'),
    [
        ('train', ['{tools}/train.py', 'c.py', '--work-dir', 'w', '--launcher', 'slurm', '--amp']),
        ('test', ['{tools}/test.py', 'c.py', 'w', '--launcher', 'slurm', '--amp']),
    ],
)
def test_slurm_gets_mmdetections_arguments(tmp_path, spy, script, arguments):
    env = {'GPUS': '16', 'SRUN_ARGS': '--quiet --time=5', 'PYTHON': 'py'}
    env['PATH'] = f'{spy.parent}:{os.environ["PATH"]}'
    command = [TOOLS / f'slurm_{script}.sh', 'part', 'job', 'c.py', 'w', '--amp']
    words = run(tmp_path, *command, **env).split()
    assert words == [
        '-p',
        'part',
        '--job-name=job',
        '--gres=gpu:8',
        '--ntasks=16',
        '--ntasks-per-node=8',
        '--cpus-per-task=5',
        '--kill-on-bad-exit=1',
        '--quiet',
        '--time=5',
        'py',
        '-u',
        *[word.format(tools=TOOLS) for word in arguments],
    ]


@pytest.mark.parametrize(
    'script', ['dist_train.sh', 'dist_test.sh', 'slurm_train.sh', 'slurm_test.sh']
)
def test_a_script_without_arguments_says_how_it_is_used(script):
    done = subprocess.run([TOOLS / script], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f'usage: {TOOLS / script} ')
