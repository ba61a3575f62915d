"""The notebook runs from its first cell to its last, with fewer scenes and epochs than its own."""

import os
import re
from pathlib import Path

import pytest

nbclient = pytest.importorskip('nbclient', reason='nbclient is not installed')
nbformat = pytest.importorskip('nbformat', reason='nbformat is not installed')
pytest.importorskip('ipykernel', reason='ipykernel is not installed')

DEMO = Path(__file__).resolve().parents[1] / 'demo'
SHORT = 'TRAIN_SCENES, VAL_SCENES, EPOCHS, PICTURES = 4, 2, 1, 2'


def notebook():
    return nbformat.read(DEMO / 'images_to_detector.ipynb', as_version=4)


def tagged(cell):
    return 'parameters' in cell.metadata.get('tags', ())


def test_it_is_kept_without_what_a_run_leaves():
    content = notebook()
    nbformat.validate(content)
    code = [cell for cell in content.cells if cell.cell_type == 'code']
    assert [cell.source for cell in code if cell.outputs or cell.execution_count] == []
    [settings] = [cell.source for cell in code if tagged(cell)]
    assert settings.splitlines()[-1].partition(' = ')[0] == SHORT.partition(' = ')[0]


@pytest.fixture(scope='module')
def ran(tmp_path_factory):
    """The notebook as it was run in an empty folder, and that folder."""
    folder = tmp_path_factory.mktemp('notebook')
    content = notebook()
    for cell in content.cells:
        if tagged(cell):
            cell.source = SHORT
    # Where Jupyter is set up for its user, that is not asked for.
    environment = {**os.environ, 'IPYTHONDIR': str(folder / 'ipython')}
    client = nbclient.NotebookClient(content, timeout=1800, kernel_name='python3')
    client.execute(cwd=str(folder), env=environment)
    return content, folder


def outputs(content, start):
    """What the code cell that has a line of this start has printed and shown."""
    [cell] = [
        cell
        for cell in content.cells
        if cell.cell_type == 'code'
        and any(line.startswith(start) for line in cell.source.split('\n'))
    ]
    text = ''.join(part.text for part in cell.outputs if part.output_type == 'stream')
    text = re.sub(r'\x1b\[[\d;]*m', '', text)  # colours, which Jupyter shows
    return text, sum('image/png' in part.get('data', {}) for part in cell.outputs)


def test_each_step_says_and_shows_what_it_is_for(ran):
    content, folder = ran
    made = folder / 'work_dirs' / 'notebook'
    text, pictures = outputs(content, 'plan =')
    assert 'chip_size=160' in text
    assert 'chips, of' in text
    assert pictures == 1
    text, pictures = outputs(content, "run('analysis_tools/check.py'")
    assert '0 errors' in text
    assert pictures == 2
    text, _ = outputs(content, 'for name, value in runner.test()')
    assert 'coco/bbox_mAP ' in text
    assert (made / 'training' / 'epoch_1.pth').is_file()
    text, pictures = outputs(content, 'detect = SNIPERInferencer')
    assert pictures == 2
    assert text.count('level 0: ') == 2


def test_real_images_are_seen_by_the_weights_of_the_clone(ran):
    text, pictures = outputs(ran[0], 'places =')
    assert pictures == 3
    assert 'level 1: ' in text
    assert 'no clone here' not in text
