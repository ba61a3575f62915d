"""HIT-UAV: SNIPER against what people use instead, on infrared images from drones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from harness.comparison import Comparison
from harness.comparison_options import Preset
from harness.hold_out import hold_out
from harness.tiles import cut_tiles
from harness.training_run import OtherTest, RunError

ROOT = Path(__file__).resolve().parents[2]

_NANO = 'faster_rcnn_yolox_nano'
SNIPER, POSITIVE, TILES = 'SNIPER', 'SNIPER, positive chips only', 'uniform tiles'
CONTESTANTS = {
    SNIPER: f'configs/autofocus/{_NANO}_autofocus_hituav.py',
    POSITIVE: f'configs/sniper/{_NANO}_positive_chips_hituav.py',
    'own size': f'configs/baselines/{_NANO}_hituav.py',
    'half size': f'configs/baselines/{_NANO}_half_hituav.py',
    TILES: f'configs/baselines/{_NANO}_tiles_hituav.py',
    "SNIPER's scale": f'configs/baselines/{_NANO}_sniper_scale_hituav.py',
    'double size': f'configs/baselines/{_NANO}_double_hituav.py',
    'three scales': f'configs/baselines/{_NANO}_multi_scale_hituav.py',
    'SNIP': f'configs/snip/{_NANO}_snip_hituav.py',
}
HELD_OUT_DAYS = '20210116', '20210118'
"""Of HIT-UAV's seven training days: 218 of 1,099 images, with all classes, by day and by night."""

_DATA = ROOT / 'data' / 'hituav'
_HELD_OUT = ROOT / 'work_dirs' / 'held_out' / 'hituav'
_TILES = ROOT / 'work_dirs' / 'tiles' / 'hituav'
TILE, SEEN = 213, 320
"""Side of a tile in px of the image, and of what the detector sees of it: SNIPER's finest scale."""


def _training_file() -> Path:
    file = _DATA / 'train.json'
    if not file.exists():
        raise RunError(
            f'{file} is not there: put HIT-UAV into data/hituav, as COCO files (train.json, '
            f'val.json, images/)'
        )
    return file


def _hold_out_days() -> None:
    hold_out(_training_file(), lambda image: image['day'] in HELD_OUT_DAYS, _HELD_OUT)


def _tiles_of(annotations: Path) -> None:
    try:
        cut_tiles(annotations, _DATA / 'images', _TILES / annotations.name, TILE)
    except ModuleNotFoundError as error:
        raise RunError(f'{error}: pip install -r requirements/benchmark.txt') from None


def _on_the_held_out_days() -> dict[str, str]:
    fit, held_out = str(_HELD_OUT / 'fit.json'), str(_HELD_OUT / 'held_out.json')
    return {
        'train_dataloader.dataset.ann_file': fit,
        **{f'{part}_dataloader.dataset.ann_file': held_out for part in ('val', 'test')},
        **{f'{part}_evaluator.ann_file': held_out for part in ('val', 'test')},
    }


def _hard(place: str) -> OtherTest:
    """Hard NMS in place of Soft-NMS, in the settings at this place."""
    return OtherTest(options={f'{place}.method': 'naive', f'{place}.iou_threshold': 0.5})


def _sliced(merge: str) -> OtherTest:
    """SAHI as it is best on the days held out."""
    told = dict(slice=TILE, zoom=SEEN / TILE, merge=merge, metric='IOU', confidence=0.01)
    arguments = [part for key, value in told.items() for part in (f'--{key}', str(value))]
    return OtherTest(tool='benchmarks/sahi_test.py', arguments=tuple(arguments))


HARD, SAHI = 'hard NMS', 'SAHI'
_SLICED_TESTS = {TILES: {SAHI: _sliced('Soft-NMS')}}
_HARD_TESTS = (
    {name: {HARD: _hard('model.test_cfg.rcnn.nms')} for name in CONTESTANTS}
    | {name: {HARD: _hard('model.merge_cfg.nms')} for name in (SNIPER, POSITIVE, 'SNIP')}
    | {TILES: {**_SLICED_TESTS[TILES], f'{SAHI}, {HARD}': _sliced('NMS')}}
)
_EVERY_LEVEL = {SNIPER: {'model.thresholds': 0}}
"""The rows of the tables are of all levels; AutoFocus is autofocus.py's."""


_COMPARISON = Comparison(
    CONTESTANTS, pixels=300e6, own_options=_EVERY_LEVEL, other_tests=_SLICED_TESTS
)
_MAIN = SNIPER, POSITIVE, 'own size', 'half size', TILES
"""SNIPER, the two best of whole images, and tiles."""


HITUAV = Preset(
    'HIT-UAV infrared images: SNIPER against whole images',
    "The same Faster R-CNN on YOLOX-nano's backbone, with weights from COCO, trained on the "
    '1,099 training images of HIT-UAV (640x512 px, from drones, every second image) and tested '
    'on the 298 of other days.',
    _COMPARISON.only(_MAIN),
    prepare_for={TILES: lambda: _tiles_of(_training_file())},
    others=(
        _COMPARISON.only(CONTESTANTS, seeds=(0,), other_tests=_HARD_TESTS),
        _COMPARISON.only(CONTESTANTS, pixels=100e6, seeds=(0,)),
        _COMPARISON.only(_MAIN, pixels=900e6, seeds=(0,)),
        _COMPARISON.only(['own size'], pixels=2200e6, seeds=(0,)),
    ),
)
HITUAV_HELD_OUT = Preset(
    'HIT-UAV, days held out of the training set',
    'As in the comparison on HIT-UAV, but trained on five days of its training set and tested '
    'on the other two: settings are chosen here.',
    replace(
        _COMPARISON.only(CONTESTANTS, pixels=200e6, seeds=(0,)),
        options=_on_the_held_out_days(),
        own_options={
            **_EVERY_LEVEL,
            TILES: {'train_dataloader.dataset.ann_file': str(_TILES / 'fit.json')},
        },
    ),
    prepare=_hold_out_days,
    prepare_for={TILES: lambda: _tiles_of(_HELD_OUT / 'fit.json')},
)

_SNIPER_CONFIG = f'configs/sniper/{_NANO}_sniper_hituav.py'
_RANGE_FIRST = {'sniper.range_first': True}
_CAUSES = {
    POSITIVE: (CONTESTANTS[POSITIVE], _RANGE_FIRST),
    'negative chips, a tenth mined': (_SNIPER_CONFIG, _RANGE_FIRST),
    '3% of the pyramid at random': (
        CONTESTANTS[POSITIVE],
        {**_RANGE_FIRST, 'sniper.sampler.background': 0.03},
    ),
    'proposals of all sizes': (CONTESTANTS[POSITIVE], {}),
    'chips of 224 px': (CONTESTANTS[POSITIVE], {'pyramid.chip_size': 224}),
    'ranges without overlap': (
        CONTESTANTS[POSITIVE],
        {'pyramid.levels.0.valid_range': [0, 40], 'pyramid.levels.1.valid_range': [40, None]},
    ),
    "AutoFocus's branch": (
        CONTESTANTS[SNIPER],
        {**_RANGE_FIRST, **_EVERY_LEVEL[SNIPER], 'sniper.autofocus.focus_head.detach': False},
    ),
    "AutoFocus's branch, detached": (CONTESTANTS[SNIPER], {**_RANGE_FIRST, **_EVERY_LEVEL[SNIPER]}),
}
"""One change at a time, by config and settings."""


def _causes(*names: str, pixels: float, seeds: tuple[int, ...] = (0, 1, 2)) -> Comparison:
    return Comparison(
        {name: _CAUSES[name][0] for name in names},
        pixels=pixels,
        seeds=seeds,
        options=_on_the_held_out_days(),
        own_options={name: _CAUSES[name][1] for name in names},
    )


HITUAV_CAUSES = Preset(
    'HIT-UAV, one change at a time',
    'Trained on five days of the training set of HIT-UAV and tested on the other two. Whole epochs '
    'are trained: mining leaves pixels for two within 300 million, and for three within 400.',
    _causes(
        POSITIVE,
        '3% of the pyramid at random',
        'proposals of all sizes',
        "AutoFocus's branch",
        "AutoFocus's branch, detached",
        pixels=300e6,
    ),
    prepare=_hold_out_days,
    others=(
        _causes('negative chips, a tenth mined', pixels=400e6),
        _causes('chips of 224 px', 'ranges without overlap', pixels=300e6, seeds=(0,)),
    ),
)

_YOLOX = {
    'SNIPER-YOLOX': 'configs/sniper/yolox_nano_sniper_hituav.py',
    'YOLOX': 'configs/baselines/yolox_nano_hituav.py',
}
YOLOX_HITUAV = Preset(
    'HIT-UAV infrared images: YOLOX-nano with SNIPER and without',
    'YOLOX-nano with weights from COCO, fine-tuned on the 1,099 training images of HIT-UAV '
    '(640x512 px, from drones, every second image), as whole images at their own size or as '
    "SNIPER's chips, and tested on the 298 of other days.",
    Comparison(_YOLOX, pixels=300e6),
)
YOLOX_HITUAV_HELD_OUT = Preset(
    'HIT-UAV, days held out of the training set: YOLOX-nano',
    'As in the comparison of YOLOX-nano on HIT-UAV, but trained on five days of its training set '
    'and tested on the other two: settings are chosen here.',
    Comparison(_YOLOX, pixels=200e6, seeds=(0,), options=_on_the_held_out_days()),
    prepare=_hold_out_days,
)
