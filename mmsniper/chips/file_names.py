"""Which files two lists of paths have in common, wherever their folders lie."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray


def match_files(paths: Sequence[str], among: Sequence[str]) -> NDArray[np.int64]:
    """Find files by the end of their paths, so that data may have moved to another folder.

    Compared are as few of the last parts of the paths as tell the files of each side apart.

    Args:
        paths (Sequence[str]): The files to find; a file may occur several times.
        among (Sequence[str]): The files to find them among.

    Returns:
        NDArray[np.int64]: Position in ``among`` of each path's file, or -1, shape (n,).

    Example:
        >>> match_files(['new/a.png', 'new/c.png'], ['old/data/a.png', 'old/data/b.png'])
        array([ 0, -1])
    """
    mine, theirs = ({path: PurePath(path).parts[::-1] for path in side} for side in (paths, among))
    deepest = max(map(len, [*mine.values(), *theirs.values()]), default=1)
    depth = 1
    while depth < deepest and any(
        len({parts[:depth] for parts in side.values()}) < len(side) for side in (mine, theirs)
    ):
        depth += 1
    position = {path: i for i, path in enumerate(among)}
    index = {parts[:depth]: position[path] for path, parts in theirs.items()}
    return np.array([index.get(mine[path][:depth], -1) for path in paths], np.int64)
