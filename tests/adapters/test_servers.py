"""Keys, payload indexes, tenants, options and aliases, as far as each engine has them."""

import pytest

from gte_core import CollectionMismatch
from gte_integrations.milvus import MilvusHybridIndex
from gte_integrations.qdrant import QdrantHybridIndex

DOCUMENTS = [
    ("a", "oak pine", {"customer": "one", "lang": "en"}),
    ("b", "oak yew", {"customer": "two"}),
    ("c", "elm", {"customer": "one", "lang": None}),
]


def ids(index, query="oak", **options):
    return [hit.id for hit in index.search(query, **options)[0]]


# ------------------------------------------------------------------ arguments

KEYS = {QdrantHybridIndex: "api_key", MilvusHybridIndex: "token"}


@pytest.fixture(params=KEYS, ids=lambda kind: kind.__name__)
def kind(request):
    return request.param


@pytest.mark.parametrize("key", ["", "secret\n", "sec\x00ret", " secret"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_shown(kind, encoder, key):
    with pytest.raises(ValueError, match=f"{KEYS[kind]} is empty, or has a line break") as caught:
        kind("http://localhost:1", "docs", encoder, **{KEYS[kind]: key})
    assert "secret" not in str(caught.value)
    with pytest.raises(TypeError, match=f"{KEYS[kind]} must be a str or None, got bytes"):
        kind("http://localhost:1", "docs", encoder, **{KEYS[kind]: b"secret"})


def test_a_key_goes_with_a_url_alone(kind, encoder, tmp_path):
    place = tmp_path / "index.db"
    for options in ({KEYS[kind]: "secret"}, {"client_options": {"timeout": 3}}):
        [name] = options
        with pytest.raises(ValueError, match=f"{name} was given, but location is a .*; it goes w"):
            kind(place, "docs", encoder, **options)


def test_a_misspelled_option_is_an_error_that_names_the_others(kind, encoder, tmp_path):
    with pytest.raises(ValueError, match=r"client_options has 'time_out', .* only: .*timeout"):
        kind("http://localhost:1", "docs", encoder, client_options={"time_out": 3})
    with pytest.raises(ValueError, match="collection_options has 'shards', but may have only: "):
        kind(tmp_path / "a.db", "docs", encoder, collection_options={"shards": 3})
    with pytest.raises(TypeError, match="client_options must be a dict of names and values, got l"):
        kind("http://localhost:1", "docs", encoder, client_options=["secret"])


def test_types_of_payload_indexes_are_the_engines_own(kind, encoder, tmp_path):
    with pytest.raises(ValueError, match=r"has 'string' for 'lang', but must have one of '.*'bool"):
        kind(tmp_path / "a.db", "docs", encoder, payload_indexes={"lang": "string"})
    with pytest.raises(TypeError, match="payload_indexes is a list, but must be a dict of keys"):
        kind(tmp_path / "a.db", "docs", encoder, payload_indexes=["lang"])


@pytest.mark.parametrize("key", ["text", "_gte_origin", "a.b", "1st", ""])
def test_a_tenant_key_is_a_plain_key_of_the_payload(kind, encoder, tmp_path, key):
    with pytest.raises(ValueError, match=r"tenant_key is .*, but must be a payload key of ASCII"):
        kind(tmp_path / "a.db", "docs", encoder, tenant_key=key)


# ------------------------------------------------------------------ tenants


def test_documents_of_a_tenant_are_found_by_its_key(place, encoder):
    index = place.open(encoder, tenant_key="customer")
    index.create()
    assert index.add(DOCUMENTS).written == 3
    index.create()
    assert index.add(DOCUMENTS).unchanged == 3
    assert ids(index, filter=place.filter("customer", "one")) == ["a", "c"]
    index.add([("a", "oak pine", {"customer": "two"})])
    assert ids(index, filter=place.filter("customer", "two")) == ["a", "b"]
    assert index.count() == 3
    hits = {hit.id: hit.payload for hit in index.search("oak")[0]}
    assert hits == {
        "a": {"customer": "two"},
        "b": {"customer": "two"},
        "c": {"customer": "one", "lang": None},
    }
    index.close()
    again = place.open(encoder)  # whoever does not know of tenants reads them all the same
    assert {hit.payload["customer"] for hit in again.search("oak")[0]} == {"one", "two"}


@pytest.mark.parametrize("payload", [{}, {"customer": 1}, {"customer": None}])
def test_a_document_without_a_tenant_is_refused(place, encoder, payload):
    index = place.open(encoder, tenant_key="customer")
    index.create()
    report = index.add([*DOCUMENTS, ("d", "oak", payload)], on_error="skip")
    [(skipped, reason)] = report.skipped
    assert (report.written, skipped) == (3, "d")
    assert "under 'customer', the index's tenant_key, but must name a tenant there" in reason


@pytest.mark.parametrize("place", ["milvus"], indirect=True)
def test_a_collection_cannot_be_partitioned_later(place, encoder):
    place.open(encoder).create()
    with pytest.raises(CollectionMismatch, match=r"not partitioned by 'customer', .* but by None"):
        place.open(encoder, tenant_key="customer").create()


# ------------------------------------------------------------------ payload indexes


@pytest.mark.parametrize("place", ["edge"], indirect=True)
def test_a_directory_indexes_payload_and_adds_what_is_missing(place, encoder):
    import qdrant_edge as edge

    with place.open(encoder, payload_indexes={"lang": "keyword"}) as index:
        index.create()
        index.add(DOCUMENTS)
    text = edge.TextIndexParams(phrase_matching=True)
    indexes = {"lang": "keyword", "title": text}
    with place.open(encoder, payload_indexes=indexes, tenant_key="customer") as index:
        index.create()
        index.create()
        assert ids(index, filter=place.filter("lang", "en")) == ["a"]
    shard = edge.EdgeShard.load(str(place.location / "docs"))
    schema = shard.info().payload_schema
    shard.close()
    assert {key: str(info.data_type) for key, info in schema.items()} == {
        "lang": "PayloadSchemaType.Keyword",
        "title": "PayloadSchemaType.Text",
        "customer": "PayloadSchemaType.Keyword",
    }
    assert schema["customer"].params.is_tenant


def test_a_filter_by_an_indexed_key(place, encoder):
    kind = "varchar" if place.engine.startswith("milvus") else "keyword"
    index = place.open(encoder, payload_indexes={"lang": kind})
    if place.engine == "milvus":
        with pytest.raises(NotImplementedError, match="names lang, but Milvus Lite cannot index"):
            index.create()
        assert index.metadata() is None
        return
    index.create()  # in the client's local mode, without its warning that it has no effect
    index.add(DOCUMENTS)
    assert ids(index, filter=place.filter("lang", "en")) == ["a"]


def test_payload_indexes_are_asked_of_a_milvus_server(encoder, tmp_path, monkeypatch):
    from pymilvus import MilvusClient

    asked = {}

    def create_index(collection, params, **_):
        asked.update({one.index_name: one.to_dict() for one in params})

    client = MilvusClient(str(tmp_path / "index.db"))
    MilvusHybridIndex(client, "docs", encoder).create()
    monkeypatch.setattr(client, "get_server_version", lambda: "2.6.10")
    monkeypatch.setattr(client, "create_index", create_index)
    indexes = {"lang": "varchar", "year": "double"}
    MilvusHybridIndex(client, "docs", encoder, payload_indexes=indexes).create()
    assert asked.keys() == {"lang", "year"}
    assert asked["year"]["field_name"] == "year"
    monkeypatch.setattr(client, "list_indexes", lambda _: ["dense", "sparse", "lang"])
    asked.clear()
    MilvusHybridIndex(client, "docs", encoder, payload_indexes=indexes).create()
    assert asked.keys() == {"year"}
    client.close()


# ------------------------------------------------------------------ collection options


def test_milvus_is_asked_for_shards_and_properties(encoder, tmp_path, monkeypatch):
    from pymilvus import MilvusClient

    client, asked = MilvusClient(str(tmp_path / "index.db")), []
    create = client.create_collection
    monkeypatch.setattr(
        client, "create_collection", lambda *a, **given: asked.append(given) or create(*a, **given)
    )
    options = {"num_shards": 2, "properties": {"collection.replica.number": 2}}
    index = MilvusHybridIndex(client, "docs", encoder, collection_options=options)
    index.create()
    assert (asked[0]["num_shards"], asked[0]["consistency_level"]) == (2, "Session")
    assert asked[0]["properties"].keys() == {"collection.replica.number", "gte.facts"}
    assert index.metadata()["dimensions"] == encoder.dimensions
    client.close()


@pytest.mark.parametrize("place", ["edge"], indirect=True)
def test_a_directory_takes_options_of_its_engine(place, encoder):
    with place.open(encoder, collection_options={"on_disk_payload": False}) as index:
        index.create()
        assert index.add(DOCUMENTS).written == 3
    with pytest.raises(ValueError, match="has 'shard_number', but may have only: hnsw_config, "):
        place.open(encoder, collection_options={"shard_number": 2})


# ------------------------------------------------------------------ aliases


@pytest.fixture
def aliased(place):
    if place.engine == "edge":
        pytest.skip("a directory has no aliases")
    return place


def test_a_collection_is_opened_by_its_alias_and_the_alias_moves_on(aliased, encoder):
    alias, first = aliased.prefix + "current", aliased.prefix + "first"
    old, new = aliased.open(encoder, "first"), aliased.open(encoder, "second")
    old.create(alias=alias)
    old.create(alias=alias)
    old.add(DOCUMENTS)
    reader = aliased.open(encoder, "current")
    reader.create()  # there already
    assert (ids(reader, limit=1), reader.count()) == (["a"], 3)
    new.create()
    new.add([("new", "oak")])
    assert new.switch_alias(alias) == first
    assert new.switch_alias(alias) is None  # nothing is left over
    assert ids(reader) == ["new"]
    assert reader.metadata() == new.metadata()
    assert reader.add([("newer", "elm")]).written == 1
    assert new.count() == 2
    assert new.switch_alias(aliased.prefix + "another") is None
    assert aliased.open(encoder, "another").count() == 2


def test_an_alias_of_an_alias_leads_to_the_collection(aliased, encoder):
    first, second = aliased.open(encoder, "first"), aliased.open(encoder, "second")
    first.create(alias=aliased.prefix + "current")
    second.create()
    reader = aliased.open(encoder, "current")
    assert reader.switch_alias(aliased.prefix + "current") is None
    reader.create(alias=aliased.prefix + "another")
    second.switch_alias(aliased.prefix + "current")
    second.add([("a", "oak")])
    assert aliased.open(encoder, "another").count() == 0


def test_an_alias_that_is_taken_is_left_alone(aliased, encoder):
    alias = aliased.prefix + "current"
    aliased.open(encoder, "first").create(alias=alias)
    new = aliased.open(encoder, "second")
    with pytest.raises(ValueError, match=r"leads to the collection '.*first'. Fill this one first"):
        new.create(alias=alias)
    assert new.metadata() is None
    new.create()
    for name in ("first", "second"):
        with pytest.raises(ValueError, match="but that is the name of a collection; choose ano"):
            new.switch_alias(aliased.prefix + name)
    with pytest.raises(TypeError, match="alias is 3, but must be a name"):
        new.switch_alias(3)


def test_an_alias_is_checked_before_anything_is_done(aliased, encoder):
    index = aliased.open(encoder)
    for alias in ("two words", "a/b", ".", "a" * 256):
        with pytest.raises(ValueError, match=r"alias is .*, but must be 1 to 255"):
            index.create(alias=alias)
    assert index.metadata() is None
    index.create()
    with pytest.raises(ValueError, match=r"alias is 'two words', but must be 1 to 255"):
        index.switch_alias("two words")


@pytest.mark.parametrize("place", ["edge"], indirect=True)
def test_a_directory_has_no_aliases(place, encoder):
    index = place.open(encoder)
    with pytest.raises(NotImplementedError, match="is in a directory, where there are no aliases"):
        index.create(alias="current")
    assert index.metadata() is None
    index.create()
    with pytest.raises(NotImplementedError, match="or use a Qdrant server"):
        index.switch_alias("current")


def test_a_collection_is_dropped_by_its_own_name_with_its_aliases(aliased, encoder):
    alias = aliased.prefix + "current"
    first = aliased.open(encoder, "first")
    first.create(alias=alias)
    with pytest.raises(ValueError, match=r"is an alias of the collection .*; open an index by"):
        aliased.open(encoder, "current").drop()
    first.drop()
    again = aliased.open(encoder, "second")
    again.create(alias=alias)
    assert aliased.open(encoder, "current").count() == 0


def test_the_tenant_is_part_of_what_is_read(place, encoder):
    index = place.open(encoder, tenant_key="customer")
    index.create()
    index.add([("a", "oak", {"customer": "one", "lang": "en"})])
    assert [document.payload for document in index] == [{"customer": "one", "lang": "en"}]
    assert index.get(["a"])[0].payload == {"customer": "one", "lang": "en"}


def test_a_collection_is_not_reindexed_into_itself_by_its_alias(aliased, encoder):
    first = aliased.open(encoder, "first")
    first.create(alias=aliased.prefix + "current")
    by_alias = aliased.open(encoder, "current")
    for one, other in ((first, by_alias), (by_alias, first)):
        with pytest.raises(ValueError, match="which is the one that is read"):
            one.reindex(to=other)


def test_a_tenant_key_holds_for_whoever_opens_the_collection(place, encoder):
    with place.open(encoder, tenant_key="tenant") as index:
        index.create()
    with place.open(encoder) as again, pytest.raises(ValueError, match="tenant"):
        again.add([("a", "oak")])
    other = place.open(encoder, tenant_key="other")
    with pytest.raises(CollectionMismatch, match="tenant_key"):
        other.create()
