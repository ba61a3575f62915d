"""The toy scenes' AutoFocus config with random weights, for tests of what is around a detector."""

from pathlib import Path

from harness.random_weights import random_weights

ROOT = Path(__file__).resolve().parents[1]
AUTOFOCUS = ROOT / 'configs' / 'autofocus' / 'faster_rcnn_r18_autofocus_toy.py'


def autofocus_checkpoint(folder: Path) -> Path:
    """Weights of the config, at random, but the same every time."""
    return random_weights(AUTOFOCUS, folder)
