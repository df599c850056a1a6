"""The last stage of a search, on every engine: the best hits scored anew by a reranker."""

import asyncio
import pickle
from collections import Counter

import numpy as np
import pytest

from gte_core import GTEReranker
from gte_core.testing import HashReranker, random_checkpoint
from gte_integrations.qdrant import Hit

WORDS = ["oak", "elm", "ash", "yew", "fir", "box", "bay", "lime"]
DOCUMENTS = [
    (n, " ".join(WORDS[: 1 + n % 8] + ["oak"] * (n // 8)), {"kind": n % 3, "n": n})
    for n in range(40)
]


class RecordingReranker(HashReranker):
    """Prefers texts with many different words, and keeps the pairs of every call."""

    def __init__(self):
        self.calls = []

    def score(self, pairs):
        pairs = list(pairs)
        self.calls.append(pairs)
        return np.array([len(set(text.split())) for _, text in pairs], np.float32)


@pytest.fixture
def filled(index):
    index.add(DOCUMENTS)
    return index


@pytest.fixture
def reranker():
    return RecordingReranker()


def by_rerank_score(hits):
    return sorted(hits, key=lambda hit: (-hit.rerank_score, hit.id))


@pytest.mark.parametrize("mode", ["hybrid", "dense", "sparse"])
def test_the_best_hits_are_ranked_anew(filled, reranker, mode):
    [best] = filled.search("oak elm", mode=mode, limit=12)
    [hits] = filled.search("oak elm", mode=mode, limit=5, rerank=reranker, rerank_depth=12)
    assert {text for _, text in reranker.calls[0]} == {hit.text for hit in best}
    scores = {hit.id: len(set(hit.text.split())) for hit in best}
    expected = sorted(best, key=lambda hit: (-scores[hit.id], hit.id))[:5]
    assert [hit.id for hit in hits] == [hit.id for hit in expected]
    for hit, former in zip(hits, expected, strict=True):
        assert hit.rerank_score == scores[hit.id]
        assert hit.score == pytest.approx(former.score)
        assert hit.payload == former.payload
        assert former.rerank_score is None


def test_pairs_of_all_queries_are_scored_in_one_call(filled, reranker):
    filled.search(["oak", "yew fir"], mode="dense", limit=3, rerank=reranker, rerank_depth=4)
    [pairs] = reranker.calls
    assert Counter(query for query, _ in pairs) == {"oak": 4, "yew fir": 4}


def test_a_reranker_reads_queries_as_they_were_given(place, make_encoder, reranker):
    index = place.open(make_encoder(query_prefix="query: "))
    index.create()
    index.add(DOCUMENTS)
    index.search("oak", rerank=reranker)
    assert {query for query, _ in reranker.calls[0]} == {"oak"}


def test_fifty_are_scored_unless_more_are_asked_for(index, reranker):
    index.add([(n, f"oak w{n}") for n in range(70)])
    for limit, offset in ((3, 0), (30, 35)):
        index.search("oak", limit=limit, offset=offset, rerank=reranker, candidates=1)
    assert [len(pairs) for pairs in reranker.calls] == [50, 65]


def test_pages_are_of_one_ranking(filled, reranker):
    [whole] = filled.search("oak elm", limit=40, rerank=reranker)
    pages = [
        filled.search("oak elm", limit=8, offset=offset, rerank=reranker, rerank_depth=40)[0]
        for offset in range(0, 40, 8)
    ]
    assert [hit.id for page in pages for hit in page] == [hit.id for hit in whole]
    assert whole == by_rerank_score(whole)


@pytest.mark.parametrize("keys", [None, (), ["n"]])
def test_groups_are_of_the_new_ranking(filled, reranker, keys):
    [whole] = filled.search("oak elm", limit=40, rerank=reranker)
    expected = {}
    for hit in whole:
        expected.setdefault(hit.payload["kind"], hit)
    options = {"group_by": "kind", "rerank": reranker, "rerank_depth": 40, "payload_keys": keys}
    [hits] = filled.search("oak elm", limit=5, **options)
    assert [hit.id for hit in hits] == [hit.id for hit in expected.values()]
    [behind] = filled.search("oak elm", limit=5, offset=1, **options)
    assert behind == hits[1:]
    shown = {None: {"kind", "n"}, (): set()}.get(keys if keys is None else tuple(keys), {"n"})
    assert all(set(hit.payload) == shown for hit in hits)


def test_a_threshold_is_of_the_score_that_was_there_before(filled, reranker):
    [plain] = filled.search("oak elm", mode="dense", limit=40)
    threshold = plain[9].score
    [hits] = filled.search(
        "oak elm", mode="dense", limit=40, score_threshold=threshold, rerank=reranker
    )
    assert {hit.id for hit in hits} == {hit.id for hit in plain if hit.score >= threshold}


def test_a_filter_is_of_the_first_stage(filled, reranker, place):
    filled.add([("en", "elm", {"lang": "en"})])
    [hits] = filled.search("oak", rerank=reranker, filter=place.filter("lang", "en"))
    assert [hit.id for hit in hits] == ["en"]
    assert len(reranker.calls[0]) == 1


def test_nothing_found_is_not_scored(index, reranker):
    assert index.search(["oak", "elm"], rerank=reranker) == [[], []]
    assert reranker.calls == []


async def test_awaited(filled, reranker):
    expected = filled.search("oak", limit=3, rerank=reranker)
    found = await asyncio.wait_for(filled.asearch("oak", limit=3, rerank=reranker), timeout=60)
    assert found == expected
    assert found[0][0].rerank_score is not None


def test_a_model_by_its_name(filled, tmp_path):
    path = random_checkpoint(tmp_path / "reranker", task="sequence_classification")
    texts = [text for _, text, _ in DOCUMENTS]
    ranked = GTEReranker.from_pretrained(path).rank("oak", texts)
    [hits] = filled.search("oak", limit=40, rerank=path)
    assert hits == by_rerank_score(hits)
    np.testing.assert_allclose(
        [hit.rerank_score for hit in hits], [one.score for one in ranked], atol=0.02
    )
    assert filled.search("oak", limit=40, rerank=str(path)) == [hits]


@pytest.fixture
def one_index(make_place, encoder, tmp_path):
    """Of one engine, for what none has a part in."""
    index = make_place("edge", tmp_path).open(encoder)
    index.create()
    index.add(DOCUMENTS)
    yield index
    index.close()


def test_wrong_arguments(one_index):
    hashes = HashReranker()
    wrong = [
        ({"rerank_depth": 5}, ValueError, "rerank_depth is 5, but there is no reranker"),
        (
            {"rerank": hashes, "rerank_depth": 9},
            ValueError,
            r"rerank_depth is 9, but must be at least offset \+ limit, 10",
        ),
        (
            {"rerank": hashes, "rerank_depth": 16_385},
            ValueError,
            "rerank_depth is 16385, but must be from 1 to 16,384",
        ),
        ({"rerank": hashes, "rerank_depth": "9"}, TypeError, "rerank_depth must be an integer"),
        ({"rerank": object()}, TypeError, "reranker is a object without rank, score, arank, asco"),
        ({"rerank": HashReranker}, TypeError, "reranker is the class HashReranker, but must be"),
    ]
    for options, error, message in wrong:
        with pytest.raises(error, match=message):
            one_index.search("oak", **options)
    for queries in (None, b"oak", {"oak": 1}):
        with pytest.raises(TypeError, match="queries must be a str or an iterable of str, got"):
            one_index.search(queries, rerank=hashes)


def test_scores_that_do_not_fit_are_refused(one_index, monkeypatch):
    reranker = HashReranker()
    for scores in ([1.0], [float("nan")] * 40):
        monkeypatch.setattr(reranker, "score", lambda pairs, scores=scores: scores)
        message = "for 40 pairs, but must give one finite number for each"
        with pytest.raises(ValueError, match=message):
            one_index.search("oak", rerank=reranker)


def test_a_hit_of_a_former_version_is_read():
    hit = Hit("a", 0.5, "oak", {}, 0.5, None)
    former = Hit.__new__(Hit)
    former.__setstate__(["a", 0.5, "oak", {}, 0.5, None])
    assert former == hit
    scored = Hit("a", 0.5, "oak", {}, 0.5, None, 2.0)
    assert pickle.loads(pickle.dumps(scored)) == scored
    assert repr(scored).endswith("dense_score=0.5000, rerank_score=2.0000)")
