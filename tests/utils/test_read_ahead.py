"""The next items are made while one is worked on, in their order, with their errors."""

import gc
import threading
import weakref

import pytest

from mmsniper.utils.read_ahead import read_ahead


class Item:
    pass


@pytest.mark.parametrize('count', [0, 1, 3])
def test_items_come_in_their_order(count):
    assert list(read_ahead((n for n in range(5)), count)) == [0, 1, 2, 3, 4]
    assert list(read_ahead([], count)) == []


@pytest.mark.parametrize(('count', 'made'), [(0, 1), (1, 2), (3, 4)])
def test_so_many_are_made_ahead(count, made):
    numbers, enough = [], threading.Event()

    def items():
        for number in range(9):
            numbers.append(number)
            if len(numbers) == made:
                enough.set()
            yield number

    walk = read_ahead(items(), count)
    next(walk)
    assert enough.wait(30)
    walk.close()
    assert len(numbers) == made


def test_nothing_is_made_while_a_large_one_is_worked_on():
    made = []
    items = (made.append(n) or n for n in range(4))
    for number in read_ahead(items, 2, is_large=lambda n: True):
        assert made[-1] == number


@pytest.mark.parametrize('kind', [ValueError, KeyboardInterrupt])
def test_an_error_comes_where_its_item_would(kind):
    def items():
        yield 1
        raise kind('broken')

    walk = read_ahead(items())
    assert next(walk) == 1
    with pytest.raises(kind, match='broken'):
        next(walk)


def test_an_item_is_let_go_before_the_next_is_waited_for():
    asked, gone = threading.Event(), []

    def items():
        item = Item()
        alive = weakref.ref(item)
        yield item
        del item
        assert asked.wait(30)
        gc.collect()
        gone.append(alive() is None)
        yield None

    walk = read_ahead(items(), is_large=lambda item: True)
    next(walk)
    asked.set()
    next(walk)
    assert gone == [True]


def test_no_thread_is_left():
    before = threading.active_count()
    walk = read_ahead(iter(range(9)), 2)
    next(walk)
    walk.close()
    assert threading.active_count() == before
