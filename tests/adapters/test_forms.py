"""What ``add`` takes beside documents of its own: objects of frameworks, and tables."""

from datetime import UTC, date, datetime
from decimal import Decimal
from uuid import UUID

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document as LangChainDocument
from llama_index.core.schema import NodeWithScore, TextNode

from gte_core.testing import HashEncoder
from gte_integrations._index.document import Unreadable, as_document
from gte_integrations._index.preparation import Limits, prepare
from gte_integrations._index.rows import plain
from gte_integrations._index.tables import documents_of
from gte_integrations.qdrant import Document, QdrantHybridIndex, QdrantVectorizer

COLUMNS = {"id": ["a", "b"], "text": ["oak", "elm"], "lang": ["en", "de"], "year": [1, 2]}
DOCUMENTS = [
    Document("a", "oak", {"lang": "en", "year": 1}),
    Document("b", "elm", {"lang": "de", "year": 2}),
]


class PolarsLike:
    """Has of a Polars data frame what is asked of one, as Polars documents it."""

    def __init__(self, columns, start=0, length=None):
        names = list(columns)
        rows = list(zip(*columns.values(), strict=True))
        self.columns, self._rows = names, rows[start:][:length]
        self._columns = columns

    def __len__(self):
        return len(self._rows)

    def slice(self, offset, length=None):
        return PolarsLike(self._columns, offset, length)

    def to_dicts(self):
        return [dict(zip(self.columns, row, strict=True)) for row in self._rows]


TABLES = {
    "pandas": pd.DataFrame,
    "arrow table": pa.table,
    "arrow batch": pa.record_batch,
    "polars": PolarsLike,
}


@pytest.fixture(params=TABLES.values(), ids=TABLES)
def table(request):
    return request.param


@pytest.fixture
def index(tmp_path):
    # Any engine will do: documents are read before one is asked.
    with QdrantHybridIndex(tmp_path, "forms", HashEncoder()) as index:
        index.create()
        yield index


# ------------------------------------------------------------------ tables


def test_rows_of_a_table_are_documents(index, table):
    assert index.add(table(COLUMNS)).written == 2
    assert index.add(DOCUMENTS).unchanged == 2
    [[hit]] = index.search("elm", limit=1)
    assert (hit.id, hit.text, dict(hit.payload)) == ("b", "elm", {"lang": "de", "year": 2})


async def test_a_table_is_awaited_as_it_is_added(index):
    assert (await index.aadd(pd.DataFrame(COLUMNS))).written == 2


def test_vectorizers_take_tables(table):
    points = QdrantVectorizer(HashEncoder()).points(table(COLUMNS))
    assert [point.payload["lang"] for point in points] == ["en", "de"]


@pytest.mark.parametrize("n", [0, 1, 255, 256, 257, 700])
def test_every_row_is_read_once_and_in_order(n):
    columns = {"id": list(range(n)), "text": [f"t{i}" for i in range(n)]}
    expected = [Document(i, f"t{i}") for i in range(n)]
    for make in TABLES.values():
        read = documents_of(make(columns))
        assert list(read) == expected
        assert len(read) == n


def test_a_table_is_read_some_rows_at_a_time():
    lengths = []

    class Watched(PolarsLike):
        def slice(self, offset, length=None):
            lengths.append(length)
            return super().slice(offset, length)

    next(iter(documents_of(Watched({"id": range(10_000), "text": ["t"] * 10_000}))))
    [length] = lengths
    assert length < 1_000


def test_cells_become_what_a_file_would_give():
    frame = pd.DataFrame(
        {
            "id": [1],
            "text": ["oak"],
            "day": [pd.Timestamp("2024-05-01", tz="UTC")],
            "never": [pd.NaT],
            "nan": [np.float32("nan")],
            "na": pd.array([None], dtype="Int64"),
            "kind": pd.Categorical([None], categories=["tree"]),
            "vector": [np.arange(2)],
            "moment": pd.Series([np.datetime64("2024-05-01T10")], dtype=object),
        }
    )
    [document] = documents_of(frame)
    assert document.payload == {
        "day": "2024-05-01T00:00:00+00:00",
        "never": None,
        "nan": None,
        "na": None,
        "kind": None,
        "vector": [0, 1],
        "moment": "2024-05-01T10:00:00",
    }
    assert prepare(document, Limits()).payload == document.payload


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": [1], "body": ["t"]}, r"no 'text' among the fields found \('id', 'body'\)"),
        ({"text": ["t"], "key": [1]}, r"no 'id' among the columns found \('text', 'key'\)"),
    ],
)
def test_a_table_must_have_both_columns(table, columns, message):
    with pytest.raises(ValueError, match=message):
        documents_of(table(columns))


def test_a_column_must_not_appear_twice():
    frame = pd.DataFrame([[1, "t", 2, 3]], columns=["id", "text", "k", "k"])
    with pytest.raises(ValueError, match="The DataFrame: the column 'k' appears twice"):
        documents_of(frame)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("text", None, "'text' must be a string, found NoneType None"),
        ("id", None, "'id' is empty; give every row an id"),
        ("id", "", "'id' is empty; give every row an id"),
    ],
)
def test_a_bad_row_is_named(table, column, value, message):
    bad = {**COLUMNS, column: [COLUMNS[column][0], value]}
    with pytest.raises(ValueError, match=rf"^Row 1 \(the first is 0\) of the \w+: {message}"):
        QdrantVectorizer(HashEncoder()).points(table(bad))


def test_a_bad_row_leaves_the_others(index):
    bad = pd.DataFrame({"id": ["a", "b", "c"], "text": ["oak", None, "elm"]})
    report = index.add(bad, on_error="skip")
    assert report.written == 2
    [(_, reason)] = report.skipped
    assert reason.startswith("Row 1 (the first is 0) of the DataFrame: 'text' must be a string")


def test_a_number_that_is_no_integer_is_no_id():
    [row, _] = documents_of(pd.DataFrame({"id": [1, None], "text": ["a", "b"]}))
    assert isinstance(row, Unreadable)
    assert "'id' must be a string or an integer, found float 1.0" in str(row.error)


def test_a_cell_that_cannot_be_stored_is_named_by_its_column(table):
    with pytest.raises(TypeError, match="document 'b' cannot be stored as JSON: at 'raw'"):
        QdrantVectorizer(HashEncoder()).points(table({**COLUMNS, "raw": [None, b"x"]}))


# ------------------------------------------------------------------ LangChain and LlamaIndex


def test_documents_of_langchain(index):
    given_day = LangChainDocument(
        id="a", page_content="oak", metadata={"day": date(2024, 5, 1), "nan": float("nan")}
    )
    index.add([given_day])
    [[hit]] = index.search("oak")
    assert (hit.id, hit.text) == ("a", "oak")
    assert dict(hit.payload) == {"day": "2024-05-01", "nan": None}


def test_a_document_of_langchain_needs_an_id(index):
    with pytest.raises(ValueError, match=r"^documents\[0\]: A Document of LangChain has no id"):
        index.add([LangChainDocument(page_content="oak")])


@pytest.mark.parametrize("wrapped", [False, True], ids=["a node", "a node with its score"])
def test_nodes_of_llama_index_are_stored_as_they_are_embedded(index, wrapped):
    node = TextNode(
        id_="a",
        text="oak",
        metadata={"title": "Trees", "page": 3},
        excluded_embed_metadata_keys=["page"],
    )
    index.add([NodeWithScore(node=node) if wrapped else node])
    [[hit]] = index.search("oak")
    assert (hit.id, hit.text) == ("a", "title: Trees\n\noak")
    assert dict(hit.payload) == {"title": "Trees", "page": 3}


@pytest.mark.parametrize(
    "single",
    [
        LangChainDocument(id="a", page_content="oak"),
        TextNode(id_="a", text="oak"),
        Document("a", "oak"),
        {"id": "a", "text": "oak"},
        "oak",
    ],
    ids=lambda single: type(single).__name__,
)
def test_a_single_document_is_refused(single):
    with pytest.raises(TypeError, match=r"is a single \w+, .* wrap it in a list"):
        documents_of(single)


# ------------------------------------------------------------------ values


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (datetime(2024, 5, 1, tzinfo=UTC), "2024-05-01T00:00:00+00:00"),
        (pd.NaT, None),
        (pd.NA, None),
        (np.datetime64("NaT"), None),
        (np.datetime64(1, "ns"), "1970-01-01T00:00:00.000000001"),
        (np.float64("nan"), None),
        (np.bool_(True), True),
        (np.array(3), 3),
        (np.array(None), None),
        (np.array([[1.5]]), [[1.5]]),
        ((1, np.int8(2)), [1, 2]),
        ({"a": [np.str_("x")]}, {"a": ["x"]}),
        (Decimal("1.50"), "1.50"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    ],
)
def test_a_value_becomes_one_that_json_has(value, expected):
    found = plain(value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    "value", [np.timedelta64(1, "ns"), np.longdouble(1), pd.Timedelta(1), np.complex64(1), {1}]
)
def test_what_json_lacks_is_refused_by_its_key(value):
    document = LangChainDocument(id="a", page_content="t", metadata={"good": 1, "bad": [value]})
    with pytest.raises(TypeError, match="cannot be stored as JSON: at 'bad', "):
        prepare(as_document(document), Limits())


def test_metadata_without_an_end_is_refused():
    endless: dict = {}
    endless |= {"left": endless, "right": endless}
    document = LangChainDocument.model_construct(
        id="a", page_content="t", metadata={"tree": endless}
    )
    with pytest.raises(ValueError, match="cannot be stored as JSON: at 'tree', Circular"):
        prepare(as_document(document), Limits())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(max_examples=50)
@given(json_values)
def test_what_json_has_stays_as_it_is(value):
    assert plain(value) == value


def test_a_row_without_a_text_is_named_by_its_id(index):
    table = pd.DataFrame({"id": ["a", "b", None], "text": ["oak", None, "elm"]})
    report = index.add(table, on_error="skip")
    assert [document_id for document_id, _ in report.skipped] == ["b", None]
