import pytest

from gte_core import Fingerprint, as_queries


def test_fingerprints_show_what_they_compare():
    fingerprint = Fingerprint("Alibaba-NLP/gte-multilingual-base", "9bbca17d9273fd0d", 8192)
    assert (
        str(fingerprint) == "Alibaba-NLP/gte-multilingual-base@9bbca17d9273 max_length=8192 float"
    )
    assert fingerprint != Fingerprint(fingerprint.model, fingerprint.revision, 512)


def test_queries_without_a_prefix(small):
    assert as_queries(small, "a") == ["a"]
    assert as_queries(small, iter(["a", "b"])) == ["a", "b"]


def test_what_is_no_query_is_named(small):
    with pytest.raises(TypeError, match=r"queries\[1\] must be a str, got int"):
        as_queries(small, ["a", 1])
