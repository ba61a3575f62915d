"""suggest_pyramid: numbers by hand, a file that configs inherit, errors in one line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config
from PIL import Image

from mmsniper.chips import ScalePyramid

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def suggest_pyramid(load_tool):
    return load_tool('analysis_tools/suggest_pyramid')


def coco(boxes, width=4000, height=3000):
    return json.dumps(
        dict(
            images=[dict(id=i, width=width, height=height, file_name=f'{i}.jpg') for i in (1, 2)],
            annotations=[
                dict(id=i, image_id=1, category_id=9, bbox=box) for i, box in enumerate(boxes)
            ],
            categories=[dict(id=9, name='thing')],
        )
    )


@pytest.fixture
def file(tmp_path):
    """Two images of 4000x3000, one of them with two far objects of 20 px and a third beside."""
    path = tmp_path / 'data' / 'some.json'
    path.parent.mkdir()
    path.write_text(coco([[0, 0, 20, 20], [30, 30, 20, 20], [3000, 2000, 20, 20]]))
    return path


def test_the_numbers_by_hand(suggest_pyramid, file, capsys):
    numbers = suggest_pyramid.main(['--ann-file', str(file)])
    # One level, factor 1: a chip around two neighbours, another for the third.
    assert (numbers['images'], numbers['boxes'], numbers['chips']) == (2, 3, 2)
    assert numbers['pixel_ratio_own_size'] == pytest.approx(2 * 160**2 / (2 * 4000 * 3000))
    assert numbers['pixel_ratio_800x1333'] == pytest.approx(2 * 160**2 / (2 * 1067 * 800))
    assert numbers['chips_for_an_image_800x1333'] == pytest.approx(800 * 1333 / 160**2)
    assert numbers['shown_area'] == [pytest.approx(numbers['pixel_ratio_own_size'], rel=1e-4)]
    assert numbers['network_sizes'] == [[20, 20, 20]]
    assert (numbers['shares'], numbers['coverage'], numbers['orphans']) == ((1, 0, 0), 1, 0)
    printed = ' '.join(capsys.readouterr().out.split())
    assert numbers['pixel_ratio_finest'] == numbers['pixel_ratio_own_size']  # factor 1
    assert 'objects are sparse' in printed
    assert 'One level is enough' in printed
    assert 'Pyramid: chips of 160 px' in printed
    assert 'Smaller chips pay: those of 160 px have 0.10 of the pixels' in printed
    assert '1.00 per image' in printed
    assert 'activations, in proportion to pixels' in printed


def test_the_shares_of_sizes_agree_with_the_sizes_of_the_levels(suggest_pyramid, file, capsys):
    file.write_text(coco([[0, 0, 19, 19], [500, 0, 20, 20], [900, 0, 20, 20], [2000, 0, 80, 80]]))
    numbers = suggest_pyramid.main(['--ann-file', str(file), '--chip-size', '160'])
    assert numbers['network_sizes'] == [pytest.approx([19.15, 20, 71])]
    rows = [' '.join(line.split('│')[1:3]).split() for line in capsys.readouterr().out.splitlines()]
    printed = [' '.join(row) for row in rows]
    assert 'boxes shown at a good size, 20 to 80 network px 75.00%' in printed
    assert 'boxes shown smaller, at the finest level [2] 25.00%' in printed
    assert 'boxes shown larger, in chips of the whole image 0.00%' in printed


def test_a_config_inherits_the_file(suggest_pyramid, file, tmp_path):
    out = tmp_path / 'deep' / 'mine.py'
    suggest_pyramid.main(['--ann-file', str(file), '--out', str(out)])
    (tmp_path / 'config.py').write_text("_base_ = ['deep/mine.py']\nx = 1\n")
    pyramid = ScalePyramid.from_config(Config.fromfile(tmp_path / 'config.py').pyramid)
    assert pyramid == ScalePyramid.from_config(
        dict(chip_size=160, levels=[dict(resize=dict(factor=1.0), valid_range=(0, None))])
    )
    comment = [line for line in out.read_text().splitlines() if line.startswith('#')]
    assert comment == [
        '# Proposed by suggest_pyramid.py from data/some.json:',
        '# 2 images, 3 boxes with sizes (sqrt of area) of 20 to 20 px.',
        '# 1.00 chips per image, 0.030 of the pixels of whole images at 800x1333, 0 orphans.',
    ]
    assert [path.name for path in out.parent.iterdir()] == ['mine.py']


def test_what_is_used_and_what_looks_wrong_is_said(suggest_pyramid, file, capsys):
    suggest_pyramid.main(['--ann-file', str(file)])
    printed = capsys.readouterr().out
    assert 'some.json: 3 annotations: 3 used; 2 images: all used' in printed
    assert 'warning' not in printed
    file.write_text(coco([[0, 0, 20, 20], [3900, 10, 3990, 90]]))
    suggest_pyramid.main(['--ann-file', str(file)])
    printed = capsys.readouterr().out
    assert 'some.json: 1 of 2 boxes leave their image by far; the first is [3900.0, ' in printed
    assert 'warning: ' in printed


def test_the_chip_size_may_be_given(suggest_pyramid, file, tmp_path):
    out = tmp_path / 'mine.py'
    suggest_pyramid.main(['--ann-file', str(file), '--chip-size', '320', '--out', str(out)])
    assert Config.fromfile(out).pyramid.chip_size == 320
    assert 'with --chip-size 320 from' in out.read_text()


def test_a_figure_is_drawn(suggest_pyramid, file, tmp_path):
    figure = tmp_path / 'deep' / 'sizes.png'
    suggest_pyramid.main(['--ann-file', str(file), '--figure', str(figure)])
    assert figure.read_bytes()[:8] == b'\x89PNG\r\n\x1a\n'


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (coco([]), r'^error: there are no boxes to make a pyramid for: 2 images, 0 boxes'),
        (coco([[5, 5, 0, 0]]), r'nothing of .*some\.json is left .* 1 of less than 1 px in width'),
        (coco([[0.1, 0.1, 0.2, 0.2]]), r'some\.json: 1 of 1 boxes lie within 0\.\.1; .* YOLO'),
        ('{', r'some\.json is not a JSON file'),
        (
            '{"images": [{"id": 3, "file_name": "c"}], "annotations": [], "categories": []}',
            r"some\.json: image 3 \(c\): has no 'width'",
        ),
    ],
)
def test_what_cannot_be_used_is_told_in_one_line(suggest_pyramid, file, content, message):
    file.write_text(content)
    with pytest.raises(SystemExit, match=message) as error:
        suggest_pyramid.main(['--ann-file', str(file)])
    assert '\n' not in str(error.value)


def test_a_file_that_is_not_there_and_impossible_chips(suggest_pyramid, file):
    with pytest.raises(SystemExit, match=r'there is no annotation file .*none\.json'):
        suggest_pyramid.main(['--ann-file', 'none.json'])
    with pytest.raises(SystemExit, match='chip_size must be at least 32 px'):
        suggest_pyramid.main(['--ann-file', str(file), '--chip-size', '0'])


def test_what_cannot_be_written_is_told_in_one_line(suggest_pyramid, file):
    with pytest.raises(SystemExit, match=r'^error: '):
        suggest_pyramid.main(['--ann-file', str(file), '--out', str(file / 'below.py')])


@pytest.mark.parametrize('option', [['--out', 'a.json'], ['--figure', 'a.jpg']])
def test_files_of_other_kinds_are_refused_at_once(suggest_pyramid, file, option, capsys):
    with pytest.raises(SystemExit):
        suggest_pyramid.main(['--ann-file', str(file), *option])
    assert f'{option[0]} takes a file name that ends in .p' in capsys.readouterr().err


def test_it_runs_as_a_command(file):
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / 'tools' / 'analysis_tools' / 'suggest_pyramid.py'),
            '--ann-file',
            str(file),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert 'One level is enough' in done.stdout


DOTA = '60 20 64 24 24 64 20 60 ship 0\n'
"""A rectangle of size 17.9, enclosed by one of size 44."""


@pytest.fixture
def dota(tmp_path):
    (tmp_path / 'images').mkdir()
    (tmp_path / 'annfiles').mkdir()
    Image.new('L', (300, 200)).save(tmp_path / 'images' / 'P1.png')
    (tmp_path / 'annfiles' / 'P1.txt').write_text(f'imagesource:x\ngsd:1\n{DOTA}')
    return tmp_path


def test_a_folder_of_dota_is_read_by_the_sizes_of_its_rotated_boxes(suggest_pyramid, dota):
    numbers = suggest_pyramid.main(['--ann-file', str(dota / 'annfiles')])
    assert (numbers['images'], numbers['boxes'], numbers['orphans']) == (1, 1, 0)
    assert numbers['network_sizes'] == [[pytest.approx(320**0.5, rel=1e-3)] * 3]
    images = (dota / 'images').rename(dota / 'pictures')
    again = suggest_pyramid.main(['--ann-file', str(dota / 'annfiles'), '--images', str(images)])
    assert again == numbers


def test_what_a_folder_of_dota_lacks_is_named(suggest_pyramid, dota):
    folder = str(dota / 'annfiles')
    (dota / 'images' / 'P1.png').rename(dota / 'images' / 'P2.png')
    with pytest.raises(SystemExit, match=r'there is no image of .*P1\.txt in .*images'):
        suggest_pyramid.main(['--ann-file', folder])
    with pytest.raises(SystemExit, match=r'no folder of images .*name it \(--images\)'):
        suggest_pyramid.main(['--ann-file', folder, '--images', str(dota / 'nowhere')])


def test_polygons_of_a_coco_file_are_rotated_boxes_if_asked(suggest_pyramid, file):
    content = json.loads(coco([[20, 20, 44, 44]]))
    content['annotations'][0]['segmentation'] = [[float(v) for v in DOTA.split()[:8]]]
    file.write_text(json.dumps(content))
    sizes = [
        suggest_pyramid.main(['--ann-file', str(file), *more])['network_sizes'][0][1]
        for more in ((), ('--rotated',))
    ]
    assert sizes == [pytest.approx(44), pytest.approx(320**0.5, rel=1e-3)]
