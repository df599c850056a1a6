"""What every hybrid index does, whatever the engine."""

import asyncio
import inspect
import pickle
import random
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gte_core import (
    CollectionMismatch,
    CollectionNotFound,
    GTEError,
    HybridEmbeddings,
    MissingHeadError,
    NonFiniteError,
    TruncationError,
)
from gte_integrations._index.document import Document, Unreadable
from gte_integrations._index.fusion import RRF, Linear
from gte_integrations._index.recorded import RecordedEncoder
from gte_integrations._index.reports import IndexReport

WORDS = ["ash", "birch", "elm", "fir", "hazel", "larch", "maple", "oak", "pine", "willow", "yew"]


def make_documents(count, seed=0):
    generator = random.Random(seed)
    return [
        Document(
            number if number % 2 else f"doc/{number} é'\"\\%20",
            " ".join(generator.choices(WORDS, k=generator.randint(3, 30))) + f" n{number}",
            {"lang": "en" if number % 3 else "de", "nested": {"n": [number, None, 0.5]}},
        )
        for number in range(count)
    ]


DOCUMENTS = make_documents(150)
QUERIES = ["oak and pine", "yew", "the n77 larch", "willow hazel birch elm"]


@pytest.fixture
def filled(index):
    index.add(DOCUMENTS, batch_size=64)
    return index


# ------------------------------------------------------------------ create


def test_the_name_and_the_query_prefix_are_recorded_and_never_compared(place, make_encoder):
    encoder = make_encoder(query_prefix="query: ")
    encoder.model = "/models/hash"
    index = place.open(encoder, coarse_dimensions=8)
    assert index.metadata() is None
    index.create()
    metadata = index.metadata()
    assert (metadata["name"], metadata["query_prefix"]) == ("/models/hash", "query: ")
    assert (metadata["dimensions"], metadata["coarse_dimensions"]) == (encoder.dimensions, 8)
    index.close()
    again = place.open(make_encoder(), coarse_dimensions=8)
    again.create()
    assert again.metadata() == metadata


def test_what_is_recorded_is_read_without_a_model(place, encoder):
    def read():
        name = place.prefix + "docs"
        return place.index_type.read_metadata(place.location, name, **place.credentials)

    assert read() is None
    assert not any(place.directory.iterdir())
    with place.open(encoder, dimensions=8) as index:
        index.create()
        recorded = index.metadata()
    assert read() == recorded
    place.open(encoder, dimensions=8).create()  # nothing was left open


def test_the_collections_of_a_place_are_listed_and_none_is_made(place, encoder):
    def names():
        return [
            name.removeprefix(place.prefix)
            for name in place.index_type.collections(place.location)
            if name.startswith(place.prefix)
        ]

    assert names() == []
    assert not any(place.directory.iterdir())
    for collection in ("docs", "a"):
        with place.open(encoder, collection) as index:
            index.create()
    assert names() == ["a", "docs"]


def test_what_needs_no_model_works_without_it(place, encoder, make_encoder):
    sizes = {"dimensions": 16, "coarse_dimensions": 8}
    with place.open(encoder, **sizes) as index:
        index.create()
        index.add([("a", "oak"), ("b", "elm")])
        recorded = index.metadata()
    with place.open(RecordedEncoder(recorded), **sizes) as index:
        assert index.metadata() == recorded
        assert index.count() == 2
        assert index.delete(["a"]) == 1
        assert index.prune(["b"]) == 0
        with pytest.raises(RuntimeError, match=r"opened without its model, .*open it with that"):
            index.search("oak")
        with pytest.raises(RuntimeError, match="opened without its model"):
            index.add([("c", "fir")])


def test_an_encoder_without_a_name_is_recorded_by_its_fingerprint(index, encoder):
    assert index.metadata()["name"] == encoder.fingerprint.model


def test_create_may_be_called_again(index):
    index.add([("a", "oak")])
    index.create()
    assert index.count() == 1


def test_what_was_stored_is_there_after_reopening(place, encoder, filled):
    filled.close()
    again = place.open(encoder)
    again.create()
    assert again.count() == len(DOCUMENTS)
    assert again.add(DOCUMENTS).unchanged == len(DOCUMENTS)
    assert again.search("oak")[0]


def test_an_index_that_was_closed_opens_again_by_itself(filled):
    [hits] = filled.search("oak")
    filled.close()
    [found] = filled.search("oak")
    assert [replace(hit, score=0, dense_score=0) for hit in found] == [
        replace(hit, score=0, dense_score=0) for hit in hits
    ]
    for hit, before in zip(found, hits, strict=True):  # now from a file, summed in another order
        assert hit.score == pytest.approx(before.score, abs=1e-5)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"model": "other/model"}, "model: the collection has 'hash', this index needs 'other/mo"),
        ({"revision": "1" * 40}, "revision: the collection has '0000"),
        ({"max_length": 99}, "max_length: the collection has 512, this index needs 99"),
        ({"numeric": "int8"}, "numeric: the collection has 'float', this index needs 'int8'"),
    ],
)
def test_vectors_of_two_models_never_mix(place, index, make_encoder, change, line):
    index.close()
    fingerprint = replace(make_encoder().fingerprint, **change)
    other = place.open(make_encoder(fingerprint=fingerprint))
    for call in (
        other.create,
        other.count,
        lambda: other.add([("a", "b")]),
        lambda: other.search("b"),
    ):
        with pytest.raises(CollectionMismatch, match=line):
            call()


def test_sizes_never_mix_and_every_difference_is_shown(place, index, make_encoder):
    index.close()
    other = place.open(make_encoder(has_sparse=False), dimensions=16)
    with pytest.raises(CollectionMismatch, match="was built differently") as caught:
        other.create()
    assert str(caught.value).splitlines()[1:-1] == [
        "  dimensions: the collection has 32, this index needs 16",
        "  sparse: the collection has True, this index needs False",
    ]


def test_a_collection_that_was_never_made_says_so(place, encoder):
    index = place.open(encoder)
    for call in (index.count, lambda: index.add([("a", "b")]), lambda: index.search("b")):
        with pytest.raises(CollectionNotFound, match=r"does not exist; call create\(\) first"):
            call()


def test_a_missing_collection_is_a_lookup_error_that_other_processes_can_raise():
    error = pickle.loads(pickle.dumps(CollectionNotFound("docs does not exist")))
    assert isinstance(error, GTEError)
    assert isinstance(error, LookupError)
    assert (type(error), str(error)) == (CollectionNotFound, "docs does not exist")


def test_collections_of_one_place_are_apart(place, encoder):
    one, two = place.open(encoder, "one"), place.open(encoder, "two", dimensions=8)
    one.create()
    two.create()
    one.add([("a", "oak")])
    assert (one.count(), two.count()) == (1, 0)


@pytest.mark.parametrize("place", ["edge", "milvus"], indirect=True)
@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "a b", None, "x" * 256])
def test_collection_names_are_checked(place, encoder, name):
    with pytest.raises(ValueError, match=r"collection is .*, but must be 1 to 255"):
        place.open(encoder, name)


# ------------------------------------------------------------------ add


def test_add_reports_what_it_did(filled, encoder):
    assert filled.count() == len(DOCUMENTS)
    encoder.texts.clear()
    changed = [replace(DOCUMENTS[0], text="new text"), replace(DOCUMENTS[1], payload={"new": 1})]
    report = filled.add([*changed, *DOCUMENTS[2:], ("another", "ash")])
    assert (report.written, report.replaced, report.unchanged) == (1, 2, len(DOCUMENTS) - 2)
    assert report.total == len(DOCUMENTS) + 1
    assert len(encoder.texts) == 3
    assert filled.count() == len(DOCUMENTS) + 1


def test_an_unchanged_document_is_not_embedded_again(filled, encoder):
    encoder.calls.clear()
    report = filled.add(DOCUMENTS)
    assert report == IndexReport(unchanged=len(DOCUMENTS))
    assert not encoder.calls


def test_tokens_and_truncation_are_counted(index):
    long = "oak " * 600
    report = index.add([("a", "oak pine"), ("b", long)])
    assert (report.n_tokens, report.truncated) == (4 + 512, 1)
    assert report.seconds_encoding > 0
    assert report.seconds_writing > 0


def test_add_takes_a_generator_and_nothing(index):
    assert index.add(iter([])) == IndexReport()
    assert index.add((item for item in DOCUMENTS), batch_size=7).written == len(DOCUMENTS)


def test_of_several_with_one_id_the_last_stays(index):
    report = index.add([("a", "oak"), ("b", "elm"), ("a", "pine"), ("a", "yew")])
    assert (report.written, report.duplicates, report.total) == (2, 2, 4)
    assert {hit.id: hit.text for hit in index.search("x", mode="dense")[0]} == {
        "a": "yew",
        "b": "elm",
    }


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5])
def test_the_last_stays_across_batches_too(index, batch_size):
    index.add([("a", "oak")])
    index.add([("a", "pine"), ("b", "elm"), ("a", "oak"), ("b", "yew")], batch_size=batch_size)
    texts = {hit.id: hit.text for hit in index.search("x", mode="dense")[0]}
    assert texts == {"a": "oak", "b": "yew"}


def test_a_replaced_document_leaves_nothing_behind(index):
    index.add([("a", "oak", {"old": 1}), ("b", "elm")])
    index.add([("a", "!", {"new": 2})])
    found = {hit.id: hit for hit in index.search("x", mode="dense")[0]}["a"]
    assert (found.text, found.payload) == ("!", {"new": 2})
    assert index.search("oak", mode="sparse") == [[]]


def test_ids_and_payloads_come_back_as_they_were(filled):
    hits = filled.search("oak", limit=len(DOCUMENTS), mode="dense")[0]
    assert {(type(hit.id), hit.id): (hit.text, hit.payload) for hit in hits} == {
        (type(document.id), document.id): (document.text, document.payload)
        for document in DOCUMENTS
    }


STRANGE = ["", "a b", "'", '"', "\\", "%", "%27", "\n", "\x00", "😀", "{ids}", "1", 1, "int:1", -5]


def test_strange_ids_are_stored_and_found(index):
    documents = [(document_id, f"text {n}") for n, document_id in enumerate(STRANGE)]
    assert index.add(documents).written == len(STRANGE)
    assert index.add(documents).unchanged == len(STRANGE)
    hits = index.search("text", limit=50)[0]
    assert {(type(hit.id), hit.id) for hit in hits} == {(type(key), key) for key in STRANGE}


@pytest.mark.parametrize("text", ["!", "\x00", "a\ud800b", "漢字 and 😀", "x" * 60_000])
def test_any_text_is_stored_and_found(index, text):
    index.add([("a", text), ("b", "oak")])
    hits = {hit.id: hit for hit in index.search(text, limit=2, mode="dense")[0]}
    assert hits["a"].text == text.replace("\ud800", "\ufffd")


def test_a_text_without_positive_weights_is_found_by_dense(index):
    index.add([("wordless", "!"), ("a", "oak"), ("b", "pine")])
    [hits] = index.search("", limit=3)
    assert hits[0].id == "wordless"
    assert hits[0].dense_score == pytest.approx(1.0, abs=1e-5)
    assert {hit.sparse_score for hit in hits} == {None}
    assert index.search("oak", mode="sparse")[0][0].id == "a"
    assert len(index.search("oak", mode="sparse")[0]) == 1
    assert index.search("", mode="sparse") == [[]]


def test_an_error_names_the_document_and_what_came_before_is_kept(index):
    documents = [("a", "oak"), ("b", "elm"), ("c", None), ("d", "yew")]
    with pytest.raises(TypeError, match="The text of document 'c' must be a str"):
        index.add(documents, batch_size=2)
    assert index.count() == 2


def test_skipped_documents_are_named_with_the_reason(index):
    report = index.add(
        [("a", "oak"), ("c", None), "oops", ("d", "yew", {"id": 1})], on_error="skip"
    )
    assert report.written == 1
    assert [document_id for document_id, _ in report.skipped] == ["c", None, "d"]
    assert "must be a str, got NoneType" in report.skipped[0][1]
    assert report.total == 4


def test_a_text_the_model_fails_on_is_skipped_alone(index, encoder):
    encoder.failures["elm"] = NonFiniteError("text 1 overflows")
    with pytest.raises(NonFiniteError, match="overflows"):
        index.add([("a", "oak"), ("b", "elm"), ("c", "yew")])
    report = index.add([("a", "oak"), ("b", "elm"), ("c", "yew")], on_error="skip")
    assert report.skipped == [("b", "text 1 overflows")]
    assert (report.written, report.unchanged, index.count()) == (1, 1, 2)


def test_an_error_of_the_encoder_itself_is_never_skipped(index, encoder):
    encoder.failures["elm"] = RuntimeError("out of memory")
    with pytest.raises(RuntimeError, match="out of memory"):
        index.add([("a", "oak"), ("b", "elm")], on_error="skip")


def test_a_failing_iterable_keeps_what_came_before(index):
    def documents():
        yield from DOCUMENTS[:20]
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        index.add(documents(), batch_size=10)
    assert index.count() == 20
    index.add(DOCUMENTS)
    assert index.count() == len(DOCUMENTS)


@pytest.mark.parametrize("documents", ["text", {"id": 1, "text": "t"}, Document(1, "t")])
def test_a_single_document_is_not_an_iterable_of_documents(index, documents):
    with pytest.raises(TypeError, match=r"documents is a single .*; wrap it in a list"):
        index.add(documents)


def test_arguments_of_add_are_checked(index):
    with pytest.raises(ValueError, match="batch_size is 0, but must be at least 1"):
        index.add([], batch_size=0)
    with pytest.raises(TypeError, match="batch_size must be an integer, at least 1"):
        index.add([], batch_size=2.5)
    with pytest.raises(ValueError, match="on_error is 'ignore', but must be one of 'raise', 'skip"):
        index.add([], on_error="ignore")


def test_progress_is_shown_when_asked_for(index, capsys):
    index.add(DOCUMENTS[:5])
    assert capsys.readouterr() == ("", "")
    index.add(DOCUMENTS[:5], show_progress=True)
    assert "5/5" in capsys.readouterr().err


def test_an_error_comes_after_everything_before_it_was_written(index, encoder):
    documents = [("a", "oak"), ("b", "elm"), ("c", None), ("d", "yew")]
    with pytest.raises(TypeError, match="The text of document 'c' must be a str") as caught:
        index.add(documents)
    assert index.count() == 2
    assert caught.value.__notes__ == [
        "Before this, 2 documents were written, 0 replaced and 0 found unchanged; run again, it "
        "goes on from there."
    ]
    encoder.failures["fir"] = NonFiniteError("text 2 overflows")
    documents = [("a", "oak"), ("d", "yew"), ("e", "ash"), ("f", "fir"), ("g", "larch")]
    with pytest.raises(NonFiniteError, match="overflows") as caught:
        index.add(documents)
    assert "It is the document 'f'." in caught.value.__notes__
    assert "2 documents were written, 0 replaced and 1 found unchanged" in caught.value.__notes__[1]
    assert index.count() == 4


def test_an_iterable_that_fails_in_a_batch_loses_nothing_before(index):
    def documents():
        yield from DOCUMENTS[:7]
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        index.add(documents(), batch_size=5)
    assert index.count() == 7


def test_a_skipped_document_without_an_id_is_named_by_its_place(index):
    unreadable = Unreadable(ValueError("notes.csv, line 7: broken"))
    documents = [("a", "oak"), "oops", ("b", "elm"), unreadable, {"text": "no id"}]
    report = index.add(documents, on_error="skip", batch_size=2)
    assert report.written == 2
    reasons = [reason for document_id, reason in report.skipped if document_id is None]
    assert reasons[0].startswith("documents[1]: A document is a str, but must be")
    assert reasons[1] == "notes.csv, line 7: broken"
    assert reasons[2].startswith("documents[4]: A document has the keys ['text'], but lacks id")
    with pytest.raises(ValueError, match=r"notes\.csv, line 7: broken"):
        index.add([("c", "fir"), unreadable])
    assert index.count() == 3


def deep(levels):
    return [] if levels == 1 else [deep(levels - 1)]


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (2**63, "an integer has 19 digits, too many for 64 bits"),
        ({"a": [-(2**63) - 1]}, "an integer has 19 digits"),
        (10**5000, "cannot be stored as JSON"),
        (deep(65), "it is nested too deeply"),
        (deep(900), "it is nested too deeply"),
    ],
    ids=["large", "small", "huge", "deep", "very deep"],
)
def test_a_payload_that_an_engine_would_change_is_skipped_with_its_id(index, value, why):
    report = index.add([("a", "oak", {"x": value}), ("b", "elm")], on_error="skip")
    assert report.written == 1
    [(document_id, reason)] = report.skipped
    assert document_id == "a"
    assert why in reason


def test_the_largest_payload_comes_back_as_it_was(index):
    payload = {"most": 2**63 - 1, "least": -(2**63), "deep": deep(63), "digits": "9" * 40}
    index.add([("a", "oak", payload)])
    assert index.search("oak")[0][0].payload == payload


# ------------------------------------------------------------------ empty texts


def test_empty_texts_are_left_out_and_named(index, encoder):
    unseen = "\u200b\ufeff \u2060"  # characters without width
    report = index.add([("a", ""), ("b", "oak"), (3, " \n\t\u3000"), ("c", unseen)])
    assert (report.empty, report.empty_ids) == (3, ["a", 3, "c"])
    assert (report.written, report.deleted, report.total) == (1, 0, 4)
    assert encoder.texts == ["oak"]
    assert [hit.id for hit in index.search("2024", mode="dense")[0]] == ["b"]
    many = index.add([(number, "") for number in range(300)])
    assert (many.empty, many.empty_ids) == (300, list(range(100)))


@pytest.mark.parametrize("batch_size", [1, 2, 10])
def test_a_document_whose_text_became_empty_is_deleted(index, batch_size):
    index.add([("a", "oak"), ("b", "elm"), ("c", "yew")])
    emptied = [("a", ""), ("b", "elm"), ("c", "fir"), ("c", " ")]
    report = index.add(emptied, batch_size=batch_size)
    assert (report.deleted, report.unchanged) == (2, 1)
    assert [hit.id for hit in index.search("x", mode="dense")[0]] == ["b"]
    assert index.add([("a", ""), ("a", "oak")], batch_size=batch_size).written == 1


def test_the_vectors_of_an_empty_text_can_be_had(place, index):
    vectorizer = index.vectorizer
    assert len(vectorizer.records([("a", "")])) == 1


# ------------------------------------------------------------------ truncation


@pytest.mark.parametrize("has_sparse", [True, False])
def test_truncated_documents_are_named_also_when_nothing_changes(place, make_encoder, has_sparse):
    index = place.open(make_encoder(has_sparse=has_sparse))
    index.create()
    documents = [("a", "oak"), ("b", "oak " * 600), ("c", "elm " * 600)]
    for _ in range(2):
        report = index.add(documents, batch_size=2)
        assert (report.truncated, report.truncated_ids) == (2, ["b", "c"])
    assert report.unchanged == 3
    assert all(hit.payload == {} for hit in index.search("oak", mode="dense")[0])


def test_texts_that_are_too_long_are_skipped_with_their_ids(index, encoder):
    encoder.failures["elm"] = TruncationError("texts[0] is too long")
    report = index.add([("a", "oak"), ("b", "elm"), ("c", "yew")], on_error="skip")
    assert (report.written, report.skipped) == (2, [("b", "texts[0] is too long")])


# ------------------------------------------------------------------ origins


def test_a_document_never_replaces_one_of_another_origin(index, encoder):
    index.add([Document("readme.md", "oak", origin="/d1")])
    other = [Document("readme.md", "elm", origin="/d2"), Document("b", "yew", origin="/d2")]
    with pytest.raises(
        ValueError, match=r"'readme\.md' from /d2 would replace the one from /d1\. Giv"
    ):
        index.add(other)
    report = index.add(other, on_error="skip")
    assert (report.written, report.replaced) == (1, 0)
    assert report.skipped[0][0] == "readme.md"
    assert "id_prefix" in report.skipped[0][1]
    assert "moved_from='/d1'" in report.skipped[0][1]
    assert index.search("oak", mode="sparse")[0][0].text == "oak"
    emptied = index.add([Document("readme.md", "", origin="/d2")], on_error="skip")
    assert (len(emptied.skipped), emptied.deleted) == (1, 0)
    assert index.add([Document("readme.md", "fir", origin="/d1")]).replaced == 1


@pytest.mark.parametrize("batch_size", [1, 2])
def test_two_origins_in_one_run_do_not_mix(index, batch_size):
    twins = [Document("a", "oak", origin="/d1"), Document("a", "elm", origin="/d2")]
    report = index.add(twins, batch_size=batch_size, on_error="skip")
    assert (report.written, len(report.skipped)) == (1, 1)
    assert index.search("oak", mode="dense")[0][0].text == "oak"


def test_a_document_without_an_origin_is_adopted_by_the_first_that_comes(index, encoder):
    index.add([("a", "oak", {"n": 1}), ("b", "elm")])
    encoder.calls.clear()
    first = [Document("a", "oak", {"n": 1}, origin="/d1"), Document("b", "elm", origin="/d1")]
    assert index.add(first).unchanged == 2
    assert not encoder.calls
    with pytest.raises(ValueError, match="'a' from /d2 would replace the one from /d1"):
        index.add([Document("a", "oak", {"n": 1}, origin="/d2")])
    [hit, _] = index.search("oak")[0]
    assert (hit.id, hit.text, hit.payload) == ("a", "oak", {"n": 1})
    assert hit.sparse_score is not None
    assert index.add(first).unchanged == 2


def test_documents_that_moved_are_taken_over(index, encoder):
    index.add([Document("a", "oak", origin="/old"), Document("b", "elm", origin="/old")])
    encoder.calls.clear()
    moved = [Document("a", "oak", origin="/new"), Document("b", "yew", origin="/new")]
    with pytest.raises(ValueError, match="'a' from /new would replace the one from /old"):
        index.add(moved, moved_from="/other")
    report = index.add(moved, moved_from=Path("/old"))
    assert (report.unchanged, report.replaced) == (1, 1)
    assert encoder.texts[-1] == "yew"
    assert index.add(moved).unchanged == 2
    with pytest.raises(ValueError, match="'b' from /old would replace the one from /new"):
        index.add([Document("b", "elm", origin="/old")])


def test_an_id_that_was_given_replaces_whatever_bears_it(index):
    index.add([Document("a", "oak", origin="/d1")])
    assert index.add([("a", "elm")]).replaced == 1


@pytest.mark.parametrize("coarse", [None, 8])
def test_a_new_origin_changes_no_vector(place, encoder, coarse):
    index = place.open(encoder, coarse_dimensions=coarse)
    index.create()
    index.add(DOCUMENTS)
    before = index.search(QUERIES)
    assert index.add(replace(document, origin="/d1") for document in DOCUMENTS).unchanged == 150
    assert index.search(QUERIES) == before


# ------------------------------------------------------------------ search


@pytest.mark.parametrize("mode", ["hybrid", "dense", "sparse"])
def test_equal_documents_come_in_the_order_of_their_ids(index, mode):
    ids = [*range(100, 130), *(f"s{number}" for number in range(10, 40))]
    random.Random(1).shuffle(ids)
    index.add([(document_id, "oak pine") for document_id in ids])
    index.add([(document_id, "elm yew") for document_id in range(20)])
    found = [hit.id for hit in index.search("oak", mode=mode, limit=4, candidates=5)[0]]
    assert found == [100, 101, 102, 103]


def test_by_default_a_hundred_of_each_kind_are_fused_by_linear(filled):
    by_default = filled.search(QUERIES)
    assert by_default == filled.search(QUERIES, fusion=Linear(1.0, 0.01), candidates=100, limit=10)
    assert by_default != filled.search(QUERIES, candidates=20)


def test_part_scores_add_up(filled):
    for hit in filled.search("oak pine", fusion=Linear(0.7, 0.3))[0]:
        parts = 0.7 * (hit.dense_score or 0) + 0.3 * (hit.sparse_score or 0)
        assert hit.score == pytest.approx(parts)


def test_one_query_is_a_list_of_one(filled):
    assert filled.search("oak") == filled.search(["oak"])
    assert filled.search([]) == []


def test_many_queries_are_encoded_in_one_call_and_answered_in_order(filled, encoder):
    one_by_one = [filled.search(query)[0] for query in [*QUERIES, "", "unknownword"]]
    encoder.calls.clear()
    together = filled.search([*QUERIES, "", "unknownword"])
    for hits, alone in zip(together, one_by_one, strict=True):
        assert [hit.id for hit in hits] == [hit.id for hit in alone]
        assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in alone], abs=1e-5)
    assert encoder.calls == {"encode": 1}


@pytest.mark.parametrize(
    ("mode", "call"), [("dense", "encode_dense"), ("sparse", "encode_sparse"), ("hybrid", "encode")]
)
def test_only_the_needed_vectors_are_made(filled, encoder, mode, call):
    encoder.calls.clear()
    filled.search(QUERIES, mode=mode)
    assert encoder.calls == {call: 1}


def test_queries_get_the_models_prefix_and_documents_do_not(place, make_encoder):
    encoder = make_encoder(query_prefix="query: ")
    index = place.open(encoder)
    index.create()
    index.add([("a", "oak")])
    index.search("elm")
    assert encoder.texts == ["oak", "query: elm"]


def test_filters_are_the_engines_own(place, filled):
    condition = place.filter("lang", "de")
    for mode in ("hybrid", "dense", "sparse"):
        hits = filled.search("oak", mode=mode, limit=100, filter=condition)[0]
        assert hits
        assert {hit.payload["lang"] for hit in hits} == {"de"}


ODD_KEYS = ["a.b", "a b", "é", 'q"', "x[0]", "", "1", "$x"]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (None, {"lang": "en", "n": {"m": [1]}, "large": "x" * 999}),
        ((), {}),
        (["lang"], {"lang": "en"}),
        ({"lang", "n", "unknown"}, {"lang": "en", "n": {"m": [1]}}),
        (["text", "id", "_gte_hash", "$meta", "dense"], {}),
    ],
    ids=["all", "none", "one", "several", "taken"],
)
def test_a_hit_brings_the_payload_that_is_asked_for(index, keys, expected):
    index.add([("a", "oak", {"lang": "en", "n": {"m": [1]}, "large": "x" * 999}), ("b", "oak")])
    hits = {hit.id: hit for hit in index.search("oak", payload_keys=keys)[0]}
    assert (hits["a"].text, hits["a"].payload) == ("oak", expected)
    assert (hits["b"].text, hits["b"].payload) == ("oak", {})


def test_odd_payload_keys_are_selected_too(index):
    index.add([("a", "oak", {key: number for number, key in enumerate(ODD_KEYS)})])
    for number, key in enumerate(ODD_KEYS):
        assert index.search("oak", payload_keys=[key])[0][0].payload == {key: number}


@pytest.mark.parametrize("keys", ["lang", b"lang", [1]])
def test_payload_keys_are_checked(index, keys):
    with pytest.raises(TypeError, match=r"payload_keys is .*, but must be an iterable of strings"):
        index.search("oak", payload_keys=keys)


@pytest.mark.parametrize("mode", [None, "hybrid", "dense", "sparse"])
def test_vectors_that_are_there_find_what_their_texts_do(filled, encoder, mode):
    given = encoder.encode(QUERIES, role="query")
    options = {"mode": mode, "limit": 7, "offset": 2, "group_by": "nested"}
    expected = filled.search(QUERIES, **options)
    encoder.calls.clear()
    found = filled.search_vectors(given, **options)
    assert not encoder.calls
    assert [[hit.id for hit in hits] for hits in found] == [
        [hit.id for hit in hits] for hits in expected
    ]
    assert asyncio.run(filled.asearch_vectors(given, **options)) == found


def test_dense_vectors_alone_are_searched_by_and_checked(filled, encoder):
    dense = encoder.encode_dense(QUERIES, role="query")
    given = HybridEmbeddings.of_dense(3 * dense)
    [hits, *_] = filled.search_vectors(given, limit=1)
    assert hits[0].dense_score == pytest.approx(filled.search(QUERIES, mode="dense")[0][0].score)
    with pytest.raises(ValueError, match="mode is 'hybrid', but embeddings has dense vectors al"):
        filled.search_vectors(given, mode="hybrid")
    with pytest.raises(ValueError, match="of 8 components, but the collection has 32"):
        filled.search_vectors(given.with_dimensions(8))
    with pytest.raises(TypeError, match="embeddings is a ndarray, but must be the HybridEmb"):
        filled.search_vectors(dense)
    with pytest.raises(NonFiniteError, match="embeddings has NaN or infinity"):
        filled.search_vectors(HybridEmbeddings.of_dense(np.nan * dense))


def test_integers_of_numpy_are_integers(filled):
    counts = {"limit": np.int64(3), "offset": np.int32(1), "candidates": np.uint8(50)}
    assert filled.search("oak", **counts) == filled.search("oak", limit=3, offset=1, candidates=50)
    with pytest.raises(TypeError, match="limit must be an integer, from 1"):
        filled.search("oak", limit=np.True_)


@pytest.mark.parametrize("key", ["id", "text", "_gte_hash"])
def test_nothing_is_grouped_by_what_no_payload_has(filled, key):
    with pytest.raises(ValueError, match=f"group_by is '{key}', which the index uses itself"):
        filled.search("oak", group_by=key)


def test_what_cannot_be_documents_is_refused(index):
    with pytest.raises(TypeError, match="documents is a NoneType, but must be an iterable"):
        index.add(None)


def test_a_tenant_key_is_a_text(place, encoder):
    with pytest.raises(TypeError, match="tenant_key is 5, but must be a payload key, a str"):
        place.open(encoder, tenant_key=5)


# ------------------------------------------------------------------ explain


@pytest.mark.parametrize("fusion", [Linear(), Linear(0.5, 2.0)], ids=["default", "weighted"])
def test_an_explanation_adds_up_to_the_score(filled, encoder, fusion):
    for query in QUERIES:
        for hit in filled.search(query, fusion=fusion, candidates=len(DOCUMENTS))[0]:
            encoder.calls.clear()
            explanation = filled.explain(query, hit.id, fusion=fusion)
            assert encoder.calls == {"encode": 1}
            assert explanation.score == pytest.approx(hit.score, abs=1e-5)
            assert explanation.dense_score == pytest.approx(hit.dense_score, abs=1e-5)
            assert explanation.sparse_score == pytest.approx(hit.sparse_score or 0, abs=1e-5)
            total = sum(token.contribution for token in explanation.tokens)
            assert total == pytest.approx(explanation.sparse_score)


def test_an_explanation_names_the_shared_tokens(index, encoder):
    index.add([("a", "oak oak pine elm"), ("wordless", "!")])
    explanation = index.explain("oak pine yew", "a")
    query, document = encoder.encode(["oak pine yew", "oak oak pine elm"])
    shared = set(query.sparse.indices.tolist()) & set(document.sparse.indices.tolist())
    assert len(shared) == 2
    assert {(token.token_id, token.token) for token in explanation.tokens} == {
        (token_id, query.decode_token(token_id)) for token_id in shared
    }
    contributions = [token.contribution for token in explanation.tokens]
    assert contributions == sorted(contributions, reverse=True)
    for token in explanation.tokens:
        row = dict(zip(document.sparse.indices.tolist(), document.sparse.data, strict=True))
        assert token.document_weight == pytest.approx(row[token.token_id])
    assert index.explain("oak", "wordless").tokens == ()


def test_an_explanation_is_of_what_is_stored(index, encoder):
    index.add([("a", "oak pine")])
    encoder.texts.clear()
    index.explain("oak", "a")
    assert encoder.texts == ["oak"]


def test_an_explanation_needs_a_document_that_is_there(index):
    index.add([(1, "oak")])
    with pytest.raises(LookupError, match="has no document '1'; pass the id of one that was add"):
        index.explain("oak", "1")
    assert index.explain("oak", 1).tokens


def test_an_explanation_is_in_the_size_of_the_collection(place, make_encoder):
    index = place.open(make_encoder(has_sparse=False, query_prefix="query: "), dimensions=8)
    index.create()
    index.add([("a", "oak pine")])
    explanation = index.explain("oak", "a")
    assert explanation.dense_score == pytest.approx(
        index.search("oak", mode="dense")[0][0].score, abs=1e-5
    )
    assert (explanation.sparse_score, explanation.tokens) == (0, ())


def test_many_are_explained_with_one_pass_for_the_query(index, encoder):
    index.add([("a", "oak pine"), (1, "oak elm"), ("b", "yew")])
    encoder.calls.clear()
    found = index.explain_all("oak", ["b", 1, "gone", "a"])
    assert sum(encoder.calls.values()) == 1
    assert list(found) == ["b", 1, "a"]
    assert found == {each: index.explain("oak", each) for each in found}
    encoder.calls.clear()
    assert index.explain_all("oak", ["gone"]) == {}
    assert not encoder.calls


def test_arguments_of_explain_are_checked(index):
    with pytest.raises(TypeError, match=r"fusion is RRF\(.*\), but must be Linear\(...\)"):
        index.explain("oak", "a", fusion=RRF())
    with pytest.raises(TypeError, match="query must be a str, got list; explain one at a time"):
        index.explain(["oak"], "a")
    with pytest.raises(TypeError, match=r"An id is 1\.5, a float"):
        index.explain("oak", 1.5)
    with pytest.raises(TypeError, match="ids is 'a', a single str, but must be an iterable of ids"):
        index.explain_all("oak", "a")


def test_a_smaller_size_is_stored_and_searched(place, make_encoder):
    index = place.open(make_encoder(), dimensions=8)
    index.create()
    index.add(DOCUMENTS)
    [hits] = index.search(DOCUMENTS[3].text, mode="dense", limit=1)
    assert (hits[0].id, hits[0].score) == (DOCUMENTS[3].id, pytest.approx(1.0, abs=1e-5))


def test_an_index_without_a_size_takes_that_of_the_collection(place, encoder):
    with place.open(encoder, dimensions=8) as small:
        small.create()
        small.add(DOCUMENTS)
        expected = small.search(QUERIES)
    index = place.open(encoder)
    assert index.search(QUERIES) == expected
    assert index.vectorizer.dimensions == 8
    index.close()
    again = place.open(encoder)
    assert again.add([*DOCUMENTS, ("new", "oak")]).written == 1
    assert again.vectorizer.comparable_metadata() == small.vectorizer.comparable_metadata()
    explained = again.explain("oak", "new")
    [[hit]] = again.search("oak", limit=1)
    assert (hit.id, hit.score) == ("new", pytest.approx(explained.score))


def test_an_index_without_a_size_makes_a_collection_of_the_encoders(place, encoder):
    place.open(encoder, "small", dimensions=8).create()
    index = place.open(encoder)
    index.create()
    assert index.metadata()["dimensions"] == index.vectorizer.dimensions == 32


def test_a_collection_that_is_made_again_has_the_size_of_the_encoder(place, encoder):
    with place.open(encoder, dimensions=8) as small:
        small.create()
    index = place.open(encoder)
    assert (index.count(), index.vectorizer.dimensions) == (0, 8)
    index.drop()
    index.create()
    assert index.metadata()["dimensions"] == index.vectorizer.dimensions == 32


def test_a_size_that_the_encoder_does_not_reach_is_a_mismatch(place, index, make_encoder):
    index.close()
    other = place.open(make_encoder(dimensions=16))
    with pytest.raises(CollectionMismatch, match=r"dimensions: the collection has 32, .* needs 16"):
        other.count()


def test_without_a_sparse_head_dense_mode_works(place, make_encoder):
    index = place.open(make_encoder(has_sparse=False))
    index.create()
    assert index.add(DOCUMENTS).written == len(DOCUMENTS)
    assert index.search(DOCUMENTS[3].text, mode="dense")[0][0].id == DOCUMENTS[3].id
    for mode in ("hybrid", "sparse"):
        with pytest.raises(MissingHeadError, match='search with mode="dense"'):
            index.search("oak", mode=mode)


async def test_without_a_mode_all_that_the_collection_has_is_searched(place, make_encoder):
    for collection, has_sparse, mode in (("both", True, "hybrid"), ("dense", False, "dense")):
        index = place.open(make_encoder(has_sparse=has_sparse), collection)
        index.create()
        index.add(DOCUMENTS)
        expected = index.search(QUERIES, mode=mode)
        assert all(expected)
        assert index.search(QUERIES) == index.search(QUERIES, mode=None) == expected
        assert await index.asearch(QUERIES) == expected


def test_arguments_of_search_are_checked(filled):
    with pytest.raises(ValueError, match="mode is 'hybird', but must be one of 'hybrid', 'dense'"):
        filled.search("oak", mode="hybird")
    with pytest.raises(ValueError, match="limit is 0, but must be from 1 to 16,384"):
        filled.search("oak", limit=0)
    with pytest.raises(TypeError, match=r"fusion is 'rrf', but must be Linear\(...\) or RRF"):
        filled.search("oak", fusion="rrf")
    with pytest.raises(TypeError, match=r"queries\[1\] must be a str, got int"):
        filled.search(["oak", 3])
    with pytest.raises(TypeError, match="queries must be a str or an iterable of str, got dict"):
        filled.search({"oak": 3})


PAGES = [
    ({"offset": -1}, ValueError, "offset is -1, but must be from 0 to 16,384"),
    ({"offset": 1.0}, TypeError, "offset must be an integer, from 0 to 16,384, got 1.0"),
    ({"offset": 16_380}, ValueError, "limit 10, but their sum must be at most 16,384"),
    ({"score_threshold": "0.5"}, TypeError, "score_threshold is '0.5', but must be a number"),
    ({"score_threshold": float("nan")}, ValueError, "score_threshold is nan, but must be finite"),
    ({"group_by": ["lang"]}, TypeError, r"group_by is \['lang'\], but must be a key of the payl"),
]


@pytest.mark.parametrize(("options", "error", "message"), PAGES)
def test_what_is_cut_of_a_ranking_is_checked(index, options, error, message):
    with pytest.raises(error, match=message):
        index.search("oak", **options)


@pytest.mark.parametrize("mode", ["hybrid", "dense", "sparse"])
def test_pages_together_are_the_ranking(filled, mode):
    whole = filled.search(QUERIES, mode=mode, limit=30)
    pages = [filled.search(QUERIES, mode=mode, limit=12, offset=offset) for offset in (0, 12, 24)]
    joined = [[hit.id for hits in parts for hit in hits] for parts in zip(*pages, strict=True)]
    assert [ids[:30] for ids in joined] == [[hit.id for hit in hits] for hits in whole]
    assert filled.search("oak", offset=1_000) == [[]]


def test_a_group_far_behind_is_found(index):
    """Other documents of one group fill all candidates before it."""
    near = [(number, "oak elm", {"source": "near"}) for number in range(300)]
    index.add([*near, ("far", "ash yew", {"source": "far"}), ("alone", "fir", {"source": None})])
    for options in ({"mode": "dense"}, {"candidates": 5}):
        [hits] = index.search("oak elm", limit=3, group_by="source", **options)
        assert hits[0].id == 0
        assert {hit.id for hit in hits} == {0, "far", "alone"}
    [[hit]] = index.search("oak elm", limit=1, offset=1, group_by="source", payload_keys=())
    assert hit.id in {"far", "alone"}
    assert hit.payload == {}


def test_a_hit_is_shown_in_one_line(index):
    index.add([("a", "oak " * 100, {"lang": "en"})])
    [[hit]] = index.search("oak", mode="dense")
    assert repr(hit) == (
        f"Hit(id='a', score={hit.score:.4f}, text='{('oak ' * 15)[:59]}…', "
        f"payload={{'lang': 'en'}}, dense_score={hit.score:.4f})"
    )


def test_an_index_and_its_vectorizer_are_shown_by_what_they_are(place, encoder):
    index = place.open(encoder, coarse_dimensions=8)
    engine = "Milvus" if place.engine.startswith("milvus") else "Qdrant"
    shown = f"{engine}Vectorizer('hash', dimensions=32, coarse_dimensions=8)"
    assert repr(index.vectorizer) == shown
    assert repr(index).startswith(f"<{engine}HybridIndex on the {engine} collection '")
    assert repr(index).endswith(f"docs' with {shown}>")


def test_an_empty_collection_finds_nothing(index):
    assert index.count() == 0
    assert index.search(["oak", "elm"]) == [[], []]


def test_an_index_is_a_context_manager(place, encoder):
    with place.open(encoder) as index:
        index.create()
        index.add([("a", "oak")])
    assert index.count() == 1


# ------------------------------------------------------------------ delete and prune


def test_deleted_documents_are_gone_and_others_stay(filled):
    ids = [DOCUMENTS[0].id, DOCUMENTS[1].id, "unknown", DOCUMENTS[1].id]
    assert filled.delete(iter(ids)) == 2
    assert filled.delete(ids) == 0
    assert filled.count() == len(DOCUMENTS) - 2
    found = {hit.id for hit in filled.search("oak", mode="dense", limit=1_000)[0]}
    assert found == {document.id for document in DOCUMENTS[2:]}


def test_a_deleted_document_may_come_back(filled):
    filled.delete([DOCUMENTS[0].id])
    assert filled.add(DOCUMENTS).written == 1


def test_prune_removes_what_is_not_given(index):
    ids = [*range(1500), "1", "int:1"]
    index.add((document_id, "oak") for document_id in ids)
    keep = {1, "int:1", *range(700, 1500), "never there"}
    assert index.prune(iter(keep)) == len(ids) - len(keep) + 1
    assert index.count() == len(keep) - 1
    assert index.delete(["1", 0, 699]) == 0
    assert index.prune(keep) == 0


def test_many_threads_may_search_at_once(filled):
    alone = [filled.search(query, limit=5) for query in QUERIES]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda query: filled.search(query, limit=5), QUERIES * 10))
    assert found == alone * 10


def test_prune_refuses_to_remove_everything(filled):
    with pytest.raises(ValueError, match="keep_ids is empty, so every document would be removed"):
        filled.prune(iter([]))
    assert filled.count() == len(DOCUMENTS)


def test_a_single_id_is_not_an_iterable_of_ids(filled):
    for call in (filled.delete, filled.prune):
        with pytest.raises(TypeError, match="'abc', a single str, but must be an iterable of ids"):
            call("abc")
        with pytest.raises(TypeError, match=r"An id is 1\.5, a float, but must be a str or int"):
            call([1.5])
    assert filled.count() == len(DOCUMENTS)


def test_many_queries_are_searched_in_several_requests(filled):
    queries = [DOCUMENTS[number % 30].text for number in range(230)]
    found = filled.search(queries, limit=1, mode="dense")
    assert [hits[0].id for hits in found] == [DOCUMENTS[n % 30].id for n in range(230)]


# ------------------------------------------------------------------ two sizes


@pytest.fixture
def two_sizes(place, encoder):
    index = place.open(encoder, coarse_dimensions=8)
    index.create()
    encoder.calls.clear()
    index.add(DOCUMENTS, batch_size=len(DOCUMENTS))
    assert encoder.calls == {"encode": 1}
    return index


def test_coarse_vectors_decide_what_is_ranked(two_sizes, encoder):
    texts = [document.text for document in DOCUMENTS]
    coarse = encoder.encode(texts, dimensions=8).dense @ encoder.encode("oak", dimensions=8).dense.T
    full = encoder.encode(texts).dense @ encoder.encode("oak").dense.T
    gathered = np.argsort(-coarse.ravel())[: 4 * (2 + 1)]
    expected = gathered[np.argsort(-full.ravel()[gathered])][:2]
    [hits] = two_sizes.search("oak", mode="dense", limit=2)
    assert [hit.id for hit in hits] == [DOCUMENTS[row].id for row in expected]


def test_filters_hold_in_both_stages(place, two_sizes):
    condition = place.filter("lang", "de")
    for mode in ("hybrid", "dense"):
        hits = two_sizes.search("oak", mode=mode, limit=12, filter=condition)[0]
        assert len(hits) == 12
        assert {hit.payload["lang"] for hit in hits} == {"de"}


def test_two_sizes_work_without_a_sparse_head(place, make_encoder):
    index = place.open(make_encoder(has_sparse=False), coarse_dimensions=8)
    index.create()
    index.add(DOCUMENTS)
    assert index.search(DOCUMENTS[3].text, mode="dense")[0][0].id == DOCUMENTS[3].id


def test_the_coarse_size_is_verified(place, encoder, two_sizes):
    two_sizes.close()
    for coarse in (None, 16):
        with pytest.raises(CollectionMismatch, match=f"coarse_dimensions: .* has 8, .* {coarse}"):
            place.open(encoder, coarse_dimensions=coarse).create()


@pytest.mark.parametrize("coarse", [0, 32, 33])
def test_the_coarse_size_must_be_smaller(place, encoder, coarse):
    with pytest.raises(
        ValueError, match=f"coarse_dimensions is {coarse}, but must be from 1 to 31"
    ):
        place.open(encoder, coarse_dimensions=coarse)


# ------------------------------------------------------------------ storage


def test_the_storage_is_checked(place, encoder):
    with pytest.raises(ValueError, match="storage is 'uint8', but must be one of 'float32', 'flo"):
        place.open(encoder, storage="uint8")


@pytest.mark.parametrize("place", ["edge", "memory"], indirect=True)
@pytest.mark.parametrize("storage", ["float16", "int8"])
def test_the_storage_is_verified(place, encoder, storage):
    index = place.open(encoder, storage=storage)
    index.create()
    index.create()
    index.add([("a", "oak")])
    index.close()
    with pytest.raises(CollectionMismatch, match=f"storage: .* has '{storage}', .* 'float32'"):
        place.open(encoder).create()


def test_optimize_changes_no_result(filled):
    before = filled.search(QUERIES)
    filled.optimize()
    for hits, earlier in zip(filled.search(QUERIES), before, strict=True):
        assert [hit.id for hit in hits] == [hit.id for hit in earlier]


# ------------------------------------------------------------------ async


async def test_the_async_twins_do_the_same(place, encoder, index):
    report = await index.aadd(DOCUMENTS, batch_size=50)
    assert (report.written, index.count()) == (len(DOCUMENTS), len(DOCUMENTS))
    for options in ({}, {"mode": "dense", "limit": 3}, {"fusion": RRF(), "candidates": 20}):
        assert await index.asearch(QUERIES, **options) == index.search(QUERIES, **options)
    condition = place.filter("lang", "de")
    found = await asyncio.gather(*(index.asearch(query, filter=condition) for query in QUERIES))
    assert [hits for [hits] in found] == [
        index.search(query, filter=condition)[0] for query in QUERIES
    ]
    skipping = await index.aadd(["oops"], on_error="skip")
    assert len(skipping.skipped) == 1
    with pytest.raises(TypeError, match="wrap it in a list"):
        await index.aadd("text")


async def test_every_verb_can_be_awaited(place, encoder):
    index = place.open(encoder)
    await index.acreate()
    await index.aadd(DOCUMENTS)
    await index.aoptimize()
    document = DOCUMENTS[1]
    assert await index.aexplain("oak", document.id) == index.explain("oak", document.id)
    assert list(await index.aexplain_all("oak", [document.id])) == [document.id]
    assert await index.ametadata() == index.metadata()
    assert inspect.signature(index.asearch) == inspect.signature(index.search)
    assert inspect.iscoroutinefunction(index.asearch)
    [hits] = await index.asearch("oak", payload_keys=["lang"])
    assert all(hit.payload.keys() == {"lang"} for hit in hits)
    assert await index.adelete([document.id]) == 1
    assert await index.aprune([DOCUMENTS[2].id]) == len(DOCUMENTS) - 2
    assert await index.acount() == 1


async def test_a_cancelled_aadd_stops_reading_and_leaves_a_sound_collection(index):
    read = []
    reached = asyncio.Event()
    loop = asyncio.get_running_loop()

    def documents():
        for number in range(100_000):
            if number == 50:
                loop.call_soon_threadsafe(reached.set)
            read.append(number)
            yield number, f"text {number}"

    task = asyncio.create_task(index.aadd(documents(), batch_size=10))
    await reached.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert 50 <= len(read) < 50_000
    assert index.add((n, f"text {n}") for n in range(60)).total == 60
    assert index.count() >= 60


# ------------------------------------------------------------------ killed at any point

KILLED_RUN = """
import os, signal, sys
from pathlib import Path

sys.path.insert(0, {folder!r})
import conftest


def documents():
    for number in range(90):
        if number == 70:
            os.kill(os.getpid(), signal.SIGKILL)
        yield number, f"text number {{number}}"


index = conftest.Place({engine!r}, Path({directory!r})).open(conftest.RecordingEncoder())
index.create()
index.add(documents(), batch_size=20)
"""


@pytest.mark.parametrize("place", ["edge", "milvus"], indirect=True)
def test_killed_and_run_again_it_goes_on_and_ends_the_same(place, encoder):
    folder, directory = str(Path(__file__).parent), str(place.directory)
    code = KILLED_RUN.format(folder=folder, engine=place.engine, directory=directory)
    killed = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()

    documents = [(number, f"text number {number}") for number in range(90)]
    index = place.open(encoder)
    index.create()
    before = index.count()
    report = index.add(documents, batch_size=20)
    assert 20 <= before <= 60  # of three whole batches one may wait and one be on its way
    assert (report.unchanged, report.written) == (before, 90 - before)
    assert index.count() == 90

    undisturbed = place.open(encoder, "undisturbed")
    undisturbed.create()
    undisturbed.add(documents)
    assert undisturbed.search("text number 7") == index.search("text number 7")
