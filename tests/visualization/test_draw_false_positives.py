"""Contact sheets of false positives: the right part of the image, and colours that tell."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from mmsniper.utils.coco_matching import KINDS
from mmsniper.visualization import FalsePositive, draw_false_positives, surroundings
from mmsniper.visualization.false_positives import KIND_COLOURS
from mmsniper.visualization.figure import BAD, GOOD, IGNORED, MISSED

IMAGE = np.zeros((300, 400, 3), np.uint8)
NONE = np.zeros((0, 4))


def around(box, image=IMAGE):
    return surroundings(image, np.array(box, float))


def false_positive(kind='background', image=IMAGE, **changes):
    box = np.array([140.0, 140, 160, 160])
    values = dict(
        where=around(box, image),
        box=box,
        kind=kind,
        title='cat 0.90',
        lines=('20×20 px', 'a.jpg'),
        objects=NONE,
        same_class=np.zeros(0, bool),
        names=(),
    )
    return FalsePositive(**{**values, **changes})


def colours_in(figure, cell=0):
    """Which colours occur in a cell."""
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3] / 255
    x0, y0, x1, y1 = figure.axes[cell].get_window_extent().extents.astype(int)
    part = pixels[::-1][y0 + 5 : y1 - 5, x0 + 5 : x1 - 5]
    named = dict(bad=BAD, good=GOOD, missed=MISSED, ignored=IGNORED)
    return {
        name
        for name, colour in named.items()
        if (np.abs(part - to_rgb(colour)).max(axis=-1) < 0.1).any()
    }


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_the_window_is_four_times_the_detection_and_at_least_64_px():
    assert around([140, 140, 160, 160]).window == (110, 110, 190, 190)
    assert around([150, 150, 150, 150]).window == (118, 118, 182, 182)
    # A long one is inside, with an eighth of its length on both sides.
    assert around([100, 149, 200, 151]).window == (87.5, 87.5, 212.5, 212.5)


def test_at_the_edge_an_eighth_of_the_window_reaches_over_the_image():
    part = around([390, 290, 410, 310])  # the middle is the corner
    assert part.window == (330, 230, 410, 310)
    assert part.frame == (330, 230, 400, 300)
    assert part.picture.shape == (70, 70, 3)
    assert around([-10, 140, 10, 160]).window == (-10, 110, 70, 190)


def test_of_a_large_detection_the_window_is_the_image():
    part = around([20, 20, 320, 280])
    assert part.window == (0, -50, 400, 350)
    assert part.frame == (0, 0, 400, 300)


def test_the_picture_is_the_part_of_the_image_under_the_window():
    image = np.zeros((300, 400), np.uint16)
    image[140:160, 140:160] = 4000
    part = surroundings(image, np.array([140.0, 140, 160, 160]), limits=(0, 4000))
    white = np.argwhere(part.picture[..., 0] == 255)
    assert (white + part.frame[1::-1]).min(axis=0).tolist() == [140, 140]
    assert (white + part.frame[1::-1]).max(axis=0).tolist() == [159, 159]


def test_a_large_part_is_shrunk():
    part = surroundings(np.zeros((3000, 4000), np.uint8), np.array([1000.0, 1000, 2000, 2000]))
    assert max(part.picture.shape) == 512
    assert part.frame == (0, 0, 4000, 3000)


def test_what_is_no_image_is_refused():
    with pytest.raises(ValueError, match='image to draw on'):
        around([0, 0, 9, 9], np.zeros(5))


@pytest.mark.parametrize(
    ('changes', 'colours', 'entries'),
    [
        ({}, {'bad'}, ['false positive']),
        (
            dict(
                objects=np.array([[120.0, 120, 135, 135]]),
                same_class=np.array([True]),
                names=['cat'],
            ),
            {'bad', 'good'},
            ['false positive', 'object of its class'],
        ),
        (
            dict(
                objects=np.array([[120.0, 120, 135, 135]]),
                same_class=np.array([False]),
                names=['dog'],
            ),
            {'bad', 'missed'},
            ['false positive', 'object of another class'],
        ),
        (
            dict(crowds=np.array([[115.0, 115, 185, 185]])),
            {'bad', 'ignored'},
            ['false positive', 'crowd region'],
        ),
        (
            dict(finder=np.array([[115.0, 115, 185, 185]])),
            {'bad'},
            ['false positive', 'detection that has the object'],
        ),
    ],
)
def test_every_thing_has_its_colour_and_its_place_in_the_legend(changes, colours, entries):
    figure = draw_false_positives([false_positive(**changes)])
    assert colours_in(figure) == colours
    assert legend(figure) == entries


def test_overlapping_objects_of_another_class_have_names_and_the_lines_stand_above():
    figure = draw_false_positives(
        [
            false_positive(
                objects=np.array([[120.0, 120, 135, 135], [155, 155, 180, 180], [165, 0, 180, 80]]),
                same_class=np.array([True, False, False]),
                names=['cat', 'dog', 'hen'],
            )
        ]
    )
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ['dog', 'background: cat 0.90', '20×20 px', 'a.jpg']


def test_cells_are_in_rows():
    figure = draw_false_positives([false_positive(kind) for kind in KINDS] * 2, columns=4)
    assert len(figure.axes) == 10
    corners = [axes.get_position().bounds[:2] for axes in figure.axes]
    assert corners[0][1] == corners[3][1] > corners[4][1] > corners[8][1]
    assert corners[0][0] == corners[4][0] < corners[1][0]
    assert set(KIND_COLOURS) == set(KINDS)
