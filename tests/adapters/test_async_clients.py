"""An index on an async client: the awaited verbs, each equal to its twin on a client that waits."""

import asyncio

import pytest
from pymilvus import AsyncMilvusClient, MilvusClient
from qdrant_client import AsyncQdrantClient, models

from gte_core import CollectionMismatch
from gte_integrations._index.bridge import Bridge
from gte_integrations.milvus import MilvusHybridIndex
from gte_integrations.qdrant import RRF, QdrantHybridIndex

DOCUMENTS = [(n, f"text number {n}", {"lang": "en" if n % 3 else "de"}) for n in range(60)]
QUERIES = ["text number 7", "number", ""]


@pytest.fixture
async def qdrant_client():
    client = AsyncQdrantClient(":memory:")
    yield client
    await client.close()


@pytest.fixture
def qdrant(qdrant_client, encoder):
    return QdrantHybridIndex(qdrant_client, "docs", encoder)


@pytest.fixture
async def milvus_client(encoder, milvus_process):
    # Milvus Lite lacks the call with which this client would wait for an index.
    with MilvusHybridIndex(milvus_process.uri, "docs", encoder) as index:
        index.create()
    client = AsyncMilvusClient(milvus_process.uri)
    yield client
    await client.close()


@pytest.fixture
def milvus(milvus_client, encoder):
    return MilvusHybridIndex(milvus_client, "docs", encoder)


@pytest.fixture(params=["qdrant", "milvus"])
def engine(request):
    return request.param


@pytest.fixture
def client(request, engine):
    return request.getfixturevalue(f"{engine}_client")


@pytest.fixture
def index(request, engine):
    return request.getfixturevalue(engine)


@pytest.fixture
def german(index):
    if isinstance(index, MilvusHybridIndex):
        return 'lang == "de"'
    condition = models.FieldCondition(key="lang", match=models.MatchValue(value="de"))
    return models.Filter(must=[condition])


@pytest.fixture
def waiting(make_place, tmp_path, encoder):
    """The same documents in an index that waits."""
    place = make_place("edge", tmp_path)
    index = place.open(encoder)
    index.create()
    index.add(DOCUMENTS)
    yield index
    place.close()


async def test_every_awaited_verb_works(index, waiting, german):
    await index.acreate()
    await index.acreate()
    report = await index.aadd(DOCUMENTS, batch_size=25)
    assert (report.written, await index.acount()) == (60, 60)
    assert (await index.aadd(DOCUMENTS)).unchanged == 60
    for options in ({}, {"fusion": RRF()}, {"mode": "sparse"}, {"payload_keys": ()}):
        found = await index.asearch(QUERIES, **options)
        for hits, expected in zip(found, waiting.search(QUERIES, **options), strict=True):
            assert [(hit.id, hit.text, hit.payload) for hit in hits] == [
                (hit.id, hit.text, hit.payload) for hit in expected
            ]
            scores = [hit.score for hit in expected]
            assert [hit.score for hit in hits] == pytest.approx(scores, abs=1e-5)
    [hits] = await index.asearch("text", filter=german)
    assert {hit.payload["lang"] for hit in hits} == {"de"}
    explanation = await index.aexplain("number 7", 7)
    assert explanation.score == pytest.approx(waiting.explain("number 7", 7).score, abs=1e-5)
    await index.aoptimize()
    assert await index.adelete([0, 1, "unknown"]) == 2
    assert await index.acount() == 58


async def test_many_searches_share_the_loop(index):
    await index.acreate()
    await index.aadd(DOCUMENTS)
    found = await asyncio.gather(*(index.asearch(text, limit=1) for _, text, _ in DOCUMENTS))
    assert [hits[0].id for [hits] in found] == list(range(60))


async def test_the_client_stays_usable_and_open(index, client):
    await index.acreate()
    await index.aadd(DOCUMENTS)
    index.close()
    if isinstance(client, AsyncMilvusClient):
        assert await client.has_collection("docs")
    else:
        assert await client.collection_exists("docs")
    assert await index.acount() == 60


async def test_a_cancelled_aadd_leaves_a_sound_collection(index):
    await index.acreate()
    reached = asyncio.Event()
    loop = asyncio.get_running_loop()

    def documents():
        for number in range(100_000):
            if number == 50:
                loop.call_soon_threadsafe(reached.set)
            yield number, f"text {number}"

    task = asyncio.create_task(index.aadd(documents(), batch_size=10))
    await reached.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert 0 < await index.acount() < 50_000
    assert (await index.aadd((n, f"text {n}") for n in range(60))).total == 60


async def test_documents_are_read_and_removed(index, waiting, german):
    await index.acreate()
    await index.aadd(DOCUMENTS)
    assert await index.aget([3, 99, 1]) == waiting.get([3, 1])
    found = {document.id async for document in index.adocuments(filter=german)}
    assert found == set(range(0, 60, 3))
    [document, *_] = [one async for one in index.adocuments(with_vectors=True)]
    assert document.dense.shape == (32,)
    assert await index.adelete(filter=german) == len(found)
    assert await index.aprune([1, 2, 99]) == 58 - len(found)
    await index.adrop()
    assert await index.ametadata() is None


async def test_what_an_async_client_lacks_is_named(milvus_client):
    bridge = Bridge(milvus_client)
    bridge.enter()
    with pytest.raises(
        NotImplementedError, match=r"AsyncMilvusClient has no query_iterator, .* pass a MilvusCli"
    ):
        await asyncio.to_thread(bridge.query_iterator)


async def test_verbs_that_wait_are_refused(index):
    for verb in (
        index.create,
        index.count,
        lambda: index.add(DOCUMENTS),
        lambda: index.search("x"),
        lambda: index.delete([1]),
        lambda: index.explain("x", 1),
    ):
        with pytest.raises(RuntimeError, match="works in its event loop alone; await the verb"):
            verb()
    await index.acreate()
    with pytest.raises(RuntimeError, match="works in its event loop alone; await the verb"):
        index.search("x")


def test_verbs_that_wait_are_refused_without_a_loop(encoder):
    client = AsyncQdrantClient(":memory:")
    index = QdrantHybridIndex(client, "docs", encoder)
    asyncio.run(index.acreate())
    with pytest.raises(RuntimeError, match="an AsyncQdrantClient, which works in its event loop"):
        index.count()
    asyncio.run(client.close())


async def test_another_thread_may_wait(index):
    await index.acreate()
    await index.aadd(DOCUMENTS)
    assert await asyncio.to_thread(index.count) == 60


async def test_errors_are_those_of_the_verbs_that_wait(index, client, encoder):
    missing = type(index)(client, "missing", encoder)
    with pytest.raises(LookupError, match=r"does not exist; call create\(\) first"):
        await missing.acount()
    await index.acreate()
    other = type(index)(client, "docs", encoder, dimensions=8)
    with pytest.raises(CollectionMismatch, match="dimensions: the collection has 32, this index"):
        await other.acreate()


async def test_the_loop_goes_on_while_documents_are_added(milvus):
    ticks = 0
    adding = asyncio.create_task(milvus.aadd((n, f"text {n}") for n in range(500)))
    while not adding.done():
        await asyncio.sleep(0.005)
        ticks += 1
    assert (await adding).written == 500
    assert ticks > 5


async def test_a_collection_in_milvus_lite_is_made_by_a_client_that_waits(milvus_client, encoder):
    other = MilvusHybridIndex(milvus_client, "other", encoder)
    with pytest.raises(NotImplementedError, match=r"call create\(\) once on an index with a Mil"):
        await other.acreate()


async def test_a_collection_of_one_client_is_read_by_the_other(milvus, milvus_process, encoder):
    await milvus.acreate()
    await milvus.aadd(DOCUMENTS)
    client = MilvusClient(milvus_process.uri)
    index = MilvusHybridIndex(client, "docs", encoder)
    assert index.add(DOCUMENTS).unchanged == 60
    client.close()
