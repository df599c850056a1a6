"""``_fusion``: from the hits of two searches to one ranking."""

import math

import pytest

from gte_integrations._index.fusion import RRF, Fused, Linear, fuse

DENSE = [("a", 0.9), ("b", 0.8), ("c", 0.1)]
SPARSE = [("c", 30.0), ("b", 10.0), ("d", 5.0)]


def test_linear_adds_weighted_scores_and_counts_a_missed_leg_as_zero():
    assert fuse(DENSE, SPARSE, Linear(dense_weight=1.0, sparse_weight=0.01), 10) == [
        Fused("a", pytest.approx(0.9), 0.9, None),
        Fused("b", pytest.approx(0.9), 0.8, 10.0),
        Fused("c", pytest.approx(0.4), 0.1, 30.0),
        Fused("d", pytest.approx(0.05), None, 5.0),
    ]


def test_rrf_counts_ranks_from_one():
    fused = {hit.id: hit.score for hit in fuse(DENSE, SPARSE, RRF(), 10)}
    assert fused == {
        "a": pytest.approx(1 / 61),
        "b": pytest.approx(1 / 62 + 1 / 62),
        "c": pytest.approx(1 / 63 + 1 / 61),
        "d": pytest.approx(1 / 63),
    }


def test_rrf_weights_divide_by_k_plus_rank():
    fused = {
        hit.id: hit.score
        for hit in fuse(DENSE, SPARSE, RRF(k=2, dense_weight=3.0, sparse_weight=0.5), 10)
    }
    assert fused["b"] == pytest.approx(3.0 / 4 + 0.5 / 4)
    assert fused["d"] == pytest.approx(0.5 / 5)


def test_the_defaults_are_those_of_the_papers():
    assert Linear() == Linear(dense_weight=1.0, sparse_weight=0.01)
    assert RRF() == RRF(k=60, dense_weight=1.0, sparse_weight=1.0)


def test_the_order_of_a_leg_does_not_matter():
    for fusion in (Linear(), RRF()):
        assert fuse(DENSE[::-1], SPARSE[::-1], fusion, 10) == fuse(DENSE, SPARSE, fusion, 10)


def test_ties_go_by_id_integers_first():
    tied = [("10", 1.0), (10, 1.0), ("9", 1.0), (9, 1.0)]
    assert [hit.id for hit in fuse(tied, [], Linear(), 10)] == [9, 10, "10", "9"]
    assert [hit.id for hit in fuse(tied, [], RRF(), 10)] == [9, 10, "10", "9"]


def test_the_integer_1_and_the_string_1_are_two_documents():
    assert {hit.id for hit in fuse([(1, 1.0)], [("1", 1.0)], Linear(), 10)} == {1, "1"}


def test_limit_cuts_after_fusing():
    assert [hit.id for hit in fuse(DENSE, SPARSE, Linear(1.0, 1.0), 2)] == ["c", "b"]


def test_nothing_found_gives_nothing():
    assert fuse([], [], RRF(), 3) == []


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
@pytest.mark.parametrize("rule", [Linear, RRF])
def test_weights_must_be_finite_and_not_negative(rule, weight):
    with pytest.raises(ValueError, match=r"dense_weight is .* at least 0"):
        rule(dense_weight=weight)
    with pytest.raises(ValueError, match=r"sparse_weight is .* at least 0"):
        rule(sparse_weight=weight)


@pytest.mark.parametrize("rule", [Linear, RRF])
def test_one_weight_must_be_above_zero(rule):
    with pytest.raises(ValueError, match="Both weights are 0"):
        rule(dense_weight=0.0, sparse_weight=0.0)


@pytest.mark.parametrize("k", [-1, 1.5, True, "60"])
def test_k_must_be_a_count(k):
    with pytest.raises(ValueError, match=r"k is .* integer of at least 0"):
        RRF(k=k)
