"""report.py makes one page that stands alone: what is in it, escaped, whole, without network."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from negative_pools import pool_of
from predicted_scenes import DETECTIONS, write_data, write_predictions
from small_training import CONFIG

from mmsniper.apis.epoch_chips import EpochChips
from mmsniper.apis.report_data import ReportData
from mmsniper.apis.report_pictures import choose_examples
from mmsniper.checks.everything import check_everything
from mmsniper.chips import (
    AnnotationTable,
    ChipPlan,
    PositiveChipPlanner,
    ScalePyramid,
    plan_negative_chips,
    plan_positive_chips,
)
from mmsniper.chips.coco_file import CocoFile
from mmsniper.convert import load_config
from mmsniper.datasets import samplers

ROOT = Path(__file__).resolve().parents[2]
VOID = {'meta', 'input', 'br', 'link', 'img'}
TESTING = """
test_dataloader = dict(batch_size=1, num_workers=0, dataset=dict(
    type='CocoDataset', data_root={root!r}, ann_file='a.json', data_prefix=dict(img=''),
    metainfo=dict(classes=('person', 'dog')), test_mode=True,
    pipeline=[dict(type='LoadImageFromFile'), dict(type='PackDetInputs')]))
test_evaluator = dict(type='CocoMetric', ann_file={root!r} + '/a.json')
test_cfg = dict()
"""


class Page(HTMLParser):
    """What a page has; a tag that is not closed where it must be is an error."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.addresses, self.words = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        self.addresses += [v for k, v in attrs if k in ('href', 'src', 'srcset', 'xlink:href')]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ('style', 'script'):
            self.words.append(data)

    @property
    def text(self):
        return ' '.join(' '.join(self.words).split())

    def count(self, tag, **attributes):
        return sum(
            kind == tag and all(attrs.get(k) == v for k, v in attributes.items())
            for kind, attrs in self.tags
        )


@pytest.fixture
def tool(load_tool):
    return load_tool('analysis_tools/report')


@pytest.fixture
def make(tool, tmp_path):
    def make_(config, *options):
        out = tmp_path / 'out' / 'report.html'
        report = tool.main([str(config), '--out', str(out), *options])
        text = out.read_text('utf-8')
        assert text == report.page
        return Page(text), text

    return make_


@pytest.fixture
def scenes(tmp_path):
    """The scenes with predictions, as a config that trains on them and tests."""
    write_data(tmp_path)
    text = CONFIG.replace('{root}', str(tmp_path)).replace('ann.json', 'a.json')
    text = text.replace("('a', 'b')", "('person', 'dog')")
    path = tmp_path / 'scenes.py'
    path.write_text(text + TESTING.format(root=str(tmp_path)))
    return path


def write_log(work_dir, run, rows, last=''):
    file = work_dir / run / 'vis_data' / 'scalars.json'
    file.parent.mkdir(parents=True)
    file.write_text('\n'.join([*map(json.dumps, rows), last]))


def losses(*steps):
    return [
        {
            'loss': 1 / step,
            'loss_cls': 0.5 / step,
            'acc': 90.0,
            'epoch': 1,
            'iter': step,
            'step': step,
        }
        for step in steps
    ]


def test_the_page_before_training_has_all_of_the_config_and_its_data(make, small_run):
    page, text = make(small_run, '--examples', '5')
    words = page.text
    assert 'small.py: SNIPER report' in words
    # The config and the pyramid.
    for said in ('FasterRCNN', 'ResNet-18', 'ann.json', '4 chips of 64 px', 'factor 0.5'):
        assert said in words, said
    assert 'mined after 2 epochs' in words
    assert '16 px and more' in words
    # 6 images have an object of 14 px, at the fine level, and one of 30 px, at the coarse one.
    assert '8 images' in words
    assert '12 objects' in words
    assert words.count('6 (50%)') == 2
    assert 'Learned at no level: 0; 1 level: 12; 2 levels: 0.' in words
    assert '0 orphans' in words
    # The verdict is that of chip_stats.py.
    assert re.search('(Objects are|Chips save)', words)
    assert 'HIT-UAV 0.15, far ahead' in words
    # The check's findings.
    assert '0 errors' in words
    assert '12 annotations: 12 used' in words
    assert 'Only the image files that this page shows were opened' in words
    # The examples: a picture, and chips of those that have some.
    assert page.count('article') == 5
    assert page.count('option') == 5
    assert 'most objects' in words
    assert page.count('g', **{'data-layer': 'level-0'}) > 0
    assert text.count('data:image/jpeg;base64,') > 5
    assert [
        name for name in ('training', 'wrong', 'missing') if page.count('section', id=name)
    ] == []


def test_the_config_is_converted_once_and_what_was_opened_is_told(make, small_run, monkeypatch):
    said = []
    monkeypatch.setattr('mmsniper.convert.config.print_log', lambda text, **_: said.append(text))
    page, _ = make(ROOT / 'demo' / 'hituav_sample' / 'detector.py', '--images', '--examples', '0')
    assert [text.partition(':')[0] for text in said] == ['SNIPER version of FasterRCNN']
    assert 'The check opened every image file' in page.text
    page, _ = make(small_run, '--images', '--cfg-options', 'pyramid.chip_size=no')
    assert page.count('section', id='missing') == 1
    assert 'The check opened' not in page.text


def test_it_loads_nothing_and_is_small(make, scenes, tmp_path):
    write_log(tmp_path / 'w', '20260101_000000', losses(1, 2))
    predictions = write_predictions(tmp_path / 'p.pkl')
    page, text = make(scenes, '--work-dir', str(tmp_path / 'w'), '--predictions', predictions)
    assert {address[:1] for address in page.addresses if not address.startswith('data:')} == {'#'}
    assert {a['id'] for _, a in page.tags if 'id' in a} >= {
        address[1:] for address in page.addresses if address.startswith('#')
    }
    assert not re.search('https?:', text)
    assert 'url(' not in text
    assert '@import' not in text
    [policy] = [a['content'] for t, a in page.tags if a.get('http-equiv')]
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert len(text) < 3e6


NASTY = '<b onload="x()">&amp;\'"</b>{{ 7 * 7 }}'
FILE = '"><script>alert(1)<!--&lt;.png'


def test_names_of_classes_and_files_are_escaped(make, small_run, small_images, tmp_path):
    content = json.loads((small_images / 'ann.json').read_text())
    content['categories'][0]['name'] = NASTY
    for i, image in enumerate(content['images']):
        name = f'{i}{FILE}'
        (tmp_path / name).write_bytes((small_images / image['file_name']).read_bytes())
        image['file_name'] = name
    (tmp_path / 'ann.json').write_text(json.dumps(content))
    text = small_run.read_text().replace(str(small_images), str(tmp_path))
    small_run.write_text(text.replace("('a', 'b')", repr((NASTY, 'b'))))
    page, text = make(small_run)
    assert NASTY not in text
    assert FILE not in text
    assert NASTY in page.text
    assert f'0{FILE}' in page.text
    assert page.count('script') == 2  # ours
    assert page.count('b', onload='x()') == 0
    assert f'{NASTY}, 14×14 px' in page.text


def test_names_that_are_no_text_can_be_written(make, small_run, small_images, tmp_path):
    content = json.loads((small_images / 'ann.json').read_text())
    content['categories'][0]['name'] = 'a\ud800'
    (tmp_path / 'ann.json').write_text(json.dumps(content))
    text = small_run.read_text().replace("'ann.json'", repr(str(tmp_path / 'ann.json')))
    small_run.write_text(text.replace("('a', 'b')", r"('a\ud800', 'b')"))
    page, _ = make(small_run, '--examples', '1')
    assert r'a\ud800' in page.text


def test_without_objects_the_page_says_why(make, small_run, small_images, tmp_path, capsys):
    content = json.loads((small_images / 'ann.json').read_text())
    for name, changes in (('no_boxes', {}), ('no_images', {'images': []})):
        file = tmp_path / f'{name}.json'
        file.write_text(json.dumps({**content, 'annotations': [], **changes}))
        config = tmp_path / f'{name}.py'
        config.write_text(small_run.read_text().replace("'ann.json'", repr(str(file))))
        page, _ = make(config)
        assert page.count('section', id='missing') == 1
        assert page.count('section', id='config') == 1
        assert page.count('section', id='examples') == 0
        assert re.search(r'[1-9]\d* errors?', page.text)
        assert 'nothing can be shown of the training data' in capsys.readouterr().out


def test_a_config_without_a_pyramid_or_that_cannot_be_read(tool, make, small_run, tmp_path):
    config = tmp_path / 'plain.py'
    config.write_text(
        small_run.read_text()
        .replace('pyramid = dict(', 'unused = dict(')
        .replace('pyramid=pyramid', 'pyramid=unused')
    )
    with pytest.raises(SystemExit, match='has no pyramid'):
        tool.main([str(config), '--out', str(tmp_path / 'r.html')])
    assert not (tmp_path / 'r.html').exists()
    config.write_text('model = (')
    page, _ = make(config)
    assert 'is refused' in page.text
    assert page.count('section', id='config') == 0


def test_an_image_that_cannot_be_loaded_is_named_and_the_others_are_drawn(
    make, small_run, small_images, tmp_path
):
    for i in range(8):
        if i != 4:
            (tmp_path / f'{i}.png').write_bytes((small_images / f'{i}.png').read_bytes())
    (tmp_path / 'ann.json').write_bytes((small_images / 'ann.json').read_bytes())
    small_run.write_text(small_run.read_text().replace(str(small_images), str(tmp_path)))
    page, _ = make(small_run)
    assert page.text.count('cannot be loaded') == 1
    assert page.count('article') == 8


def test_16_bits_and_one_channel_are_drawn(make, small_run, small_images, tmp_path):
    for i in range(8):
        image = cv2.imread(str(small_images / f'{i}.png'), cv2.IMREAD_GRAYSCALE)
        cv2.imwrite(str(tmp_path / f'{i}.png'), image.astype(np.uint16) * 16)
    (tmp_path / 'ann.json').write_bytes((small_images / 'ann.json').read_bytes())
    text = small_run.read_text().replace(str(small_images), str(tmp_path))
    small_run.write_text(
        text.replace(
            "type='LoadImageFromFile'",
            "type='LoadImageFromFile', color_type='unchanged', to_float32=True",
        )
    )
    page, text = make(small_run, '--examples', '2')
    assert page.count('article') == 2
    assert text.count('data:image/jpeg') > 2


def test_curves_of_a_resumed_training(make, small_run, tmp_path):
    work_dir = tmp_path / 'work'
    first = [*losses(1, 2, 3, 4), {'coco/bbox_mAP': 0.1, 'coco/bbox_mAP_s': -1.0, 'step': 1}]
    write_log(work_dir, '20260101_000000', [*first, {'coco/bbox_mAP': 0.9, 'step': 2}])
    resumed = [*losses(3, 4, 5), {'coco/bbox_mAP': 0.25, 'step': 2}]
    write_log(work_dir, '20260102_000000', resumed, last='{"loss": 0.')
    page, text = make(small_run, '--examples', '0', '--work-dir', str(work_dir))
    words = page.text
    assert 'Training' in words
    assert '2 runs in one curve' in words
    assert 'coco/bbox_mAP 0.25' in words
    assert 'bbox_mAP_s' not in words
    assert 'loss 0.2 ' in words
    assert 'epoch; numbers above' in words
    assert 'loss_cls 0.1' in words
    assert 'acc' not in words
    assert [len(points.split()) for points in re.findall('points="([^"]+)"', text)] == [2, 5, 5]
    assert 'has no pool of them' in words
    assert 'No images were asked for' in words


def test_what_the_check_has_read_and_planned_is_shown(make, small_run, monkeypatch):
    def noted(read, files):
        def note(*args, **kwargs):
            files.append(str(args[0]))
            return read(*args, **kwargs)

        return note

    files, tables, plans = [], [], []
    monkeypatch.setattr(CocoFile, 'read', noted(CocoFile.read, files))
    monkeypatch.setattr(samplers, 'read_annotations', noted(samplers.read_annotations, tables))
    monkeypatch.setattr(PositiveChipPlanner, 'find', noted(PositiveChipPlanner.find, plans))
    check_everything(str(small_run))
    read = list(files)
    files.clear()
    assert read
    assert (len(tables), len(plans)) == (1, 1)
    page, _ = make(small_run, '--examples', '2')
    assert '12 chips of an epoch' in page.text
    assert files == read
    assert (len(tables), len(plans)) == (2, 2)


@pytest.fixture
def pool(small_run):
    """Negative chips of the small images, from proposals strewn at random."""
    data = ReportData.from_config(load_config(str(small_run)))
    table, pyramid = data.chips.table, data.pyramid
    rng = np.random.default_rng(0)
    proposals = []
    for width, height in zip(table.width.tolist(), table.height.tolist()):
        corner = rng.uniform(60, (width - 30, height - 30), (40, 2))
        proposals.append((width, height, np.concatenate([corner, corner + 20], axis=1), None))
    found = plan_negative_chips(
        AnnotationTable.from_images(proposals), ChipPlan.empty(), pyramid, 3
    )
    paths = [data.dataset.get_data_info(i)['img_path'] for i in range(len(table))]
    return pool_of(pyramid, paths, table, found)


def test_negative_chips_are_counted_and_drawn(make, small_run, pool, tmp_path):
    write_log(tmp_path / 'work', '20260101_000000', losses(1, 2))
    pool.save(tmp_path / 'work' / 'negative_chips.npz')
    page, _ = make(small_run, '--examples', '2', '--work-dir', str(tmp_path / 'work'))
    assert f'{len(pool.chips)} negative chips in the pool' in page.text
    assert page.count('g', **{'data-layer': 'proposals'}) == min(18, len(pool.chips))
    assert page.count('g', **{'data-layer': 'negative'}) == 2
    # The numbers are those of the positive chips alone.
    assert '12 chips of an epoch' in page.text


def test_a_pool_of_another_pyramid_is_refused(tool, small_run, pool, tmp_path):
    write_log(tmp_path / 'work', '20260101_000000', losses(1, 2))
    pool.save(tmp_path / 'work' / 'negative_chips.npz')
    small_run.write_text(
        small_run.read_text().replace('valid_range=(0, 24)', 'valid_range=(0, 28)')
    )
    with pytest.raises(SystemExit, match='belongs to another pyramid'):
        tool.main(
            [
                str(small_run),
                '--out',
                str(tmp_path / 'r.html'),
                '--work-dir',
                str(tmp_path / 'work'),
            ]
        )


def test_wrong_detections_are_drawn_with_what_they_are(make, scenes, tmp_path):
    predictions = write_predictions(tmp_path / 'p.pkl')
    page, _ = make(scenes, '--examples', '1', '--predictions', predictions, '--wrong', '4')
    words = page.text
    assert 'The 4 false positives of the highest score, of 6 of any score in 3 images' in words
    for said in (
        'background: person 0.85',
        'found twice: person 0.80',
        'badly placed: person 0.60',
    ):
        assert said in words, said
    assert page.count('g', **{'data-layer': 'wrong'}) == 4
    assert page.count('g', **{'data-layer': 'finder'}) == 1
    nothing = write_predictions(tmp_path / 'n.pkl', {key: [] for key in DETECTIONS})
    page, _ = make(scenes, '--examples', '1', '--predictions', nothing)
    assert 'The 0 false positives' in page.text


def test_what_is_not_there_is_told_in_one_line(tool, small_run, tmp_path):
    out = ['--out', str(tmp_path / 'r.html')]
    with pytest.raises(SystemExit, match='there is no work folder'):
        tool.main([str(small_run), *out, '--work-dir', str(tmp_path / 'no')])
    (tmp_path / 'empty').mkdir()
    with pytest.raises(SystemExit, match='has no log of a training'):
        tool.main([str(small_run), *out, '--work-dir', str(tmp_path / 'empty')])
    write_log(tmp_path / 'bad', '20260101_000000', losses(1), last='nonsense\n{}')
    with pytest.raises(SystemExit, match='line 2 is no JSON'):
        tool.main([str(small_run), *out, '--work-dir', str(tmp_path / 'bad')])
    with pytest.raises(SystemExit, match=r'there is no file .*no\.pkl'):
        tool.main([str(small_run), *out, '--predictions', str(tmp_path / 'no.pkl')])
    with pytest.raises(SystemExit):
        tool.main([str(small_run), '--out', str(tmp_path / 'r.pdf')])


def report_data(images, pyramid):
    table = AnnotationTable.from_images(images)
    plan = plan_positive_chips(table, pyramid)
    labels = np.zeros(len(table.boxes), int)
    return ReportData(EpochChips(table, pyramid, plan, ('a',)), labels, None, None)


def test_examples_are_spread_and_the_extreme_ones_are_among_them():
    pyramid = ScalePyramid.from_config(
        dict(chip_size=64, levels=[dict(resize=dict(factor=1.0), valid_range=(0, 40))])
    )
    box, tiny, thin = [0, 0, 20, 20], [0, 0, 3, 3], [0, 0, 100, 4]
    images = [(200, 200, [box], None) for _ in range(40)]
    images[7] = (200, 200, [box] * 9, None)
    images[11] = (200, 200, [tiny], None)
    images[13] = (200, 200, [box, thin], None)
    images[20:] = [(200, 200, [], None)] * 20
    data = report_data(images, pyramid)
    chosen = choose_examples(data, 6)
    assert len(chosen) == 6
    assert chosen[7] == 'most objects'
    assert chosen[11] == 'smallest objects'
    assert chosen[13].startswith('orphans')
    assert [i for i, why in chosen.items() if why == 'chosen evenly'] == [0, 9, 19]
    # All of them, if so many are asked for: those without chips come in last.
    assert sorted(choose_examples(data, 100)) == list(range(40))
    assert list(choose_examples(data, 1)) == [0]
    assert choose_examples(data, 0) == {}


@pytest.mark.parametrize('name', ['bccd', 'hituav'])
def test_real_data(make, name, monkeypatch):
    folder = next(
        (f for f in (ROOT / 'data' / name, ROOT.parent / 'shared' / 'data' / name) if f.is_dir()),
        None,
    )
    if folder is None:
        pytest.skip(f'data/{name} is not there')
    config = ROOT / 'configs' / 'sniper' / f'faster_rcnn_r18_sniper_{name}.py'
    loaders = [f'{key}_dataloader.dataset' for key in ('val', 'test')]
    root = f'{folder}/'
    page, text = make(
        config,
        '--examples',
        '6',
        '--cfg-options',
        f'train_dataloader.dataset.dataset.data_root={root}',
        *(f'{loader}.data_root={root}' for loader in loaders),
        *(f'{key}_evaluator.ann_file={root}val.json' for key in ('val', 'test')),
    )
    assert page.count('article') == 6
    assert '0 errors' in page.text
    assert ('sparse' if name == 'hituav' else 'all over') in page.text
    assert len(text) < 5e6
