"""Checks of arguments that many functions take."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral


def check_whole_number(name: str, value: object, minimum: int, optional: bool = False) -> None:
    """Check that an argument is a whole number that is not too small.

    Args:
        name (str): The argument's name, for the message.
        value (object): What was given. Integers of NumPy count, True and False do not.
        minimum (int): The smallest number that is allowed.
        optional (bool): Also allow None. Defaults to False.

    Raises:
        ValueError: If it is anything else.

    Example:
        >>> check_whole_number('chips_per_image', 2, 1)
    """
    if optional and value is None:
        return
    if isinstance(value, bool) or not isinstance(value, Integral) or value < minimum:
        raise ValueError(f'{name} must be a whole number of at least {minimum}, got {value!r}')


def check_box_shape(shape: Sequence[int], name: str = 'boxes') -> None:
    """Check that an array or a tensor is one of boxes with corners.

    Args:
        shape (Sequence[int]): Its shape.
        name (str): The argument's name, for the message. Defaults to 'boxes'.

    Raises:
        ValueError: If it is not (n, 4). Rotated boxes have five numbers, or their four corners.

    Example:
        >>> check_box_shape(np.zeros((7, 4)).shape)
    """
    if len(shape) != 2 or shape[1] != 4:
        raise ValueError(
            f'{name} must have the shape (n, 4), xyxy, got {tuple(shape)}; rotated boxes must be '
            f"MMRotate's RotatedBoxes or QuadriBoxes, where they are supported"
        )
