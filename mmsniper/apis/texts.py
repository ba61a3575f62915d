"""Detectors that find what a text names, such as Grounding DINO and GLIP."""

from __future__ import annotations

import re
from typing import Any

from mmsniper.datasets.wrappers import type_name

_ASKED = 'get_tokens_positive_and_prompts'


def takes_texts(model: Any) -> bool:
    """Whether a detector is told by a text what to find."""
    return hasattr(model, _ASKED)


def text_names(text: str) -> tuple[str, ...]:
    """The names in a text that has full stops between them: 'person . car .'."""
    return tuple(filter(None, re.split(r'\s*\.(?:\s+|$)', text.strip())))


def text_classes(
    model: Any, text: Any, custom_entities: bool, tokens_positive: Any = None
) -> list[str]:
    """What the labels 0, 1, ... are called that a detector gives for a text.

    Args:
        model (BaseDetector): The detector.
        text (str | tuple[str, ...]): As in the metainfo of an image.
        custom_entities (bool): Whether the text is names, as there.
        tokens_positive (Any): As there. Defaults to None.

    Raises:
        ValueError: If the detector takes no texts.
    """
    if not takes_texts(model):
        raise ValueError(
            f'{type_name(model)} takes no texts, it finds the classes that it was trained on: '
            f'leave --texts out'
        )
    names = getattr(model, _ASKED)(text, custom_entities, None, tokens_positive)[-1]
    if isinstance(names, str):
        return [names]
    # In parts with test_cfg.chunked_size.
    return [name for part in names for name in ([part] if isinstance(part, str) else part)]
