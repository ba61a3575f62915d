"""Propose a pyramid for a data set from its boxes and image sizes; no images needed.

The data set is a COCO file or, of rotated boxes, a folder of DOTA's text files. Those do not tell
how large the images are: that is read from the images' headers.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mmsniper.chips import (
    GOOD_SIZE_RANGE,
    AnnotationTable,
    ChipPlan,
    CocoFile,
    PositiveChipPlanner,
    ScalePyramid,
    Suggestion,
    describe_rule,
    network_sizes,
    plan_numbers,
    pyramid_config,
    suggest_pyramid,
    what_to_expect,
)
from mmsniper.chips.dota_files import read_dota_folder
from mmsniper.utils.command_line import command_parser, exit_on_error, progress
from mmsniper.utils.files import write_text

USUAL = (1333, 800)  # MMDetection's scale for whole images


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument(
        '--ann-file',
        required=True,
        help="COCO annotation file, or the folder of DOTA's annotation files",
    )
    parser.add_argument(
        '--rotated',
        action='store_true',
        help='of a COCO file: the boxes are rotated ones, made of its polygons '
        '(ConvertMask2BoxType)',
    )
    parser.add_argument(
        '--images',
        metavar='DIR',
        help="folder of the images of DOTA's annotation files [the folder images beside theirs]",
    )
    parser.add_argument(
        '--chip-size',
        type=int,
        metavar='C',
        help='side of a chip in network px [chosen from the sizes of images and boxes]',
    )
    parser.add_argument(
        '--out', metavar='P.py', help='write the pyramid to this config file, to be named in _base_'
    )
    parser.add_argument(
        '--figure', metavar='P.png', help='draw the sizes and the ranges to this PNG file'
    )
    args = parser.parse_args(argv)
    for option, ending in (('out', '.py'), ('figure', '.png')):
        path = getattr(args, option)
        if path is not None and not path.endswith(ending):
            parser.error(f'--{option} takes a file name that ends in {ending}, got {path}')
    return args


def read_data(args: argparse.Namespace, console: Console) -> AnnotationTable:
    """What training would read of a COCO file, or of a folder of DOTA's."""
    if os.path.isdir(args.ann_file):
        return read_dota_folder(args.ann_file, args.images)
    if args.images:
        raise ValueError(f"--images is for DOTA's folders; {args.ann_file} tells the sizes itself")
    if not os.path.isfile(args.ann_file):
        raise ValueError(f'there is no annotation file {args.ann_file}')
    use = CocoFile.read(args.ann_file).use()
    use.check_training()
    for is_warning, message in use.messages():
        text = Text(f'warning: {message}' if is_warning else message)
        console.print(text, style='yellow' if is_warning else '', soft_wrap=True)
    return AnnotationTable.from_use(use, args.rotated)


def read_and_suggest(
    args: argparse.Namespace, console: Console
) -> tuple[AnnotationTable, Suggestion]:
    """The annotations and the pyramid for them."""
    with console.status(f'reading {args.ann_file}'):
        table = read_data(args, console)
    with console.status('comparing pyramids'):
        return table, suggest_pyramid(table, args.chip_size)


def plan_chips(table: AnnotationTable, pyramid: ScalePyramid) -> ChipPlan:
    """The fewest chips, with a bar of progress."""
    with progress(what='planning chips', total=len(table)) as bar:
        planner = PositiveChipPlanner(
            table, pyramid, progress=lambda done, _: bar.update(done - bar.n)
        )
        return planner.plan()


def count(table: AnnotationTable, suggestion: Suggestion, plan: ChipPlan) -> dict[str, Any]:
    """What the pyramid costs and covers.

    Returns:
        dict: The numbers that are shown, by name. Pixels are those of all chips over those of all
        images.
    """
    pyramid = suggestion.pyramid
    own = (table.width.astype(np.float64) * table.height).sum()
    return dict(
        plan_numbers(table, pyramid, plan),
        pixel_ratio_own_size=float(len(plan) * pyramid.chip_size**2 / own),
        chips_for_an_image_800x1333=USUAL[0] * USUAL[1] / pyramid.chip_size**2,
        shares=suggestion.shares,
        network_sizes=[
            np.percentile(sizes, [5, 50, 95]).tolist() if len(sizes) else []
            for sizes in network_sizes(table, pyramid)
        ],
    )


def show_levels(numbers: dict[str, Any], pyramid: ScalePyramid, console: Console) -> None:
    """Print the levels as a table."""
    table = Table(title=f'Pyramid: chips of {pyramid.chip_size} px', title_justify='left')
    for name in ('resize', 'sizes, original px', 'network px (5, 50, 95%)', 'chips', 'shown'):
        table.add_column(name)
    for level, sizes, chips, area in zip(
        pyramid.levels, numbers['network_sizes'], numbers['chips_per_level'], numbers['shown_area']
    ):
        lo, hi = level.valid_range
        table.add_row(
            describe_rule(level.resize),
            f'{lo:g} {"and more" if hi == np.inf else f"to {hi:g}"}',
            ', '.join(f'{size:.0f}' for size in sizes),
            f'{chips:,}',
            f'{area:.0%} of images',
        )
    console.print(table)


def show_costs(numbers: dict[str, Any], pyramid: ScalePyramid, console: Console) -> None:
    """Print what it costs and covers as a table."""
    table = Table(show_header=False)
    lo, hi = (round(bound * pyramid.chip_size) for bound in GOOD_SIZE_RANGE)
    shares = numbers['shares']
    for name, value in (
        ('images', f'{numbers["images"]:,}'),
        ('boxes (crowd and degenerate ones left out)', f'{numbers["boxes"]:,}'),
        ('chips', f'{numbers["chips"]:,}  ({numbers["chips_per_image"]:.2f} per image)'),
        ('pixels, relative to whole images of 800x1333', f'{numbers["pixel_ratio_800x1333"]:.3f}'),
        (
            'pixels, relative to whole images of their own size',
            f'{numbers["pixel_ratio_own_size"]:.3f}',
        ),
        (
            'pixels, relative to whole images at the finest level',
            f'{numbers["pixel_ratio_finest"]:.3f}',
        ),
        (
            'chips in the memory of one 800x1333 image [1]',
            f'{numbers["chips_for_an_image_800x1333"]:.1f}',
        ),
        (f'boxes shown at a good size, {lo} to {hi} network px', f'{shares.good:.2%}'),
        ('boxes shown smaller, at the finest level [2]', f'{shares.smaller:.2%}'),
        ('boxes shown larger, in chips of the whole image', f'{shares.larger:.2%}'),
        ('covered (box, level) pairs', f'{numbers["coverage"]:.2%}'),
        ('orphans: boxes that fit at no level of theirs', f'{numbers["orphans"]:,}'),
    ):
        table.add_row(name, value)
    console.print(table)
    console.print(
        '[1] if activations, in proportion to pixels, take the memory; weights, optimizer state '
        'and what is kept for each object come on top.\n'
        '[2] which enlarges objects as far as is of use.',
        style='dim',
        markup=False,
        highlight=False,
    )


def comment_of(args: argparse.Namespace, suggestion: Suggestion, numbers: dict[str, Any]) -> str:
    """What the written file says about its making."""
    path = Path(args.ann_file)
    asked = ' with --rotated' if args.rotated else ''
    asked += f' with --chip-size {args.chip_size}' if args.chip_size else ''
    return (
        f'Proposed by suggest_pyramid.py{asked} from {"/".join(path.parts[-2:])}:\n'
        f'{numbers["images"]:,} images, {numbers["boxes"]:,} boxes with sizes (sqrt of area) of '
        f'{suggestion.smallest:.3g} to {suggestion.largest:.3g} px.\n'
        f'{numbers["chips_per_image"]:.2f} chips per image, '
        f'{numbers["pixel_ratio_800x1333"]:.3f} of the pixels of whole images at 800x1333, '
        f'{numbers["orphans"]:,} orphans.'
    )


@exit_on_error()
def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the command; returns the numbers."""
    args, console = parse_args(argv), Console()
    table, suggestion = read_and_suggest(args, console)
    pyramid = suggestion.pyramid
    numbers = count(table, suggestion, plan_chips(table, pyramid))
    show_levels(numbers, pyramid, console)
    show_costs(numbers, pyramid, console)
    orphans = numbers['orphans'] / max(numbers['boxes'], 1)
    expected = what_to_expect(numbers['pixel_ratio_finest'], orphans)
    for note in (*suggestion.notes, expected):
        console.print(note, highlight=False)
    if args.out:
        write_text(args.out, pyramid_config(pyramid, comment_of(args, suggestion, numbers)))
        console.print(f'pyramid: {args.out}', highlight=False, soft_wrap=True)
    if args.figure:
        # Matplotlib takes a second to import.
        from mmsniper.visualization import draw_sizes, save_figure

        save_figure(draw_sizes(table, pyramid, Path(args.ann_file).name), args.figure)
        console.print(f'figure: {args.figure}', highlight=False, soft_wrap=True)
    return numbers


if __name__ == '__main__':
    main()
