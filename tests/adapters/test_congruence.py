"""One life of a collection, lived by every engine and by an exact reference; all answer alike.

The reference ranks as DESIGN says: every document is scored in numpy, both rankings are cut, and
``Linear`` and ``RRF`` are written out. What an index does beside ranking is in
test_index_contract.py.
"""

import random
from itertools import product

import numpy as np
import pytest

from gte_core import GTEEmbedder, HybridEmbeddings
from gte_integrations.qdrant import RRF, Document, Hit, Linear

WORDS = ["ash", "birch", "elm", "fir", "hazel", "larch", "maple", "oak", "pine", "willow", "yew"]
QUERIES = ["oak and pine", "yew", "the n7 larch", "willow hazel birch elm", "unknownword", ""]
FUSIONS = [Linear(), Linear(0.5, 2.0), Linear(1.0, 0.0), RRF(), RRF(3, 2.0, 0.7)]
SEARCHES = [
    *({"fusion": fusion, "candidates": n} for fusion, n in product(FUSIONS, (3, 20))),
    *({"mode": mode, "limit": limit} for mode, limit in product(("dense", "sparse"), (1, 200))),
    *({"limit": limit, "candidates": n} for limit, n in ((200, 100), (8, 5))),
    {"payload_keys": ["lang"]},
]
CUTS = [
    *({"limit": 4, "offset": offset, "candidates": n} for offset, n in ((3, 5), (20, 20))),
    {"offset": 78},
    {"mode": "dense", "limit": 3, "offset": 2, "score_threshold": 0.3},
    {"mode": "sparse", "score_threshold": 2.0},
    {"score_threshold": 0.4},
    {"fusion": RRF(), "score_threshold": 0.02},
    *({"mode": mode, "group_by": "lang"} for mode in ("dense", "sparse")),
    *({"limit": n, "candidates": n, "group_by": "part"} for n in (1, 3, 12)),
    {"limit": 2, "offset": 2, "candidates": 3, "group_by": "part", "payload_keys": ["seed"]},
    {"fusion": RRF(), "group_by": "part", "score_threshold": 0.02},
    {"mode": "dense", "group_by": "part", "score_threshold": 0.4},
    {"limit": 100, "group_by": "nothing has this"},
]


PARTS = ["a.b", 1, True, "1", [1, 2], {"n": None}, None]


def part_of(number):
    """A value of some type for most documents, the last of them None; no value for the others."""
    chosen = number % 9
    return {"part": PARTS[chosen]} if chosen < len(PARTS) else {}


def made_documents(count, seed):
    generator = random.Random(seed)
    return [
        Document(
            number if number % 2 else f"doc/{number} é'\"\\%20",
            " ".join(generator.choices(WORDS, k=generator.randint(3, 30))) + f" n{number}",
            {"lang": "en" if number % 3 else "de", "seed": seed, **part_of(number)},
        )
        for number in range(count)
    ]


DOCUMENTS = made_documents(80, seed=0)
GONE = [document.id for document in DOCUMENTS[10:30]]
CHANGED = made_documents(20, seed=1)
KEPT = [document.id for document in DOCUMENTS[::2]]


def life(index):
    """Everything that changes a collection, one step at a time."""
    yield index.add(DOCUMENTS, batch_size=32)
    yield index.delete(GONE)
    yield index.add(CHANGED)
    yield index.add(DOCUMENTS[:25])
    yield index.prune(KEPT)


def answers(index, searches=SEARCHES):
    """What is found after each step, by every search."""
    return [
        (search, index.count(), index.search(QUERIES, **search))
        for _ in life(index)
        for search in searches
    ]


class ExactIndex:
    """The verbs of a hybrid index, by brute force."""

    def __init__(self, encoder, dimensions=None):
        self.encoder = encoder
        self.dimensions = dimensions
        self.documents, self.embeddings = {}, {}

    def add(self, documents, batch_size=None):
        self.documents |= {document.id: document for document in documents}
        both = self.encoder.encode([d.text for d in documents], dimensions=self.dimensions)
        self.embeddings |= dict(zip((d.id for d in documents), both, strict=True))

    def delete(self, ids):
        self.documents = {key: kept for key, kept in self.documents.items() if key not in ids}

    def prune(self, keep_ids):
        self.delete(self.documents.keys() - set(keep_ids))

    def count(self):
        return len(self.documents)

    def search(self, queries, *, limit=10, offset=0, mode="hybrid", candidates=100, **options):
        depth = max(limit + offset, candidates) if mode == "hybrid" else limit + offset
        return [
            self.cut(query, limit + offset, depth, mode, **options)[offset:]
            for query in self.encoder.encode(queries, dimensions=self.dimensions)
        ]

    def cut(
        self, query, end, depth, mode, fusion=None, score_threshold=None, group_by=None, **options
    ):
        """The beginning of a ranking, of four times as many candidates until it has its groups."""
        ids, ranking, complete = self.ranking(query, mode, fusion, depth)
        lines = [line for line in ranking if score_threshold is None or line[1] >= score_threshold]
        if group_by is not None:
            firsts = {}
            for line in lines:
                firsts.setdefault(self.group(ids[line[0]], group_by), line)
            if len(firsts) < end and len(lines) == len(ranking) and not complete:
                cut = (fusion, score_threshold, group_by)
                return self.cut(query, end, 4 * depth, mode, *cut, **options)
            lines = list(firsts.values())
        return [self.hit(ids[row], *found, **options) for row, *found in lines[:end]]

    def ranking(self, query, mode, fusion, depth):
        """The ids, the ranking of their rows, and whether it is of all documents."""
        ids = sorted(self.documents, key=lambda key: (isinstance(key, str), key))
        both = HybridEmbeddings.concatenate(self.embeddings[key] for key in ids)
        dense = both.dense @ query.dense[0]
        sparse = (query.sparse @ both.sparse.T).toarray()[0]
        sparse[sparse == 0] = -np.inf  # shares no token, so it is no hit
        fused = (fusion or Linear()) if mode == "hybrid" else Linear(1.0, 1.0)
        kinds = {"hybrid": (dense, sparse), "dense": (dense, None), "sparse": (None, sparse)}[mode]
        cut = [best(scores, depth) for scores in kinds]
        return ids, ranked(fused, *cut), max(map(len, cut)) < depth

    def group(self, key, group_by):
        """Equal for documents of one value and type; one without a value has itself alone."""
        value = self.documents[key].payload.get(group_by)
        return ("alone", key) if value is None else repr(value)

    def hit(self, key, score, dense, sparse, payload_keys=None):
        document = self.documents[key]
        chosen = document.payload.keys() if payload_keys is None else payload_keys
        payload = {name: document.payload[name] for name in chosen if name in document.payload}
        return Hit(key, score, document.text, payload, dense, sparse)


def best(scores, depth):
    """The rows of the highest scores, in their order; rows are sorted by id, which breaks ties."""
    if scores is None:
        return {}
    order = np.argsort(-scores, kind="stable")[:depth].tolist()
    return {row: float(scores[row]) for row in order if np.isfinite(scores[row])}


def ranked(fusion, dense, sparse):
    """Linear: w·dense + w·sparse, 0 where missed. RRF: Σ w / (k + rank), ranks from 1."""
    totals = dict.fromkeys(sorted(dense.keys() | sparse.keys()), 0.0)
    for hits, weight in ((dense, fusion.dense_weight), (sparse, fusion.sparse_weight)):
        for rank, (row, score) in enumerate(hits.items(), 1):
            totals[row] += weight * (score if isinstance(fusion, Linear) else 1 / (fusion.k + rank))
    order = sorted(totals, key=lambda row: -totals[row])
    return [(row, totals[row], dense.get(row), sparse.get(row)) for row in order]


def assert_alike(one, other, tolerance=1e-5):
    """The same documents in the same order, each with the same scores, up to rounding."""
    for (search, count, found), (_, other_count, expected) in zip(one, other, strict=True):
        assert count == other_count
        for query, (hits, others) in enumerate(zip(found, expected, strict=True)):
            same = [(hit.id, hit.text, hit.payload) for hit in others]
            assert [(hit.id, hit.text, hit.payload) for hit in hits] == same, (search, query)
            assert scores_of(hits) == pytest.approx(scores_of(others), abs=tolerance)


def scores_of(hits):
    parts = ((hit.score, hit.dense_score, hit.sparse_score) for hit in hits)
    return [part for scores in parts for part in scores]


@pytest.fixture
def opened(place, encoder):
    def opened(**options):
        index = place.open(encoder, **options)
        index.create()
        return index

    return opened


def test_every_engine_ranks_as_the_reference(opened, encoder):
    assert_alike(answers(opened()), answers(ExactIndex(encoder)))


def test_every_engine_cuts_and_groups_as_the_reference(opened, encoder):
    lives = []
    for each in (opened(), ExactIndex(encoder)):
        each.add(DOCUMENTS)
        lives.append([(cut, each.count(), each.search(QUERIES, **cut)) for cut in CUTS])
    assert_alike(*lives)


def test_every_engine_ranks_as_the_reference_in_a_smaller_size(opened, encoder):
    searches = [{}, {"mode": "dense"}, {"fusion": RRF(), "candidates": 20}]
    expected = answers(ExactIndex(encoder, dimensions=8), searches)
    assert_alike(answers(opened(dimensions=8), searches), expected)


def test_full_vectors_rank_what_coarse_ones_gather(opened, encoder):
    searches = [{"fusion": fusion, "candidates": len(DOCUMENTS)} for fusion in (Linear(), RRF())]
    expected = answers(ExactIndex(encoder), searches)
    assert_alike(answers(opened(coarse_dimensions=8), searches), expected)


@pytest.mark.filterwarnings("ignore:Local mode performs exact")
@pytest.mark.parametrize("place", ["edge", "memory"], indirect=True)
@pytest.mark.parametrize("coarse", [None, 8], ids=["one size", "two sizes"])
@pytest.mark.parametrize(("storage", "tolerance"), [("float16", 1e-3), ("int8", 1e-5)])
def test_smaller_storage_ranks_almost_as_well(opened, encoder, storage, tolerance, coarse):
    index, exact = opened(storage=storage, coarse_dimensions=coarse), ExactIndex(encoder)
    for each in (index, exact):
        each.add(DOCUMENTS)
    index.optimize()
    found = index.search(QUERIES, limit=5, candidates=len(DOCUMENTS))
    expected = exact.search(QUERIES, limit=len(DOCUMENTS))
    for query, hits, ranking in zip(QUERIES, found, expected, strict=True):
        scores = [hit.score for hit in hits]
        assert scores == pytest.approx([hit.score for hit in ranking[:5]], abs=tolerance)
        exactly = {hit.id: hit.score for hit in ranking}
        assert scores == pytest.approx([exactly[hit.id] for hit in hits], abs=tolerance)
        explained = index.explain(query, hits[0].id).dense_score
        assert explained == pytest.approx(hits[0].dense_score, abs=tolerance)


SPOKEN = [
    ("seeds", "Peas are sown from March on, tomatoes only indoors before May."),
    ("chess", "The chess club meets on Tuesdays; beginners are welcome."),
    ("bread", "Brot backen: Mehl, Wasser, Salz und viel Zeit."),
    ("tea", "お茶は八十度のお湯で二分間いれます。"),
]
ASKED = ["when are tomatoes sown?", "Schach für Anfänger", "お茶", ""]


def test_the_engines_answer_alike_with_the_bundled_model(make_place, tmp_path, demo):
    lives = []
    for engine in ("edge", "memory", "milvus"):
        place = make_place(engine, tmp_path)
        with place.open(demo, coarse_dimensions=16) as index:
            index.create()
            assert index.add(SPOKEN).n_tokens > 0
            lives.append([(search, 4, index.search(ASKED, **search)) for search in SEARCHES])
        place.close()
    assert_alike(lives[0], lives[1])
    assert_alike(lives[1], lives[2])
    assert lives[0][0][2][0][0].id == "seeds"


def test_what_was_indexed_in_bfloat16_is_searched_in_float32(make_place, tmp_path, demo):
    place = make_place("edge", tmp_path)
    with place.open(GTEEmbedder.from_pretrained("demo", dtype="bfloat16")) as index:
        index.create()
        index.add(SPOKEN)
    with place.open(demo) as index:
        assert index.add(SPOKEN).unchanged == len(SPOKEN)
        assert index.search(ASKED[0])[0][0].id == "seeds"
