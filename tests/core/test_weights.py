import json
import re

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForTokenClassification

from gte_core import GTEModel, WeightsError
from gte_core.checkpoint.tensors import stored_tensors
from gte_core.testing import random_checkpoint

IDS = torch.tensor([[0, 20, 30, 40, 2]])


@pytest.fixture
def checkpoint(tmp_path):
    return random_checkpoint(tmp_path / "checkpoint")


def logits(directory):
    return GTEModel.from_pretrained(directory)(IDS).logits


def rewrite(directory, change):
    path = directory / "model.safetensors"
    save_file(change(load_file(path)), path)


def edit_config(directory, **fields):
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def renamed(pattern, replacement):
    return lambda tensors: {re.sub(pattern, replacement, k): v for k, v in tensors.items()}


def unpacked(tensors):
    split = {}
    for name, tensor in tensors.items():
        if ".qkv_proj." in name:
            for part, piece in zip("qkv", tensor.chunk(3), strict=True):
                split[name.replace("qkv_proj", f"{part}_proj")] = piece.contiguous()
        else:
            split[name] = tensor
    return split


LAYOUTS = {
    "bare": renamed(r"^new\.", ""),
    "gte. + original": renamed(r"^new\.", "gte."),
    "new.gte. + original": lambda t: renamed(r"^classifier", "new.classifier")(
        renamed(r"^new\.", "new.gte.")(t)
    ),
    "unpacked q, k, v": unpacked,
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_every_layout_gives_the_same_model(checkpoint, layout):
    expected = logits(checkpoint)
    rewrite(checkpoint, layout)
    assert logits(checkpoint).equal(expected)


@pytest.mark.parametrize("save_original_format", [True, False])
def test_what_transformers_saves_after_loading_the_original(
    checkpoint, tmp_path, save_original_format
):
    expected = logits(checkpoint)
    edit_config(
        checkpoint,
        model_type="gte",
        rope_scaling=None,
        rope_parameters={"rope_type": "linear", "rope_theta": 160_000, "factor": 8 ** (2 / 16)},
        architectures=["GteForTokenClassification"],
    )
    theirs = AutoModelForTokenClassification.from_pretrained(checkpoint, dtype=torch.float32)
    theirs.save_pretrained(tmp_path / "saved", save_original_format=save_original_format)
    torch.testing.assert_close(logits(tmp_path / "saved"), expected, atol=2e-5, rtol=0)


def test_shards(checkpoint):
    expected = logits(checkpoint)
    tensors = load_file(checkpoint / "model.safetensors")
    (checkpoint / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {"model-00001-of-00002.safetensors": names[::2]}
    shards["model-00002-of-00002.safetensors"] = names[1::2]
    for file, keys in shards.items():
        save_file({key: tensors[key] for key in keys}, checkpoint / file)
    index = {"weight_map": {key: file for file, keys in shards.items() for key in keys}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    assert logits(checkpoint).equal(expected)

    (checkpoint / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"names model-00002-of-00002\.safetensors, which is mi"):
        logits(checkpoint)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("{", "index.json is not valid JSON"),
        ("{}", "not a valid index"),
        ('{"weight_map": []}', "not a valid index"),
        ('{"weight_map": {"a": "../x.safetensors"}}', "names '../x.safetensors'; a shard is"),
        ('{"weight_map": {"a": "weights.bin"}}', "names 'weights.bin'; a shard is"),
        (
            '{"weight_map": {"a": "' + "x" * 5000 + '.safetensors"}}',
            r"names 'x+\.\.\.x+.*a shard is",
        ),
        ('{"weight_map": {"a": "\\ud800.safetensors"}}', r"names '\\ud800\.safetensors'; a shard"),
        ('{"weight_map": {"a": null}}', "names None; a shard is"),
        ('{"weight_map": {"a": {"b": []}}}', r"names \{'b': \[\]\}; a shard is"),
        ('{"weight_map": "' + "x" * 5000 + '"}', r"weight_map is 'x{1,200}\.\.\.x{1,200}'\. Dow"),
    ],
)
def test_a_bad_index_of_shards(checkpoint, index, message):
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "model.safetensors.index.json").write_text(index)
    with pytest.raises(WeightsError, match=message):
        logits(checkpoint)


def test_missing_unexpected_and_misshapen_are_reported_together(checkpoint):
    def damage(tensors):
        del tensors["new.encoder.layer.1.mlp.down_proj.bias"]
        tensors["new.extra.weight"] = torch.zeros(1)
        tensors["classifier.bias"] = torch.zeros(7)
        return tensors

    rewrite(checkpoint, damage)
    with pytest.raises(
        WeightsError,
        match=r"missing: encoder\.layer\.1\.mlp\.down_proj\.bias\. "
        r"unexpected: new\.extra\.weight\. "
        r"of another shape: classifier\.bias is \(7,\), config\.json wants \(1,\)",
    ):
        logits(checkpoint)


def test_one_missing_part_of_an_unpacked_projection(checkpoint):
    def without_k(tensors):
        tensors = unpacked(tensors)
        del tensors["new.encoder.layer.0.attention.k_proj.weight"]
        return tensors

    rewrite(checkpoint, without_k)
    with pytest.raises(
        WeightsError, match=r"missing: encoder\.layer\.0\.attention\.k_proj\.weight"
    ):
        logits(checkpoint)


def test_a_tensor_under_two_names_is_unexpected(checkpoint):
    def doubled(tensors):
        name = "embeddings.LayerNorm.bias"
        return tensors | {name: tensors[f"new.{name}"].clone()}

    rewrite(checkpoint, doubled)
    with pytest.raises(WeightsError, match=r"unexpected: (new\.)?embeddings\.LayerNorm\.bias"):
        logits(checkpoint)


def test_buffers_and_language_model_heads_are_passed_over(checkpoint):
    expected = logits(checkpoint)
    extra = ("lm_head.dense.weight", "new.embeddings.position_ids", "new.rotary_emb.inv_freq")
    rewrite(checkpoint, lambda tensors: tensors | {name: torch.zeros(3) for name in extra})
    assert logits(checkpoint).equal(expected)


def test_the_head_is_read_from_the_weights_when_the_config_is_silent(checkpoint):
    expected = logits(checkpoint)
    edit_config(checkpoint, architectures=["NewModel"], num_labels=None)
    assert logits(checkpoint).equal(expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_stored_types(tmp_path, dtype):
    expected = logits(random_checkpoint(tmp_path / "float32"))
    close = logits(random_checkpoint(tmp_path / "other", dtype=dtype))
    torch.testing.assert_close(close, expected, atol=0.3, rtol=0)


def test_integers_are_refused(checkpoint):
    name = "new.encoder.layer.0.mlp.down_proj.weight"
    rewrite(checkpoint, lambda tensors: tensors | {name: tensors[name].to(torch.int8)})
    with pytest.raises(WeightsError, match=rf"{name} .* is stored as I8; supported are F16"):
        logits(checkpoint)


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"\xff" * 8 + b"{}"])
def test_damaged_files(checkpoint, content):
    (checkpoint / "model.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match="not a readable safetensors file"):
        logits(checkpoint)


def test_a_truncated_file(checkpoint):
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="not a readable safetensors file"):
        logits(checkpoint)


def test_pickles_are_refused(checkpoint):
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"holds pytorch_model\.bin but no model\.safetensors"):
        logits(checkpoint)


def test_no_weights_at_all(checkpoint):
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match="holds neither"):
        logits(checkpoint)


def test_projections_that_do_not_fit_together(checkpoint):
    def uneven(tensors):
        tensors = unpacked(tensors)
        name = "new.encoder.layer.0.attention.k_proj.weight"
        return tensors | {name: torch.zeros(64, 65)}

    rewrite(checkpoint, uneven)
    with pytest.raises(WeightsError, match=r"qkv_proj\.weight is \(64, 65\), config\.json wants"):
        logits(checkpoint)


def test_scalars_where_vectors_belong(checkpoint):
    rewrite(checkpoint, lambda tensors: tensors | {"classifier.weight": torch.tensor(1.0)})
    edit_config(checkpoint, num_labels=None)
    with pytest.raises(WeightsError, match=r"classifier\.weight is \(\), config\.json wants"):
        logits(checkpoint)


def test_a_wrong_number_of_layers_is_found_before_anything_is_built(checkpoint):
    edit_config(checkpoint, num_hidden_layers=1000)
    with pytest.raises(WeightsError, match="has weights of 2 layers, but"):
        logits(checkpoint)


def test_weights_are_copied_from_the_file(checkpoint):
    model = GTEModel.from_pretrained(checkpoint)
    before = model(IDS).logits
    (checkpoint / "model.safetensors").write_bytes(b"")
    assert model(IDS).logits.equal(before)


def test_a_header_is_parsed_once_for_a_file_whatever_it_holds(checkpoint, monkeypatch):
    path = checkpoint / "model.safetensors"
    expected = logits(checkpoint)
    save_file(load_file(path), path, metadata={f"k{i}": "v" for i in range(10_000)})
    opened = []

    def counted(file, **options):
        opened.append(file)
        return safe_open(file, **options)

    monkeypatch.setattr("gte_core.checkpoint.tensors.safe_open", counted)
    assert logits(checkpoint).equal(expected)
    assert opened == [path]


def test_a_header_without_end_is_refused_unread(checkpoint):
    (checkpoint / "model.safetensors").write_bytes((2**30).to_bytes(8, "little") + b"{}")
    with pytest.raises(WeightsError, match="a header of 1,073,741,824 bytes; the limit is 16 MB"):
        logits(checkpoint)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        (f"new.encoder.layer.{'9' * 5000}.mlp.down_proj.bias", torch.zeros(3), "unexpected: new"),
        ("\u0669" * 9, torch.zeros(3), "unexpected"),
        ("x" * 5000, torch.zeros(3, dtype=torch.int8), r"x+\.\.\. in .* is stored as I8"),
    ],
    ids=["a layer's number", "digits of another script", "a name"],
)
def test_names_of_any_length_are_quoted_in_short(checkpoint, name, tensor, message):
    rewrite(checkpoint, lambda tensors: tensors | {name: tensor})
    with pytest.raises(WeightsError, match=message) as refused:
        logits(checkpoint)
    assert len(str(refused.value)) < 1000


def test_a_tensor_longer_than_any_memory_is_refused(checkpoint):
    path = checkpoint / "model.safetensors"
    header = {"classifier.weight": {"dtype": "F32", "shape": [2**62, 0], "data_offsets": [0, 0]}}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(WeightsError, match=r"'classifier\.weight' has the shape \(46116860184"):
        logits(checkpoint)


def test_projections_without_axes(checkpoint):
    def scalars(tensors):
        tensors = unpacked(tensors)
        names = [f"new.encoder.layer.0.attention.{part}_proj.weight" for part in "qkv"]
        return tensors | {name: torch.tensor(1.0) for name in names}

    rewrite(checkpoint, scalars)
    with pytest.raises(WeightsError, match=r"qkv_proj\.weight is \(\), config\.json wants"):
        logits(checkpoint)


def test_a_file_that_shrinks_while_it_is_read(checkpoint):
    tensors = stored_tensors(checkpoint / "model.safetensors")
    (checkpoint / "model.safetensors").write_bytes(b"")
    with pytest.raises(WeightsError, match="ends too early"):
        next(tensors[0].blocks())
