"""Class-aware epochs: of all classes equally many chips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from mmsniper.chips.annotations import AnnotationTable
from mmsniper.chips.plan import ChipPlan
from mmsniper.chips.pyramid import ScalePyramid
from mmsniper.chips.rectangles import Ints, run_starts
from mmsniper.chips.targets import ChipLookup, iter_targets
from mmsniper.utils.checks import check_whole_number

# Tells these draws from those that shuffle an epoch.
_SALT = 5
_SHOWN = 5  # names of classes, at most


@dataclass(frozen=True)
class ChipsOfClasses:
    """Which positive chips have an object of each class: whole, and valid at the chip's level.

    Attributes:
        label: The classes that have a chip, ascending, int64, shape (num_classes,).
        offset: Chips of class ``label[i]`` are ``chip[offset[i]:offset[i + 1]]``, int64,
            shape (num_classes + 1,).
        chip: Indices of chips in the plan, ascending for each class, int32.
        num_chips: How many chips the plan has.
    """

    label: Ints
    offset: Ints
    chip: NDArray[np.int32]
    num_chips: int

    @classmethod
    def find(cls, table: AnnotationTable, pyramid: ScalePyramid, plan: ChipPlan) -> ChipsOfClasses:
        """Look the objects up that each chip shows.

        Args:
            table (AnnotationTable): Image sizes, boxes and labels. Boxes that are ignored or have a
                label below 0 are no objects.
            pyramid (ScalePyramid): The scale pyramid.
            plan (ChipPlan): Positive chips of the same images.

        Raises:
            ValueError: If the table has no labels.
        """
        if table.label is None:
            raise ValueError('the boxes have no labels: read them with labels=True')
        lookup = ChipLookup.from_plan(plan, pyramid.num_levels)
        found = [np.zeros(0, np.int64)]
        for _, part in iter_targets(table, pyramid):
            label = table.label[part.index].astype(np.int64)
            for target, chip in lookup.enclosing(part):
                pairs = np.unique(label[target] * len(plan) + chip)
                found.append(pairs[pairs >= 0])
        # Parts have images of their own, but for what a block cuts.
        label, chip = np.divmod(np.unique(np.concatenate(found)), max(len(plan), 1))
        starts = run_starts(label)
        return cls(label[starts], np.append(starts, len(label)), chip.astype(np.int32), len(plan))

    def told(self, table: AnnotationTable, names: Sequence[str] = ()) -> str:
        """Of how many classes there are chips, how many of each, and of which there are none.

        Args:
            table (AnnotationTable): The boxes, of all classes.
            names (Sequence[str]): Names of the classes. Defaults to (), their numbers.
        """
        chips = np.diff(self.offset)
        text = (
            f'an epoch has about {self.num_chips / len(chips):.4g} chips of each of {len(chips)} '
            f'classes, of which there are {chips.min()} to {chips.max()} different ones'
        )
        assert table.label is not None
        without = np.setdiff1d(table.label[~table.ignore], self.label)
        without = without[without >= 0].tolist()
        if without:
            shown = [names[i] if i < len(names) else str(i) for i in without[:_SHOWN]]
            more = f' and {len(without) - _SHOWN} more' if len(without) > _SHOWN else ''
            text += f'; no chip has a whole and valid object of {", ".join(shown)}{more}'
        return text

    def times(
        self, total: int, num_sample_class: int = 1, key: tuple[int, ...] = (0,)
    ) -> NDArray[np.int64]:
        """How often each chip comes in an epoch in which all classes come equally often.

        Classes take turns in a random order, and each takes ``num_sample_class`` of its chips at
        random, none of them again before all have come. So is MMDetection's ``ClassAwareSampler``
        with images. Numbers of two classes differ by ``num_sample_class`` at most, of two chips of
        a class by 1, before what other classes add to them.

        Args:
            total (int): Chips of the epoch.
            num_sample_class (int): Chips of a class in its turn. Defaults to 1.
            key (tuple[int, ...]): What the draw depends on, such as seed and epoch. Defaults to
                (0,).

        Returns:
            NDArray[np.int64]: Shape (num_chips,), of sum ``total``.

        Raises:
            ValueError: If ``num_sample_class`` is not a whole number of at least 1.
        """
        check_whole_number('num_sample_class', num_sample_class, 1)
        times: NDArray[np.int64] = np.zeros(self.num_chips, np.int64)
        rng = np.random.default_rng((*key, _SALT))
        for i, count in enumerate(self._turns(total, num_sample_class, rng).tolist()):
            chips = self.chip[self.offset[i] : self.offset[i + 1]]
            rounds, rest = divmod(count, len(chips))
            times[chips] += rounds
            times[rng.choice(chips, rest, replace=False, shuffle=False)] += 1
        return times

    def _turns(self, total: int, each: int, rng: np.random.Generator) -> Ints:
        """Chips that each class takes of a total."""
        classes = len(self.label)
        rounds, rest = divmod(total, max(classes * each, 1))
        turns = np.full(classes, rounds * each)
        last = rng.permutation(classes)[: ceil(rest / each)]
        turns[last] += each
        turns[last[-1:]] -= len(last) * each - rest  # the last of them has what is left
        return turns
