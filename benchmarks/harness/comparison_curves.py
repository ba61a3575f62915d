"""The picture of a comparison with several budgets: what is reached, against what it costs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from harness.comparison_tables import best_test, costs, devices
from harness.training_run import CPU, TRAIN
from mmsniper.visualization.figure import new_figure, save_figure

_REACHED = {
    'AP': 'AP',
    'APs': 'AP small',
    'AR': 'AR',
    'FP@0.5': 'false positives per image at recall 0.5',
}
_COSTS = {
    'pixels': (1e6, 'million pixels, those of mining count a third'),
    'cpu_seconds': (60, 'CPU minutes, mining included'),
}
_STYLES = (
    '#d62728',
    '#ff9f1c',
    '#2ca02c',
    '#19a7ff',
    '#9b6bff',
    '#222222',
    '#8c564b',
    '#00c2a8',
    '#e377c2',
    '#9a9a9a',
)


def points(summaries: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """What each contestant costs and reaches at each budget, cheap to dear, by most seeds.

    Args:
        summaries (Sequence[dict]): From :func:`harness.comparison.summarise`.

    Returns:
        dict[str, list[dict]]: ``seeds`` (their number), ``pixels``, ``cpu_seconds`` (None if it was
        trained on a GPU), and ``mean`` and ``std`` of the contestant's best test.
    """
    found: dict[str, dict[float, dict[str, Any]]] = defaultdict(dict)
    for summary in summaries:
        for entry in summary['contestants']:
            of_this = found[entry['name']]
            known = of_this.get(summary['pixels'], dict(seeds=0))
            if len(entry['runs']) > known['seeds']:
                stage, cost = best_test(entry), costs(entry['mean'][TRAIN])
                of_this[summary['pixels']] = dict(
                    seeds=len(entry['runs']),
                    pixels=cost['pixels'],
                    cpu_seconds=cost['cpu_seconds'] if devices(entry) == [CPU] else None,
                    mean=entry['mean'][stage],
                    std=entry['std'][stage],
                )
    return {
        name: sorted(some.values(), key=lambda point: point['pixels'])
        for name, some in found.items()
        if some
    }


def draw_curves(summaries: Sequence[Mapping[str, Any]], title: str, path: Path) -> None:
    """Draw what each contestant reaches against pixels and against processor time.

    A full dot is the mean of several seeds, with its standard deviation; a hollow one is one seed.

    Args:
        summaries (Sequence[dict]): From :func:`harness.comparison.summarise`, of all budgets.
        title (str): Heading.
        path (Path): The PNG file.
    """
    curves = points(summaries)
    figure = new_figure(4.2 * len(_REACHED), 7.6)
    for row, (cost, (unit, label)) in enumerate(_COSTS.items()):
        for column, (metric, name) in enumerate(_REACHED.items()):
            axes = figure.add_subplot(len(_COSTS), len(_REACHED), row * len(_REACHED) + column + 1)
            for number, some in enumerate(curves.values()):
                _draw_curve(axes, some, cost, unit, metric, _STYLES[number % len(_STYLES)])
            axes.set_xscale('log')
            _plain_numbers(axes.xaxis)
            axes.set_xlabel(label, fontsize=8)
            axes.set_title(name, fontsize=9)
            axes.grid(True, which='both', color='#eeeeee')
            axes.set_axisbelow(True)
            if metric.startswith('FP') and axes.has_data():
                axes.set_yscale('log')
                _plain_numbers(axes.yaxis)
    handles = [
        axes.plot([], [], 'o-', color=_STYLES[number % len(_STYLES)], label=name)[0]
        for number, name in enumerate(curves)
    ]
    figure.legend(handles=handles, loc='lower center', ncols=4, fontsize=9, frameon=False)
    figure.suptitle(
        f'{title}. Full dots: mean of several seeds and standard deviation; hollow: one seed.',
        fontsize=10,
    )
    figure.tight_layout(rect=(0, 0.02 + 0.025 * -(-len(curves) // 4), 1, 0.98))
    save_figure(figure, path)


def _plain_numbers(axis: Axis) -> None:
    """Label a logarithmic axis at 1, 2, 5, 10, ... instead of powers of ten."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(ScalarFormatter())
    axis.set_minor_formatter(NullFormatter())


def _draw_curve(
    axes: Axes, some: Sequence[Mapping[str, Any]], cost: str, unit: float, metric: str, colour: str
) -> None:
    there = [p for p in some if None not in (p['mean'].get(metric), p[cost])]
    x, y = [p[cost] / unit for p in there], [p['mean'][metric] for p in there]
    if there:
        axes.plot(x, y, '-', color=colour, linewidth=1)
    for p, at, value in zip(there, x, y):
        several = p['seeds'] > 1
        axes.errorbar(
            [at],
            [value],
            yerr=[p['std'][metric]] if several and p['std'][metric] is not None else None,
            fmt='o',
            color=colour,
            markerfacecolor=colour if several else 'white',
            markersize=5,
            capsize=2,
        )
