"""The next items are made while one is being worked on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar('T')
_END: Any = object()


def read_ahead(
    items: Iterable[T], count: int = 1, is_large: Callable[[T], bool] = lambda item: False
) -> Iterator[T]:
    """Go through items of which the next ones are made in a thread meanwhile.

    The order stays. One thread makes one item after the other, so that what they read from need not
    be safe for several. An error in making an item is raised where the item would come.

    Args:
        items (Iterable): The items, such as a generator that loads images.
        count (int): How many are made ahead, at most. Defaults to 1; 0 is no thread.
        is_large (Callable): Whether nothing is to be made ahead while this item is worked on.
            Defaults to never.

    Returns:
        Iterator: The items.

    Example:
        >>> list(read_ahead(number * number for number in range(4)))
        [0, 1, 4, 9]
    """
    if not count:
        yield from items
        return
    iterator = iter(items)
    waiting: deque[Future] = deque()
    pool = ThreadPoolExecutor(1, thread_name_prefix='read_ahead')
    try:
        while True:
            item = (waiting.popleft() if waiting else pool.submit(next, iterator, _END)).result()
            if item is _END:
                return
            while len(waiting) < count and not is_large(item):
                waiting.append(pool.submit(next, iterator, _END))
            yield item
            del item  # or it would be held while the next one is waited for
    finally:
        pool.shutdown(cancel_futures=True)
