"""What a message shows of a location."""

import pytest

from gte_integrations._index.masking import masked
from gte_integrations.milvus import MilvusHybridIndex
from gte_integrations.qdrant import QdrantHybridIndex


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://user:secret@host:6333", "http://user:***@host:6333"),
        ("https://secret@host", "https://***@host"),
        ("https://secret:@host", "https://***@host"),
        ("https://:secret@host", "https://:***@host"),
        ("qdrant+http://user:se@cr/et?#@host/path", "qdrant+http://user:***@host/path"),
        ("https://host/db?token=secret&name=x#part", "https://host/db?token=***&name=***#part"),
        ("user:secret@host:6333", "user:***@host:6333"),
        ("http//user:secret@host", "http//user:***@host"),
        (
            "no answer from 'http://user:secret@host', code 2; mail a:b@c",
            "no answer from 'http://user:***@host', code 2; mail a:b@c",
        ),
    ],
)
def test_secrets_are_stars(text, shown):
    assert masked(text) == shown


@pytest.mark.parametrize(
    "text", ["./index", "/home/me@work/index.db", "http://host:6333/path", "C:\\notes", "a?b=c", ""]
)
def test_everything_else_stays(text):
    assert masked(text) == text


@pytest.mark.parametrize(
    ("index", "location"),
    [
        (QdrantHybridIndex, "grpc://user:secret@host:6334"),
        (QdrantHybridIndex, "user:secret@host:6333"),
        (MilvusHybridIndex, "user:secret@host:19530"),
        (MilvusHybridIndex, "http//user:secret@host:19530/index.db"),
    ],
)
def test_errors_about_a_bad_location_show_no_password(index, location, encoder):
    with pytest.raises((ValueError, FileNotFoundError), match=r"user:\*\*\*@host") as error:
        index(location, "docs", encoder)
    assert "secret" not in str(error.value)
