"""The demo's real images: what the weights of the sample find in them is drawn and told."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from harness import real_images

ROOT = Path(__file__).resolve().parents[3]


def test_a_picture_of_every_validation_image_and_the_ap_on_them(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(real_images, 'draw_chips', lambda *arguments: asked.append(arguments))
    out = io.StringIO()
    told = real_images.show_real_images(ROOT, tmp_path, Console(file=out, width=200))
    pictures = sorted((tmp_path / 'detections').iterdir())
    assert len(pictures) == told['images'] == 12
    assert all(picture.read_bytes().startswith(b'\x89PNG') for picture in pictures)
    # 0.176 and 0.390 where the weights were made; other versions round otherwise.
    assert told['AP'] == pytest.approx(0.176, abs=0.01)
    assert told['AP50'] == pytest.approx(0.390, abs=0.015)
    text = out.getvalue()
    assert f'AP {told["AP"]:.3f}' in text
    assert 'CC BY 4.0' in text
    assert asked == [(ROOT, 'demo/hituav_sample/detector.py', tmp_path / 'chips', 5)]


def test_the_ap_is_that_of_coco():
    truth = ROOT / 'demo' / 'hituav_sample' / 'val.json'
    content = real_images.COCO(str(truth)).anns.values()
    perfect = [
        dict(item, score=0.9, bbox=list(item['bbox'])) for item in content if not item['iscrowd']
    ]
    told = real_images.measure(truth, dict(detections=perfect))
    assert (told['AP'], told['AP50']) == (pytest.approx(1), pytest.approx(1))
    assert told['objects'] == len(perfect)
