"""Draw the figures of docs/concepts.md again, by the tools that draw them for any data.

    python tools/dev/draw_concepts.py CHECKPOINT

HIT-UAV has to be in data/hituav. CHECKPOINT holds weights of the config below: what is detected
depends on them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2

ROOT = Path(__file__).resolve().parents[2]
FIGURES = ROOT / 'docs' / 'images'
ANNOTATIONS = 'data/hituav/train.json'
TRAINED = '1_80_40_0_04632.jpg'  # people and bicycles, at both levels
TESTED = 'data/hituav/images/1_120_80_0_03000.jpg'
CONFIG = 'configs/autofocus/faster_rcnn_yolox_nano_autofocus_hituav.py'
WIDTH, QUALITY = 1400, 80


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('checkpoint', help='weights of an AutoFocus detector, trained on HIT-UAV')
    return parser.parse_args(argv)


def main() -> None:
    checkpoint = Path(parse_args().checkpoint).resolve()
    images = json.loads((ROOT / ANNOTATIONS).read_text('utf-8'))['images']
    [place] = [i for i, image in enumerate(images) if image['file_name'] == TRAINED]
    one_image = ['--cfg-options', f'train_dataloader.dataset.indices=[{place}]']
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder)
        look, pool = 'analysis_tools/browse_chips.py', made / 'pool.npz'
        figure = ['--chip-size', 160, '--figure', made / 'sizes.png']
        run('analysis_tools/suggest_pyramid.py', '--ann-file', ANNOTATIONS, *figure)
        run(look, CONFIG, '--out-dir', made / 'chips', '--negatives', 'none', *one_image)
        everywhere = [*one_image, 'sniper.negative_chips.share=1']
        run('analysis_tools/mine_negatives.py', CONFIG, checkpoint, '--out', pool, *everywhere)
        run(look, CONFIG, '--out-dir', made / 'negatives', '--negatives', pool, *one_image)
        run(
            'infer.py', TESTED, CONFIG, checkpoint, '--out-dir', made / 'focus', '--thresholds', 0.1
        )
        shutil.copy(made / 'sizes.png', FIGURES / 'concepts_sizes.png')
        keep(next(made.glob('chips/*.png')), 'concepts_chips.jpg')
        keep(next(made.glob('negatives/*.png')), 'concepts_negatives.jpg')
        keep(next(made.glob('focus/focus/*.png')), 'concepts_focus.jpg')


def run(tool: str, *arguments: object) -> None:
    subprocess.run(
        [sys.executable, ROOT / 'tools' / tool, *map(str, arguments)], cwd=ROOT, check=True
    )


def keep(picture: Path, name: str) -> None:
    """Write a picture to the documentation, reduced to its width, as JPEG."""
    image = cv2.imread(str(picture))
    if image.shape[1] > WIDTH:
        height = round(image.shape[0] * WIDTH / image.shape[1])
        image = cv2.resize(image, (WIDTH, height), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(FIGURES / name), image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])


if __name__ == '__main__':
    main()
