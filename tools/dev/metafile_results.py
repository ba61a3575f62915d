"""Write what was measured into configs/*/metafile.yml, from the JSON files of benchmarks/results.

    python tools/dev/metafile_results.py

MEASURED says which row of which file is a config's; the numbers are those of the file: means of the
seeds. A config that is not named has no results.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / 'benchmarks' / 'results'
Row = dict[str, Any]


@dataclass(frozen=True)
class Trained:
    """A contestant of a comparison of trainings.

    Args:
        file (str): Name of the JSON file.
        name (str): The contestant.
        test (str): Which of its tests. Defaults to 'test'.
        dataset (str): What it was tested on. Defaults to '', the validation images of the training
            data.
        remark (str): How that differs from training and testing the config as it is. Defaults to
            '', not at all, but for the number of epochs.
    """

    file: str
    name: str
    test: str = 'test'
    dataset: str = ''
    remark: str = ''

    @property
    def configs(self) -> set[str]:
        """The config of the row."""
        return {contestant['config'] for contestant in self._contestants()}

    def read(self) -> tuple[Row, float]:
        """Metadata of the training with the most seeds, and AP."""
        most = max(self._contestants(), key=lambda contestant: len(contestant['runs']))
        train = most['mean']['train']
        [epochs] = {run['train']['epochs'] for run in most['runs']}
        metadata = {'Epochs': epochs, 'Training Megapixels': round(train['train_pixels'] / 1e6)}
        if 'mining_pixels' in train:
            metadata['Mining Megapixels'] = round(train['mining_pixels'] / 1e6)
        metadata['Seeds'] = len(most['runs'])
        return metadata, most['mean'][self.test]['AP']

    def _contestants(self) -> list[Row]:
        """The contestant in each part of the comparison."""
        content = _json(self.file)
        return [
            contestant
            for part in content.get('parts', [content])
            for contestant in part['contestants']
            if contestant['name'] == self.name
        ]


@dataclass(frozen=True)
class Tested:
    """A row of ``benchmarks/autofocus.py``, which tests one training.

    Args:
        files (tuple[str, ...]): Names of the JSON files, one for each seed.
        name (str): The row.
        dataset (str): As of :class:`Trained`.
        remark (str): As of :class:`Trained`.
    """

    files: tuple[str, ...]
    name: str
    dataset: str = ''
    remark: str = ''

    @property
    def configs(self) -> set[str]:
        """The config of the rows."""
        names = {_json(file)['data'] for file in self.files}
        paths = [path for name in names for path in ROOT.glob(f'configs/*/*_autofocus_{name}.py')]
        return {path.relative_to(ROOT).as_posix() for path in paths}

    def read(self) -> tuple[Row, float]:
        """Metadata of the trainings, and AP."""
        contents = [_json(file) for file in self.files]
        [epochs] = {int(re.findall(r'epoch_(\d+)', one['checkpoint'])[0]) for one in contents}
        found = [row['AP'] for one in contents for row in one['rows'] if row['name'] == self.name]
        return {'Epochs': epochs, 'Seeds': len(found)}, sum(found) / len(found)


_64 = '64 samples of an image for the RoI head, which are 512 now'
MEASURED: dict[str, Trained | Tested] = {
    'yolox_nano_sniper_hituav': Trained('yolox_hituav', 'SNIPER-YOLOX'),
    'yolox_nano_hituav': Trained('yolox_hituav', 'YOLOX'),
    'rotated_faster_rcnn_r18_sniper_toy': Trained('rotated_toy', 'SNIPER'),
    'rotated_faster_rcnn_r18_single_scale_toy': Trained('rotated_toy', 'single-scale'),
    'faster_rcnn_r18_sniper_bccd': Trained('bccd', 'SNIPER', 'tta'),
    'faster_rcnn_r18_sniper_bccd_suggested': Trained('suggested_pyramid', 'suggested', 'tta'),
    'faster_rcnn_r18_sniper_negatives_bccd': Trained(
        'negatives_bccd', 'with', 'tta', remark='mined on whole images, share=1'
    ),
    'faster_rcnn_r18_single_scale_bccd': Trained('bccd_512_samples', 'single-scale'),
    'faster_rcnn_r18_multi_scale_bccd': Trained(
        'bccd', 'multi-scale', 'tta', remark=f'tested with --tta; {_64}'
    ),
    'faster_rcnn_r18_autofocus_bccd': Tested(
        ('autofocus_bccd', 'autofocus_bccd_seed1'), 'AutoFocus: t 0.02/0.2'
    ),
    'faster_rcnn_r18_sniper_toy': Trained('toy', 'SNIPER', 'tta'),
    'faster_rcnn_r18_sniper_negatives_toy': Trained(
        'negatives_toy_coarse_to_fine', 'coarse_to_fine'
    ),
    'faster_rcnn_r18_single_scale_toy': Trained('toy', 'single-scale', remark=_64),
    'faster_rcnn_r18_autofocus_toy': Tested(
        ('autofocus_toy', 'autofocus_toy_seed1'), 'AutoFocus: t 0.02/0.2'
    ),
    'faster_rcnn_yolox_nano_autofocus_hituav': Trained(
        'hituav', 'SNIPER', remark='tested at all levels, model.thresholds=0'
    ),
    'faster_rcnn_yolox_nano_sniper_hituav': Trained(
        'hituav_causes',
        'negative chips, a tenth mined',
        dataset='HIT-UAV, two days of the training set',
        remark='trained on the other five days; sniper.range_first=True, chips mined at random',
    ),
    'faster_rcnn_yolox_nano_positive_chips_hituav': Trained(
        'hituav', 'SNIPER, positive chips only'
    ),
    'faster_rcnn_yolox_nano_snip_hituav': Trained('hituav', 'SNIP'),
    'faster_rcnn_yolox_nano_hituav': Trained('hituav', 'own size'),
    'faster_rcnn_yolox_nano_half_hituav': Trained('hituav', 'half size'),
    'faster_rcnn_yolox_nano_double_hituav': Trained('hituav', 'double size'),
    'faster_rcnn_yolox_nano_sniper_scale_hituav': Trained('hituav', "SNIPER's scale"),
    'faster_rcnn_yolox_nano_multi_scale_hituav': Trained(
        'hituav', 'three scales', 'tta', remark='tested with --tta'
    ),
    'faster_rcnn_yolox_nano_tiles_hituav': Trained(
        'hituav', 'uniform tiles', 'SAHI', remark='tested by SAHI, benchmarks/sahi_test.py'
    ),
}
# What is written here; the rest of a metafile is written by hand.
_WRITTEN = ('Epochs', 'Training Megapixels', 'Mining Megapixels', 'Seeds', 'Remark')


def _json(name: str) -> Row:
    return json.loads((RESULTS / f'{name}.json').read_text('utf-8'))


def with_results(model: Mapping[str, Any]) -> Row:
    """A model of a metafile, with what was measured."""
    model = {key: value for key, value in model.items() if key != 'Results'}
    measured = MEASURED.get(model['Name'])
    if measured is None:
        # Epochs are then those of the config.
        new = {key: model['Metadata'][key] for key in ('Epochs',) if key in model['Metadata']}
        old = {key: v for key, v in model['Metadata'].items() if key not in _WRITTEN}
        return {**model, 'Metadata': {**new, **old}}
    new, ap = measured.read()
    if measured.remark:
        new['Remark'] = measured.remark
    kept = {key: value for key, value in model['Metadata'].items() if key not in _WRITTEN}
    metrics = {'box AP': round(100 * float(f'{ap:.3f}'), 1)}
    dataset = measured.dataset or kept['Training Data']
    results = [{'Task': 'Object Detection', 'Dataset': dataset, 'Metrics': metrics}]
    return {**model, 'Metadata': {**kept, **new}, 'Results': results}


class _Dumper(yaml.SafeDumper):
    """Lists are indented below their keys, as in OpenMMLab's metafiles."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def updated(text: str) -> str:
    """The text of a metafile with what was measured."""
    content = yaml.safe_load(text)
    content['Models'] = [with_results(model) for model in content['Models']]
    return '\n'.join(
        yaml.dump({key: value}, Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)
        for key, value in content.items()
    )


def main() -> None:
    for path in sorted(ROOT.glob('configs/*/metafile.yml')):
        path.write_text(updated(path.read_text('utf-8')), 'utf-8')


if __name__ == '__main__':
    main()
