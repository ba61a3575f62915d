"""chip_stats: the numbers of a COCO file, by hand and on real images, and errors that help."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from mmsniper.chips import pixel_ratio
from mmsniper.datasets import coco_reader

ROOT = Path(__file__).resolve().parents[2]
KEYS = [
    'images',
    'chips',
    'chips_per_image',
    'chips_per_level',
    'pixel_ratio_800x1333',
    'pixel_ratio_finest',
    'decoded_megapixels',
    'coverage',
    'orphans',
    'in_no_range',
    'boxes',
    'shown_area',
    'ms_per_image',
]
CONFIG = """
pyramid = dict(chip_size=64, levels=[
    dict(resize=dict(factor=2.0), valid_range=(0, 20)),
    dict(resize=dict(factor=1.0), valid_range=(10, None))])
pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True),
            dict(type='ChipSampler', pyramid=pyramid), dict(type='PackDetInputs')]
train_dataloader = dict(dataset=dict(
    type='ChipDataset', pipeline=pipeline, dataset=dict(
        type='CocoDataset', data_root={root!r}, ann_file='a.json',
        metainfo=dict(classes=('a', 'b')), filter_cfg=dict(min_size=32),
        data_prefix=dict(img=''))))
"""


@pytest.fixture
def chip_stats(load_tool):
    return load_tool('analysis_tools/chip_stats')


def coco(**changes):
    """Two images of 320x240 px, four boxes in the first."""
    content = dict(
        images=[dict(id=i, width=320, height=240, file_name=f'{i}.jpg') for i in (1, 2)],
        annotations=[
            dict(id=1, image_id=1, category_id=-5, bbox=[10, 10, 15, 15]),
            dict(id=2, image_id=1, category_id=77, bbox=[200, 100, 40, 40]),
            dict(id=3, image_id=1, category_id=77, bbox=[0, 0, 100, 100]),
            dict(id=4, image_id=1, category_id=77, bbox=[0, 0, 30, 30], iscrowd=1),
        ],
        categories=[dict(id=-5, name='a'), dict(id=77, name='b'), dict(id=9, name='c')],
    )
    return json.dumps({**content, **changes})


@pytest.fixture
def folder(tmp_path):
    """A config and its COCO file."""
    (tmp_path / 'config.py').write_text(CONFIG.format(root=str(tmp_path)))
    (tmp_path / 'a.json').write_text(coco())
    return tmp_path


def test_the_numbers_by_hand(chip_stats, folder):
    out = folder / 'deep' / 'out.json'
    chip_stats.main([str(folder / 'config.py'), '--out', str(out)])
    numbers = json.loads(out.read_text())
    assert list(numbers)[: len(KEYS)] == KEYS
    assert numbers['images'] == 2
    assert numbers['boxes'] == 3
    # The first box is valid at both levels, the second at the coarse one; the third never fits.
    assert numbers['chips'] == 3
    assert numbers['chips_per_level'] == [1, 2]
    assert numbers['chips_per_image'] == 1.5
    assert numbers['coverage'] == 1.0
    assert numbers['orphans'] == 1
    assert numbers['unproven'] == 0
    assert numbers['pixel_ratio_800x1333'] == pytest.approx(
        3 * 64 * 64 / (2 * 1067 * 800), abs=1e-4
    )
    assert numbers['ms_per_image'] > 0
    assert [path.name for path in out.parent.iterdir()] == ['out.json']


def test_a_readable_table_is_printed(chip_stats, folder, capsys):
    chip_stats.main([str(folder / 'config.py')])
    printed = capsys.readouterr().out
    assert '1.50 per image' in printed
    rows = {row[1].strip(): row[2].strip() for row in map(split_row, printed.splitlines()) if row}
    assert rows['pixels of an epoch, without negative chips'] == f'{3 * 64 * 64:,}'
    assert 'of whole images at the finest level: ' in printed
    assert '100.00%' in printed


def test_other_scales_in_the_test_are_warned_of(chip_stats, folder, capsys):
    config = folder / 'config.py'
    numbers = chip_stats.main([str(config)])
    assert numbers['train_over_test_scale'] == [1, 1]
    assert 'warning' not in capsys.readouterr().out
    config.write_text(
        config.read_text().replace('(10, None)', '(10, None), test_resize=dict(factor=0.5)')
    )
    numbers = chip_stats.main([str(config)])
    assert numbers['train_over_test_scale'] == [1, 2]
    # On one line, so that the files in it can be copied.
    (line,) = (line for line in capsys.readouterr().out.splitlines() if 'warning' in line)
    assert line.startswith('warning: the pyramid trains level 1 at 2 times the scale of its test')
    assert 'suggest_pyramid.py' in line


def test_boxes_in_no_level_s_range_are_warned_of_and_are_no_orphans(chip_stats, folder, capsys):
    """By hand: of 15, 40 and 100 px the second is in the gap; the third fits nowhere."""
    config = folder / 'config.py'
    config.write_text(config.read_text().replace('(10, None)', '(50, None)'))
    numbers = chip_stats.main([str(config)])
    assert (numbers['orphans'], numbers['in_no_range']) == (2, 1)
    printed = capsys.readouterr().out
    (line,) = (line for line in printed.splitlines() if 'warning' in line)
    assert line.startswith("warning: 1 of 3 boxes have a size in no level's valid_range, 20 to 50")
    rows = {row[1].strip(): row[2].strip() for row in map(split_row, printed.splitlines()) if row}
    assert rows['orphans: boxes that fit at no level of theirs'] == '1'
    assert rows["boxes in no level's valid_range"] == '1'


def split_row(line):
    parts = line.split('│')
    return parts if len(parts) > 3 else None


def test_strategy_stride_seed_and_epoch_reach_the_planner(chip_stats, folder, monkeypatch):
    seen = []

    class Planner(chip_stats.PositiveChipPlanner):
        def __init__(self, *args, **kwargs):
            seen.append(args[2:])
            super().__init__(*args, **kwargs)

        def plan(self, epoch):
            seen.append(epoch)
            return super().plan(epoch)

    monkeypatch.setattr(chip_stats, 'PositiveChipPlanner', Planner)
    config = str(folder / 'config.py')
    numbers = chip_stats.main(
        [config, '--strategy', 'grid', '--stride', '56', '59', '--seed', '3', '--epoch', '2']
    )
    assert seen[:2] == [('grid', (56, 59), 3), 2]
    assert numbers['strategy'] == 'grid'
    seen.clear()
    chip_stats.main([config, '--stride', '16'])
    assert seen[:2] == [('minimum', (16, 16), 0), 0]


def test_another_annotation_file_and_other_settings(chip_stats, folder):
    (folder / 'b.json').write_text(
        coco(
            images=[
                dict(id='x', width=64, height=64, file_name='x.jpg'),
                dict(id='y', width=64, height=31, file_name='y.jpg'),
            ],
            annotations=[
                dict(id=1, image_id='x', bbox=[0, 0, 60, 60], category_id=77),
                dict(id=2, image_id='x', bbox=[0, 0, 60, 60], category_id=9),
            ],
        )
    )
    config, file = str(folder / 'config.py'), str(folder / 'b.json')
    numbers = chip_stats.main([config, '--ann-file', file])
    # One is of a class that is not trained, an image is narrower than 32 px.
    assert (numbers['chips'], numbers['boxes'], numbers['images']) == (1, 1, 1)
    # Smaller chips, into which the box does not fit.
    small = ['pyramid.chip_size=32', 'train_dataloader.dataset.pipeline.2.pyramid.chip_size=32']
    assert chip_stats.main([config, '--ann-file', file, '--cfg-options', *small])['orphans'] == 1


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        ('x = 1', 'config.py has no pyramid; add one'),
        ('pyramid = dict(chip_size=0, levels=[])', 'chip_size must be positive, got 0'),
        (CONFIG.replace('a.json', 'none.json'), r'none\.json'),
        (CONFIG + 'train_dataloader = dict()', r'config.py has no train_dataloader.dataset; name'),
        (CONFIG.replace("img=''", "im=''"), "data_prefix of CocoDataset has no 'img'"),
        ('pyramid = (', 'config.py'),
    ],
)
def test_what_cannot_be_planned_is_told_in_one_line(chip_stats, folder, config, message):
    (folder / 'config.py').write_text(config.replace('{root!r}', repr(str(folder))))
    with pytest.raises(SystemExit, match=message):
        chip_stats.main([str(folder / 'config.py')])


def test_the_data_are_those_of_training_with_all_wrappers_and_files(chip_stats, folder):
    (folder / 'b.json').write_text(coco())
    text = (folder / 'config.py').read_text()
    (folder / 'config.py').write_text(
        text
        + "one = train_dataloader['dataset']['dataset']\n"
        + "train_dataloader['dataset']['dataset'] = dict(type='ConcatDataset', datasets=[\n"
        + "    dict(type='RepeatDataset', times=2, dataset=one), {**one, 'ann_file': 'b.json'}])"
    )
    numbers = chip_stats.main([str(folder / 'config.py')])
    assert (numbers['images'], numbers['boxes'], numbers['chips']) == (6, 9, 9)


def test_a_file_without_train_data_or_of_a_plain_data_set(chip_stats, folder):
    pyramid = CONFIG[: CONFIG.index('pipeline =')]
    config, file = folder / 'config.py', str(folder / 'a.json')
    config.write_text(pyramid)
    assert chip_stats.main([str(config), '--ann-file', file])['boxes'] == 3
    plain = dict(
        type='CocoDataset', ann_file=file, metainfo=dict(classes=('b',)), data_prefix=dict(img='')
    )
    config.write_text(f'{pyramid}train_dataloader = dict(dataset={plain})')
    assert chip_stats.main([str(config)])['boxes'] == 2
    assert chip_stats.main([str(config), '--ann-file', file])['boxes'] == 2


def test_what_is_used_is_said_in_one_line(chip_stats, folder, monkeypatch):
    said = []
    monkeypatch.setattr(coco_reader, 'print_log', lambda text, **kwargs: said.append(text))
    for more in ([], ['--ann-file', str(folder / 'a.json')]):
        chip_stats.main([str(folder / 'config.py'), *more])
        (line,) = said
        assert 'a.json: 4 annotations: 4 used (1 of them crowds); 2 images: all used' in line
        said.clear()


def test_images_without_a_size_are_told_by_file_and_id(chip_stats, folder):
    (folder / 'a.json').write_text(coco(images=[dict(id=31, file_name='c.jpg')]))
    with pytest.raises(SystemExit, match=r"a\.json: image 31 \(c.jpg\): has no 'width'"):
        chip_stats.main([str(folder / 'config.py')])


@pytest.mark.parametrize('stride', [['0'], ['-3'], ['59', '56'], ['1', '2', '3']])
def test_impossible_strides_are_refused(chip_stats, folder, stride, capsys):
    with pytest.raises(SystemExit):
        chip_stats.main([str(folder / 'config.py'), '--stride', *stride])
    assert '--stride takes a positive number' in capsys.readouterr().err


def coco_tiny(split):
    """Annotation file of real images."""
    for folder in (ROOT / 'data' / 'coco_tiny', ROOT.parent / 'shared' / 'data' / 'coco_tiny'):
        file = folder / 'annotations' / f'instances_{split}2017.json'
        if file.is_file():
            return str(file)
    pytest.skip('data/coco_tiny is not there')


@pytest.mark.parametrize(
    ('split', 'chips', 'per_level', 'release'),
    [('train', 346, [156, 122, 68], 360), ('val', 364, [164, 129, 71], 385)],
)
def test_real_images_with_the_papers_config(chip_stats, split, chips, per_level, release):
    file, config = coco_tiny(split), ROOT / 'configs' / 'sniper' / 'faster_rcnn_r101_sniper.py'
    numbers = chip_stats.main([str(config), '--ann-file', file])
    assert (numbers['chips'], numbers['chips_per_level']) == (chips, per_level)
    assert numbers['coverage'] == 1.0
    grid = chip_stats.main([str(config), '--ann-file', file, '--strategy', 'grid'])
    assert abs(grid['chips'] - release) <= 0.02 * release


def test_the_pixel_ratio_is_that_of_the_release_for_its_number_of_chips(chip_stats):
    pyramid = chip_stats.ScalePyramid.from_config(
        dict(chip_size=512, levels=[dict(resize=dict(factor=3.0), valid_range=(0, 80))])
    )
    table = chip_stats.AnnotationTable.from_coco(coco_tiny('train'))
    assert pixel_ratio(table, pyramid, 360) == pytest.approx(1.314, abs=5e-4)


def test_it_runs_as_a_command(folder):
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / 'tools' / 'analysis_tools' / 'chip_stats.py'),
            str(folder / 'config.py'),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert '1.50 per image' in done.stdout


@pytest.fixture
def dota(folder):
    """Two images of 320x240 px, the second empty: a box of 50x20 px that lies at 45 degrees."""
    (folder / 'images').mkdir()
    (folder / 'labelTxt').mkdir()
    for name, text in (
        ('P1', 'imagesource:x\ngsd:1\n60 60 95.36 95.36 81.21 109.5 45.86 74.14 a 0\n'),
        ('P2', ''),
    ):
        Image.new('L', (320, 240)).save(folder / 'images' / f'{name}.png')
        (folder / 'labelTxt' / f'{name}.txt').write_text(text)
    return folder


def test_a_folder_of_dota_is_planned_by_its_rotated_boxes(chip_stats, dota):
    """By hand: sqrt(50 * 20) = 31.6 px, so the coarse level; as an upright box it is 49.5 px."""
    arguments = [str(dota / 'config.py'), '--ann-file', str(dota / 'labelTxt')]
    numbers = chip_stats.main(arguments)
    assert (numbers['images'], numbers['boxes'], numbers['orphans']) == (2, 1, 0)
    assert numbers['chips_per_level'] == [0, 1]
    config = dota / 'config.py'
    config.write_text(
        config.read_text()
        .replace('valid_range=(0, 20)', 'valid_range=(0, 35)')
        .replace('(10, None)', '(33, None)')
        .replace('min_size=32', 'filter_empty_gt=True')
        .replace('factor=2.0', 'factor=1.5')
    )
    images = (dota / 'images').rename(dota / 'pictures')
    numbers = chip_stats.main([*arguments, '--images', str(images)])
    # 49.5 px are 74.25 at the fine level, where it is valid, and the chip has 64.
    assert (numbers['images'], numbers['orphans'], numbers['in_no_range']) == (1, 1, 0)


def test_what_a_folder_of_dota_lacks_is_named(chip_stats, dota, capsys):
    arguments = [str(dota / 'config.py'), '--ann-file']
    with pytest.raises(SystemExit, match=r'expected DOTA.* in the folder .*images, but there is'):
        chip_stats.main([*arguments, str(dota / 'images')])
    with pytest.raises(SystemExit, match=r"--images is for DOTA's folders; .*a\.json tells"):
        chip_stats.main([*arguments, str(dota / 'a.json'), '--images', str(dota)])
    with pytest.raises(SystemExit):
        chip_stats.main([arguments[0], '--images', str(dota)])
    assert "--images is for DOTA's folders, which --ann-file names" in capsys.readouterr().err
    (dota / 'images' / 'P2.png').unlink()
    with pytest.raises(SystemExit, match=r'there is no image of .*P2\.txt in .*images'):
        chip_stats.main([*arguments, str(dota / 'labelTxt')])
    text = (dota / 'config.py').read_text()
    (dota / 'config.py').write_text(text.replace("('a', 'b')", "('b', 'c')"))
    with pytest.raises(SystemExit, match=r"P1\.txt, line 3: the class 'a' is not among .*'b', 'c'"):
        chip_stats.main([*arguments, str(dota / 'labelTxt')])
