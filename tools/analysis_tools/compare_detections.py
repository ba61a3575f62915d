"""Compare two tests: which objects one finds and the other does not, at equal error.

    python tools/analysis_tools/compare_detections.py CONFIG a.pkl b.pkl --out gained.md

A.pkl and B.pkl are what tools/test.py --out has written, of the same data. Each gets the lowest
score threshold at which it has at most so many false positives per image, or, with --recall, the
highest at which it finds that share of the objects. An object counts as found if a detection of its
class, at least of that score, matches it at IoU 0.5, as COCO's evaluation matches them.

Objects are counted by size, class, crowding, distance to the image's edge, and by what the COCO
file says of their image (--by). The false positives are counted by kind, see worst_detections.py.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from mmsniper.apis.predictions import PredictedData
from mmsniper.convert import load_config
from mmsniper.utils.coco_matching import KINDS, LabelledBoxes, Matching, explain
from mmsniper.utils.command_line import add_config_arguments, command_parser, exit_on_error
from mmsniper.utils.files import utf8_name, write_json, write_text

ALL = 'all'
FEW, MOST = 10, 50  # different values of an attribute that is counted by: unasked, at all
NO_VALUE = '(none)'
NEIGHBOURHOOD = 2.0  # box sides from centre to centre
CUT = 1.0  # px from the image's edge, at which annotators end a box that goes on
NO_ATTRIBUTES = ('id', 'file_name', 'width', 'height', 'license')
Row = dict[str, Any]


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    add_config_arguments(parser, 'config of the tests, with a CocoDataset')
    parser.add_argument('a', metavar='A.pkl', help='predictions of tools/test.py --out')
    parser.add_argument('b', metavar='B.pkl', help='those of another detector')
    parser.add_argument(
        '--out', type=Path, metavar='FILE', help='.json, with every object gained or lost, or .md'
    )
    parser.add_argument(
        '--names', nargs=2, default=('A', 'B'), metavar='NAME', help='names of the detectors'
    )
    point = parser.add_mutually_exclusive_group()
    point.add_argument(
        '--false-positives',
        type=float,
        default=1.0,
        metavar='N',
        help='false positives per image at which they are compared',
    )
    point.add_argument(
        '--recall', type=float, metavar='R', help='compare at this share of objects found instead'
    )
    parser.add_argument(
        '--by',
        nargs='+',
        metavar='KEY',
        help='attributes of the entries of images in the COCO file, such as time [those whose '
        f'values are 2 to {FEW} different texts]',
    )
    args = parser.parse_args(argv)
    if args.out is not None and args.out.suffix not in ('.json', '.md'):
        parser.error(f'--out must end in .json or .md, got {args.out}')
    if not args.false_positives >= 0:
        parser.error(f'--false-positives must be at least 0, got {args.false_positives}')
    return args


@exit_on_error()
def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the command; returns what the JSON file has."""
    args, console = parse_args(argv), Console(markup=False)
    data = PredictedData.from_config(load_config(args.config, args.cfg_options))
    attributes = image_attributes(data.images, args.by)
    matchings = [data.match(path) for path in (args.a, args.b)]
    if args.recall is None:
        thresholds = [m.threshold_at_false_positives(args.false_positives) for m in matchings]
    else:
        thresholds = [m.threshold_at_recall(args.recall) for m in matchings]
    content = compare(data, matchings, thresholds, args.names, attributes)
    for title, header, lines in tables(content):
        table = Table()
        for i, column in enumerate(header):
            table.add_column(column, justify='left' if i == 0 else 'right')
        for line in lines:
            table.add_row(*line)
        console.print(title)
        console.print(table, highlight=False)
    if args.out is not None:
        if args.out.suffix == '.md':
            write_text(args.out, markdown(content))
        else:
            write_json(args.out, content)
        console.print(str(args.out), highlight=False, soft_wrap=True)
    return content


def compare(
    data: PredictedData,
    matchings: Sequence[Matching],
    thresholds: Sequence[float],
    names: Sequence[str],
    attributes: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """Compare two detectors on the same data.

    Args:
        data (PredictedData): The data.
        matchings (Sequence[Matching]): Of the two detectors.
        thresholds (Sequence[float]): The lowest score of each that counts.
        names (Sequence[str]): Their names.
        attributes (dict): See :func:`image_attributes`.

    Returns:
        dict: ``detectors``, ``rows``, ``false_positives`` by kind, and the objects ``gained`` and
        ``lost``.
    """
    detectors, found, kinds = [], [], []
    for name, matching, threshold in zip(names, matchings, thresholds, strict=True):
        found.append(matching.found_objects(threshold)[~matching.crowd])
        wrong = matching.false_positives(threshold)
        kinds.append(Counter(explain(matching, wrong).kind.tolist()))
        detectors.append(
            dict(
                name=name,
                score=threshold if np.isfinite(threshold) else None,
                recall=float(found[-1].mean()) if len(found[-1]) else None,
                false_positives_per_image=len(wrong) / max(matching.num_images, 1),
            )
        )
    objects = matchings[0].objects.take(~matchings[0].crowd)
    gained, lost = ~found[0] & found[1], found[0] & ~found[1]

    def listed(mask: NDArray[np.bool_]) -> list[Row]:
        chosen = objects.take(mask)
        return [
            {
                'image': utf8_name(data.paths[image]),
                'image_id': data.images[image]['id'],
                'class': data.classes[label],
                'box': box,
            }
            for image, label, box in zip(
                chosen.image.tolist(), chosen.label.tolist(), chosen.boxes.tolist()
            )
        ]

    return dict(
        images=len(data.images),
        detectors=detectors,
        rows=[
            dict(
                by=by,
                value=value,
                objects=int(mask.sum()),
                found=[int((mask & one).sum()) for one in found],
                gained=int((mask & gained).sum()),
                lost=int((mask & lost).sum()),
            )
            for by, value, mask in groups(data, objects, attributes)
        ],
        false_positives={kind: [count[kind] for count in kinds] for kind in KINDS},
        gained=listed(gained),
        lost=listed(lost),
    )


def groups(
    data: PredictedData, objects: LabelledBoxes, attributes: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    """The groups of objects that are counted: by what, which, and a mask (n,); none is empty."""
    yield ALL, '', np.ones(len(objects), bool)
    sizes = np.sqrt((objects.boxes[:, 2:] - objects.boxes[:, :2]).clip(0).prod(axis=1))
    octaves = np.floor(np.log2(np.maximum(sizes, 1))).astype(int)
    for octave in np.unique(octaves).tolist():
        low = 2**octave if octave else 0
        yield 'size, px', f'{low} to {2 ** (octave + 1)}', octaves == octave
    for label, name in enumerate(data.classes):
        if (objects.label == label).any():
            yield 'class', name, objects.label == label
    near = neighbours(objects, sizes)
    for value, mask in (
        ('0', near == 0),
        ('1 to 3', (near >= 1) & (near <= 3)),
        ('4 and more', near >= 4),
    ):
        if mask.any():
            yield 'objects within 2 box sides', value, mask
    ends = np.array([[image['width'], image['height']] for image in data.images]).reshape(-1, 2)
    before, behind = objects.boxes[:, :2], ends[objects.image] - objects.boxes[:, 2:]
    gap = np.minimum(before, behind).min(axis=1)
    for value, mask in (
        ('cut by it', gap <= CUT),
        ('within a box side', (gap > CUT) & (gap <= sizes)),
        ('further inside', (gap > CUT) & (gap > sizes)),
    ):
        if mask.any():
            yield "the image's edge", value, mask
    for key, values in attributes.items():
        of_object = np.array(values, object)[objects.image]
        for value in sorted(set(of_object.tolist()), key=_in_order):
            yield key, value, of_object == value


def _in_order(value: str) -> tuple[float, str]:
    """Numbers by size, before texts."""
    try:
        return float(value), ''
    except ValueError:
        return np.inf, value


def neighbours(objects: LabelledBoxes, sizes: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many centres of other objects lie within 2 box sides of each object's, shape (n,)."""
    centres = (objects.boxes[:, :2] + objects.boxes[:, 2:]) / 2
    near = np.zeros(len(objects), np.int64)
    for image in np.unique(objects.image):
        mine = np.flatnonzero(objects.image == image)
        distances = np.linalg.norm(centres[mine, None] - centres[mine], axis=2)
        near[mine] = (distances <= NEIGHBOURHOOD * sizes[mine, None]).sum(axis=1) - 1
    return near


def image_attributes(
    images: Sequence[Mapping[str, Any]], keys: Sequence[str] | None
) -> dict[str, list[str]]:
    """What the entries of images say beside names and sizes, as a text for each image.

    Args:
        images (Sequence[dict]): The entries.
        keys (Sequence[str] | None): The attributes; None are those of few different texts.

    Raises:
        ValueError: If there is no such attribute, or its values are too many or no plain values.
    """
    there = list(dict.fromkeys(key for image in images for key in image))
    there = [key for key in there if key not in NO_ATTRIBUTES]
    if keys is None:
        texts = [key for key in there if all(isinstance(i.get(key, ''), str) for i in images)]
        counts = {key: len({image.get(key) for image in images}) for key in texts}
        keys = [key for key, count in counts.items() if 2 <= count <= FEW]
    for key in keys:
        if key not in there:
            raise ValueError(
                f'--by {key}: the entries of images in the COCO file have no such attribute; '
                f'they have {", ".join(there) or "none beside names and sizes"}'
            )
        values = [image.get(key) for image in images]
        if not all(isinstance(value, str | int | float | None) for value in values):
            raise ValueError(f'--by {key}: its values must be texts or numbers, got a list or dict')
        if len(set(values)) > MOST:
            raise ValueError(
                f'--by {key}: it has {len(set(values))} different values, at most {MOST} can be '
                f'counted by'
            )
    return {
        key: [NO_VALUE if image.get(key) is None else str(image[key]) for image in images]
        for key in keys
    }


def tables(content: Mapping[str, Any]) -> Iterator[tuple[str, Sequence[str], list[Sequence[str]]]]:
    """The tables to print: title, header and lines."""
    names = [detector['name'] for detector in content['detectors']]
    yield (
        'detectors',
        ('', 'score threshold', 'recall', 'false positives per image'),
        [
            (
                one['name'],
                *('none' if one[key] is None else f'{one[key]:.3f}' for key in ('score', 'recall')),
                f'{one["false_positives_per_image"]:.2f}',
            )
            for one in content['detectors']
        ],
    )
    lines = []
    for row in content['rows']:
        what = f'{row["by"]}: {row["value"]}' if row['value'] else row['by']
        numbers = (row['objects'], *row['found'], row['gained'], row['lost'])
        lines.append((what, *map(str, numbers)))
    found = [f'found by {name}' for name in names]
    yield f'objects from {names[0]} to {names[1]}', ('', 'objects', *found, 'gained', 'lost'), lines
    counts = content['false_positives']
    lines = [(kind, *map(str, counts[kind])) for kind in counts]
    totals = [sum(of_one) for of_one in zip(*counts.values(), strict=True)]
    yield 'false positives', ('', *names), [*lines, (ALL, *map(str, totals))]


def markdown(content: Mapping[str, Any]) -> str:
    """The tables as a Markdown file."""
    parts = []
    for title, header, lines in tables(content):
        rows = [header, ('---', *['---:'] * (len(header) - 1)), *lines]
        cells = [[cell.replace('|', r'\|') for cell in row] for row in rows]
        body = '\n'.join(f'| {" | ".join(row)} |' for row in cells)
        parts.append(f'**{title[0].upper()}{title[1:]}**\n\n{body}\n')
    return '\n'.join(parts)


if __name__ == '__main__':
    main()
