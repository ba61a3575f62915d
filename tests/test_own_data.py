"""docs/own_data.md, typed in: from a COCO file to a trained and tested model."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mmsniper.testing import make_toy_dataset
from mmsniper.testing.toy_dataset import ToyDatasetSpec

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / 'docs' / 'own_data.md').read_text()
CLASSES = ('RBC', 'WBC', 'Platelets', 'Other')


def blocks(language):
    return re.findall(rf'^```{language}\n(.*?)^```', PAGE, re.M | re.S)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """The project's folder as the page assumes it, with a few scenes in the place of BCCD."""
    folder = tmp_path_factory.mktemp('project')
    for name in ('configs', 'tools'):
        (folder / name).symlink_to(ROOT / name)
    data = folder / 'data' / 'bccd'
    spec = ToyDatasetSpec(num_train=3, num_val=2, min_side=300, max_side=400)
    make_toy_dataset(data, spec, processes=1)
    (data / 'images').mkdir()
    for part in ('train', 'val'):
        content = json.loads((data / 'annotations' / f'{part}.json').read_text())
        for category, name in zip(content['categories'], CLASSES):
            category['name'] = name
        for image in content['images']:
            name = f'{part}_{image["file_name"]}'
            (data / part / image['file_name']).rename(data / 'images' / name)
            image['file_name'] = name
        (data / f'{part}.json').write_text(json.dumps(content))
    return folder


def run(folder, command):
    words = [sys.executable if word == 'python' else word for word in command.split()]
    done = subprocess.run(
        words,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'},
    )
    assert done.returncode == 0, f'{command}\n{done.stdout[-2000:]}{done.stderr[-3000:]}'
    return done.stdout


def test_the_page_works_when_it_is_typed_in(folder):
    config, _ = blocks('python')
    # Three epochs instead of ten.
    shorter = (
        'train_cfg = dict(max_epochs=3, val_interval=3)\n'
        'sniper.update(negative_chips=dict(warmup_epochs=1))\n'
    )
    (folder / 'my_config.py').write_text(config + shorter)
    commands = [line for block in blocks('bash') for line in block.splitlines() if line]
    assert len(commands) == 10
    outputs = [run(folder, command.replace('epoch_10', 'epoch_3')) for command in commands]
    assert 'bbox_mAP' in outputs[-3]
    assert (folder / 'work_dirs/my_detections/detections.json').exists()
    assert 'most wrong of' in outputs[-1]
    assert (folder / 'work_dirs/my_worst/worst_1.png').exists()
    assert list(folder.glob('work_dirs/my_config/*/pictures/*'))
    assert (folder / 'work_dirs/my_sizes.png').exists()
    assert len(list((folder / 'work_dirs/my_chips').iterdir())) >= 2
    # What the page says is printed is printed.
    stats = run(folder, commands[3])
    assert 'orphans' in stats
    assert "type='ChipDataset'" in run(folder, commands[1])
