"""What rerankers have in common, and what adapters are handed as one."""

import numpy as np
import pytest

from gte_core import (
    GTEReranker,
    RankedDocument,
    RerankerSettings,
    ScoringReranker,
    as_reranker,
    shared_reranker,
)
from gte_core.testing import HashReranker, random_checkpoint

DOCUMENTS = ["yew fir", "oak elm ash", "oak", "elm oak"]


def test_words_in_common():
    scores = HashReranker().score([("oak elm", text) for text in DOCUMENTS] + [("", "")])
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, [0, 2 / 3, 1 / 2, 1, 0])
    assert HashReranker().score([]).shape == (0,)


async def test_awaited_forms_give_the_same():
    reranker = HashReranker()
    ranked = reranker.rank("oak elm", iter(DOCUMENTS), top_n=2)
    assert ranked == [
        RankedDocument(3, 1.0, "elm oak"),
        RankedDocument(1, pytest.approx(2 / 3), "oak elm ash"),
    ]
    assert await reranker.arank("oak elm", iter(DOCUMENTS), top_n=2) == ranked
    pairs = [("oak", text) for text in DOCUMENTS]
    np.testing.assert_array_equal(await reranker.ascore(iter(pairs)), reranker.score(pairs))
    with pytest.raises(ValueError, match="top_n is 0, but must be at least 1, or None for all"):
        await reranker.arank("oak", DOCUMENTS, top_n=0)
    with pytest.raises(TypeError, match=r"documents\[1\] must be a str, got int"):
        await reranker.arank("oak", ["a", 1])
    with pytest.raises(TypeError, match="'return_documents' is no argument here"):
        await reranker.arank("oak", DOCUMENTS, return_documents=True)


@pytest.mark.parametrize("top_n", ["2", 2.0, True])
def test_a_top_n_that_is_no_integer_is_refused(top_n):
    message = f"top_n must be an integer of at least 1, or None for all, got {top_n!r}"
    with pytest.raises(TypeError, match=message):
        HashReranker().rank("oak", DOCUMENTS, top_n=top_n)


class Scoring(ScoringReranker):
    """Gives these scores, whatever it is asked."""

    def __init__(self, scores):
        self.scores = scores

    def score(self, pairs):
        return self.scores


@pytest.mark.parametrize(
    ("scores", "given"),
    [
        ([1.0, 2.0, 3.0], r"scores of shape \(3,\)"),
        ([1.0] * 5, r"scores of shape \(5,\)"),
        ([[1.0]] * 4, r"scores of shape \(4, 1\)"),
        ([1.0, float("nan"), 1e300, 2.0], r"2 score\(s\) that are NaN or infinite"),
        ({1.0, 2.0}, "a set that makes no array"),
    ],
)
async def test_scores_that_do_not_fit_are_refused(scores, given):
    message = f"The reranker gave {given} for 4 pairs, but must give one finite number for each"
    with pytest.raises(ValueError, match=message):
        Scoring(scores).rank("oak", DOCUMENTS)
    with pytest.raises(ValueError, match=message):
        await Scoring(scores).arank("oak", DOCUMENTS, top_n=1)


def test_scores_may_be_a_list():
    assert [one.index for one in Scoring([1, 3, 2, 3]).rank("oak", DOCUMENTS)] == [1, 3, 2, 0]


def test_a_shared_reranker_ranks_as_the_loaded_one(tmp_path):
    path = random_checkpoint(tmp_path, task="sequence_classification")
    shared = shared_reranker(RerankerSettings(model=str(path)))
    assert shared.model == str(path)
    documents = ["w1 w2", "w3", "w4 w5"]
    assert shared.rank("w1", documents) == GTEReranker.from_pretrained(path).rank("w1", documents)


def test_a_name_is_shared_and_loads_nothing():
    assert as_reranker("org/reranker") is shared_reranker(RerankerSettings(model="org/reranker"))


def test_an_object_is_returned_as_it_is():
    reranker = HashReranker()
    assert as_reranker(reranker) is reranker


def test_a_subclass_says_how_it_scores():
    class Lengths(ScoringReranker):
        def score(self, pairs):
            return np.array([len(document) for _, document in pairs], np.float32)

    assert [one.index for one in as_reranker(Lengths()).rank("q", DOCUMENTS)] == [1, 0, 3, 2]


def test_what_is_no_reranker_is_refused():
    class CrossEncoder:
        def rank(self): ...
        def predict(self): ...

    with pytest.raises(TypeError, match="reranker is a CrossEncoder without score, arank, ascore"):
        as_reranker(CrossEncoder())
    with pytest.raises(TypeError, match="reranker is the class HashReranker, but must be one of"):
        as_reranker(HashReranker)
