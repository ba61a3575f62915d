"""How fast chips come: decoding whole images, only as fine as needed, and keeping them.

Sends all chips of an epoch through the pipeline that a SNIPER config makes of a data set, in one
process, in three ways: in any order, so with JPEGs that are decoded as fine as a chip needs them
(`sniper = dict(reduced_jpegs=True)`), and image by image with a cache (`sniper =
dict(cache_mb=...)`). The ways take turns in rounds, an epoch each; told is the processor time of a
chip, the median of the rounds, and the ratio to the first way in the same round.

Writes benchmarks/results/loading.json and .md.

    OMP_NUM_THREADS=1 python benchmarks/loading.py --coco annotations.json images/
    OMP_NUM_THREADS=1 python benchmarks/loading.py
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
from mmdet.registry import DATA_SAMPLERS, DATASETS
from mmdet.utils import register_all_modules

from harness.results import machine, markdown_table, write_results
from mmsniper.convert import load_config
from mmsniper.utils.command_line import at_least, command_parser, exit_on_error, progress
from mmsniper.utils.files import write_json, write_text

ROOT = Path(__file__).resolve().parents[1]
CONFIG = """
_base_ = [
    'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    {base!r},
    {pyramid!r},
]
sniper = dict(batch_size={batch_size}, negative_chips=None, **{options!r})
data = dict(
    data_root='', ann_file={ann_file!r}, data_prefix=dict(img={images!r}),
    filter_cfg=dict(filter_empty_gt=True), metainfo=dict(classes={classes!r}),
)
train_dataloader = dict(num_workers=0, persistent_workers=False, dataset=data)
"""
PHOTO = 4000, 3000
OBJECTS = ((200, 20), (4, 800))
"""Of the photos that are made: how many, and their side, px."""


@dataclass(frozen=True)
class Data:
    """A data set in COCO's format."""

    name: str
    ann_file: Path
    images: Path


def make_photos(folder: Path, count: int, objects: int, side: int) -> Data:
    """Photos of 12 megapixels, as JPEG, with square objects at random places."""
    rng = np.random.default_rng(0)
    width, height = PHOTO
    content: dict[str, Any] = dict(images=[], annotations=[], categories=[dict(id=1, name='a')])
    for number in range(count):
        noise = rng.integers(0, 255, (height // 8, width // 8, 3), np.uint8)
        photo = cv2.resize(noise, PHOTO, interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f'{number}.jpg'), photo)
        content['images'].append(
            dict(id=number, file_name=f'{number}.jpg', width=width, height=height)
        )
        for x, y in rng.uniform(0, [width - side, height - side], (objects, 2)).tolist():
            content['annotations'].append(
                dict(
                    id=len(content['annotations']) + 1,
                    image_id=number,
                    category_id=1,
                    bbox=[x, y, side, side],
                    area=side**2,
                    iscrowd=0,
                )
            )
    ann_file = folder / 'photos.json'
    write_json(ann_file, content)
    return Data(f'{width}x{height} JPEG, {objects} objects of {side} px', ann_file, folder)


class Loader:
    """An epoch of a data set's chips, in one way.

    Args:
        data (Data): The data set.
        options (dict): Of ``sniper``.
        batch_size (int): As in ``sniper``.
        folder (Path): For the config.
    """

    def __init__(
        self, data: Data, options: Mapping[str, Any], batch_size: int, folder: Path
    ) -> None:
        base = ROOT / 'configs' / '_base_'
        categories = json.loads(data.ann_file.read_text('utf-8'))['categories']
        config = folder / f'loading_{"".join(options) or "plain"}.py'
        write_text(
            config,
            CONFIG.format(
                base=str(base / 'sniper.py'),
                pyramid=str(base / 'pyramids' / 'coco_paper.py'),
                batch_size=batch_size,
                options=options,
                ann_file=str(data.ann_file),
                images=str(data.images) + '/',
                classes=tuple(category['name'] for category in categories),
            ),
        )
        loader = load_config(config).train_dataloader
        self.dataset = DATASETS.build(loader.dataset)
        self.sampler = DATA_SAMPLERS.build(
            loader.sampler, default_args=dict(dataset=self.dataset, seed=0)
        )

    def epoch(self, number: int, chips: int | None) -> tuple[float, int]:
        """Processor time of an epoch, or of its first chips, and their number."""
        self.sampler.set_epoch(number)
        indices = list(self.sampler)[:chips]
        start = time.process_time()
        for index in progress(indices, 'chips', unit=' chips'):
            self.dataset[index]
        return time.process_time() - start, len(indices)


def measure(data: Data, args: argparse.Namespace) -> dict[str, Any]:
    """Compare the ways on a data set."""
    options = (dict(), dict(reduced_jpegs=True), dict(cache_mb=args.cache_mb))
    with tempfile.TemporaryDirectory() as folder:
        ways = [Loader(data, given, args.batch_size, Path(folder)) for given in options]
        rounds = [[way.epoch(number, args.chips) for way in ways] for number in range(args.rounds)]
    ratios = [[plain[0] / other[0] for other in others] for plain, *others in rounds]
    cache = ways[2].dataset.cache
    return dict(
        data=data.name,
        images=len(ways[0].dataset),
        chips=rounds[0][0][1],
        ms_per_chip=[round(median(r[i][0] / r[i][1] for r in rounds) * 1e3, 3) for i in range(3)],
        times_faster=[round(median(of_way), 2) for of_way in zip(*ratios)],
        times_faster_of_rounds=[[round(ratio, 2) for ratio in of_round] for of_round in ratios],
        kept=round(cache.hits / max(cache.hits + cache.misses, 1), 3),
    )


def as_page(result: dict[str, Any]) -> str:
    """The result as a page."""
    rows = [
        [
            row['data'],
            str(row['images']),
            str(row['chips']),
            *(f'{ms:.2f}' for ms in row['ms_per_chip']),
            *(f'{times:.2f}' for times in row['times_faster']),
            f'{row["kept"]:.0%}',
        ]
        for row in result['rows']
    ]
    head = (
        *('data', 'images', 'chips', 'ms a chip', 'reduced JPEGs', 'kept images'),
        *('times faster, reduced', 'times faster, kept', 'from memory'),
    )
    return '\n'.join(
        [
            '# Loading chips',
            '',
            f'`{result["command"]}`',
            '',
            f'Processor time of one worker from the index of a chip to the packed sample, the '
            f'median of {result["rounds"]} rounds; batches of {result["batch_size"]} chips, up to '
            f'{result["cache_mb"]:g} MB of decoded images kept.',
            '',
            *markdown_table(head, rows),
        ]
    )


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument(
        '--coco', nargs=2, metavar=('ANN_FILE', 'IMAGES'), action='append', default=[],
        help='a data set to measure as well',
    )  # fmt: skip
    parser.add_argument('--photos', type=at_least(1), default=20, help='photos that are made')
    parser.add_argument('--chips', type=at_least(1), help='only so many chips a round [all]')
    parser.add_argument('--batch-size', type=at_least(1), default=8)
    parser.add_argument('--cache-mb', type=float, default=1000)
    parser.add_argument('--rounds', type=at_least(1), default=3)
    parser.add_argument(
        '--out',
        type=Path,
        default=ROOT / 'benchmarks' / 'results' / 'loading',
        help='path of the results, without suffix',
    )
    return parser.parse_args(argv)


@exit_on_error()
def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the benchmark; returns what the JSON file holds."""
    args = parse_args(argv)
    register_all_modules(init_default_scope=True)
    with tempfile.TemporaryDirectory() as folder:
        datasets = [
            Data(Path(ann_file).stem, Path(ann_file).resolve(), Path(images).resolve())
            for ann_file, images in args.coco
        ]
        for objects, side in OBJECTS:
            photos = Path(folder, f'{side}')
            photos.mkdir()
            datasets.append(make_photos(photos, args.photos, objects, side))
        rows = [measure(data, args) for data in datasets]
    result = dict(
        command='python benchmarks/loading.py' + ' --coco ANN_FILE IMAGES' * len(args.coco),
        **machine(),
        rounds=args.rounds,
        batch_size=args.batch_size,
        cache_mb=args.cache_mb,
        rows=rows,
    )
    page = as_page(result)
    write_results(args.out, result, page)
    sys.stdout.write(page)
    return result


if __name__ == '__main__':
    main()
