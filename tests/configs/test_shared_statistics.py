"""The COCO recipe's checkpoints have the mean of the GPUs' BatchNorm statistics."""

import os
import subprocess
import sys
from pathlib import Path

import torch

from mmsniper.convert import load_config

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / 'configs' / 'sniper' / 'faster_rcnn_r101_sniper.py'

NOTING_HOOK = """
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class NoteBuffersHook(Hook):
    priority = 'VERY_HIGH'

    def after_train_epoch(self, runner):
        buffers = dict(runner.model.module.named_buffers())
        torch.save(buffers, f'{runner.work_dir}/rank{get_rank()}.pth')
"""


def test_the_mean_of_all_ranks_is_saved(small_run):
    hooks = [hook for hook in load_config(RECIPE).custom_hooks if 'Buffers' in hook.type]
    assert hooks == [dict(type='SyncBuffersHook')]
    folder = small_run.parent
    (folder / 'noting.py').write_text(NOTING_HOOK)
    with small_run.open('a') as config:
        config.write("custom_imports['imports'].append('noting')\n")
        config.write(
            "custom_hooks = [dict(type='SyncBuffersHook'), dict(type='NoteBuffersHook')]\n"
        )
        config.write('train_cfg.update(max_epochs=1)\n')
    paths = os.pathsep.join([str(folder), str(ROOT), os.environ.get('PYTHONPATH', '')])
    env = os.environ | {'PYTHON': sys.executable, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': paths}
    script = ROOT / 'tools' / 'dist_train.sh'
    subprocess.run([script, small_run, '2', '--work-dir', folder], env=env, cwd=folder, check=True)
    ranks = [torch.load(folder / f'rank{i}.pth') for i in range(2)]
    saved = torch.load(folder / 'epoch_1.pth', weights_only=False)['state_dict']
    names = [name for name in ranks[0] if 'running' in name]
    assert any(not torch.equal(ranks[0][name], ranks[1][name]) for name in names)
    for name in names:
        torch.testing.assert_close(saved[name], (ranks[0][name] + ranks[1][name]) / 2)
