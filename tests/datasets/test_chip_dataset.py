import copy
import pickle

import mmcv.transforms
import numpy as np
import pytest
from mmcv.transforms import BaseTransform
from mmdet.registry import DATASETS, TRANSFORMS
from mmengine.dataset import Compose

from mmsniper.chips import NEGATIVE, POSITIVE
from mmsniper.datasets import Chip, ChipDataset, ChipIndex

CHIP = Chip(0, (8.0, 8.0, 40.0, 40.0), POSITIVE)


@TRANSFORMS.register_module(force=True)
class DropSome(BaseTransform):
    """Returns None for some images, as FilterAnnotations does."""

    def __init__(self, dropped=()):
        self.dropped = dropped

    def transform(self, results):
        return None if results['img_id'] in self.dropped else results


# --- ChipIndex ------------------------------------------------------------------------------------


def test_a_chip_index_is_the_index_of_its_image():
    index = ChipIndex(7, CHIP)
    assert index == 7
    assert list(range(10))[index] == 7
    assert np.arange(10)[index] == 7
    assert {7: 'x'}[index] == 'x'


@pytest.mark.parametrize('copied', [lambda x: pickle.loads(pickle.dumps(x)), copy.deepcopy])
def test_a_copied_chip_index_has_its_chip(copied):
    index = copied(ChipIndex(7, CHIP))
    assert (index, index.chip, type(index)) == (7, CHIP, ChipIndex)


def test_the_chip_stays_through_the_arithmetic_of_data_set_wrappers():
    index = ChipIndex(7, CHIP)
    for moved, image in [(index - 5, 2), (index % 4, 3), (index - np.int64(5), 2)]:
        assert (moved, moved.chip) == (image, CHIP)
    with pytest.raises(TypeError):
        index - 'x'


def test_repr_tells_the_chip():
    text = repr(ChipIndex(7, Chip(2, (0.0, 1.25, 64.0, 65.25), NEGATIVE)))
    assert text == 'ChipIndex(7, negative chip [0.0, 1.2, 64.0, 65.2] of level 2)'


# --- ChipDataset ----------------------------------------------------------------------------------


@pytest.fixture
def dataset(five_images, chips_of):
    return DATASETS.build(chips_of(five_images()))


def test_a_chip_index_gives_that_chip_of_the_image(dataset):
    sample = dataset[ChipIndex(3, CHIP)]
    assert sample['inputs'].shape == (3, 64, 64)
    assert sample['inputs'].unique().tolist() == [30]  # the grey of image 3
    assert sample['data_samples'].img_id == 3
    assert sample['data_samples'].chip == CHIP


@pytest.mark.parametrize('index', [3, np.int64(3)])
def test_a_plain_index_gives_a_chip_that_the_transform_draws(dataset, index):
    sample = dataset[index]['data_samples']
    assert sample.img_id == 3
    assert sample.chip.kind == POSITIVE


def test_it_passes_on_what_others_ask_a_data_set_for(dataset):
    assert len(dataset) == 5
    assert dataset.metainfo['classes'] == ('a', 'b')
    assert dataset.get_cat_ids(ChipIndex(3, CHIP)) == [1] * 4
    assert dataset.get_data_info(ChipIndex(3, CHIP))['img_id'] == 3


def test_annotations_can_be_loaded_later(five_images, chips_of):
    dataset = DATASETS.build(chips_of(five_images(lazy_init=True), lazy_init=True))
    assert not dataset.dataset._fully_initialized
    dataset.full_init()
    assert len(dataset) == 5


def test_another_image_is_drawn_where_the_pipeline_drops_one(five_images, pyramid, chip_pipeline):
    pipeline = [*chip_pipeline[:2], dict(type='DropSome', dropped=[0, 1, 2, 3]), *chip_pipeline[2:]]
    dataset = ChipDataset(five_images(), pipeline, max_refetch=100)
    sample = dataset[ChipIndex(2, CHIP)]['data_samples']
    assert sample.img_id == 4
    assert sample.chip != CHIP  # which is one of image 2


def test_it_gives_up_where_the_pipeline_drops_every_image(five_images, chip_pipeline):
    dataset = ChipDataset(five_images(), [dict(type='DropSome', dropped=range(5))], max_refetch=3)
    tried = []
    dataset.pipeline = tried.append
    with pytest.raises(RuntimeError, match=r'None for 4 images in a row.*\.png'):
        dataset[0]
    assert len(tried) == 4


def test_an_error_names_file_and_chip(five_images):
    pipeline = [dict(type='LoadImageFromFile'), dict(type='ScaleRangeFilter', pyramid=None)]
    pipeline[1]['pyramid'] = dict(
        chip_size=8, levels=[dict(resize=dict(factor=1.0), valid_range=(0, None))]
    )
    dataset = ChipDataset(five_images(), pipeline)
    with pytest.raises(RuntimeError) as caught:
        dataset[ChipIndex(3, CHIP)]
    message = str(caught.value)
    assert message.startswith('cannot make a sample of positive chip [8.0, 8.0, 40.0, 40.0]')
    assert '3.png (img_id 3): KeyError' in message
    assert isinstance(caught.value.__cause__, KeyError)


def test_says_that_it_needs_a_pipeline(five_images):
    with pytest.raises(ValueError, match='from LoadImageFromFile to PackDetInputs'):
        ChipDataset(five_images(), [])


@pytest.mark.parametrize(
    'wrap', [lambda d: d, lambda d: dict(type='RepeatDataset', dataset=d, times=2)]
)
def test_says_that_a_data_set_below_may_not_have_a_pipeline(five_images, chips_of, wrap):
    below = wrap(five_images(pipeline=[dict(type='LoadImageFromFile')]))
    with pytest.raises(ValueError, match=r'CocoDataset .* pipeline \(LoadImageFromFile\)'):
        DATASETS.build(chips_of(below))


# --- a whole image is no chip ---------------------------------------------------------------------


@pytest.fixture
def whole():
    """A pipeline with these transforms in the place of ``ChipSampler``."""

    def pipeline(*transforms):
        load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)]
        return [*load, *transforms, dict(type='PackDetInputs')]

    return pipeline


@pytest.mark.parametrize('index', [ChipIndex(3, CHIP), 3])
@pytest.mark.parametrize('resize', [[], [dict(type='Resize', scale=(64, 64))]])
def test_a_pipeline_without_a_cut_is_refused(five_images, whole, index, resize):
    dataset = ChipDataset(five_images(), whole(*resize))
    with pytest.raises(RuntimeError, match=r'3\.png .*uncut: .*ChipSampler') as caught:
        dataset[index]
    message = str(caught.value)
    assert f'LoadAnnotations, {"Resize, " if resize else ""}PackDetInputs)' in message
    assert ('ChipAwareSampler' in message) == (type(index) is int)


@pytest.mark.parametrize('index', [ChipIndex(3, CHIP), 3])
def test_a_whole_image_at_a_level_is_refused(five_images, whole, pyramid, index):
    dataset = ChipDataset(five_images(), whole(dict(type='LevelResize', pyramid=pyramid, level=0)))
    what = 'is not the positive chip' if isinstance(index, ChipIndex) else 'ChipAwareSampler'
    with pytest.raises(RuntimeError, match=f'LevelResize has made an input of .*{what}'):
        dataset[index]


@pytest.mark.parametrize('compose', [Compose, mmcv.transforms.Compose])
def test_a_hook_that_exchanges_the_pipeline_has_to_keep_the_cut(
    dataset, whole, chip_pipeline, compose
):
    """As ``PipelineSwitchHook`` does, with mmcv's ``Compose``."""
    dataset.pipeline = compose([*chip_pipeline[:-1], dict(type='PackDetInputs')])
    sample = dataset[ChipIndex(3, CHIP)]
    assert sample['inputs'].shape == (3, 64, 64)
    assert sample['data_samples'].level == 0
    dataset.pipeline = compose(whole())
    with pytest.raises(RuntimeError, match='uncut.*PipelineSwitchHook'):
        dataset[ChipIndex(3, CHIP)]
    with pytest.raises(ValueError, match='Resize after ChipSampler'):
        dataset.pipeline = compose([*chip_pipeline[:-1], dict(type='Resize', scale=(64, 64))])


class Cut(BaseTransform):
    """Writes an input of this size and level."""

    def __init__(self, width, height, level=0):
        self.shape, self.level = (height, width), level

    def transform(self, results):
        results.update(level=self.level, scale_factor=(2.0, 2.0), img_shape=self.shape)
        results['img'] = np.zeros((*self.shape, 3), np.uint8)
        results['homography_matrix'] = np.diag([2.0, 2.0, 1.0])
        return results


def test_an_input_that_shows_more_than_the_chip_is_refused(five_images, whole):
    """A chip of 32 px at twice its size, whose hull may have 34 px, and 1 px of rounding."""
    ChipDataset(five_images(), whole(Cut(69, 69)))[ChipIndex(3, CHIP)]
    for k, wrong in enumerate([Cut(70, 64), Cut(64, 70), Cut(64, 64, level=1)]):
        dataset = ChipDataset(five_images(name=f'wrong_{k}'), whole(wrong))
        with pytest.raises(RuntimeError, match=r'Cut has made .* px at level .* not the .*uncut'):
            dataset[ChipIndex(3, CHIP)]


# --- wrappers around and below --------------------------------------------------------------------


def concat(*datasets):
    return dict(type='ConcatDataset', datasets=list(datasets))


def repeat(dataset):
    return dict(type='RepeatDataset', dataset=dataset, times=3)


def balance(dataset):
    """Repeats image 3, the only one with class b."""
    return dict(type='ClassBalancedDataset', dataset=dataset, oversample_thr=0.5)


ARRANGEMENTS = dict(
    plain=lambda a, b, chips: chips(a),
    concat_around=lambda a, b, chips: concat(chips(a), chips(b)),
    concat_below=lambda a, b, chips: chips(concat(a, b)),
    repeat_around=lambda a, b, chips: repeat(chips(a)),
    repeat_below=lambda a, b, chips: chips(repeat(a)),
    balanced_around=lambda a, b, chips: balance(chips(a)),
    balanced_below=lambda a, b, chips: chips(balance(a)),
    repeat_of_concat=lambda a, b, chips: repeat(concat(chips(a), chips(b))),
    concat_of_balanced=lambda a, b, chips: concat(chips(a), balance(chips(b))),
    concat_of_both=lambda a, b, chips: concat(chips(balance(a)), repeat(balance(chips(b)))),
    mixed=lambda a, b, chips: dict(type='MultiImageMixDataset', dataset=chips(a), pipeline=[]),
)


@pytest.mark.parametrize('arrangement', ARRANGEMENTS)
def test_the_right_chip_of_the_right_image_arrives(
    five_images, chips_of, make_sampler, arrangement
):
    a, b = five_images(name='set_a'), five_images(name='set_b')
    dataset = DATASETS.build(ARRANGEMENTS[arrangement](a, b, chips_of))
    sampler = make_sampler(dataset)
    images = set()
    for index in sampler:
        wanted = dataset.get_data_info(int(index))
        sample = dataset[index]['data_samples']
        assert sample.chip == index.chip
        assert sample.img_path == wanted['img_path']
        images.add(int(index))
        # The chip was planned around a box of this very image.
        x1, y1, x2, y2 = index.chip.box
        boxes = np.array([instance['bbox'] for instance in wanted['instances']])
        enclosed = (boxes >= (x1 - 1e-3, y1 - 1e-3) * 2) & (boxes <= (x2 + 1e-3, y2 + 1e-3) * 2)
        assert enclosed.all(axis=1).any()
    assert images == set(range(len(dataset)))


def test_a_balanced_data_set_is_one(five_images, chips_of):
    """Guards the test above: image 3 does come up twice."""
    assert len(DATASETS.build(balance(chips_of(five_images())))) == 6


@TRANSFORMS.register_module(force=True)
class ToFloats(BaseTransform):
    """Make floats of an image, one of which is no number."""

    def __init__(self, value):
        self.value = value

    def transform(self, results):
        results['img'] = results['img'].astype(np.float32)
        results['img'][20, 20] = self.value
        return results


@pytest.mark.parametrize('value', [np.nan, np.inf, -3.4e38])
def test_an_input_that_makes_nan_of_all_weights_is_an_error(five_images, chip_pipeline, value):
    images = five_images()

    def dataset(value):
        made = dict(type='ToFloats', value=value)
        return ChipDataset(images, [chip_pipeline[0], made, *chip_pipeline[1:]])

    dataset(1e6)[ChipIndex(3, CHIP)]
    with pytest.raises(RuntimeError, match='NaN, infinite or stand for no data.*LoadImageFromFile'):
        dataset(value)[ChipIndex(3, CHIP)]
