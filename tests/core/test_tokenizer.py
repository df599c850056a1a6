import json
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from gte_core import ConfigError
from gte_core.testing import random_checkpoint
from gte_core.texts import encodable
from gte_core.tokenizer import GTETokenizer


@pytest.fixture(scope="module")
def s3(golden):
    return json.loads((golden / "s3_gte_embedding_script" / "expected.json").read_text())


@pytest.fixture(scope="module")
def tokenizer(golden):
    return GTETokenizer.from_pretrained(golden / "s3_gte_embedding_script" / "model")


def test_ids_equal_the_original(tokenizer, s3):
    tokenized = tokenizer.tokenize(s3["texts"], 8192)
    assert [text.ids for text in tokenized] == s3["input_ids"]
    assert not any(text.truncated for text in tokenized)


def test_truncated_ids_equal_the_original(tokenizer, s3):
    tokenized = tokenizer.tokenize(s3["texts"], 8)
    assert [text.ids for text in tokenized] == s3["truncated"]["input_ids"]
    assert [text.truncated for text in tokenized] == [len(ids) > 8 for ids in s3["input_ids"]]


def test_special_ids_come_from_the_files(tokenizer, s3, tmp_path, golden):
    assert sorted(tokenizer.dropped_ids) == s3["special_ids_removed"]
    source = golden / "s3_gte_embedding_script" / "model" / "tokenizer.json"
    shutil.copy(source, tmp_path)
    (tmp_path / "special_tokens_map.json").write_text('{"unk_token": {"content": "<unk>"}}')
    assert sorted(GTETokenizer.from_pretrained(tmp_path).dropped_ids) == [0, 2, 3]
    (tmp_path / "special_tokens_map.json").write_text('{"pad_token": "<pad>", "mask_token": "x"}')
    assert sorted(GTETokenizer.from_pretrained(tmp_path).dropped_ids) == [0, 1, 2, 3]
    (tmp_path / "special_tokens_map.json").unlink()
    assert sorted(GTETokenizer.from_pretrained(tmp_path).dropped_ids) == [0, 2, 3]
    assert sorted(GTETokenizer.from_pretrained(tmp_path, pad_token_id=9).dropped_ids) == [
        0,
        2,
        3,
        9,
    ]


def test_decoded_tokens_and_pieces(tokenizer, s3):
    ids = s3["input_ids"][3]
    assert [tokenizer.piece(i) for i in ids] == s3["tokens"][3]
    assert [tokenizer.decode_token(i) for i in ids[1:4]] == ["foo", "bar", "foo"]
    assert tokenizer.piece(10**6) == "<1000000>"


def test_the_former_name_warns_and_does_the_same(tokenizer):
    with pytest.warns(DeprecationWarning, match="GTETokenizer.encode is now called tokenize"):
        assert tokenizer.encode(["foo"], 9) == tokenizer.tokenize(["foo"], 9)


@given(st.text(st.characters(exclude_categories=()), max_size=50))
def test_any_string_can_be_tokenized(tokenizer, text):
    (tokenized,) = tokenizer.tokenize([text], 16)
    assert 2 <= len(tokenized) <= 16


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_proper_text_is_never_changed(text):
    assert encodable(text) is text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\ud800b", "a\ufffdb"),
        ("\udfff", "\ufffd"),
        ("x\ud83d", "x\ufffd"),
        ("\ud83d\ude00", "\U0001f600"),
        ("\ude00\ud83d", "\ufffd\ufffd"),
    ],
)
def test_lone_surrogates_become_the_replacement_character(text, expected):
    assert encodable(text) == expected


@pytest.mark.parametrize("unit", ["w1 w2 w3 ", "ab", "w1" + 90 * " ", " "])
def test_a_text_far_too_long_gives_the_ids_of_the_whole(tmp_path, unit):
    tokenizer = GTETokenizer.from_pretrained(random_checkpoint(tmp_path))
    text = unit * 30_000
    whole = tokenizer.tokenize([text], 10**6)[0].ids
    expected = whole if len(whole) <= 64 else whole[:63] + whole[-1:]
    assert tokenizer.tokenize(["w5", text, ""], 64)[1].ids == expected


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "tokenizer.json does not exist"),
        ({"tokenizer.json": "{}"}, "not a valid tokenizer"),
        ({"tokenizer.json": '{"normalizer": {"type": "Precompiled"}}'}, "not a valid tokenizer"),
        ({"tokenizer_config.json": "{"}, "tokenizer_config.json is not valid JSON"),
        ({"special_tokens_map.json": "[]"}, "must hold a JSON object"),
    ],
)
def test_bad_files(tmp_path, golden, files, message):
    if files and "tokenizer.json" not in files:
        shutil.copy(golden / "s3_gte_embedding_script" / "model" / "tokenizer.json", tmp_path)
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=message):
        GTETokenizer.from_pretrained(tmp_path)


def test_a_tokenizer_without_special_tokens(tmp_path):
    path = random_checkpoint(tmp_path) / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"post_processor": None}))
    with pytest.raises(ConfigError, match="puts no special token before a text"):
        GTETokenizer.from_pretrained(tmp_path)


def test_a_word_piece_tokenizer(tmp_path):
    vocabulary = {token: i for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "foo"])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_padding(length=9)
    tokenizer.enable_truncation(3)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    loaded = GTETokenizer.from_pretrained(tmp_path, pad_token_id=0)
    assert sorted(loaded.dropped_ids) == [0, 1, 2, 3]
    assert [text.ids for text in loaded.tokenize(["foo bar foo", ""], 9)] == [
        [2, 4, 1, 4, 3],
        [2, 3],
    ]


def test_special_tokens_written_in_a_text_are_those_tokens(tokenizer):
    (tokenized,) = tokenizer.tokenize(["<s> a </s> <mask>"], 99)
    assert {0, 2, 235} <= set(tokenized.ids)


def test_roles_in_either_file_count(tmp_path, golden):
    shutil.copy(golden / "s3_gte_embedding_script" / "model" / "tokenizer.json", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"pad_token": {"content": "<pad>"}}')
    (tmp_path / "special_tokens_map.json").write_text('{"sep_token": "▁foo", "unk_token": "<unk>"}')
    assert sorted(GTETokenizer.from_pretrained(tmp_path).dropped_ids) == [0, 1, 2, 3, 92]


def rewrite(directory, **fields):
    path = directory / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer_config.json", {"pad_token": "\ud800"}),
        ("special_tokens_map.json", {"unk_token": {"content": "a\udfff" + "x" * 5000}}),
    ],
)
def test_a_special_token_that_is_no_text(tmp_path, name, content):
    random_checkpoint(tmp_path)
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(
        ConfigError, match=rf"{name}: \w+_token is '.*, which is no text"
    ) as refused:
        GTETokenizer.from_pretrained(tmp_path)
    assert len(str(refused.value)) < 500


def word_level(vocabulary, **options):
    tokenizer = Tokenizer(models.WordLevel(vocabulary, **options))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 0)]
    )
    return tokenizer


def test_a_pipeline_that_fails_at_a_text_is_refused_when_it_is_loaded(tmp_path):
    word_level({"<s>": 0, "a": 1}, unk_token="<none>").save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ConfigError, match=r"is not a valid tokenizer \(.*WordLevel"):
        GTETokenizer.from_pretrained(tmp_path)


def test_ids_that_leave_gaps_are_counted_to_the_largest(tmp_path):
    tokenizer = word_level({"<s>": 0, "[UNK]": 1, "a": 10**6}, unk_token="[UNK]")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert GTETokenizer.from_pretrained(tmp_path).largest_id == 10**6


@pytest.mark.parametrize(
    "model", [{"unk_id": 7}, {"unk_id": "x"}, {"unk_id": -1}, {"unk_id": 10**30}]
)
def test_a_place_that_is_none_of_the_vocabulary(tmp_path, model):
    random_checkpoint(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    word_level({"<s>": 0, "[UNK]": 1}, unk_token="[UNK]").save(str(tmp_path / "tokenizer.json"))
    fields = json.loads((tmp_path / "tokenizer.json").read_text())["model"]
    rewrite(tmp_path, model=fields | model)
    assert sorted(GTETokenizer.from_pretrained(tmp_path).dropped_ids) == [0, 1]


def test_what_the_library_says_is_quoted_in_short(tmp_path):
    random_checkpoint(tmp_path)
    rewrite(tmp_path, model={"type": "x" * 5000})
    with pytest.raises(ConfigError, match="is not a valid tokenizer") as refused:
        GTETokenizer.from_pretrained(tmp_path)
    assert len(str(refused.value)) < 500
