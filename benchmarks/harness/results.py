"""How benchmarks note their results: the machine, a JSON file and a page beside it."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mmsniper.utils.files import write_json, write_text


def machine(**more: Any) -> dict[str, Any]:
    """What measured times depend on; ``more`` is added, or replaces what is known."""
    return (
        dict(
            machine=platform.machine(),
            cpus=os.cpu_count(),
            load_before=round(os.getloadavg()[0], 1) if hasattr(os, 'getloadavg') else None,
            python=platform.python_version(),
            threads=os.environ.get('OMP_NUM_THREADS'),
        )
        | more
    )


def markdown_table(columns: Iterable[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table in Markdown, and the empty line behind it."""
    lines = [list(columns), *rows]
    table = [f'| {" | ".join(line)} |' for line in lines]
    return [table[0], f'|{" --- |" * len(lines[0])}', *table[1:], '']


def write_results(out: Path, result: Any, page: str) -> None:
    """Write a result to ``out`` with the suffix .json and its page to .md."""
    write_json(out.with_suffix('.json'), result)
    write_text(out.with_suffix('.md'), page)
