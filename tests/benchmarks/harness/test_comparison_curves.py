"""The curves have a point for each budget: the contestant's best test, and all that it costs."""

import cv2

from harness.comparison_curves import draw_curves, points
from harness.comparison_tables import best_test

METRICS = dict(APs=0.2, AR=0.3)


def entry(name, pixels, seeds=1, device='CPU', **ap_of_tests):
    train = dict(train_pixels=pixels, train_seconds=60.0, train_cpu_seconds=pixels / 1e5)
    tests = {
        stage: {**METRICS, 'AP': ap, 'FP@0.5': None if ap < 0.2 else 1 / ap}
        for stage, ap in ap_of_tests.items()
    }
    spread = {stage: dict.fromkeys(test, 0.01) for stage, test in tests.items()}
    runs = [dict(train=dict(train, device=device))] * seeds
    return dict(name=name, runs=runs, mean=dict(train=train, **tests), std=dict(train={}, **spread))


def test_the_best_test_stands_for_a_contestant():
    assert best_test(entry('a', 1e6, test=0.3, sliced=0.4)) == 'sliced'
    assert best_test(entry('a', 1e6, test=0.4, sliced=0.4)) == 'test'


def test_points_are_in_the_order_of_their_cost():
    none_yet = entry('none yet', 1e6, seeds=0)
    high = dict(pixels=9e6, contestants=[entry('a', 9e6, test=0.5), none_yet])
    low = dict(pixels=3e6, contestants=[entry('a', 3e6, seeds=3, test=0.4)])
    one_of_them = dict(pixels=3e6, contestants=[entry('a', 3e6, test=0.45)])
    curves = points([high, low, one_of_them])
    assert list(curves) == ['a']
    assert [(p['pixels'], p['seeds'], p['mean']['AP']) for p in curves['a']] == [
        (3e6, 3, 0.4),
        (9e6, 1, 0.5),
    ]
    assert curves['a'][0]['cpu_seconds'] == 30


def test_seconds_of_a_gpu_are_not_among_those_of_a_cpu():
    (point,) = points([dict(pixels=3e6, contestants=[entry('a', 3e6, device='H1', test=0.4)])])['a']
    assert point['pixels'] == 3e6
    assert point['cpu_seconds'] is None


def test_the_picture_is_drawn(tmp_path):
    parts = [
        dict(pixels=1e7, contestants=[entry('b', 1e7, device='a GPU', test=0.6)]),
        dict(pixels=3e6, contestants=[entry('a', 3e6, 3, test=0.1), entry('b', 2e6, test=0.1)]),
        dict(pixels=9e6, contestants=[entry('a', 9e6, test=0.5)]),
    ]
    draw_curves(parts, 'Title', tmp_path / 'curves.png')
    assert cv2.imread(str(tmp_path / 'curves.png')).std() > 5
