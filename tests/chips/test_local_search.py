"""The searches for what the rules leave over: each alone, and when it is cut off."""

from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
from brute_force_covers import bars, fewest_by_integer_program, holds
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from mmsniper.chips import search
from mmsniper.chips.cliques import cover_window
from mmsniper.chips.rectangles import common, maximal_cliques

SEEDS = range(12)


def covers(cliques, chosen):
    return (cliques.toarray()[chosen].sum(axis=0) > 0).all()


@pytest.fixture(params=SEEDS)
def problem(request):
    lo, hi = bars(30, extent=12, seed=request.param)
    return lo, hi, maximal_cliques(lo, hi), fewest_by_integer_program(lo, hi)


def test_greedy_takes_what_adds_most():
    sets = np.array([[1, 1, 0, 0, 0], [0, 1, 1, 1, 0], [0, 0, 0, 1, 1]], float)
    assert search.greedy(csr_array(sets)).tolist() == [1, 0, 2]


def test_greedy_covers(problem):
    _, _, cliques, fewest = problem
    chosen = search.greedy(cliques)
    assert covers(cliques, chosen)
    assert len(chosen) >= fewest


def test_the_search_is_exact(problem):
    _, _, cliques, fewest = problem
    chosen, proven = search.search(cliques, search.greedy(cliques))
    assert proven
    assert covers(cliques, chosen)
    assert len(chosen) == fewest


@given(st.lists(st.sets(st.integers(0, 7), min_size=1), min_size=1, max_size=9))
@example([{0, 2}, {0, 1, 4}, {0, 1, 3}, {2, 4}])
def test_the_search_is_exact_for_any_sets(sets):
    elements = sorted(set().union(*sets))
    incidence = np.array([[e in s for e in elements] for s in sets], float)
    fewest = next(
        k
        for k in range(1, len(sets) + 1)
        if any(
            incidence[list(rows)].any(axis=0).all() for rows in combinations(range(len(sets)), k)
        )
    )
    chosen, proven = search.search(csr_array(incidence), np.arange(len(sets)))
    assert proven
    assert covers(csr_array(incidence), chosen)
    assert len(chosen) == fewest


def test_a_search_out_of_nodes_keeps_a_cover_and_claims_nothing(problem, monkeypatch):
    cliques = problem[2]
    everything = np.arange(cliques.shape[0])
    monkeypatch.setattr(search, 'SEARCH_NODES', 1)
    chosen, proven = search.search(cliques, everything)
    assert not proven
    assert covers(cliques, chosen)


def test_the_integer_program_is_exact(problem):
    _, _, cliques, fewest = problem
    chosen, proven = search.prove(cliques, search.greedy(cliques), node_limit=1000)
    assert proven
    assert covers(cliques, chosen)
    assert len(chosen) == fewest


@pytest.mark.parametrize(
    ('found', 'chosen'),
    [(None, [0, 1]), ([1.0, 0.0], [0]), ([0.0, 0.0], [0, 1])],
    ids=['nothing', 'a smaller cover', 'no cover'],
)
def test_out_of_nodes_the_integer_program_proves_nothing_but_may_help(monkeypatch, found, chosen):
    sets = csr_array(np.ones((2, 3)))
    result = SimpleNamespace(status=1, x=None if found is None else np.array(found))
    monkeypatch.setattr(search, 'milp', lambda *args, **kwargs: result)
    rows, proven = search.prove(sets, np.array([0, 1]), node_limit=1)
    assert rows.tolist() == chosen
    assert not proven


def test_no_limit_of_the_integer_program_depends_on_the_clock(monkeypatch):
    # Otherwise ranks would plan differently, and a resumed run differently from the first.
    options = {}
    monkeypatch.setattr(
        search,
        'milp',
        lambda *args, **kwargs: (
            options.update(kwargs['options']) or SimpleNamespace(status=1, x=None)
        ),
    )
    search.prove(csr_array(np.ones((2, 3))), np.array([0, 1]), node_limit=7)
    assert options == {'node_limit': 7}


def test_the_local_search_covers_again_only_what_is_left_uncovered():
    lo, hi = bars(120, extent=40, seed=0)
    cliques = maximal_cliques(lo, hi)
    before = search.first_label(cliques[search.greedy(cliques)])
    points = common(lo, hi, before)[1]
    held = holds(lo, hi, points).sum(axis=0)
    sizes = []

    def look(window_lo, window_hi, most):
        sizes.append((len(window_lo), most))

    search.improve(lo, hi, before, look)
    expected = []
    for seed in points:
        near = np.abs(points - seed).max(axis=1).argsort(kind='stable')[: sizes[0][1]]
        out = holds(lo, hi, points[near]).sum(axis=0)
        expected.append((((out > 0) & (out == held)).sum(), len(near)))
    assert sizes == expected


def test_the_local_search_makes_covers_smaller():
    improved = 0
    for seed in range(4):
        lo, hi = bars(120, extent=40, seed=seed)
        cliques = maximal_cliques(lo, hi)
        before = search.first_label(cliques[search.greedy(cliques)])
        after = search.improve(lo, hi, before, cover_window)
        slack_lo, slack_hi = common(lo, hi, after)
        assert (slack_lo <= slack_hi).all()
        assert after.max() <= before.max()
        improved += after.max() < before.max()
    assert improved >= 3


def test_a_local_search_that_finds_nothing_keeps_the_number():
    lo, hi = bars(60, extent=30, seed=0)
    cliques = maximal_cliques(lo, hi)
    before = search.first_label(cliques[search.greedy(cliques)])
    after = search.improve(lo, hi, before, lambda lo, hi, most: None)
    assert after.max() == before.max()


def test_a_rectangle_is_labelled_with_the_first_clique_that_has_it():
    sets = np.array([[1, 1, 0], [0, 1, 1], [0, 1, 1]], float)
    assert search.first_label(csr_array(sets)).tolist() == [0, 0, 1]
