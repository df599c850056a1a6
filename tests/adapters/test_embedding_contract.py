"""What the embedding classes of both frameworks promise beyond their frameworks' own tests."""

import asyncio
import logging
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from operator import methodcaller
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from gte_integrations.langchain import GTECrossEncoder, GTEEmbeddings
from gte_integrations.llama_index import GTEEmbedding, GTERerank

TEXTS = ["Printing a brochure", "Rechtschreibung prüfen", "", "表格", "x" * 2000]


@dataclass
class Face:
    """One way of asking each framework's class the same things."""

    embeddings: Any
    names: dict[str, str]

    def __getattr__(self, name):
        return getattr(self.embeddings, self.names[name])


def face(framework, **options):
    options = {"on_truncation": "ignore"} | options
    if framework == "langchain":
        names = {
            "documents": "embed_documents",
            "query": "embed_query",
            "adocuments": "aembed_documents",
            "aquery": "aembed_query",
        }
        return Face(GTEEmbeddings(model="demo", **options), names)
    names = {
        "documents": "get_text_embedding_batch",
        "query": "get_query_embedding",
        "adocuments": "aget_text_embedding_batch",
        "aquery": "aget_query_embedding",
    }
    return Face(GTEEmbedding(model_name="demo", **options), names)


@pytest.fixture(params=["langchain", "llama_index"])
def make(request):
    return partial(face, request.param)


def test_nothing_in_nothing_out(make):
    assert make().documents([]) == []


def test_the_same_text_gives_the_same_vector(make):
    embeddings = make()
    assert embeddings.documents(TEXTS) == embeddings.documents(TEXTS)
    np.testing.assert_allclose(
        embeddings.documents(TEXTS)[::-1], make().documents(TEXTS[::-1]), atol=1e-5
    )
    np.testing.assert_allclose(
        [embeddings.query(text) for text in TEXTS], embeddings.documents(TEXTS), atol=1e-5
    )


@pytest.mark.parametrize("dimensions", [None, 128, 32])
def test_vectors_have_length_one_and_python_floats(make, dimensions):
    vectors = make(dimensions=dimensions).documents(TEXTS)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert {len(vector) for vector in vectors} == {dimensions or 256}
    assert {type(number) for number in vectors[0]} == {float}


async def test_async_equals_sync(make):
    embeddings = make()
    assert await embeddings.adocuments(TEXTS) == embeddings.documents(TEXTS)
    assert await embeddings.aquery(TEXTS[0]) == embeddings.query(TEXTS[0])


def test_a_spawned_worker_gives_the_same_vectors(make):
    embeddings = make()
    expected = embeddings.query(TEXTS[0])
    ask = methodcaller(embeddings.names["query"], TEXTS[0])
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = pool.submit(ask, embeddings.embeddings).result()
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_truncation_is_logged(make, caplog):
    with caplog.at_level(logging.WARNING):
        make(max_length=16, on_truncation="warn").documents(TEXTS)
    assert "1 text(s) were longer than max_length=16" in caplog.text


async def test_the_loop_is_never_blocked_for_50_ms(make):
    embeddings = make(max_length=4321)
    embeddings.query("warm up")
    for attempt in range(20):  # the machine itself may pause us now and then
        if await longest_pause(embeddings, attempt) < 0.05:
            return
    pytest.fail("the loop was blocked every time")


async def longest_pause(embeddings, attempt):
    """Longest time, in seconds, for which the event loop did not run during an embedding."""
    loop = asyncio.get_running_loop()
    longest, last = 0.0, loop.time()
    work = asyncio.ensure_future(
        embeddings.adocuments([f"{attempt} {number} " * 60 for number in range(64)])
    )
    while not work.done():
        await asyncio.sleep(0.001)
        longest, last = max(longest, loop.time() - last), loop.time()
    await work
    return longest


@pytest.mark.parametrize(
    ("make", "foreign", "advice"),
    [
        (GTEEmbeddings, "model_name", "pass model"),
        (GTEEmbeddings, "model_name_or_path", "pass model"),
        (GTEEmbeddings, "model_kwargs", "pass what it holds by name"),
        (GTEEmbeddings, "encode_kwargs", "vectors have length 1"),
        (GTEEmbeddings, "trust_remote_code", "no code of a model's repository is ever run"),
        (GTEEmbeddings, "show_progress", "this draws no bar"),
        (GTECrossEncoder, "model_name", "pass model"),
        (GTECrossEncoder, "model_kwargs", "pass what it holds by name"),
        (GTEEmbedding, "model", "pass model_name"),
        (GTEEmbedding, "batch_size", "packed by their tokens"),
        (GTEEmbedding, "trust_remote_code", "no code of a model's repository is ever run"),
        (GTEEmbedding, "query_instruction", "pass query_prefix"),
        (GTERerank, "model", "pass model_name"),
        (GTERerank, "top_k", "pass .* top_n"),
    ],
)
def test_a_field_of_another_library_is_refused_with_ours(make, foreign, advice):
    with pytest.raises(ValidationError, match=f"'{foreign}' is no argument here, .*{advice}"):
        make(**{foreign: 1})


@pytest.mark.parametrize("make", [GTEEmbeddings, GTECrossEncoder, GTEEmbedding, GTERerank])
def test_a_typo_of_a_field_is_refused(make):
    with pytest.raises(ValidationError, match=r"max_lenght\n +Extra inputs are not permitted"):
        make(max_lenght=3)
