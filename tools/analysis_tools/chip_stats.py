"""Plan the chips of the training data, or of other data; tell what they cost and what they cover.

The annotations are read as training reads them; no images are needed. DOTA's text files do not tell
how large the images are: that is read from the images' headers.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from typing import Any

from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from rich.console import Console
from rich.table import Table

from mmsniper.chips import (
    STRATEGIES,
    AnnotationTable,
    CocoFile,
    PositiveChipPlanner,
    ScalePyramid,
    describe_range,
    how_to_decode,
    plan_numbers,
    range_gaps,
    scale_disagreement,
    what_to_expect,
)
from mmsniper.chips.dota_files import read_dota_folder
from mmsniper.convert import load_config
from mmsniper.convert.pyramid import config_pyramid
from mmsniper.convert.training_chips import samples_chips
from mmsniper.datasets import has_mask_boxes, read_annotations
from mmsniper.datasets.coco_reader import build_checked, log_use
from mmsniper.datasets.wrappers import read_datasets, type_name
from mmsniper.utils.command_line import (
    add_config_arguments,
    command_parser,
    exit_on_error,
    progress,
)
from mmsniper.utils.files import write_json


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    add_config_arguments(parser, 'config with a pyramid')
    parser.add_argument(
        '--ann-file',
        help="COCO annotation file, or the folder of DOTA's annotation files, read by the config's "
        'class names and filter rules [the training data of the config]',
    )
    parser.add_argument(
        '--images',
        metavar='DIR',
        help="folder of the images of DOTA's annotation files [the folder images beside theirs]",
    )
    parser.add_argument(
        '--strategy',
        choices=STRATEGIES,
        default='minimum',
        help="the fewest chips, or the paper's choice from a grid",
    )
    parser.add_argument(
        '--stride',
        type=int,
        nargs='+',
        default=[32],
        metavar='S',
        help='stride of the grid in scaled pixels, or the smallest and the largest to draw it from',
    )
    parser.add_argument('--seed', type=int, default=0, help='random seed')
    parser.add_argument('--epoch', type=int, default=0, help='epoch to plan, from 0')
    parser.add_argument('--out', help='write the numbers to this JSON file')
    args = parser.parse_args(argv)
    if len(args.stride) > 2 or min(args.stride) < 1 or args.stride != sorted(args.stride):
        parser.error(
            f'--stride takes a positive number or two in ascending order, got {args.stride}'
        )
    args.stride = (args.stride[0], args.stride[-1])
    if args.images and not args.ann_file:
        parser.error("--images is for DOTA's folders, which --ann-file names")
    return args


def read_training_data(config: Config, name: str) -> tuple[str, AnnotationTable]:
    """The config's training data: the names of their files, and what training reads of them."""
    data = config.get('train_dataloader', {}).get('dataset')
    if not data:
        raise ValueError(
            f'{name} has no train_dataloader.dataset; name an annotation file with --ann-file'
        )
    dataset = build_checked(data)
    files = [getattr(part, 'ann_file', '') or type_name(part) for part in read_datasets(dataset)]
    return ', '.join(dict.fromkeys(files)), read_annotations(dataset)


def read_file(config: Config, file: str, images: str | None = None) -> AnnotationTable:
    """What training would read of a file, or DOTA's folder, in the place of the config's."""
    is_folder = os.path.isdir(file)
    if images and not is_folder:
        raise ValueError(f"--images is for DOTA's folders; {file} tells the sizes itself")
    if not is_folder and not os.path.isfile(file):
        raise ValueError(f'there is no annotation file {file}')
    classes = rules = None
    data = config.get('train_dataloader', {}).get('dataset')
    for part in list(read_datasets(data))[:1] if data else ():
        unread = DATASETS.build({**part, 'lazy_init': True, 'pipeline': []})
        classes = unread.metainfo.get('classes')
        rules = None if unread.test_mode else unread.filter_cfg
    if is_folder:
        return read_dota_folder(
            file, images, classes, keep_empty=not (rules or {}).get('filter_empty_gt')
        )
    use = CocoFile.read(file).use(classes, rules)
    use.check_training()
    log_use(use)
    return AnnotationTable.from_use(use, rotated=bool(data) and has_mask_boxes(data))


def read_data(
    config: Config, args: argparse.Namespace
) -> tuple[str, AnnotationTable, ScalePyramid]:
    """What the data are called, the annotations, and the pyramid."""
    pyramid = ScalePyramid.from_config(config_pyramid(config))
    init_default_scope(config.get('default_scope', 'mmdet'))
    if args.ann_file:
        return args.ann_file, read_file(config, args.ann_file, args.images), pyramid
    return *read_training_data(config, args.config), pyramid


def plan_chips(
    table: AnnotationTable, pyramid: ScalePyramid, args: argparse.Namespace
) -> dict[str, Any]:
    """Plan an epoch and count.

    Returns:
        dict: The numbers, by the keys of the JSON file.
    """
    seconds = []
    # A small data set is planned in no time: the fastest of several says what planning takes.
    while sum(seconds) < 1.0 and len(seconds) < 5:
        planner = PositiveChipPlanner(table, pyramid, args.strategy, args.stride, args.seed)
        with progress(what='planning chips', total=len(table)) as bar:
            planner.progress = lambda done, _, bar=bar: bar.update(done - bar.n)
            start = time.perf_counter()
            plan = planner.plan(args.epoch)
            seconds.append(time.perf_counter() - start)
    numbers = plan_numbers(table, pyramid, plan)
    for name in (
        'chips_per_image',
        'decoded_megapixels',
        'pixel_ratio_800x1333',
        'pixel_ratio_finest',
    ):
        numbers[name] = round(numbers[name], 4)
    return dict(
        numbers,
        shown_area=[round(v, 4) for v in numbers['shown_area']],
        ms_per_image=round(min(seconds) / max(len(table), 1) * 1000, 4),
        strategy=args.strategy,
        unproven=planner.unproven,
    )


def show(numbers: dict[str, Any], pyramid: ScalePyramid, title: str, console: Console) -> None:
    """Print the numbers as a table."""
    table = Table(title=title, show_header=False, title_justify='left')
    table.add_row('images', f'{numbers["images"]:,}')
    table.add_row('boxes (crowd and degenerate ones left out)', f'{numbers["boxes"]:,}')
    table.add_row('chips', f'{numbers["chips"]:,}  ({numbers["chips_per_image"]:.2f} per image)')
    for level, chips, area in zip(
        pyramid.levels, numbers['chips_per_level'], numbers['shown_area']
    ):
        shown = f'{chips:,}  (show {area:.0%} of the images)'
        table.add_row(f'  of boxes of {describe_range(level.valid_range)}', shown)
    pixels = numbers['chips'] * pyramid.chip_size**2
    table.add_row('pixels of an epoch, without negative chips', f'{pixels:,}')
    table.add_row(
        'pixels, relative to whole images of 800x1333', f'{numbers["pixel_ratio_800x1333"]:.3f}'
    )
    finest = numbers['pixel_ratio_finest']
    table.add_row('pixels, relative to whole images at the finest level', f'{finest:.3f}')
    table.add_row('covered (box, level) pairs', f'{numbers["coverage"]:.2%}')
    orphans, in_no_range = numbers['orphans'], numbers['in_no_range']
    table.add_row('orphans: boxes that fit at no level of theirs', f'{orphans - in_no_range:,}')
    if in_no_range:
        table.add_row("boxes in no level's valid_range", f'{in_no_range:,}')
    if numbers['strategy'] == 'minimum':
        table.add_row('(image, level) pairs not proven minimal', f'{numbers["unproven"]:,}')
    table.add_row('planning', f'{numbers["ms_per_image"]:.3f} ms per image')
    console.print(table)
    orphans = numbers['orphans'] / max(numbers['boxes'], 1)
    console.print(what_to_expect(finest, orphans), highlight=False)
    if advice := how_to_decode(numbers['decoded_megapixels'], numbers['chips_per_image']):
        console.print(advice, highlight=False)


@exit_on_error()
def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the command; returns the numbers."""
    args, console = parse_args(argv), Console()
    config = load_config(args.config, args.cfg_options)
    name, table, pyramid = read_data(config, args)
    numbers = plan_chips(table, pyramid, args)
    show(numbers, pyramid, f'{args.strategy} chips of {name}', console)
    sampler = config.get('train_dataloader', {}).get('sampler')
    if samples_chips(sampler) and type_name(sampler) != 'ChipAwareSampler':
        note = f'the chips are those of a ChipAwareSampler; {type_name(sampler)} may choose others'
        console.print(f'warning: {note}', style='yellow', highlight=False, soft_wrap=True)
    scales = scale_disagreement(pyramid, table.width, table.height)
    numbers['train_over_test_scale'] = [round(v, 4) for v in scales.factors.tolist()]
    gaps = [str(found) for found in range_gaps(pyramid, table) if found.boxes]
    for warning in filter(None, (scales.message, *gaps)):
        console.print(f'warning: {warning}', style='yellow', highlight=False, soft_wrap=True)
    if args.out:
        write_json(args.out, numbers)
    return numbers


if __name__ == '__main__':
    main()
