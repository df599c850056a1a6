"""What is Milvus' own; what both indexes do is in test_index_contract.py."""

import numpy as np
import pytest
from pymilvus import DataType, MilvusClient, RRFRanker

from gte_core import CollectionMismatch, EncoderSettings, MissingHeadError, shared_encoder
from gte_integrations._index.milvus.rows import floats
from gte_integrations.milvus import GTEEmbeddingFunction, MilvusHybridIndex, MilvusVectorizer

DOCUMENTS = [("a", "oak pine", {"lang": "en"}), (2, "elm"), ("wordless", "!"), ("it's 100%", "yew")]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "index.db"


@pytest.fixture
def client(file):
    client = MilvusClient(str(file))
    yield client
    client.close()


def test_the_vectorizer_fills_a_collection_of_ones_own(client, encoder):
    vectorizer = MilvusVectorizer(encoder, dimensions=16)
    client.create_collection(
        "own", schema=vectorizer.schema(), index_params=vectorizer.index_params()
    )
    client.upsert("own", vectorizer.rows(DOCUMENTS))
    [searches] = vectorizer.search_requests("oak")
    [found] = client.hybrid_search("own", searches, RRFRanker(60), limit=3)
    assert found[0]["id"] == "a"
    [searches] = vectorizer.search_requests("oak", filter='lang == "de"')
    assert client.hybrid_search("own", searches, RRFRanker(60), limit=3) == [[]]


def test_rows_hold_the_vectors_the_id_and_the_payload(encoder):
    both = encoder.encode([text for _, text, *_ in DOCUMENTS])
    rows = MilvusVectorizer(encoder).rows(DOCUMENTS)
    np.testing.assert_array_equal([row["dense"] for row in rows], both.dense)
    assert [row["id"] for row in rows] == ["a", "int:2", "wordless", "it%27s 100%25"]
    assert (rows[0]["text"], rows[0]["lang"]) == ("oak pine", "en")
    first = both.sparse[[0]]
    weights = dict(zip(first.indices.tolist(), first.data.tolist(), strict=True))
    assert rows[0]["sparse"] == weights


def test_an_empty_sparse_vector_becomes_one_that_no_query_meets(encoder):
    vocab_size = encoder.encode("").sparse.shape[1]
    [row] = MilvusVectorizer(encoder).rows([("a", "")])
    assert row["sparse"] == {vocab_size: 1e-6}


def test_search_requests_leave_out_what_finds_nothing(encoder, make_encoder):
    both, dense_only = MilvusVectorizer(encoder).search_requests(["oak", ""], candidates=7)
    assert [(request.anns_field, request.limit) for request in both] == [
        ("dense", 7),
        ("sparse", 7),
    ]
    assert [request.anns_field for request in dense_only] == ["dense"]
    [without_head] = MilvusVectorizer(make_encoder(has_sparse=False)).search_requests("oak")
    assert [request.anns_field for request in without_head] == ["dense"]


def test_a_model_without_a_sparse_head_has_no_sparse_field(make_encoder):
    vectorizer = MilvusVectorizer(make_encoder(has_sparse=False))
    assert "sparse" not in [field.name for field in vectorizer.schema().fields]
    assert "sparse" not in vectorizer.rows([("a", "oak")])[0]


def test_a_model_without_dense_vectors_has_no_dense_field(make_encoder):
    vectorizer = MilvusVectorizer(make_encoder(has_dense=False))
    assert "dense" not in [field.name for field in vectorizer.schema().fields]
    assert [one.field_name for one in vectorizer.index_params()] == ["sparse"]
    assert "dense" not in vectorizer.rows([("a", "oak")])[0]
    requests = vectorizer.search_requests(["oak", ""])
    assert [[one.anns_field for one in query] for query in requests] == [["sparse"], []]
    with pytest.raises(MissingHeadError, match="GTEEmbeddingFunction needs dense vectors"):
        GTEEmbeddingFunction(vectorizer.encoder)


def test_the_embedding_function_is_one_of_pymilvus_models(client, make_encoder):
    encoder = make_encoder(query_prefix="query: ")
    function = GTEEmbeddingFunction(encoder, dimensions=16)
    assert function.dim == {"dense": 16, "sparse": 501}  # the last column is of no token
    texts = ["oak pine", "elm"]
    both = encoder.encode(texts, dimensions=16)
    for given in (function(texts), function.encode_documents(texts)):
        assert [(vector.dtype, vector.shape) for vector in given["dense"]] == [
            (np.float32, (16,))
        ] * 2
        np.testing.assert_array_equal(given["dense"], both.dense)
        assert given["sparse"].dtype == np.float32
        assert (given["sparse"][:, :500] != both.sparse).nnz == 0
        assert given["sparse"].shape == (2, 501)
        assert given["sparse"][:, [500]].nnz == 0
    queries = function.encode_queries(["oak"])
    np.testing.assert_array_equal(
        queries["dense"], encoder.encode("query: oak", dimensions=16).dense
    )

    schema = MilvusVectorizer(encoder, dimensions=16)
    client.create_collection("own", schema=schema.schema(), index_params=schema.index_params())
    given = function(texts)
    rows = [
        {
            "id": text,
            "text": text,
            "_gte_hash": "",
            "dense": given["dense"][row],
            "sparse": given["sparse"][row],
        }
        for row, text in enumerate(texts)
    ]
    client.insert("own", rows)
    [found] = client.search("own", [function(["elm"])["sparse"][0]], anns_field="sparse", limit=1)
    assert found[0]["id"] == "elm"


def test_the_embedding_function_takes_the_name_of_a_model():
    texts = ["Printing a brochure", "x"]
    expected = shared_encoder(EncoderSettings(model="demo")).encode(texts, dimensions=64)
    for function in (
        GTEEmbeddingFunction("demo", dimensions=64),
        GTEEmbeddingFunction(model_name="demo", dimensions=64),
        GTEEmbeddingFunction(encoder=shared_encoder(EncoderSettings(model="demo")), dimensions=64),
    ):
        np.testing.assert_array_equal(function(texts)["dense"], expected.dense)
    with pytest.raises(TypeError, match="encoder and model_name were given, but say the same"):
        GTEEmbeddingFunction("demo", model_name="demo")


def test_the_embedding_function_takes_the_directory_of_a_model(small_checkpoint, small):
    function = GTEEmbeddingFunction(small_checkpoint)
    assert function.dim["dense"] == small.dimensions
    np.testing.assert_allclose(function(["w1"])["dense"], small.encode("w1").dense, atol=0.02)


def test_milvus_lite_takes_every_row_of_the_embedding_function(client, encoder):
    function = GTEEmbeddingFunction(encoder)
    schema = MilvusVectorizer(encoder)
    client.create_collection("own", schema=schema.schema(), index_params=schema.index_params())
    texts = ["oak", "", "elm", " "]
    given = function(texts)
    assert given["sparse"].shape == (4, function.dim["sparse"])
    assert given["sparse"].getnnz(axis=1).tolist() == [1] * 4
    client.insert(
        "own",
        [
            {
                "id": str(row),
                "text": text,
                "_gte_hash": "",
                "dense": given["dense"][row],
                "sparse": given["sparse"][row],
            }
            for row, text in enumerate(texts)
        ],
    )
    queries = function.encode_queries(["elm", ""])["sparse"]
    found = client.search("own", [queries[0], queries[1]], anns_field="sparse", limit=4)
    assert [[hit["id"] for hit in hits] for hits in found] == [["2"], []]


def test_the_embedding_function_needs_a_sparse_head(make_encoder):
    with pytest.raises(MissingHeadError, match="GTEEmbeddingFunction needs sparse vectors"):
        GTEEmbeddingFunction(make_encoder(has_sparse=False))


def test_a_text_is_measured_in_bytes(encoder):
    vectorizer = MilvusVectorizer(encoder)
    vectorizer.rows([("a", "é" * 32_767)])
    with pytest.raises(ValueError, match="The text of document 'a' has 65,536 UTF-8 bytes, but at"):
        vectorizer.rows([("a", "é" * 32_768)])


def fields_and_indexes(vectorizer):
    fields = {field.name: field.dtype for field in vectorizer.schema().fields}
    indexes = {index.field_name: index for index in vectorizer.index_params()}
    return [(fields[name], indexes[name].index_type) for name in ("dense", "_gte_coarse")]


def test_the_schema_states_the_storage(encoder):
    for storage, expected in (
        ("float32", (DataType.FLOAT_VECTOR, "AUTOINDEX")),
        ("float16", (DataType.FLOAT16_VECTOR, "AUTOINDEX")),
        ("int8", (DataType.FLOAT_VECTOR, "HNSW_SQ")),
    ):
        vectorizer = MilvusVectorizer(encoder, storage=storage, coarse_dimensions=8)
        assert fields_and_indexes(vectorizer) == [expected] * 2


def test_half_size_vectors_are_sent_as_such(encoder):
    vectorizer = MilvusVectorizer(encoder, storage="float16", coarse_dimensions=8)
    [row] = vectorizer.rows([("a", "oak pine")])
    expected = np.float16(encoder.encode("oak pine").dense[0])
    assert (row["dense"].dtype, row["_gte_coarse"].dtype) == (np.float16, np.float16)
    np.testing.assert_array_equal(row["dense"], expected)
    [[dense, _]] = vectorizer.search_requests("oak pine")
    np.testing.assert_array_equal(dense.data[0], expected)
    assert dense.data[0].dtype == np.float16
    for returned in (expected.tobytes(), [expected.tobytes()], expected.tolist()):
        np.testing.assert_array_equal(floats(returned), np.float32(expected))


def test_int8_vectors_gather_more_than_is_wanted(encoder):
    vectorizer = MilvusVectorizer(encoder, storage="int8")
    [[dense, sparse]] = vectorizer.search_requests("oak", candidates=100)
    assert dense.param["params"] == {"ef": 200, "refine_k": 2}
    assert "params" not in sparse.param
    [[few, _]] = vectorizer.search_requests("oak", candidates=3)
    assert few.param["params"]["ef"] == 64


@pytest.mark.parametrize("storage", ["float16", "int8"])
def test_milvus_lite_keeps_full_vectors_alone(client, encoder, storage):
    index = MilvusHybridIndex(client, "docs", encoder, storage=storage)
    with pytest.raises(ValueError, match=f"storage is '{storage}', but Milvus Lite keeps float32"):
        index.create()
    assert not client.has_collection("docs")


def test_int8_works_where_the_engine_says_it_has_it(client, encoder, monkeypatch):
    # Milvus Lite takes the index type by name and searches exactly.
    monkeypatch.setattr(client, "get_server_version", lambda: "2.6.10")
    index = MilvusHybridIndex(client, "docs", encoder, storage="int8", coarse_dimensions=8)
    index.create()
    index.add(DOCUMENTS)
    assert index.search("oak pine")[0][0].id == "a"
    with pytest.raises(CollectionMismatch, match=r"storage: .* has 'int8', this index needs 'fl"):
        MilvusHybridIndex(client, "docs", encoder, coarse_dimensions=8).create()


def test_the_longest_id_fits(file, encoder):
    with MilvusHybridIndex(file, "docs", encoder) as index:
        index.create()
        longest = "'" * 4096
        index.add([(longest, "oak")])
        assert index.search("oak")[0][0].id == longest


def test_a_missing_parent_directory_is_named(tmp_path, encoder):
    with pytest.raises(FileNotFoundError, match=r"there is no directory '.*no'; make it first"):
        MilvusHybridIndex(tmp_path / "no" / "index.db", "docs", encoder)


def test_a_file_that_is_no_milvus_lite_directory_is_refused(file, encoder):
    file.write_text("x")
    with pytest.raises(NotADirectoryError, match="which is a file; Milvus Lite 3 keeps its data"):
        MilvusHybridIndex(file, "docs", encoder)


@pytest.mark.parametrize("location", ["", "index", "localhost:19530", "index.dbx", ":memory:"])
def test_what_looks_like_neither_file_nor_uri_is_refused(encoder, location):
    with pytest.raises(ValueError, match=r"must be a path that ends in \.db, a URI such as"):
        MilvusHybridIndex(location, "docs", encoder)


@pytest.mark.parametrize("location", [None, 3, object()])
def test_other_locations_are_refused(encoder, location):
    with pytest.raises(TypeError, match=r"must be a path that ends in \.db, a URI, a MilvusC"):
        MilvusHybridIndex(location, "docs", encoder)


def test_a_hyphen_is_no_letter_for_milvus(file, encoder):
    with pytest.raises(ValueError, match="collection is 'my-docs', but must be 1 to 255 ASCII"):
        MilvusHybridIndex(file, "my-docs", encoder)


def test_a_client_that_was_passed_in_stays_open(client, encoder):
    with MilvusHybridIndex(client, "docs", encoder) as index:
        index.create()
    assert client.has_collection("docs")


def test_a_collection_made_by_something_else_is_refused(client, encoder):
    client.create_collection("docs", dimension=32)
    with pytest.raises(CollectionMismatch, match="holds no record of the model"):
        MilvusHybridIndex(client, "docs", encoder).create()


def test_payload_that_is_not_asked_for_stays_in_the_store(client, encoder, monkeypatch):
    index = MilvusHybridIndex(client, "docs", encoder)
    index.create()
    index.add([("a", "oak", {"lang": "en", "large": 1})])
    get, sent = client.get, []
    monkeypatch.setattr(client, "get", lambda *a, **given: sent.extend(get(*a, **given)) or sent)
    assert index.search("oak", payload_keys=["lang"])[0][0].payload == {"lang": "en"}
    assert [row.get("large") for row in sent] == [None]


def test_create_goes_on_where_it_was_killed(client, encoder, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt("killed")

    with monkeypatch.context() as patch:
        patch.setattr(client, "create_index", killed)
        with pytest.raises(KeyboardInterrupt, match="killed"):
            MilvusHybridIndex(client, "docs", encoder).create()
    index = MilvusHybridIndex(client, "docs", encoder)
    with pytest.raises(LookupError, match="does not exist"):
        index.count()
    index.create()
    index.add(DOCUMENTS)
    assert index.count() == len(DOCUMENTS)
