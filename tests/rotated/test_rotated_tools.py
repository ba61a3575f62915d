"""Tools on a config of rotated boxes, whose annotations tell no image sizes (DOTA's)."""

import re
from pathlib import Path

import cv2
from scripts import load_script

from mmsniper.testing.toy_dataset import ToyDatasetSpec, make_toy_dataset

CONFIG = (
    Path(__file__).resolve().parents[2] / 'configs/sniper/rotated_faster_rcnn_r18_sniper_toy.py'
)


def test_pictures_of_the_training_data_are_drawn(tmp_path, monkeypatch):
    spec = ToyDatasetSpec(rotated=True, num_train=2, num_val=1, min_side=240, max_side=280)
    make_toy_dataset(tmp_path / 'work_dirs' / 'toy_rotated_data', spec, processes=1)
    monkeypatch.chdir(tmp_path)
    browse = load_script('tools/analysis_tools/browse_chips.py')
    browse.main([str(CONFIG), '--out-dir', 'pictures', '--num', '1'])
    (picture,) = (tmp_path / 'pictures').iterdir()
    assert cv2.imread(str(picture)).shape[2] == 3
    report = load_script('tools/analysis_tools/report.py').main(
        [str(CONFIG), '--out', 'report.html', '--examples', '2']
    )
    assert not report.missing
    # Paths through four corners, that of a box has H and V.
    assert re.search(r'd="M[-\d. ]+(L[-\d. e]+){3}Z', report.page)
