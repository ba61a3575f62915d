"""Configs of several sources, compared."""

from typing import Any


def without_scope(node: Any) -> Any:
    """A config without the ``_scope_`` that mmengine gives to what another package's file has."""
    if isinstance(node, dict):
        return {k: without_scope(v) for k, v in node.items() if k != '_scope_'}
    return [without_scope(v) for v in node] if isinstance(node, (list, tuple)) else node
