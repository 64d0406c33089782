"""The planner by properties: each byte exactly once, buckets within their limit, owners apart."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abruzzi_jobs.rl.weights.plan import ALIGNMENT, Parameter, Planner, key_of, make_plan

shapes = st.lists(st.integers(0, 40), max_size=3).map(tuple)
parameters = st.lists(
    st.tuples(st.sampled_from(["float32", "bfloat16", "int64", "uint8", "bool"]), shapes, st.integers(0, 3)),
    max_size=30,
).map(lambda rows: [Parameter(f"p{i}", *row) for i, row in enumerate(rows)])
limits = st.integers(1, 64).map(lambda n: n * ALIGNMENT)


@given(parameters, limits, st.booleans())
def test_each_byte_travels_exactly_once_and_in_order(parameters, limit, interleave):
    plan = make_plan(parameters, limit, interleave=interleave)
    at = [0] * len(parameters)
    seen = set()
    for bucket in plan.buckets:
        for piece in bucket.pieces:
            assert piece.start == at[piece.parameter]
            at[piece.parameter] = piece.stop
            seen.add(piece.parameter)
    assert at == [parameter.nbytes for parameter in parameters]
    assert seen == set(range(len(parameters)))
    assert plan.size_bytes == sum(at)


@given(parameters, limits)
def test_buckets_keep_their_limit_and_their_owner_and_pieces_do_not_overlap(parameters, limit):
    for bucket in make_plan(parameters, limit).buckets:
        assert bucket.nbytes <= limit
        end = 0
        for piece in bucket.pieces:
            assert piece.offset >= end
            assert piece.offset % ALIGNMENT == 0
            assert piece.start % ALIGNMENT == 0
            end = piece.offset + piece.nbytes
            assert parameters[piece.parameter].owner == bucket.owner


@given(parameters, limits)
def test_a_parameter_that_fits_into_a_bucket_is_never_cut(parameters, limit):
    cut = {
        p.parameter
        for b in make_plan(parameters, limit).buckets
        for p in b.pieces
        if p.nbytes != parameters[p.parameter].nbytes
    }
    assert cut == {i for i, parameter in enumerate(parameters) if parameter.nbytes > limit}


@given(parameters, limits)
def test_owners_take_turns_until_they_have_nothing_left(parameters, limit):
    owners = [bucket.owner for bucket in make_plan(parameters, limit).buckets]
    left = {owner: owners.count(owner) for owner in set(owners)}
    turn = []
    for owner in owners:
        if owner in turn:
            assert set(turn) == {o for o in left if left[o] or o in turn}
            turn = []
        turn.append(owner)
        left[owner] -= 1
    assert not any(left.values())


@given(parameters, limits)
def test_without_turns_parameters_travel_in_their_order(parameters, limit):
    parameters = [
        Parameter(p.name, p.dtype, p.shape, i * 3 // max(1, len(parameters))) for i, p in enumerate(parameters)
    ]
    order = [p.parameter for b in make_plan(parameters, limit, interleave=False).buckets for p in b.pieces]
    assert order == sorted(order)


def test_a_name_of_two_owners_is_an_error_that_names_both():
    with pytest.raises(ValueError, match="parameter a is registered twice, by ranks 0 and 2"):
        make_plan([Parameter("a", "float32", (1,), 0), Parameter("a", "float32", (1,), 2)], 64)


def test_a_limit_that_cuts_elements_is_refused():
    with pytest.raises(ValueError, match="bucket_bytes: 100 is no multiple of 64"):
        make_plan([], 100)


def test_a_plan_is_made_once_for_the_same_shapes():
    planner = Planner()
    first = [Parameter("a", "float32", (4, 4), 0)]
    plans = [planner.plan({0: key_of(first)}, {0: first}, 64) for _ in range(3)]
    assert planner.made == 1
    assert plans[0] is plans[2]
    other = [Parameter("a", "float32", (4, 5), 0)]
    planner.plan({0: key_of(other)}, {0: other}, 64)
    assert planner.made == 2
