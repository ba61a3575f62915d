"""Covers by integer programming: minimal where they say so, and when it is cut off."""

from types import SimpleNamespace

import numpy as np
import pytest
from brute_force_covers import bars, fewest_by_integer_program, fewest_points, rectangles
from hypothesis import given
from scipy.sparse import csr_array

from mmsniper.chips import integer_program
from mmsniper.chips.rectangles import maximal_cliques

SEEDS = range(12)


def covers(cliques, chosen):
    return (cliques.toarray()[chosen].sum(axis=0) > 0).all()


@pytest.fixture(params=SEEDS)
def problem(request):
    lo, hi = bars(30, extent=12, seed=request.param)
    return lo, hi, maximal_cliques(lo, hi), fewest_by_integer_program(lo, hi)


def test_greedy_takes_what_adds_most():
    sets = np.array([[1, 1, 0, 0, 0], [0, 1, 1, 1, 0], [0, 0, 0, 1, 1]], float)
    assert integer_program.greedy(csr_array(sets)).tolist() == [1, 0, 2]


def test_greedy_covers(problem):
    _, _, cliques, fewest = problem
    chosen = integer_program.greedy(cliques)
    assert covers(cliques, chosen)
    assert len(chosen) >= fewest


def test_the_integer_program_is_exact(problem):
    _, _, cliques, fewest = problem
    chosen, proven = integer_program.prove(cliques, integer_program.greedy(cliques), 1000)
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
    monkeypatch.setattr(integer_program, 'milp', lambda *args, **kwargs: result)
    rows, proven = integer_program.prove(sets, np.array([0, 1]), node_limit=1)
    assert rows.tolist() == chosen
    assert not proven


def test_of_covers_of_the_same_number_the_one_at_hand_is_kept(monkeypatch):
    # Which of them HiGHS finds depends on its version.
    result = SimpleNamespace(status=0, x=np.array([0.0, 1.0]))
    monkeypatch.setattr(integer_program, 'milp', lambda *args, **kwargs: result)
    rows, proven = integer_program.prove(csr_array(np.ones((2, 3))), np.array([0]), node_limit=1)
    assert rows.tolist() == [0]
    assert proven


def test_no_limit_of_the_integer_program_depends_on_the_clock(monkeypatch):
    # Otherwise ranks would plan differently, and a resumed run differently from the first.
    options = {}
    monkeypatch.setattr(
        integer_program,
        'milp',
        lambda *args, **kwargs: (
            options.update(kwargs['options']) or SimpleNamespace(status=1, x=None)
        ),
    )
    integer_program.prove(csr_array(np.ones((2, 3))), np.array([0, 1]), node_limit=7)
    assert options == {'node_limit': 7}


def test_an_older_scipy_is_given_the_indices_that_it_takes(monkeypatch):
    given = []

    def milp(*args, constraints, **kwargs):
        given.append(constraints.A)
        return SimpleNamespace(status=1, x=None)

    monkeypatch.setattr(integer_program, 'milp', milp)
    cliques = csr_array(np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]]))
    cliques.indices, cliques.indptr = (
        a.astype(np.int64) for a in (cliques.indices, cliques.indptr)
    )
    integer_program.prove(cliques, np.array([0, 1]), node_limit=1)
    (constraint,) = given
    assert (constraint.indices.dtype, constraint.indptr.dtype) == (np.int32, np.int32)
    assert constraint.toarray().tolist() == [[1, 0], [1, 1], [0, 1]]
    assert cliques.indices.dtype == np.int64


@pytest.fixture
def no_milp(monkeypatch):
    """HiGHS finds nothing; counts how often it is asked."""
    calls = []
    monkeypatch.setattr(
        integer_program,
        'milp',
        lambda *args, **kwargs: calls.append(args) or SimpleNamespace(status=1, x=None),
    )
    return calls


@pytest.mark.parametrize(
    ('corners', 'fewest'),
    [
        ([[0, 0], [4, 0], [4, 4], [0, 4]], 2),
        ([[0, 0], [2, 0], [4, 0], [4, 4], [0, 4]], 3),
        ([[0, 0], [2, 0], [4, 0], [4, 4], [2, 4], [0, 4]], 3),
        ([[0, 0], [2, 0], [4, 0], [4, 2], [4, 4], [2, 4], [0, 4]], 4),
    ],
)
def test_a_ring_of_rectangles_needs_half_as_many_points_and_no_integer_program(
    no_milp, corners, fewest
):
    # A bar from each corner to the next: it meets two others, no three have a point in common.
    before, after = np.array(corners, float), np.roll(corners, -1, axis=0)
    lo, hi = np.minimum(before, after), np.maximum(before, after)
    label, proven = integer_program.solve(lo, hi, node_limit=1000)
    assert proven
    assert len(set(label.tolist())) == fewest
    assert not no_milp


@given(rectangles(max_size=7, extent=6))
def test_what_is_proven_without_the_integer_program_is_minimal(corners):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(integer_program, 'MAX_RECTANGLES', 0)
        patch.setattr(integer_program, 'is_sparse', lambda *args: False)
        label, proven = integer_program.solve(*corners, node_limit=1000)
    if proven:
        assert len(set(label.tolist())) == fewest_points(*corners)


def test_too_many_rectangles_are_covered_without_a_proof(no_milp, monkeypatch):
    lo, hi = bars(30, extent=12, seed=0)
    monkeypatch.setattr(integer_program, 'is_sparse', lambda *args: False)
    monkeypatch.setattr(integer_program, 'MAX_RECTANGLES', 29)
    assert not integer_program.solve(lo, hi, node_limit=1000)[1]
    assert not no_milp
    monkeypatch.setattr(integer_program, 'MAX_RECTANGLES', 30)
    assert not integer_program.solve(lo, hi, node_limit=1000)[1]
    assert len(no_milp) == 1


def test_a_rectangle_is_labelled_with_the_first_clique_that_has_it():
    sets = np.array([[1, 1, 0], [0, 1, 1], [0, 1, 1]], float)
    assert integer_program.first_label(csr_array(sets)).tolist() == [0, 0, 1]
