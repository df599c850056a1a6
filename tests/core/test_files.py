"""Whatever stands in a model directory, loading ends at once, with an error of ours."""

import json
import os
import random
import re
import shutil
import sys
from pathlib import Path

import pytest

from gte_core import ConfigError, GTEEmbedder, GTEError, WeightsError
from gte_core.checkpoint.files import listing, read_json, shortened, shown
from gte_core.checkpoint.hub import find_model

FILES = {
    "config.json": ConfigError,
    "tokenizer.json": ConfigError,
    "tokenizer_config.json": ConfigError,
    "special_tokens_map.json": ConfigError,
    "modules.json": ConfigError,
    "1_Pooling/config.json": ConfigError,
    "sentence_bert_config.json": ConfigError,
    "config_sentence_transformers.json": ConfigError,
    "model.safetensors": WeightsError,
    "model.safetensors.index.json": WeightsError,
    "model-00001-of-00001.safetensors": WeightsError,
}


@pytest.fixture
def described(tmp_path, small_checkpoint):
    """A checkpoint with every file that is read, its weights in one shard."""
    directory = tmp_path / "model"
    shutil.copytree(small_checkpoint, directory)
    (directory / "model.safetensors").rename(directory / "model-00001-of-00001.safetensors")
    kinds = {"": "Transformer", "1_Pooling": "Pooling"}
    (directory / "1_Pooling").mkdir()
    contents = {
        "modules.json": [
            {"path": path, "type": f"sentence_transformers.models.{kind}"}
            for path, kind in kinds.items()
        ],
        "1_Pooling/config.json": {"pooling_mode": "cls"},
        "sentence_bert_config.json": {"max_seq_length": 8192},
        "config_sentence_transformers.json": {"prompts": {}},
        "special_tokens_map.json": {},
        "model.safetensors.index.json": {"weight_map": {"x": "model-00001-of-00001.safetensors"}},
    }
    for name, content in contents.items():
        (directory / name).write_text(json.dumps(content))
    return directory


def test_a_directory_with_every_file_loads(described):
    assert GTEEmbedder.from_pretrained(described).encode("w1").dense.shape == (1, 64)


NO_FILES = {
    "a named pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a directory": lambda path: path.mkdir(),
}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
@pytest.mark.parametrize("kind", NO_FILES)
@pytest.mark.parametrize("name", FILES)
def test_what_is_no_regular_file_is_refused_unopened(described, name, kind):
    (described / name).unlink(missing_ok=True)
    NO_FILES[kind](described / name)
    with pytest.raises(FILES[name], match=f"is {kind}, no regular file"):
        GTEEmbedder.from_pretrained(described)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "1_Pooling/config.json"])
def test_a_link_to_nothing_is_a_missing_file(described, name):
    (described / name).unlink()
    (described / name).symlink_to(described / "nothing")
    with pytest.raises(ConfigError, match="does not exist"):
        GTEEmbedder.from_pretrained(described)


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".json")])
def test_a_file_far_too_large_is_refused_unread(described, name):
    os.truncate(described / name, 2**40)  # a hole: it takes no space
    with pytest.raises(FILES[name], match=r"1,099,511,627,776 bytes or more, but at most [\d,]+"):
        GTEEmbedder.from_pretrained(described)


def test_a_file_that_tells_no_size_is_read_to_the_limit_only(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    path.touch()
    os.truncate(path, 2**40)
    stat = Path.stat

    def without_size(path, **options):
        mode, *_ = found = stat(path, **options)
        return os.stat_result([mode, *found[1:6], 0, *found[7:]])

    monkeypatch.setattr(Path, "stat", without_size)
    with pytest.raises(ConfigError, match=r"is 4,194,305 bytes or more, but at most 4,194,304 are"):
        read_json(path, ConfigError)


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "\ud800"])
def test_a_path_that_cannot_be_is_our_error(tmp_path, name):
    with pytest.raises(GTEError, match="cannot be read"):
        read_json(tmp_path / name, ConfigError)


@pytest.mark.parametrize(
    "value",
    ["x" * 10**6, "\ud800" * 500, [[["x" * 999] * 999] * 999], {"a" * 999: 1}, 10**4000, 10**5000],
    ids=["text", "surrogates", "lists", "object", "number", "a number Python does not write"],
)
def test_a_quoted_value_is_short_and_can_be_printed(value):
    assert 5 < len(shown(value)) <= 200
    shown(value).encode()


def test_small_values_are_quoted_whole():
    for value in ("bert", ["a", "b"], {"a": 1}, None, 1.5, -1):
        assert shown(value) == repr(value)


def test_quoted_texts_and_lists_of_names_are_short():
    assert shortened("x" * 201) == "x" * 197 + "..."
    assert shortened("\ud800") == "\\ud800"
    assert len(listing(["x" * 5000] * 5000)) < 4200


def test_a_directory_of_strange_files_has_an_identity(described):
    (described / "tokenizer_config.json").unlink()
    assert find_model(described).origin.model.startswith("sha256:")


SCALAR = re.compile(rb'(?<=[:\[,])\s*("[^"]*"|-?\d[\d.e+-]*|true|false|null)')
STRANGE = [b"null", b"-1", b"1e400", b"[]", b"{}", b"true", b"9" * 12, b"9" * 30, b"9" * 5000]
STRANGE += [b'""', b'"\\ud800"', b'"' + b"x" * 5000 + b'"']


def mutant(content, chance):
    """The JSON in a file with another value in it, or with one byte changed."""
    if chance.random() < 0.5 and (values := list(SCALAR.finditer(content))):
        value = chance.choice(values)
        return content[: value.start()] + chance.choice(STRANGE) + content[value.end() :]
    place = chance.randrange(len(content))
    return content[:place] + chance.randbytes(1) + content[place + 1 :]


@pytest.mark.slow
def test_thousands_of_damaged_checkpoints_load_or_fail_with_a_short_error_of_ours(described):
    chance = random.Random(0)
    names = [name for name in FILES if name != "model.safetensors"]
    messages = [""]
    for _ in range(2000):
        path = described / chance.choice(names)
        content = path.read_bytes()
        if path.suffix == ".json":
            path.write_bytes(mutant(content, chance))
        else:
            end = 8 + int.from_bytes(content[:8], "little")
            header = mutant(content[8:end], chance)
            path.write_bytes(len(header).to_bytes(8, "little") + header + content[end:])
        try:
            GTEEmbedder.from_pretrained(described, device="cpu").encode("w1 é")
        except GTEError as error:
            messages.append(str(error))
        path.write_bytes(content)
    assert len(messages) > 500
    assert max(map(len, messages)) < 3000
