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


class JoinedWithHead:
    """Makes of a class one that *is* the head that its argument ``head`` names; use it first.

    An instance is of a class that is both, with the head's parts and the keys of its weights. It is
    pickled and copied as such.

    Args:
        *args: As for the head.
        head (str | type | None): Type of the head. Defaults to None, what :meth:`head_class` says.
        **kwargs: As for the head.
    """

    _joined_from: tuple[type, type]

    @staticmethod
    def head_class(head: str | type | None) -> type:
        """The class that ``head`` names; ValueError if it is none that can be joined."""
        raise NotImplementedError

    def __new__(cls, *args: Any, head: str | type | None = None, **kwargs: Any) -> Any:
        """An instance of a class that is both this one and the head's."""
        if not hasattr(cls, '_joined_from'):
            cls = joined(cls, cls.head_class(head))
        return super().__new__(cls)

    def __init__(self, *args: Any, head: str | type | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return empty, self._joined_from, self.__dict__


def empty(ours: type, theirs: type) -> Any:
    """An instance of :func:`joined` without attributes, for ``__reduce__`` to fill."""
    cls: Any = joined(ours, theirs)
    return cls.__new__(cls)
