"""``parquet``: documents and vectors in a file, and from there into an index."""

import json
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from gte_core import CollectionMismatch
from gte_integrations.milvus import MilvusVectorizer
from gte_integrations.parquet import add_parquet, write_parquet
from gte_integrations.qdrant import QdrantHybridIndex, QdrantVectorizer

DOCUMENTS = [
    ("a", "oak pine", {"lang": "en", "nested": {"n": [1, None]}}),
    (2, "elm é"),
    ("wordless", "!"),
    ("it's 100%", "yew oak"),
]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "corpus.parquet"


@pytest.mark.parametrize(
    ("options", "halves"),
    [
        ({}, {}),
        ({"dimensions": 16, "coarse_dimensions": 8}, {}),
        ({}, {"has_sparse": False}),
        ({"dimensions": 16, "coarse_dimensions": 8}, {"has_sparse": False}),
        ({}, {"has_dense": False}),
    ],
)
def test_what_was_written_is_added_without_the_model(place, path, make_encoder, options, halves):
    encoder = make_encoder(**halves)
    report = write_parquet(MilvusVectorizer(encoder, **options), iter(DOCUMENTS), path)
    assert report.written == 4
    index = place.open(encoder, **options)
    index.create()
    encoder.calls.clear()
    assert add_parquet(index, path, batch_size=3).written == 4
    assert add_parquet(index, path).unchanged == 4
    assert not encoder.calls

    direct = place.open(encoder, "direct", **options)
    direct.create()
    direct.add(DOCUMENTS)
    for mode in [direct.vectorizer.default_mode] if halves else ["hybrid", "dense", "sparse"]:
        assert index.search(["oak", ""], mode=mode) == direct.search(["oak", ""], mode=mode)
    assert index.add(DOCUMENTS).unchanged == 4


@pytest.mark.parametrize("halves", [{"has_sparse": False}, {"has_dense": False}])
def test_what_a_model_does_not_give_has_no_column(path, make_encoder, halves):
    vectorizer = MilvusVectorizer(make_encoder(**halves))
    write_parquet(vectorizer, DOCUMENTS, path)
    fields = [field.name for field in vectorizer.schema().fields]
    assert sorted(pq.read_table(path).column_names) == sorted([*fields, "$meta"])


def test_the_columns_are_those_of_a_milvus_collection(path, encoder):
    vectorizer = MilvusVectorizer(encoder, coarse_dimensions=8)
    write_parquet(vectorizer, DOCUMENTS, path)
    table = pq.read_table(path)
    fields = [field.name for field in vectorizer.schema().fields]
    assert sorted(table.column_names) == sorted([*fields, "$meta"])
    for stored, row in zip(table.to_pylist(), vectorizer.rows(DOCUMENTS), strict=True):
        assert (stored["id"], stored["text"]) == (row["id"], row["text"])
        np.testing.assert_array_equal(np.float32(stored["dense"]), row["dense"])
        pairs = zip(stored["sparse"]["indices"], stored["sparse"]["values"], strict=True)
        assert dict(pairs) == pytest.approx(row["sparse"])
    assert json.loads(table["$meta"][0].as_py()) == DOCUMENTS[0][2]


def test_a_file_of_another_model_is_refused(place, path, make_encoder):
    write_parquet(QdrantVectorizer(make_encoder(), dimensions=8), DOCUMENTS, path)
    index = place.open(make_encoder())
    index.create()
    with pytest.raises(CollectionMismatch, match="dimensions: the file has 8, this index needs 32"):
        add_parquet(index, path)


def test_a_file_fits_an_index_that_takes_the_size_of_its_collection(place, path, encoder):
    write_parquet(MilvusVectorizer(encoder, dimensions=16), DOCUMENTS, path)
    with place.open(encoder, dimensions=16) as made:
        made.create()
    index = place.open(encoder)
    assert add_parquet(index, path).written == 4
    assert index.add(DOCUMENTS).unchanged == 4


def test_a_file_serves_every_storage(path, tmp_path, encoder):
    write_parquet(MilvusVectorizer(encoder), DOCUMENTS, path)
    with QdrantHybridIndex(tmp_path / "half", "docs", encoder, storage="float16") as index:
        index.create()
        assert add_parquet(index, path).written == len(DOCUMENTS)


def test_a_file_appears_only_when_it_is_complete(path, encoder):
    path.write_text("before")
    with pytest.raises(TypeError, match="must be a str"):
        write_parquet(MilvusVectorizer(encoder), [*DOCUMENTS, ("b", None)], path, batch_size=2)
    assert [file.read_text() for file in path.parent.iterdir()] == ["before"]
    report = write_parquet(
        MilvusVectorizer(encoder), [("b", None), ("c", "x")], path, on_error="skip"
    )
    assert (report.written, len(report.skipped)) == (1, 1)
    assert pq.read_table(path).num_rows == 1


def test_an_id_comes_once(path, encoder):
    again = [("a", "oak"), ("b", "elm"), ("a", "yew")]
    assert write_parquet(MilvusVectorizer(encoder), again, path).duplicates == 1
    with pytest.raises(ValueError, match="The id 'a' comes again after its batch"):
        write_parquet(MilvusVectorizer(encoder), again, path, batch_size=2)


def test_what_cannot_be_written_or_read_is_known_before_anything_is_encoded(path, encoder):
    with pytest.raises(IsADirectoryError, match="a directory; add the name of a file"):
        write_parquet(MilvusVectorizer(encoder), DOCUMENTS, path.parent)
    with pytest.raises(TypeError, match="vectorizer is a RecordingEncoder, but must be a Qdrant"):
        write_parquet(encoder, DOCUMENTS, path)
    assert not encoder.calls
    with QdrantHybridIndex(path.parent / "index", "docs", encoder) as index:
        index.create()
        path.write_text("id,text")
        with pytest.raises(ValueError, match=r"corpus.parquet' is no Parquet file: "):
            add_parquet(index, path)
    with pytest.raises(TypeError, match="'show_progress_bar' is no argument here, pass show_prog"):
        write_parquet(MilvusVectorizer(encoder), DOCUMENTS, path, show_progress_bar=True)
    with pytest.raises(TypeError, match="index is a PosixPath, but must be a QdrantHybridIndex"):
        add_parquet(path, path)


def test_a_missing_package_is_named_with_the_pip_line():
    code = "import sys; sys.modules['pyarrow'] = None; import gte_integrations.parquet"
    result = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    message = result.stderr.decode()
    assert "ImportError: gte_integrations.parquet needs pyarrow" in message
    assert "pip install 'gte-integrations[parquet]'" in message
