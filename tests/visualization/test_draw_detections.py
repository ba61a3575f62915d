"""Pictures of detections: right, wrong and missing ones are told apart."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from mmsniper.visualization import draw_detections, match_detections
from mmsniper.visualization.figure import BAD, GOOD, IGNORED, MISSED

IMAGE = np.zeros((200, 300, 3), np.uint8)  # black: no halo shows
NAMES = ('cat', 'dog')


def colours_along(figure, y, x0, x1):
    """The colours that occur within 2 figure pixels of a horizontal line in data coordinates."""
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3] / 255
    (left, row), (right, _) = figure.axes[0].transData.transform([(x0, y), (x1, y)])
    row = round(pixels.shape[0] - row)
    strip = pixels[row - 2 : row + 3, round(left) : round(right)].reshape(-1, 3)
    return {
        name
        for name, colour in (('good', GOOD), ('bad', BAD), ('missed', MISSED), ('ignored', IGNORED))
        if (np.abs(strip - to_rgb(colour)).max(axis=1) < 0.1).any()
    }


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_matching_by_hand():
    gt = [[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]]
    boxes = [
        [0, 0, 10, 9],  # IoU 0.9 with the first
        [0, 0, 10, 10],  # IoU 1 with the first, and a lower score: too late
        [20, 0, 30, 10],  # another class
        [40, 0, 50, 5],  # IoU exactly 0.5
        [100, 0, 110, 10],
    ]
    correct, found = match_detections(
        gt, [0, 0, 1], boxes, [0, 0, 1, 1, 0], [0.9, 0.8, 0.9, 0.4, 0.9]
    )
    assert correct.tolist() == [True, False, False, True, False]
    assert found.tolist() == [True, False, True]
    correct, found = match_detections(
        gt, [0, 0, 1], boxes, [0, 0, 1, 1, 0], [0.9, 0.8, 0.9, 0.4, 0.9], iou_thr=0.95
    )
    assert correct.tolist() == [False, True, False, False, False]


def test_matching_without_detections_or_objects():
    correct, found = match_detections([[0, 0, 9, 9]], [0], [], [], [])
    assert (correct.tolist(), found.tolist()) == ([], [False])
    correct, found = match_detections([], [], [[0, 0, 9, 9]], [0], [0.5])
    assert (correct.tolist(), found.tolist()) == ([False], [])


def test_matching_refuses_lists_of_different_lengths():
    with pytest.raises(ValueError, match='scores must have one value for each of 1 boxes, got 2'):
        match_detections([], [], [[0, 0, 9, 9]], [0], [0.5, 0.6])


def test_every_outcome_has_its_colour_at_its_place():
    figure = draw_detections(
        IMAGE,
        [[20, 40, 60, 80], [120, 40, 160, 80]],
        [0, 1],
        [[20, 41, 60, 80], [220, 40, 260, 80]],
        [0, 1],
        [0.9, 0.7],
        NAMES,
    )
    assert colours_along(figure, 80, 25, 55) == {'good'}
    assert colours_along(figure, 80, 125, 155) == {'missed'}
    assert colours_along(figure, 80, 225, 255) == {'bad'}
    assert legend(figure) == ['missed: 1', 'correct: 1', 'false: 1']
    assert sorted(t.get_text() for t in figure.axes[0].texts) == ['cat 0.90', 'dog', 'dog 0.70']


def test_low_scores_are_left_out():
    figure = draw_detections(IMAGE, [[20, 40, 60, 80]], [0], [[20, 40, 60, 80]], [0], [0.29], NAMES)
    assert legend(figure) == ['missed: 1', 'correct: 0', 'false: 0']
    figure = draw_detections(
        IMAGE, [[20, 40, 60, 80]], [0], [[20, 40, 60, 80]], [0], [0.29], NAMES, score_thr=0.2
    )
    assert legend(figure) == ['missed: 0', 'correct: 1', 'false: 0']


def test_detections_in_an_ignored_region_are_neither_right_nor_wrong():
    figure = draw_detections(
        IMAGE,
        [[100, 0, 200, 100]],
        [0],
        [[110, 10, 140, 40], [190, 60, 260, 90]],
        [0, 0],
        [0.9, 0.9],
        NAMES,
        gt_ignored=[True],
    )
    assert legend(figure) == [
        'ignored: 1',
        'in an ignored region: 1',
        'missed: 0',
        'correct: 0',
        'false: 1',
    ]
    assert colours_along(figure, 40, 115, 135) == {'ignored'}


def test_title_and_an_image_with_nothing():
    figure = draw_detections(IMAGE, [], [], [], [], [], NAMES, title='b.jpg')
    assert figure.axes[0].get_title(loc='left') == 'b.jpg'
    assert legend(figure) == ['missed: 0', 'correct: 0', 'false: 0']


def test_extreme_shapes_are_drawn():
    for shape in ((1, 1, 3), (20, 5000, 3), (5000, 20, 3)):
        figure = draw_detections(np.zeros(shape, np.uint8), [], [], [], [], [], NAMES)
        figure.canvas.draw()
