"""The tools detect what they detected when it was frozen: ``detections.json`` beside this file.

``python tests/frozen/freeze.py detections`` stores it anew. A tiny detector with weights that are
made up from their names looks at made-up images: what it finds means nothing, but every level,
range, chip and NMS has its part in it. The tools are run by their command lines, and what two of
them should agree on is stored once.

Boxes may be off by half a pixel and scores by 0.005, because CPUs add floating-point numbers in
different orders. That is far more than it makes (between SSE4.1 and AVX only a score's last stored
digit differed), and far less than a change of method would make.
"""

import json
import pickle
import runpy
import sys
import tempfile
import zlib
from collections import defaultdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules

import mmsniper.models  # noqa: F401 (registers)
from mmsniper.convert import load_config

ROOT = Path(__file__).resolve().parents[2]
STORED = Path(__file__).resolve().parent / 'detections.json'
CONFIGS = {
    'autofocus': ROOT / 'configs' / 'autofocus' / 'faster_rcnn_r18_autofocus_toy.py',
    'sniper': ROOT / 'configs' / 'sniper' / 'faster_rcnn_r18_sniper_toy.py',
}
SIZES = ((760, 560), (500, 640), (90, 130))
CLASSES = ('disc', 'ring', 'square', 'cross')
BOX, SCORE = 0.5, 0.005
# What is stored, and which runs (tool, config, options) give it; it is stored from the first.
RUNS = {
    'pyramid': [
        ('infer', 'sniper'),
        ('infer', 'sniper', '--mode', 'pyramid'),
        ('test', 'sniper'),
        ('test', 'sniper', '--tta'),
    ],
    # It takes fewer proposals of a level.
    'pyramid of the AutoFocus config': [('infer', 'autofocus', '--mode', 'pyramid')],
    'autofocus': [('infer', 'autofocus'), ('test', 'autofocus'), ('test', 'autofocus', '--tta')],
    'autofocus without a branch': [('infer', 'sniper', '--mode', 'autofocus')],
}
CASES = [(name, run) for name, runs in RUNS.items() for run in runs]
Found = dict[str, list[list[float]]]


# What is detected, and by what --------------------------------------------------------------------


def make_inputs(folder: Path) -> None:
    """Images, their annotations, and the weights of both configs."""
    torch.set_num_threads(1)
    (folder / 'images').mkdir()
    annotations = []
    for i, size in enumerate(SIZES):
        image, boxes = picture(i, *size)
        cv2.imwrite(str(folder / 'images' / f'{i}.png'), image)
        annotations += [
            dict(image_id=i + 1, category_id=1 + k % 2, bbox=box, area=box[2] * box[3], iscrowd=0)
            for k, box in enumerate(boxes)
        ]
    content = dict(
        images=[
            dict(id=i + 1, file_name=f'{i}.png', width=width, height=height)
            for i, (width, height) in enumerate(SIZES)
        ],
        annotations=[dict(id=k + 1, **one) for k, one in enumerate(annotations)],
        categories=[dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)],
    )
    (folder / 'val.json').write_text(json.dumps(content))

    register_all_modules()
    state = made_up_weights(MODELS.build(load_config(CONFIGS['autofocus']).model).state_dict())
    detector = {name: value for name, value in state.items() if not name.startswith('focus_head.')}
    for name, weights in (('autofocus', state), ('sniper', detector)):
        torch.save(dict(state_dict=weights, meta={}), folder / f'{name}.pth')


def picture(seed: int, width: int, height: int) -> tuple[np.ndarray, list[list[int]]]:
    """Discs and squares, of whole numbers only, on a patchwork that covers a quarter."""
    rng = np.random.RandomState(seed)  # NumPy promises that its numbers stay the same
    patches = rng.randint(60, 120, (height // 20 + 1, width // 20 + 1, 3))
    image = patches.repeat(20, axis=0).repeat(20, axis=1)[:height, :width]
    image = image + rng.randint(-8, 9, image.shape)
    image[height // 2 :], image[:, width // 2 :] = 100, 100
    y, x = np.mgrid[:height, :width]
    boxes = []
    for k, radius in enumerate((6, 10, 16, 24, 36)):
        left, top = (rng.randint(0, max(side // 2 - radius, 1)) for side in (width, height))
        dx, dy = x - left - radius, y - top - radius
        inside = dx**2 + dy**2 <= radius**2 if k % 2 else np.maximum(abs(dx), abs(dy)) <= radius
        image[inside] = rng.randint(0, 256, 3)
        boxes.append([left, top, min(2 * radius, width - left), min(2 * radius, height - top)])
    return image.clip(0, 255).astype(np.uint8), boxes


def made_up_weights(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights that depend on their names and shapes only, not on the order of the parts."""
    made = {}
    for name, value in state.items():
        if not value.is_floating_point() or 'running' in name or value.dim() == 0:
            made[name] = value
        elif value.dim() == 1:  # norms, of which a block's last is small, and biases
            made[name] = (
                torch.full_like(value, 0.5 if 'bn2' in name else 1.0)
                if name.endswith('.weight')
                else torch.zeros_like(value)
            )
        else:
            seed = name if name.startswith('focus_head.') else f'detector.{name}'
            random = torch.Generator().manual_seed(zlib.crc32(seed.encode()))
            scale = (2 / value[0].numel()) ** 0.5 * next(
                (gain for part, gain in GAINS.items() if part in name), 1.0
            )
            weight = torch.randn(value.shape, generator=random) * scale
            # Without a mean: what all places have in common is not to drown their differences.
            made[name] = weight - weight.flatten(1).mean(1).view(-1, *[1] * (weight.dim() - 1))
    made['focus_head.cls.bias'][1::2] = FOCUS_BIAS
    return made


# Chosen so that scores, boxes and FocusPixels differ from place to place.
GAINS = {'rpn_reg': 0.2, 'fc_reg': 0.3, 'fc_cls': 1.0, 'focus_head.cls': 3.0}
FOCUS_BIAS = -4.0


# The tools ----------------------------------------------------------------------------------------


def detect(folder: Path, tool: str, config: str, *options: str) -> dict[str, Any]:
    """Run a tool: boxes, scores and labels by image, and what AutoFocus looked at."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch)
        data = 'test_dataloader.dataset.'
        common = [str(CONFIGS[config]), str(folder / f'{config}.pth')]
        settings = ['--cfg-options', f'{data}ann_file={folder / "val.json"}']
        if tool == 'infer':
            call(
                'infer',
                str(folder / 'images'),
                *common,
                *options,
                '--out-dir',
                str(out),
                '--device',
                'cpu',
                '--no-pictures',
                *settings,
            )
            return read_json(out)
        # The first run's work folder must outlast the others: its visualizer is theirs, too.
        call(
            'test',
            *common,
            *options,
            '--out',
            str(out / 'found.pkl'),
            '--work-dir',
            str(folder / 'work'),
            *settings,
            f'{data}data_root={folder}/',
            f'{data}data_prefix.img=images/',
            f'test_evaluator.ann_file={folder / "val.json"}',
            'test_dataloader.num_workers=0',
            'test_dataloader.persistent_workers=False',
        )
        return read_pickle(out / 'found.pkl')


def call(tool: str, *arguments: str) -> None:
    """Run a tool as the command line does, but in this process, which has torch loaded."""
    file, before = ROOT / 'tools' / f'{tool}.py', (sys.argv, sys.path)
    sys.argv, sys.path = [str(file), *arguments], [str(file.parent), *sys.path]
    try:
        runpy.run_path(str(file), run_name='__main__')
    except SystemExit as end:
        if end.code:
            raise RuntimeError(f'{tool}.py ended with {end.code}') from end
    finally:
        sys.argv, sys.path = before


def read_json(out: Path) -> dict[str, Any]:
    detections, listed = (
        json.loads((out / f'{name}.json').read_text()) for name in ('detections', 'images')
    )
    names = {image['id']: image['file_name'] for image in listed['images']}
    found = {name: [] for name in names.values()}
    for one in detections:
        x, y, width, height = one['bbox']
        found[names[one['image_id']]].append(
            row((x, y, x + width, y + height), one['score'], one['category_id'] - 1)
        )
    focus = {
        image['file_name']: dict(chips=image['focus_chips'], pixels=image['focus_pixels'])
        for image in listed['images']
        if 'focus_chips' in image
    }
    return dict(found=found, **(dict(focus=focus) if focus else {}))


def read_pickle(file: Path) -> dict[str, Any]:
    found = {}
    for sample in pickle.loads(file.read_bytes()):
        boxes = sample['pred_instances']
        found[Path(sample['img_path']).name] = [
            row(*one)
            for one in zip(
                boxes['bboxes'].tolist(), boxes['scores'].tolist(), boxes['labels'].tolist()
            )
        ]
    return dict(found=found)


def row(box: Any, score: float, label: int) -> list[float]:
    return [*(round(float(side), 1) for side in box), round(float(score), 3), int(label)]


def freeze() -> None:
    """Store what is detected now."""
    with tempfile.TemporaryDirectory() as scratch:
        make_inputs(Path(scratch))
        results = {name: detect(Path(scratch), *runs[0]) for name, runs in RUNS.items()}
    lines = json.dumps(results).replace('[[', '[\n[').replace('], [', '],\n[')
    STORED.write_text(lines + '\n')


# Tests --------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp('frozen')
    make_inputs(path)
    return path


@pytest.fixture(scope='module')
def stored():
    return json.loads(STORED.read_text())


def unmatched(old: list[list[float]], new: list[list[float]]) -> list[str]:
    """Detections of either side that have no partner on the other."""
    left, missing = [np.array(one) for one in new], []
    for one in map(np.array, old):
        near = [
            i
            for i, other in enumerate(left)
            if other[5] == one[5]
            and abs(other[4] - one[4]) <= SCORE
            and abs(other[:4] - one[:4]).max() <= BOX
        ]
        if near:
            left.pop(min(near, key=lambda i: abs(left[i][:5] - one[:5]).sum()))
        else:
            missing.append(f'no longer found: {one.tolist()}')
    return missing + [f'found now: {one.tolist()}' for one in left]


@pytest.mark.parametrize(('name', 'run'), CASES, ids=[' '.join(run) for _, run in CASES])
def test_the_detections_are_the_frozen_ones(folder, stored, name, run):
    result = detect(folder, *run)
    assert result['found'].keys() == stored[name]['found'].keys()
    for image, old in stored[name]['found'].items():
        different = unmatched(old, result['found'][image])
        shown = '\n'.join(different[:20])
        assert not different, f'{image}, boxes (xyxy), score, label:\n{shown}'
    if 'focus' in result:
        for image, old in stored[name]['focus'].items():
            new = result['focus'][image]
            assert new['pixels'] == old['pixels']
            assert [len(level) for level in new['chips']] == [len(level) for level in old['chips']]
            for level in zip(new['chips'], old['chips']):
                np.testing.assert_allclose(*map(np.array, level), atol=BOX)


def test_what_is_frozen_shows_what_the_modes_do(stored):
    found = {name: result['found'] for name, result in stored.items()}
    for result in found.values():
        boxes = np.array([one for rows in result.values() for one in rows])
        assert len(boxes) >= 50
        assert len(set(boxes[:, 5])) >= 3
        sides = np.sqrt((boxes[:, 2:4] - boxes[:, :2]).prod(axis=1))
        assert sides.min() < 32
        assert sides.max() > 96
    assert found['pyramid'] != found['autofocus']
    # AutoFocus looks at parts of the finer levels.
    chips = defaultdict(list)
    for focus in stored['autofocus']['focus'].values():
        for level, boxes in enumerate(focus['chips']):
            chips[level] += boxes
    assert chips[0]
    assert chips[1]
    seen = sum(focus['pixels'] for focus in stored['autofocus']['focus'].values())
    assert seen < 0.7 * sum(width * height for width, height in SIZES)
