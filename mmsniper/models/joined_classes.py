"""Classes that are two at once: one of ours, and one that a config names.

They are made when they are needed, so no module has them under their names. What has one is
pickled and copied by the two classes that it was made of, see :func:`empty`.
"""

from __future__ import annotations

import functools
from typing import Any


def joined(ours: type, theirs: type) -> type:
    """The class that has ``ours`` in front of ``theirs``; of the same two it is the same.

    Args:
        ours (type): What goes first. Its ``__reduce__`` has to use :func:`empty`.
        theirs (type): What is changed by it.

    Returns:
        type: The class, with both in ``_joined_from``.
    """
    return _joined(ours, theirs)


@functools.cache
def _joined(ours: type, theirs: type) -> type:
    name = f'{ours.__name__}{theirs.__name__}'
    members = dict(_joined_from=(ours, theirs), __module__=ours.__module__)
    return type(ours)(name, (ours, theirs), members)


def empty(ours: type, theirs: type) -> Any:
    """An instance of :func:`joined` without attributes, for ``__reduce__`` to fill."""
    cls: Any = joined(ours, theirs)
    return cls.__new__(cls)
