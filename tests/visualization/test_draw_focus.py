"""Pictures of coarse-to-fine inference: each level shows what it has seen, in its place."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb

from mmsniper.chips import FocusMap
from mmsniper.visualization import draw_focus, draw_focus_curve
from mmsniper.visualization.figure import level_colour
from mmsniper.visualization.focus import NOT_SEEN, focus_heat

IMAGE = np.full((200, 400, 3), 200, np.uint8)
WHOLE = [[0, 0, 400, 200]]
FINE_CHIPS = [[0, 0, 100, 100], [300, 100, 400, 200]]
BOXES = [[20, 20, 60, 60], [320, 120, 360, 160], [100, 20, 300, 180]]
LEVELS, SCORES = [0, 0, 1], [0.9, 0.8, 0.7]


def coarse_map(probability=0.0):
    """Cells of 100 px over the whole image."""
    return FocusMap(np.full((2, 4), probability), (0, 0, 400, 200), 100)


def draw(image=IMAGE, **changes):
    given = dict(
        chips=[FINE_CHIPS, WHOLE],
        maps=[[], [coarse_map()]],
        boxes=BOXES,
        levels=LEVELS,
        scores=SCORES,
    )
    return draw_focus(image, **{**given, **changes})


def panels(figure):
    """Axes by what they show: (column, 'above' or 'below')."""
    return {(i // 2, ('above', 'below')[i % 2]): axes for i, axes in enumerate(figure.axes)}


def titles(figure):
    return {place: axes.get_title(loc='left') for place, axes in panels(figure).items()}


def boxes_of(axes, level):
    """Boxes that are drawn in a level's colour, in the panel's coordinates."""
    wanted = to_rgb(level_colour(level))
    return [
        [*path.vertices.min(axis=0), *path.vertices.max(axis=0)]
        for one in axes.collections
        if isinstance(one, PolyCollection)
        and len(one.get_edgecolor())
        and np.allclose(one.get_edgecolor()[0][:3], wanted)
        for path in one.get_paths()
    ]


def colour_at(figure, axes, x, y):
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3] / 255
    column, row = axes.transData.transform((x, y))
    return pixels[len(pixels) - round(row), round(column)]


def test_the_first_column_is_the_image_and_all_detections_the_others_the_levels_coarse_to_fine():
    figure = draw(title='scene.jpg')
    assert titles(figure) == {
        (0, 'above'): 'image',
        (0, 'below'): 'all levels: 3 detections',
        (1, 'above'): 'level 1 sees 1 chip, 100% of the image',
        (1, 'below'): 'level 1: 1 detection',
        (2, 'above'): 'level 0 sees 2 chips, 25% of the image',
        (2, 'below'): 'level 0: 2 detections',
    }
    assert [text.get_text() for text in figure.texts] == ['scene.jpg']


def test_chips_are_drawn_where_they_were_found_and_detections_with_their_level():
    drawn = panels(draw())
    assert boxes_of(drawn[1, 'above'], 0) == FINE_CHIPS
    assert boxes_of(drawn[2, 'above'], 0) == []
    assert boxes_of(drawn[1, 'below'], 1) == BOXES[2:]
    assert boxes_of(drawn[2, 'below'], 0) == BOXES[:2]
    assert boxes_of(drawn[0, 'below'], 0) == BOXES[:2]
    assert boxes_of(drawn[0, 'below'], 1) == BOXES[2:]
    assert boxes_of(drawn[0, 'above'], 0) == boxes_of(drawn[0, 'above'], 1) == []


def test_what_a_level_has_not_seen_is_dark():
    figure = draw(boxes=[], levels=[], scores=[])
    drawn = panels(figure)
    for row in ('above', 'below'):
        seen, unseen = (colour_at(figure, drawn[2, row], *place) for place in ((50, 50), (200, 50)))
        assert seen == pytest.approx([200 / 255] * 3, abs=0.02)
        assert unseen == pytest.approx([60 / 255] * 3, abs=0.02)
        assert colour_at(figure, drawn[1, row], 200, 50) == pytest.approx(seen)
    assert (IMAGE == 200).all()


def test_focus_pixels_stand_out_from_cells_below_the_threshold():
    probability = np.array([[0.0, 0.49, 0.5, 1.0], [0.0] * 4])
    maps = [[], [FocusMap(probability, (0, 0, 400, 200), 100)]]
    figure = draw(chips=[[], WHOLE], maps=maps, boxes=[], levels=[], scores=[], thresholds=[0.5])
    axes = panels(figure)[1, 'above']
    plain, faint, focus, sure = (colour_at(figure, axes, x, 50) for x in (50, 150, 250, 350))
    assert plain == pytest.approx([200 / 255] * 3, abs=0.02)
    strength = [np.abs(colour - plain).max() for colour in (faint, focus)]
    assert 0 < strength[0] < strength[1] / 1.5
    assert np.abs(sure - focus).max() > 0.2


def test_no_focus_pixels_are_drawn_at_the_finest_level():
    figure = draw(maps=[[coarse_map(1.0)], [coarse_map()]], boxes=[], levels=[], scores=[])
    axes = panels(figure)[2, 'above']
    assert colour_at(figure, axes, 50, 50) == pytest.approx([200 / 255] * 3, abs=0.02)


def test_each_step_has_its_threshold_coarse_to_fine():
    three = dict(
        chips=[[], WHOLE, WHOLE],
        maps=[[], [coarse_map(0.3)], [coarse_map(0.3)]],
        boxes=[],
        levels=[],
        scores=[],
    )
    figure = draw(**three, thresholds=[0.2, 0.4])
    drawn = panels(figure)
    coarse, middle = (colour_at(figure, drawn[column, 'above'], 50, 50) for column in (1, 2))
    assert coarse[2] < middle[2]  # the stronger heat hides more of the grey


def test_low_scores_are_left_out():
    figure = draw(score_thr=0.75)
    assert titles(figure)[0, 'below'] == 'all levels: 2 detections'
    assert boxes_of(panels(figure)[1, 'below'], 1) == []


def test_a_reduced_image_shows_the_same_at_its_scale():
    small = IMAGE[::2, ::2]
    drawn = panels(draw(small, size=(400, 200)))
    assert drawn[1, 'above'].get_xlim() == (0, 200)
    assert boxes_of(drawn[1, 'above'], 0) == (np.array(FINE_CHIPS) / 2).tolist()
    assert boxes_of(drawn[2, 'below'], 0) == (np.array(BOXES[:2]) / 2).tolist()
    assert titles(draw(small, size=(400, 200))) == titles(draw())


def test_large_images_are_reduced_to_the_size_of_a_panel():
    drawn = panels(
        draw(np.zeros((1000, 2000, 3), np.uint8), chips=[[], [[0, 0, 2000, 1000]]], maps=[[], []])
    )
    assert drawn[0, 'above'].get_xlim() == (0, 800)
    assert np.allclose(boxes_of(drawn[1, 'below'], 1), np.array(BOXES[2:]) * 0.4)


def test_one_level_extreme_shapes_and_nothing_found_are_drawn():
    figure = draw(chips=[WHOLE], maps=[[]], levels=[0, 0, 0])
    assert titles(figure)[1, 'below'] == 'level 0: 3 detections'
    for shape in ((1, 1, 3), (20, 5000, 3), (5000, 20, 3)):
        draw(
            np.zeros(shape, np.uint8), chips=[[], []], maps=[[], []], boxes=[], levels=[], scores=[]
        ).canvas.draw()


def test_errors_name_what_does_not_fit():
    with pytest.raises(ValueError, match='chips of 2 levels, maps of 1, 1 thresholds'):
        draw(maps=[[]])
    with pytest.raises(ValueError, match='2 thresholds'):
        draw(thresholds=[0.1, 0.2])
    with pytest.raises(ValueError, match='3 boxes need as many levels and scores, got 3 and 2'):
        draw(scores=[0.5, 0.5])
    with pytest.raises(ValueError, match=r'levels must be in 0..1, got \[0, 2\]'):
        draw(levels=[0, 0, 2])
    with pytest.raises(ValueError, match='chips must have the shape'):
        draw(chips=[[[0, 0, 1]], WHOLE])
    with pytest.raises(ValueError, match='array of numbers'):
        draw(IMAGE.astype(str))


def test_heat_by_hand():
    left = FocusMap(np.array([[0.1, 0.2], [0.3, 0.4]]), (0, 0, 4, 4), 2)
    over = FocusMap(np.array([[0.25]]), (2, 0, 6, 2), 4)  # the cell reaches beyond the window
    assert (
        focus_heat([left, over], (4, 8), (8, 4)).tolist()
        == [[0.1, 0.1, 0.25, 0.25, 0.25, 0.25, NOT_SEEN, NOT_SEEN]] * 2
        + [[0.3, 0.3, 0.4, 0.4, NOT_SEEN, NOT_SEEN, NOT_SEEN, NOT_SEEN]] * 2
    )


windows = st.tuples(
    st.integers(0, 20),
    st.integers(0, 20),
    st.integers(1, 20),
    st.integers(1, 20),
    st.integers(1, 7),
    st.integers(1, 7),
    st.integers(0, 2**16),
)


@given(st.lists(windows, max_size=3), st.integers(1, 9), st.integers(1, 9))
def test_heat_is_the_greatest_probability_at_each_centre(given_windows, rows, columns):
    size, maps = (40, 40), []
    for x, y, width, height, cell_w, cell_h, seed in given_windows:
        shape = -(-height // cell_h), -(-width // cell_w)
        probability = np.random.default_rng(seed).random(shape)
        maps.append(FocusMap(probability, (x, y, x + width, y + height), (cell_w, cell_h)))
    heat = focus_heat(maps, (rows, columns), size)
    for i in range(rows):
        for j in range(columns):
            x, y = (j + 0.5) * 40 / columns, (i + 0.5) * 40 / rows
            there = [
                focus.probability[
                    int((y - focus.box[1]) // focus.cell[1]),
                    int((x - focus.box[0]) // focus.cell[0]),
                ]
                for focus in maps
                if focus.box[0] <= x < focus.box[2] and focus.box[1] <= y < focus.box[3]
            ]
            assert heat[i, j] == max(there, default=NOT_SEEN)


# Accuracy against pixels -------------------------------------------------------------------------


def test_each_setting_is_a_dot_with_its_name_joined_in_the_order_of_pixels():
    figure = draw_focus_curve([4e6, 1e6, 2e6], [0.5, 0.3, 0.4], ['0', '0.7', '0.2'], 'mAP')
    (axes,) = figure.axes
    (line,) = axes.lines
    assert line.get_xydata().tolist() == [[1, 0.3], [2, 0.4], [4, 0.5]]
    names = {text.get_text(): tuple(text.xy) for text in axes.texts}
    assert names == {'0.7': (1, 0.3), '0.2': (2, 0.4), '0': (4, 0.5)}
    assert axes.get_ylabel() == 'mAP'
