"""The pool of negative chips: what is written is read, and what does not belong is refused."""

import json
import pickle
import re
import zipfile
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from negative_pools import pool_of

from mmsniper.chips import (
    NEGATIVE,
    POSITIVE,
    AnnotationTable,
    ChipPlan,
    NegativeChipPool,
    NegativeStatistics,
    ScalePyramid,
    draw_negative_chips,
    plan_negative_chips,
)
from mmsniper.chips.negative_pool import shown_images

CONFIG = dict(
    chip_size=64,
    levels=[
        dict(resize=dict(factor=2.0), valid_range=(0, 20)),
        dict(resize=dict(long_side=64), valid_range=(10, None)),
    ],
)
PYRAMID = ScalePyramid.from_config(CONFIG)


def planned(paths, pyramid=PYRAMID, origin='a run', seed=0, options=None):
    """A pool of real chips for images of 90x70 px; each has other proposals.

    With options it keeps the proposals, from which every epoch finds chips anew.
    """
    start = np.random.default_rng(seed).uniform(0, 60, (len(paths), 30, 2))
    table = AnnotationTable.from_images(
        [(90, 70, np.concatenate([s, s + 8], axis=1), None) for s in start]
    )
    found = plan_negative_chips(table, ChipPlan.empty(), pyramid, 2)
    kept = slice(0 if options is None else None)
    return pool_of(
        pyramid,
        paths,
        table,
        found,
        origin=origin,
        options=options,
        proposal_image=table.image[kept].astype(np.int32),
        proposal_box=table.boxes[kept],
    )


TWO_BOXES = np.array([[1, 2, 30, 40]] * 2, np.float32)


def by_hand(paths=('data/a.jpg', 'data/b.jpg', 'data/c.jpg')):
    """One chip of the first image, none of the second, two of each further one."""
    image = np.array([0, *np.repeat(np.arange(2, len(paths)), 2)], np.int32)
    left = np.arange(len(image), dtype=np.float32)
    box = np.stack([left, left * 0, left + 32, left * 0 + 32], axis=1)
    chips = ChipPlan(
        image, np.zeros(len(image), np.int8), box, np.full(len(image), NEGATIVE, np.int8)
    )
    return NegativeChipPool(
        pyramid=PYRAMID,
        img_path=np.array(paths),
        width=np.full(len(paths), 90, np.int32),
        height=np.full(len(paths), 70, np.int32),
        chips=chips,
        proposals_per_chip=np.full(len(image), 5, np.int32),
        statistics=NegativeStatistics(len(paths), 30, 30, 5, (len(image), 0), 0, 2),
        uncovered_image=np.array([1], np.int32),
        uncovered_level=np.zeros(1, np.int8),
        uncovered_box=np.array([[1, 2, 30, 40]], np.float32),
        origin='by hand',
        options=dict(min_proposals=[1]),
        proposal_image=np.array([0, 1], np.int32),
        proposal_box=TWO_BOXES,
    )


def assert_equal(a, b):
    """Equal to the last bit, types included."""
    for name, value in vars(a).items():
        other = getattr(b, name)
        if isinstance(value, ChipPlan):
            assert_equal(value, other)
        elif isinstance(value, np.ndarray):
            np.testing.assert_array_equal(value, other)
            assert value.dtype == other.dtype
        else:
            assert value == other


def arrays_of(path):
    with np.load(path, allow_pickle=False) as content:
        return dict(content)


def test_by_default_a_pool_keeps_no_proposals():
    given = vars(by_hand())
    optional = ('origin', 'options', 'proposal_image', 'proposal_box')
    pool = NegativeChipPool(**{k: v for k, v in given.items() if k not in optional})
    assert (pool.origin, pool.options) == ('', None)
    assert pool.proposal_image.shape == (0,)
    assert pool.proposal_box.shape == (0, 4)


class TestFile:
    def test_an_image_may_be_a_pixel_wide_and_high(self, tmp_path):
        thin = dict(
            width=np.array([90, 1, 90], np.int32),
            height=np.array([70, 1, 70], np.int32),
            uncovered_image=np.zeros(1, np.int32),
            proposal_image=np.zeros(2, np.int32),
        )
        pool = replace(by_hand(), **thin)
        pool.save(tmp_path / 'pool.npz')
        assert_equal(pool, NegativeChipPool.from_file(tmp_path / 'pool.npz'))

    @pytest.mark.parametrize(
        'pool',
        [
            planned(['a/1.jpg', 'b/1.jpg', 'ünï/ 中.png']),
            by_hand(),
            planned([]),
            planned(['no chips.jpg'], origin='', seed=1),
        ],
    )
    def test_what_is_read_is_what_was_written(self, pool, tmp_path):
        pool.save(tmp_path / 'pool.npz')
        assert_equal(pool, NegativeChipPool.from_file(tmp_path / 'pool.npz'))

    @pytest.mark.parametrize(
        'level',
        [
            dict(resize=dict(factor=5 / 3), valid_range=(0.1, 80.3)),
            dict(resize=dict(factor=np.float32(1.667)), valid_range=(0, None)),
            dict(
                resize=dict(short_side=np.int64(800), long_side=1333),
                valid_range=(np.float32(3), 9),
            ),
        ],
    )
    def test_a_pyramid_is_the_same_again_whatever_its_numbers_are_made_of(self, level, tmp_path):
        pyramid = ScalePyramid.from_config(
            dict(chip_size=np.int64(512), levels=[level], adopt_orphans=True)
        )
        planned(['a.jpg'], pyramid).save(tmp_path / 'pool.npz')
        pool = NegativeChipPool.from_file(tmp_path / 'pool.npz')
        pool.check_pyramid(pyramid)
        assert pool.pyramid.scales(90, 70).tolist() == pyramid.scales(90, 70).tolist()
        assert pool.pyramid.ranges().tolist() == pyramid.ranges().tolist()

    def test_the_same_pool_makes_the_same_file(self, tmp_path):
        planned(['a.jpg', 'b.jpg']).save(tmp_path / 'one.npz')
        planned(['a.jpg', 'b.jpg']).save(tmp_path / 'two.npz')
        assert (tmp_path / 'one.npz').read_bytes() == (tmp_path / 'two.npz').read_bytes()

    @pytest.mark.parametrize('paths', [np.array(['a.jpg', 'b.jpg'], object), ['a.jpg', 'b.jpg']])
    def test_it_holds_no_pickles(self, paths, tmp_path):
        replace(planned(['a.jpg', 'b.jpg']), img_path=paths).save(tmp_path / 'pool.npz')
        arrays = arrays_of(tmp_path / 'pool.npz')  # does not load any
        assert all(array.dtype.kind in 'iufU' for array in arrays.values())
        assert arrays['img_path'].tolist() == ['a.jpg', 'b.jpg']

    def test_numbers_of_other_types_are_written_as_what_a_reader_expects(self, tmp_path):
        pool = by_hand()
        wide = replace(
            pool,
            width=pool.width.astype(np.int64),
            proposals_per_chip=pool.proposals_per_chip.tolist(),
            uncovered_box=pool.uncovered_box.astype(np.float64),
        )
        wide.save(tmp_path / 'pool.npz')
        assert_equal(pool, NegativeChipPool.from_file(tmp_path / 'pool.npz'))

    def test_the_file_has_the_name_that_was_asked_for_and_folders_are_made(self, tmp_path):
        by_hand().save(str(tmp_path / 'runs' / 'pool.of.chips'))
        assert [p.name for p in (tmp_path / 'runs').iterdir()] == ['pool.of.chips']

    def test_a_pool_that_is_there_is_replaced(self, tmp_path):
        path = tmp_path / 'pool.npz'
        planned(['a.jpg', 'b.jpg']).save(path)
        by_hand().save(path)
        assert_equal(by_hand(), NegativeChipPool.from_file(path))
        assert len(list(tmp_path.iterdir())) == 1

    def test_a_file_that_is_not_there_is_called_that(self, tmp_path):
        path = tmp_path / 'nowhere' / 'pool.npz'
        with pytest.raises(FileNotFoundError, match=f'no pool.*{re.escape(str(path))}'):
            NegativeChipPool.from_file(path)

    def test_a_folder_is_called_that(self, tmp_path):
        with pytest.raises(IsADirectoryError):
            NegativeChipPool.from_file(tmp_path)


def refused(path, message):
    return pytest.raises(ValueError, match=f'{re.escape(str(path))}.*(?s:{message})')


@pytest.mark.parametrize(
    ('path', 'level', 'chip', 'proposals'),
    [
        ('data/b.jpg', 0, (1, 2, 30, 40), 1),
        ('data/b.jpg', 0, (1.005, 2, 29.995, 40), 1),  # rounded
        ('data/b.jpg', 0, (2, 2, 30, 40), 0),
        ('data/b.jpg', 0, (1, 2, 30, 39), 0),
        ('data/b.jpg', 1, (0, 0, 90, 70), 0),
        ('data/a.jpg', 0, (0, 0, 90, 70), 0),
        ('elsewhere/b.jpg', 0, (0, 0, 90, 70), 0),
    ],
)
def test_uncovered_proposals_of_a_chip_are_those_of_its_image_and_level_that_it_shows_whole(
    path, level, chip, proposals
):
    assert by_hand().uncovered_in(path, level, chip).tolist() == [[1, 2, 30, 40]] * proposals


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp('whole') / 'pool.npz'
    planned([f'folder/{i}.jpg' for i in range(6)]).save(path)
    return path


def pool_or_error(path):
    """What reading gives; only a ValueError is an answer."""
    try:
        return NegativeChipPool.from_file(path)
    except ValueError as error:
        return str(error)


class TestDamage:
    def test_a_file_that_was_cut_short_is_refused_wherever_it_was_cut(self, whole, tmp_path):
        content, path = whole.read_bytes(), tmp_path / 'cut.npz'
        lengths = {*range(0, len(content), 61), *range(30), *range(len(content) - 40, len(content))}
        for length in lengths:
            path.write_bytes(content[:length])
            with refused(path, 'cut short'):
                NegativeChipPool.from_file(path)

    @settings(max_examples=250)
    @given(st.data())
    def test_changed_bytes_are_noticed_or_change_nothing(self, whole, tmp_path_factory, data):
        content = bytearray(whole.read_bytes())
        # At its end the archive says what it holds: damage there is of more kinds.
        anywhere, end = (st.integers(first, len(content) - 1) for first in (0, len(content) - 900))
        for _ in range(data.draw(st.integers(1, 3))):
            content[data.draw(anywhere | end)] = data.draw(st.integers(0, 255))
        path = tmp_path_factory.getbasetemp() / 'changed.npz'
        path.write_bytes(content)
        found = pool_or_error(path)
        if isinstance(found, str):
            assert str(path) in found
        else:
            assert_equal(found, NegativeChipPool.from_file(whole))

    @settings(max_examples=100)
    @given(st.binary(max_size=300))
    def test_anything_else_is_refused(self, tmp_path_factory, content):
        path = tmp_path_factory.getbasetemp() / 'other.npz'
        path.write_bytes(content)
        with refused(path, ''):
            NegativeChipPool.from_file(path)

    @pytest.mark.parametrize(
        'write',
        [
            lambda path: path.write_text('chips: none\n'),
            lambda path: path.write_bytes(b''),
            lambda path: path.write_bytes(pickle.dumps({'chips': [1, 2, 3]})),
            lambda path: path.write_bytes(b'\x93NUMPY'),
        ],
        ids=['text', 'empty', 'pickle', 'start of .npy'],
    )
    def test_a_file_of_another_kind_is_refused(self, write, tmp_path):
        path = tmp_path / 'pool.npz'
        write(path)
        with refused(path, 'not a whole .npz file'):
            NegativeChipPool.from_file(path)

    def test_a_single_array_is_refused(self, tmp_path):
        np.save(tmp_path / 'pool.npy', np.arange(5))
        with refused(tmp_path / 'pool.npy', 'not a whole .npz file.*single array'):
            NegativeChipPool.from_file(tmp_path / 'pool.npy')

    def test_pickled_arrays_are_not_unpickled(self, whole, tmp_path):
        path = tmp_path / 'pool.npz'
        np.savez(path, **{**arrays_of(whole), 'box': np.array([{}, print], object)})
        with refused(path, 'allow_pickle=False'):
            NegativeChipPool.from_file(path)

    def test_an_archive_of_something_else_is_refused(self, tmp_path):
        with zipfile.ZipFile(tmp_path / 'pool.npz', 'w') as archive:
            archive.writestr('readme.txt', 'nothing')
        with refused(tmp_path / 'pool.npz', 'not a pool.*no format, pyramid.*mine_negatives'):
            NegativeChipPool.from_file(tmp_path / 'pool.npz')


class TestContent:
    """Whole files in which something is wrong; the message says what."""

    def write(self, path, **changes):
        by_hand().save(path)
        arrays = {**arrays_of(path), **changes}
        np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
        return path

    def test_nothing_wrong(self, tmp_path):
        path = self.write(tmp_path / 'pool.npz')
        assert_equal(by_hand(), NegativeChipPool.from_file(path))

    @pytest.mark.parametrize(
        ('value', 'said'),
        [(1, '1'), ('one', 'one'), (np.array([1, 1]), r'\[1, 1\]'), (np.nan, 'nan')],
    )
    def test_a_pool_of_another_format(self, value, said, tmp_path):
        path = self.write(tmp_path / 'pool.npz', format=value, held=None)
        with refused(path, f'of format 2.*of format {said}'):
            NegativeChipPool.from_file(path)

    def test_a_number_of_another_library(self, tmp_path):
        np.savez(tmp_path / 'pool.npz', width=np.arange(3), format=2)
        with refused(tmp_path / 'pool.npz', 'not a pool.*no pyramid, origin, statistics'):
            NegativeChipPool.from_file(tmp_path / 'pool.npz')

    @pytest.mark.parametrize(
        'name',
        [
            'format',
            'pyramid',
            'origin',
            'statistics',
            'img_path',
            'width',
            'height',
            'image',
            'level',
            'box',
            'held',
            'uncovered_image',
            'uncovered_level',
            'uncovered_box',
            'options',
            'proposal_image',
            'proposal_box',
        ],
    )
    def test_each_array_must_be_there_with_its_shape_and_type(self, name, tmp_path):
        with refused(self.write(tmp_path / 'none.npz', **{name: None}), f'no {name}'):
            NegativeChipPool.from_file(tmp_path / 'none.npz')
        good = arrays_of(self.write(tmp_path / 'pool.npz'))[name]
        for value in [
            good[None],
            np.concatenate([good, good]) if good.ndim else good[None, None],
            good[:0] if good.ndim else np.array([]),
            good.astype(complex) if good.dtype.kind != 'U' else np.full(good.shape, 3),
        ]:
            path = self.write(tmp_path / 'other.npz', **{name: value})
            with refused(path, ''):
                NegativeChipPool.from_file(path)

    @pytest.mark.parametrize(
        ('changes', 'message'),
        [
            (dict(width=np.full(2, 90, np.int32)), r'width.*\(2,\).*\(3,\)'),
            (dict(held=np.full(2, 9, np.int32)), r'held.*\(2,\).*\(3,\)'),
            (dict(box=np.zeros((3, 5), np.float32)), r'box.*\(3, 5\).*\(3, 4\)'),
            (dict(box=np.zeros(3, np.float32)), r'box.*\(3,\).*\(3, 4\)'),
            (dict(uncovered_box=np.zeros((1, 5), np.float32)), r'box.*\(1, 5\).*\(1, 4\)'),
            (dict(proposal_box=np.zeros((2, 5), np.float32)), r'box.*\(2, 5\).*\(2, 4\)'),
            (dict(image=np.int32(0)), r'image.*\(\)'),
            (dict(box=np.zeros((3, 4), np.float64)), 'box.*float64.*float32'),
            (dict(image=np.array([0, 2, 3], np.int32)), 'chip of image 3, of 3 images'),
            (dict(image=np.array([-1, 2, 2], np.int32)), 'chip of image -1'),
            (dict(image=np.array([2, 0, 2], np.int32)), 'order of its images'),
            (dict(image=np.array([0, 2, 2], float)), 'image.*float64'),
            (dict(level=np.array([0, 2, 0], np.int8)), 'chip of level 2, of 2 levels'),
            (dict(level=np.array([0, -1, 0], np.int8)), 'chip of level -1'),
            (
                dict(width=np.array([90, 90, 33], np.int32)),
                r'chip at \[2.0, 0.0, 34.0, 32.0\], outside data/c.jpg of 33x70 px',
            ),
            (dict(width=np.array([90, 0, 90], np.int32)), 'without a size'),
            (dict(height=np.array([70, -1, 70], np.int32)), 'without a size'),
            (dict(img_path=np.array(['a', 'b', 'a'])), 'image twice'),
            (dict(uncovered_image=np.array([3], np.int32)), 'proposal of image 3'),
            (dict(uncovered_level=np.array([2], np.int8)), 'proposal of level 2'),
            (
                dict(uncovered_box=np.array([[1, 2, 91, 40]], np.float32)),
                'proposal at .*data/b.jpg',
            ),
            (
                dict(proposal_image=np.array([1, 0], np.int32), proposal_box=TWO_BOXES),
                'proposals are not in the order',
            ),
            (
                dict(proposal_image=np.array([0, 3], np.int32), proposal_box=TWO_BOXES),
                'proposal of image 3',
            ),
            (dict(options='{"covered": "seen"}'), "covered must be one of .*got 'seen'"),
            (dict(options='{"cover": 1}'), 'cover'),
            (dict(pyramid='{'), 'not a pool'),
            (dict(pyramid='[]'), 'pyramid must be a dict'),
            (dict(pyramid=json.dumps(dict(chip_size=-1, levels=[]))), 'chip_size'),
            (dict(statistics='[]'), 'not a pool'),
            (dict(statistics='{}'), 'chips_per_level'),
            (dict(statistics='nothing'), 'not a pool'),
            (dict(statistics=json.dumps({'chips_per_level': [1], 'foo': 1})), 'foo'),
        ],
    )
    def test_what_does_not_fit_together_is_refused(self, changes, message, tmp_path):
        path = self.write(tmp_path / 'pool.npz', **changes)
        with refused(path, message):
            NegativeChipPool.from_file(path)

    @pytest.mark.parametrize('box', [[58, 0, 90.009, 32], [0, 38, 32, 70.009], [0, 0, 90, 70]])
    def test_a_chip_may_be_beyond_its_image_by_a_rounding_error(self, box, tmp_path):
        boxes = by_hand().chips.box.copy()
        boxes[1] = box
        path = self.write(tmp_path / 'pool.npz', box=boxes)
        np.testing.assert_array_equal(NegativeChipPool.from_file(path).chips.box, boxes)

    @pytest.mark.parametrize(
        'box',
        [
            [-1, 0, 31, 32],
            [0, -1, 32, 31],
            [60, 0, 92, 32],
            [0, 40, 32, 72],
            [32, 0, 0, 32],
            [0, 32, 32, 32],
            [np.nan, 0, 32, 32],
            [0, 0, 32, np.nan],
            [0, 0, np.inf, 32],
            [58, 0, 90.02, 32],
            [0, 38, 32, 70.02],
        ],
    )
    def test_a_chip_that_is_not_in_its_image_is_refused(self, box, tmp_path):
        boxes = by_hand().chips.box.copy()
        boxes[1] = box
        path = self.write(tmp_path / 'pool.npz', box=boxes)
        with refused(path, 'chip at .*outside data/c.jpg of 90x70 px'):
            NegativeChipPool.from_file(path)


class TestPyramid:
    def other(self, level=None, **changes):
        config = {**CONFIG, **changes}
        if level is not None:
            config['levels'] = [{**CONFIG['levels'][0], **level}, *config['levels'][1:]]
        return ScalePyramid.from_config(config)

    def test_the_same_one_is_accepted(self):
        by_hand().check_pyramid(self.other())

    @pytest.mark.parametrize(
        'level',
        [
            dict(test_resize=dict(factor=3.0)),
            dict(test_range=(0, 25)),
            dict(valid_range=[0.0, 20.0]),
        ],
    )
    def test_what_is_for_test_time_may_differ(self, level):
        by_hand().check_pyramid(self.other(level))

    @pytest.mark.parametrize(
        ('pyramid', 'message'),
        [
            (dict(chip_size=96), 'chip_size is 64, .*96'),
            (dict(level=dict(resize=dict(factor=2.5))), r'levels is .*2\.0.*2\.5'),
            (dict(level=dict(valid_range=(0, 22))), r'levels is .*20\.0.*22\.0'),
            (dict(level=dict(valid_range=(2, 20))), 'levels'),
            (dict(levels=CONFIG['levels'][:1]), 'levels'),
            (
                dict(
                    levels=[CONFIG['levels'][0], {**CONFIG['levels'][1], 'valid_range': (10, 99)}]
                ),
                'None.*99',
            ),
            (
                dict(
                    levels=[
                        CONFIG['levels'][0],
                        dict(resize=dict(short_side=64, long_side=64), valid_range=(10, None)),
                    ]
                ),
                'short_side',
            ),
            (dict(adopt_orphans=True), 'adopt_orphans is False, .*True'),
        ],
    )
    def test_another_one_is_refused_with_what_differs(self, pyramid, message):
        with pytest.raises(ValueError, match=f'pool.npz belongs to another pyramid.*{message}'):
            by_hand().check_pyramid(self.other(**pyramid), 'pool.npz')


def chips_of(pool, paths):
    return pool.chips_for(paths, [90] * len(paths), [70] * len(paths), 'pool.npz')


class TestChipsFor:
    def check(self, pool, paths, meant):
        """That each path has the chips of the pool's image with that position, in order."""
        chips = chips_of(pool, paths)
        expected = [
            (k, c)
            for k, i in enumerate(meant)
            for c in np.flatnonzero(pool.chips.image == i).tolist()
        ]
        assert chips.image.tolist() == [k for k, _ in expected]
        assert chips.image.dtype == np.int32
        rows = [c for _, c in expected]
        np.testing.assert_array_equal(chips.box, pool.chips.box[rows])
        np.testing.assert_array_equal(chips.level, pool.chips.level[rows])
        np.testing.assert_array_equal(chips.kind, pool.chips.kind[rows])

    def test_by_hand(self):
        chips = chips_of(by_hand(), ['data/c.jpg', 'data/b.jpg', 'data/a.jpg', 'data/c.jpg'])
        assert chips.image.tolist() == [0, 0, 2, 3, 3]
        assert chips.box[:, 0].tolist() == [1, 2, 0, 1, 2]

    @settings(max_examples=60)
    @given(st.lists(st.integers(0, 7), max_size=20))
    def test_images_in_any_order_some_of_them_or_several_times(self, meant):
        pool = planned([f'data/{i}.jpg' for i in range(8)])
        self.check(pool, [f'data/{i}.jpg' for i in meant], meant)

    def test_a_data_set_that_is_repeated(self):
        # RepeatDataset gives all images, then all of them again.
        paths = ['data/a.jpg', 'data/b.jpg', 'data/c.jpg']
        self.check(by_hand(paths), paths * 3, [0, 1, 2] * 3)

    @pytest.mark.parametrize('folder', ['/elsewhere/data/', '', 'deep/er/data/', './data/'])
    def test_data_that_has_moved(self, folder):
        self.check(by_hand(), [f'{folder}{name}.jpg' for name in 'cab'], [2, 0, 1])

    @pytest.mark.parametrize('root', ['', '/mnt/new/'])
    @pytest.mark.parametrize('old', ['', '/mnt/deep/er/'])
    def test_the_same_names_in_another_folder_are_other_images(self, root, old):
        pool = by_hand([f'{old}data/{name}.jpg' for name in 'abc'])
        paths = [f'{root}{name}.jpg' for name in ('data/a', 'val/b', 'data/c')]
        with pytest.raises(
            ValueError,
            match=(
                f'pool.npz belongs to other images: .* has {root}val/b.jpg, mined was '
                f'{old}data/b.jpg.*renamed'
            ),
        ):
            chips_of(pool, paths)

    @pytest.mark.parametrize('root', ['', '/mnt/new/', 'old/'])
    def test_the_same_file_name_in_two_folders(self, root):
        pool = by_hand(['old/a/1.jpg', 'old/b/1.jpg', 'old/b/2.jpg'])
        self.check(pool, [f'{root}{f}.jpg' for f in ('b/1', 'b/2', 'a/1')], [1, 2, 0])
        self.check(pool, [f'{root}b/1.jpg'], [1])
        with pytest.raises(ValueError, match='not among'):
            chips_of(pool, [f'{root}c/1.jpg'])

    def test_no_images(self):
        assert len(chips_of(by_hand(), [])) == 0
        assert len(chips_of(planned([]), [])) == 0

    def test_other_images_are_refused_with_their_number_and_one_of_them(self):
        paths = ['data/a.jpg', 'data/x.jpg', 'data/y.jpg', 'data/x.jpg']
        with pytest.raises(
            ValueError,
            match=(
                'pool.npz belongs to other images: 2 of the 3 images .* the 3 that were mined, '
                'such as data/x.jpg. Mine'
            ),
        ):
            chips_of(by_hand(), paths)

    def test_images_of_another_size_are_refused_with_both_sizes(self):
        with pytest.raises(
            ValueError,
            match=(
                'pool.npz belongs to other images: data/b.jpg is 90x71 px here and 90x70 px there'
            ),
        ):
            by_hand().chips_for(['data/a.jpg', 'data/b.jpg'], [90, 90], [70, 71], 'pool.npz')
        with pytest.raises(ValueError, match='80x70 px here'):
            by_hand().chips_for(['data/a.jpg'], [80], [70])

    def test_chips_of_a_file_that_was_read(self, tmp_path):
        by_hand().save(tmp_path / 'pool.npz')
        pool = NegativeChipPool.from_file(tmp_path / 'pool.npz')
        self.check(pool, ['data/c.jpg', 'data/a.jpg'], [2, 0])


class TestPlannerFor:
    PATHS = ['data/a.jpg', 'data/b.jpg', 'data/c.jpg']

    def planner(self, pool, paths):
        return pool.planner_for(paths, [90] * len(paths), [70] * len(paths), 'pool.npz')

    def test_without_options_an_epoch_draws_from_the_chips_that_were_mined(self):
        pool, paths = planned(self.PATHS), [*self.PATHS, 'data/b.jpg']
        chips = self.planner(pool, paths).plan(ChipPlan.empty(), 2, seed=3, epoch=4)
        assert_equal(chips, draw_negative_chips(chips_of(pool, paths), 2, 3, 4))

    def test_with_options_every_epoch_finds_chips_in_the_proposals(self, tmp_path):
        options = dict(min_proposals=[1], max_per_image=None, covered='touched')
        planned(self.PATHS, options=options).save(tmp_path / 'pool.npz')
        pool = NegativeChipPool.from_file(tmp_path / 'pool.npz')
        # Another order than the pool's, and an image twice.
        order = [2, 0, 2]
        rows = [pool.proposal_box[pool.proposal_image == i] for i in order]
        table = AnnotationTable.from_images([(90, 70, boxes, None) for boxes in rows])
        positives = ChipPlan.of_kind(POSITIVE, [1], [0], [[0, 0, 32, 32]])
        planner = self.planner(pool, [self.PATHS[i] for i in order])
        plans = []
        for epoch in (4, 5):
            plans.append(planner.plan(positives, 99, seed=3, epoch=epoch))
            expected = plan_negative_chips(
                table, positives, PYRAMID, 1, covered='touched', key=(3, epoch)
            )
            assert_equal(plans[-1], expected.chips)
        assert plans[0].box.tolist() != plans[1].box.tolist()
        few = planner.plan(positives, 1, seed=3, epoch=4)
        assert few.image.tolist() == [0, 1, 2]

    def test_images_that_were_not_mined_are_refused(self):
        with pytest.raises(ValueError, match='pool.npz belongs to other images'):
            self.planner(by_hand(), ['data/x.jpg'])


class TestJoined:
    def test_parts_are_what_the_whole_would_be(self):
        start = np.random.default_rng(0).uniform(0, 60, (7, 30, 2))
        images = [(90, 70, np.concatenate([s, s + 8], axis=1), None) for s in start]

        def pool(first, last):
            table = AnnotationTable.from_images(images[first:last])
            found = plan_negative_chips(table, ChipPlan.empty(), PYRAMID, 2)
            return replace(
                planned([f'{i}.jpg' for i in range(first, last)]),
                chips=found.chips,
                proposals_per_chip=found.proposals_per_chip,
                statistics=found.statistics,
                uncovered_image=found.uncovered.image.astype(np.int32),
                uncovered_level=found.uncovered.level.astype(np.int8),
                uncovered_box=found.uncovered.box.astype(np.float32),
                proposal_image=table.image.astype(np.int32),
                proposal_box=table.boxes,
            )

        parts = [pool(0, 3), pool(3, 3), pool(3, 4), pool(4, 7)]
        assert_equal(NegativeChipPool.joined(parts), pool(0, 7))
        assert_equal(NegativeChipPool.joined([pool(0, 7)]), pool(0, 7))


@pytest.mark.parametrize(
    ('images', 'shown'), [(0, 0), (1, 1), (999, 999), (1000, 1000), (1001, 1000), (118_287, 1000)]
)
def test_up_to_1000_images_are_shown_from_the_first_to_the_last(images, shown):
    chosen = shown_images(images)
    assert chosen.shape == (images,)
    assert chosen.sum() == shown
    assert chosen[:1].all()
    assert chosen[-1:].all()
    gaps = np.diff(np.flatnonzero(chosen))
    assert len(set(gaps.tolist())) <= 2  # as even as whole numbers can be


def test_statistics_are_written_whole(tmp_path):
    by_hand().save(tmp_path / 'pool.npz')
    written = json.loads(str(arrays_of(tmp_path / 'pool.npz')['statistics']))
    assert written == {**asdict(by_hand().statistics), 'chips_per_level': [3, 0]}
