"""Detect objects in image files as the config tests: at all levels, by AutoFocus, or as stock.

OUT_DIR gets

- detections.json: all detections as COCO results (image_id, category_id, bbox as x, y, width,
  height in original pixels, score, and of a detector with masks segmentation, a COCO RLE), whatever
  their score;
- images.json: their images and categories in COCO's annotation format, so that
  COCO('images.json').loadRes('detections.json') works; of AutoFocus also the chips of each
  level (xyxy, original pixels, fine to coarse) and the number of pixels that the detector has seen;
- geojson/: of images with a CRS and a transform (GeoTIFF, JPEG 2000; needs rasterio) a GeoJSON file
  with the boxes in the scene's coordinates, class, score and level, for GIS programs;
- vis/: a picture of each image with its detections;
- focus/: of AutoFocus, a figure of what each level has seen and found.

category_id is the id in the annotation file of the config's test data, by the name of the class.
Where that file is not there, or lacks a class, it is MMDetection's label + 1. image_id is the id in
the same file, by the name of the image; where none of the images is in it, they are numbered from
1, in the order of their names. So loadRes works with that file, too, if both are its own. The first
line that is printed says which they are; images.json has it in "info".

What has been detected is kept in OUT_DIR/progress.jsonl until all images are done: the same command
goes on where it was interrupted, one with other settings begins anew. An image that cannot be read
does not end the run. It is named at once and at the end, the exit status is 1, and the same command
tries it again. So is a picture that cannot be drawn; what was detected there is kept. For many
objects in large images: --cfg-options model.merge_cfg.max_per_img=5000.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence

# Read when torch is loaded, see tools/_launch.py.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

from _detector import add_detector_arguments, check_detector_arguments
from _infer_files import infer

from mmsniper.convert import load_config
from mmsniper.utils.command_line import (
    add_config_arguments,
    at_least,
    command_parser,
    exit_on_error,
)
from mmsniper.utils.words import numbered
from mmsniper.visualization.figure import MAX_SIDE

PALETTES = ('none', 'coco', 'voc', 'citys', 'random')


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument(
        'images',
        nargs='+',
        metavar='IMAGES_OR_DIR',
        help='image files, or folders: the images in and below them',
    )
    add_detector_arguments(parser)
    parser.add_argument('--out-dir', required=True, help='folder of the results')
    parser.add_argument(
        '--batch-size',
        type=at_least(1),
        default=1,
        metavar='N',
        help='images whose windows are seen together, where a GPU has room for more than those of '
        'one',
    )
    parser.add_argument(
        '--read-ahead',
        type=at_least(0),
        default=1,
        metavar='N',
        help='batches of images that are loaded while one is detected; none while that has more '
        'than 268 MB',
    )
    parser.add_argument(
        '--score-thr',
        '--pred-score-thr',
        type=float,
        default=0.3,
        metavar='S',
        help='what is drawn has a score above this; the JSON files have all detections',
    )
    parser.add_argument(
        '--picture-side',
        type=at_least(1),
        default=MAX_SIDE,
        metavar='PX',
        help='pictures of larger images are reduced to this side',
    )
    parser.add_argument('--no-pictures', action='store_true', help='write the JSON files only')
    parser.add_argument(
        '--palette', default='none', choices=PALETTES, help="colours of the classes, or the data's"
    )
    parser.add_argument(
        '--geojson-crs',
        metavar='CRS',
        help='coordinates of the GeoJSON files, such as EPSG:4326, which RFC 7946 asks for [the '
        "scene's own, named in a member crs as GDAL and QGIS read it]",
    )
    add_config_arguments(parser, None)
    args = parser.parse_intermixed_args(argv)
    check_detector_arguments(parser, args)
    return args


@exit_on_error()
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    failed, undrawn = infer(load_config(args.config, args.cfg_options), args)
    reports = _listed(failed, 'image', 'could not be done') + _listed(
        undrawn, 'picture', 'could not be drawn, but what was detected is in detections.json'
    )
    if reports:
        sys.exit('\n'.join(reports))


def _listed(errors: Mapping[str, str], noun: str, what: str) -> list[str]:
    lines = [f'  {name}: {error}' for name, error in errors.items()]
    if not lines:
        return []
    return [f'{numbered(len(lines), noun)} {what}; the same command tries again:', *lines]


if __name__ == '__main__':
    main()
