"""Make the sample of HIT-UAV in demo/hituav_sample again, and the weights beside it.

    python tools/dev/make_sample.py data/hituav CHECKPOINT

CHECKPOINT is of demo/hituav_sample/detector.py, trained on the training images of HIT-UAV. Of each
split, the images with at least 5 objects are put in the order of day and file name, and some of
them are taken at equal distances. Files are copied as they are, annotations keep their ids.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

SAMPLE = Path(__file__).resolve().parents[2] / 'demo' / 'hituav_sample'
NUM_IMAGES = {'train': 28, 'val': 12}
MIN_OBJECTS = 5
WEIGHTS = 'weights.pth'


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('data', type=Path, help='HIT-UAV: images/, train.json, val.json')
    parser.add_argument('checkpoint', type=Path, nargs='?', help='weights, made anew if given')
    parser.add_argument('--out-dir', type=Path, default=SAMPLE, help='folder of the sample')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    shutil.rmtree(args.out_dir / 'images', ignore_errors=True)
    (args.out_dir / 'images').mkdir(parents=True)
    for split, count in NUM_IMAGES.items():
        content = json.loads((args.data / f'{split}.json').read_text('utf-8'))
        part = sample(content, count)
        for image in part['images']:
            name = image['file_name']
            shutil.copyfile(args.data / 'images' / name, args.out_dir / 'images' / name)
        text = json.dumps(part, separators=(',', ':')) + '\n'
        (args.out_dir / f'{split}.json').write_text(text, 'utf-8')
    if args.checkpoint is not None:
        torch.save(half_precision(args.checkpoint), args.out_dir / WEIGHTS)


def sample(content: dict[str, Any], count: int) -> dict[str, Any]:
    """Some images of a COCO file and their annotations.

    Args:
        content (dict): The COCO file.
        count (int): Number of images.

    Returns:
        dict: The smaller COCO file.
    """
    objects = Counter(item['image_id'] for item in content['annotations'])
    images = [image for image in content['images'] if objects[image['id']] >= MIN_OBJECTS]
    images.sort(key=lambda image: (image['day'], image['file_name']))
    images = [images[(2 * i + 1) * len(images) // (2 * count)] for i in range(count)]
    ids = {image['id'] for image in images}
    items = [item for item in content['annotations'] if item['image_id'] in ids]
    return dict(content, images=images, annotations=items)


def half_precision(checkpoint: Path) -> dict[str, Any]:
    """What inference needs of a checkpoint: the weights, in 16 bits, and the names of the classes.

    Args:
        checkpoint (Path): The checkpoint of a training.

    Returns:
        dict: For ``torch.save``.
    """
    content = torch.load(checkpoint, map_location='cpu', weights_only=False)
    weights = {
        name: weight.half() if weight.is_floating_point() else weight
        for name, weight in content['state_dict'].items()
    }
    classes = tuple(content['meta']['dataset_meta']['classes'])
    return dict(state_dict=weights, meta=dict(dataset_meta=dict(classes=classes)))


if __name__ == '__main__':
    main()
