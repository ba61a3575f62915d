"""check.py tells all that is wrong, goes on after an error, and ends in status 1."""

import json
from io import StringIO
from pathlib import Path

import cv2
import pytest
import torch
from rich.console import Console

from mmsniper.checks import ERROR, NOTE, WARNING, Finding
from mmsniper.checks.everything import check_everything
from mmsniper.datasets import coco_reader

SAMPLE = Path(__file__).resolve().parents[2] / 'demo' / 'hituav_sample' / 'detector.py'


@pytest.fixture
def tool(load_tool):
    return load_tool('analysis_tools/check')


def check(config, images=False, checkpoint=None, **options):
    return check_everything(str(config), options, images=images, workers=2, checkpoint=checkpoint)


def errors(found):
    return [str(finding) for finding in found if finding.severity == ERROR]


def test_what_is_right_is_counted_and_ends_well(tool, small_run, capsys):
    found = tool.main([str(small_run), '--images'])
    assert errors(found) == []
    [used] = [f for f in found if '12 annotations: 12 used' in f.what]
    assert used.severity == NOTE
    assert '0 errors, 0 warnings, ' in capsys.readouterr().out


def test_one_data_set_of_validation_and_test_is_read_and_opened_once(monkeypatch, capsys):
    read = []
    monkeypatch.setattr(coco_reader, 'print_log', lambda line, **_: read.append(line))
    found = check(SAMPLE, images=True)
    assert [Path(line.partition(':')[0]).name for line in read] == ['train.json', 'val.json']
    [used] = [f for f in found if '152 annotations: 152 used' in f.what]
    assert used.where == 'val_dataloader.dataset, test_dataloader.dataset'
    counted = capsys.readouterr().err
    assert 'val_dataloader: images: 100%' in counted
    assert 'test_dataloader: images' not in counted


def test_no_path_is_broken_in_a_narrow_terminal(tool):
    path, out = '/data/mine/a_very_long_name-of-an-image.png', StringIO()
    findings = [Finding(WARNING, path, f'1 of 2 images [b] are small: {path}; and so on', 'Look')]
    tool.show(findings, Console(width=30, file=out))
    assert out.getvalue().splitlines() == [
        f'warning in {path}',
        '    1 of 2 images [b] are',
        '    small:',
        f'    {path};',
        '    and so on',
        '    To do: Look',
        '',
        '0 errors, 1 warning, 0 notes',
    ]


def test_all_errors_are_told_and_the_status_is_1(tool, small_run, small_images, tmp_path, capsys):
    content = json.loads((small_images / 'ann.json').read_text())
    content['categories'].reverse()
    content['images'][0]['file_name'] = 'gone.png'
    content['images'][1].update(width=140, height=180)
    (tmp_path / 'ann.json').write_text(json.dumps(content))
    text = small_run.read_text().replace("'ann.json'", repr(str(tmp_path / 'ann.json')))
    small_run.write_text(text.replace('num_classes=2', 'num_classes=5'))
    with pytest.raises(SystemExit) as ended:
        tool.main([str(small_run), '--images'])
    assert ended.value.code == 1
    words = ' '.join(capsys.readouterr().out.split())
    assert '4 errors' in words
    for said in ('is 5', "classes=('b', 'a')", 'gone.png', 'another size'):
        assert said in words


def test_boxes_in_no_level_s_range_are_a_warning(small_run):
    """Of two objects an image, the one of 30 px is in a gap from 24 to 32 px."""
    text = small_run.read_text()
    small_run.write_text(text.replace('valid_range=(16, None)', 'valid_range=(32, None)'))
    (finding,) = (f for f in check(small_run) if f.where == 'pyramid')
    assert finding.severity == WARNING
    assert finding.what.startswith(
        "6 of 12 boxes have a size in no level's valid_range, 24 to 32 px"
    )


def test_a_config_or_data_that_cannot_be_read_are_findings(small_run, tmp_path):
    (tmp_path / 'broken.py').write_text('model = (')
    assert 'is refused' in errors(check(tmp_path / 'broken.py'))[0]
    messages = errors(check(small_run, **{'train_dataloader.dataset.dataset.ann_file': 'no.json'}))
    assert len(messages) == 1
    assert 'no.json cannot be read' in messages[0]
    messages = errors(check(small_run, **{'model.neck.type': 'Nothing'}))
    assert len(messages) == 1
    assert messages[0].startswith('model: cannot be built: ')


class CheckpointNote:
    """What a training script may keep beside its weights."""


def test_a_checkpoint_is_compared(small_run, tmp_path):
    path = tmp_path / 'c.pth'
    meta = dict(dataset_meta=dict(classes=('b', 'a')))
    torch.save(dict(state_dict={}, meta=meta), path)
    messages = ' '.join(errors(check(small_run, checkpoint=str(path))))
    assert 'in another order' in messages
    assert 'it has no weight of the model' in messages
    torch.save(dict(state_dict={}, meta=CheckpointNote()), path)
    [error] = errors(check(small_run, checkpoint=str(path)))
    assert 'CheckpointNote' in error or 'no weight of the model' in error  # by torch's version
    assert 'no such checkpoint' in errors(check(small_run, checkpoint=str(tmp_path / 'x')))[0]


def test_images_are_opened_once(small_run, small_images, tmp_path):
    img = cv2.imread(str(small_images / '0.png'))
    (tmp_path / 'images').mkdir()
    for i in range(8):
        source = cv2.imread(str(small_images / f'{i}.png'))
        cv2.imwrite(str(tmp_path / 'images' / f'{i}.png'), source if i else img[..., 0])
    folder = {'train_dataloader.dataset.dataset.data_prefix.img': str(tmp_path / 'images')}
    found = check(small_run, images=True, **folder)
    assert [f.what for f in found if 'one channel' in f.what] == [
        '1 of 8 images are of one channel and loaded as colour, three times the same: '
        + str(tmp_path / 'images' / '0.png')
    ]
