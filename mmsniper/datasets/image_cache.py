"""Decoded images that are kept while chips of them are to come."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

_FORGOTTEN = 1000
"""What nobody asked for in so many calls is what another epoch has left."""


class ImageCache:
    """Loaded images with their annotations, up to a number of bytes.

    One that does not fit is not kept, and none makes room for it before its last chip has come:
    chips of many images take turns, in which whatever is kept longest would always be thrown out
    just before it is needed.

    Args:
        max_bytes (float): The most that is kept.
    """

    def __init__(self, max_bytes: float) -> None:
        self.max_bytes = max_bytes
        self.hits = self.misses = 0
        self._kept: dict[Hashable, dict[str, Any]] = {}
        self._sizes: dict[Hashable, int] = {}
        self._asked: dict[Hashable, int] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def __getstate__(self) -> dict[str, Any]:
        """Of a copy for a worker: nothing is kept yet."""
        return vars(ImageCache(self.max_bytes))

    def get(self, key: Hashable, left: int) -> dict[str, Any] | None:
        """What is kept of an image, None if nothing.

        Args:
            key (Hashable): The image.
            left (int): How often it is going to be asked for; nothing is kept of it after the last
                time.
        """
        found = self._kept.get(key)
        if found is None:
            self.misses += 1
            return None
        self.hits += 1
        self._asked[key] = self._calls
        if not left:
            self._drop(key)
        return found

    def put(self, key: Hashable, results: Mapping[str, Any], left: int) -> None:
        """Keep an image that is going to be asked for again, if there is room.

        Args:
            key (Hashable): The image.
            results (dict): What is known of it. The dict is copied, its values are not.
            left (int): How often it is going to be asked for.
        """
        size = sum(getattr(value, 'nbytes', 0) for value in results.values())
        if not left or key in self._kept or size > self.max_bytes:
            return
        if self._bytes() + size > self.max_bytes:
            for old, asked in list(self._asked.items()):
                if self._calls - asked > _FORGOTTEN:
                    self._drop(old)
        if self._bytes() + size <= self.max_bytes:
            self._kept[key], self._sizes[key] = dict(results), size
            self._asked[key] = self._calls

    @property
    def _calls(self) -> int:
        return self.hits + self.misses

    def _bytes(self) -> int:
        return sum(self._sizes.values())

    def _drop(self, key: Hashable) -> None:
        del self._kept[key], self._sizes[key], self._asked[key]
