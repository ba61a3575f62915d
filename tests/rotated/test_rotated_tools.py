"""Tools on a config of rotated boxes, whose annotations tell no image sizes (DOTA's)."""

import re
from pathlib import Path

import cv2
import pytest
from scripts import load_script

from mmsniper.checks.everything import check_everything
from mmsniper.testing.toy_dataset import ToyDatasetSpec, make_toy_dataset

CONFIG = (
    Path(__file__).resolve().parents[2] / 'configs/sniper/rotated_faster_rcnn_r18_sniper_toy.py'
)


@pytest.fixture
def data(tmp_path, monkeypatch):
    """The folder of the config's data, made small."""
    spec = ToyDatasetSpec(rotated=True, num_train=2, num_val=1, min_side=240, max_side=280)
    folder = tmp_path / 'work_dirs' / 'toy_rotated_data'
    make_toy_dataset(folder, spec, processes=1)
    monkeypatch.chdir(tmp_path)
    return folder


def test_pictures_of_the_training_data_are_drawn(data, tmp_path):
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


def test_a_folder_has_the_chips_that_training_has_of_it(data):
    stats = load_script('tools/analysis_tools/chip_stats.py')
    folder = [str(data / 'annfiles' / 'train'), '--images', str(data / 'train')]
    of_config, of_folder = (
        stats.main([str(CONFIG), *more]) for more in ((), ('--ann-file', *folder))
    )
    for numbers in (of_config, of_folder):
        del numbers['ms_per_image']
    assert of_folder == of_config
    assert of_config['chips'] > 2


@pytest.mark.parametrize(
    ('old', 'new', 'said'),
    [
        ('', 'imagesource:x\n', r"000001\.txt, line 1, 'imagesource:x', is no object: .*Drop them"),
        ('disc', 'disk', r"000001\.txt, line \d+: the class 'disk' .* write 'disc' there, or name"),
        (' 0\n', '\n', r'000001\.txt, line 1: expected x1 y1 .* class difficulty, .* 9 values'),
    ],
)
def test_the_check_names_the_line_that_mmrotate_does_not_read(data, old, new, said):
    file = data / 'annfiles' / 'train' / '000001.txt'
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    (error,) = (f for f in check_everything(str(CONFIG)) if f.severity == 'error')
    assert error.where == 'train_dataloader.dataset'
    assert re.search(said, error.what)


def test_the_check_names_what_a_folder_lacks(data):
    def error():
        (found,) = (f.what for f in check_everything(str(CONFIG)) if f.severity == 'error')
        return found

    (data / 'train' / '000001.jpg').rename(data / 'train' / '000001.png')
    said = error()
    assert 'no such file, whose header would tell the size. There is' in said
    assert '000001.png: it has another suffix. Correct it in data_root, data_prefix or' in said
    (data / 'annfiles' / 'train').rename(data / 'annfiles' / 'labels')
    assert "expected DOTA's annotation files *.txt" in error()
    assert 'no such folder' in error()
