import numpy as np
import pytest
import torch
from transformers import (
    GteConfig,
    GteForMaskedLM,
    GteForSequenceClassification,
    GteForTokenClassification,
    GteModel,
)

from gte_core import GTEModel, MissingHeadError
from gte_core.network.attention import PackLayout
from gte_core.testing import random_checkpoint

TOLERANCE = 2e-5


def load_golden(golden, case):
    expected = np.load(golden / case / "expected.npz")
    model = GTEModel.from_pretrained(golden / case / "model")
    ids, mask = (torch.from_numpy(expected[name]) for name in ("input_ids", "attention_mask"))
    return model, ids, mask, expected


@pytest.mark.parametrize("case", ["s1_tokencls_ntk", "s2_seqcls_reranker"])
def test_hidden_states_equal_the_original(golden, case):
    model, ids, mask, expected = load_golden(golden, case)
    hidden = model(ids, mask).last_hidden_state.numpy()
    real = expected["attention_mask"] == 1
    np.testing.assert_allclose(hidden[real], expected["last_hidden_state"][real], atol=TOLERANCE)
    assert not hidden[~real].any()


def test_token_logits_equal_the_original(golden):
    model, ids, mask, expected = load_golden(golden, "s1_tokencls_ntk")
    out = model(ids, mask)
    real = expected["attention_mask"] == 1
    np.testing.assert_allclose(out.logits[real], expected["logits"][real], atol=TOLERANCE)
    assert out.pooler_output is None
    assert model.has_sparse


def test_sequence_logits_and_pooler_equal_the_original(golden):
    model, ids, mask, expected = load_golden(golden, "s2_seqcls_reranker")
    out = model(ids, mask)
    np.testing.assert_allclose(out.logits, expected["logits"], atol=TOLERANCE)
    np.testing.assert_allclose(out.pooler_output, expected["pooler_output"], atol=TOLERANCE)
    assert not model.has_sparse


def native(cls, seed=0, **fields):
    """A random transformers model, its LayerNorms and biases away from their neutral start."""
    config = GteConfig(
        **{
            "vocab_size": 300,
            "hidden_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "intermediate_size": 80,
            "rope_parameters": {"rope_type": "linear", "rope_theta": 160_000.0, "factor": 1.0671},
            "num_labels": 1,
        }
        | fields
    )
    model = cls(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def padded_batch(lengths=(7, 1, 40, 23), vocab_size=300):
    generator = torch.Generator().manual_seed(1)
    mask = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
    for row, length in enumerate(lengths):
        mask[row, :length] = 1
    ids = torch.randint(5, vocab_size, mask.shape, generator=generator)
    return torch.where(mask == 1, ids, 1), mask


SHAPES = {
    "linear": {},
    "default": {"rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0}},
    "no types": {"type_vocab_size": 0},
    "two types": {"type_vocab_size": 2},
    "wide": {"hidden_size": 96, "num_attention_heads": 3, "intermediate_size": 40},
    "one layer, one head": {"num_hidden_layers": 1, "num_attention_heads": 1},
}


@pytest.mark.parametrize("fields", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("save_original_format", [True, False])
def test_encoder_agrees_with_transformers(tmp_path, fields, save_original_format):
    theirs = native(GteModel, **fields)
    theirs.save_pretrained(tmp_path, save_original_format=save_original_format)
    ids, mask = padded_batch()
    ours = GTEModel.from_pretrained(tmp_path)(ids, mask)
    expected = theirs(ids, attention_mask=mask).last_hidden_state.detach()
    real = mask == 1
    torch.testing.assert_close(ours.last_hidden_state[real], expected[real], atol=2e-5, rtol=0)
    assert ours.logits is None


@pytest.mark.parametrize("cls", [GteForTokenClassification, GteForSequenceClassification])
@pytest.mark.parametrize("save_original_format", [True, False])
def test_heads_agree_with_transformers(tmp_path, cls, save_original_format):
    theirs = native(cls)
    theirs.save_pretrained(tmp_path, save_original_format=save_original_format)
    ids, mask = padded_batch()
    logits = GTEModel.from_pretrained(tmp_path)(ids, mask).logits
    expected = theirs(ids, attention_mask=mask).logits.detach()
    if cls is GteForTokenClassification:
        logits, expected = logits[mask == 1], expected[mask == 1]
    torch.testing.assert_close(logits, expected, atol=2e-5, rtol=0)


def test_the_language_model_head_is_left_out(tmp_path):
    theirs = native(GteForMaskedLM)
    theirs.save_pretrained(tmp_path)
    ids, mask = padded_batch()
    ours = GTEModel.from_pretrained(tmp_path)(ids, mask).last_hidden_state
    expected = theirs.gte(ids, attention_mask=mask).last_hidden_state.detach()
    torch.testing.assert_close(ours[mask == 1], expected[mask == 1], atol=2e-5, rtol=0)


def test_token_types_count_only_where_the_model_has_two(tmp_path):
    ids, mask = padded_batch()
    types = (torch.arange(ids.shape[1]) > 3).long().expand_as(ids).contiguous()
    given = types.clone()
    theirs = native(GteModel, type_vocab_size=2)
    theirs.save_pretrained(tmp_path / "two")
    ours = GTEModel.from_pretrained(tmp_path / "two")(ids, mask, types).last_hidden_state
    expected = theirs(ids, attention_mask=mask, token_type_ids=types).last_hidden_state.detach()
    torch.testing.assert_close(ours[mask == 1], expected[mask == 1], atol=2e-5, rtol=0)

    one = GTEModel.from_pretrained(random_checkpoint(tmp_path / "one"))
    with_types, without = one(ids, mask, types), one(ids, mask)
    assert with_types.last_hidden_state.equal(without.last_hidden_state)
    assert types.equal(given)


@pytest.fixture(scope="module")
def model(small_checkpoint):
    return GTEModel.from_pretrained(small_checkpoint)


def test_padding_on_either_side_gives_the_same_states(model):
    ids, mask = padded_batch((5, 9))
    row = ids[:1, :5]
    alone = model(row).last_hidden_state[0]
    shifted = torch.cat((torch.ones(1, 4, dtype=torch.long), row), dim=1)
    left = model(shifted, (torch.arange(9) >= 4).long()[None]).last_hidden_state
    right = model(ids, mask).last_hidden_state
    torch.testing.assert_close(right[0, :5], alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(left[0, 4:], alone, atol=1e-5, rtol=0)


def test_holes_in_the_mask_keep_their_places(tmp_path):
    theirs = native(GteModel)
    theirs.save_pretrained(tmp_path)
    ids, mask = padded_batch((12, 12))
    mask[0, 3:6] = 0
    ours = GTEModel.from_pretrained(tmp_path)(ids, mask).last_hidden_state
    expected = theirs(ids, attention_mask=mask).last_hidden_state.detach()
    torch.testing.assert_close(ours[mask == 1], expected[mask == 1], atol=2e-5, rtol=0)


def test_angles_are_computed_in_float32_whatever_the_type(small_checkpoint, model):
    ids = torch.randint(5, 500, (1, 4000), generator=torch.Generator().manual_seed(2))
    half = GTEModel.from_pretrained(small_checkpoint, dtype="bfloat16")
    states, expected = half(ids).last_hidden_state[0], model(ids).last_hidden_state[0]
    assert torch.cosine_similarity(states.float(), expected).min() > 0.998


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((torch.ones(3, dtype=torch.long),), r"input_ids has the shape \(3,\)"),
        ((torch.ones(2, 0, dtype=torch.long),), "a length of at least 1"),
        ((torch.ones(1, 3, dtype=torch.long), torch.ones(1, 4)), "attention_mask has the shape"),
        ((torch.ones(1, 2, dtype=torch.long), torch.tensor([[0.0, -9e9]])), "negative numbers"),
    ],
)
def test_batches_that_cannot_be_meant(model, batch, message):
    with pytest.raises(ValueError, match=message):
        model(*batch)


def test_a_device_that_is_not_there(small_checkpoint):
    with pytest.raises(ValueError, match="device is 'gpu'; allowed are 'cpu'"):
        GTEModel.from_pretrained(small_checkpoint, device="gpu")
    for absent in ("cpu:1", "cuda:99", "hpu"):
        with pytest.raises(ValueError, match=f"device is '{absent}', but this machine .* has none"):
            GTEModel.from_pretrained(small_checkpoint, device=absent)
    assert GTEModel.from_pretrained(small_checkpoint, device="meta").device.type == "meta"


def test_sequence_logits_with_left_padding(tmp_path):
    path = random_checkpoint(tmp_path, task="sequence_classification")
    model = GTEModel.from_pretrained(path)
    row = torch.tensor([[0, 7, 8, 9, 2]])
    padded = torch.cat((torch.ones(1, 3, dtype=torch.long), row), dim=1)
    mask = (torch.arange(8) >= 3).long()[None]
    torch.testing.assert_close(model(padded, mask).logits, model(row).logits, atol=1e-5, rtol=0)


def test_mask_may_be_bool_or_float(model):
    ids, mask = padded_batch()
    expected = model(ids, mask).last_hidden_state
    assert model(ids, mask.bool()).last_hidden_state.equal(expected)
    assert model(ids, mask.float()).last_hidden_state.equal(expected)


def test_a_row_of_padding_alone_is_zeros(model):
    ids, mask = padded_batch((4, 6))
    mask[0] = 0
    out = model(ids, mask)
    assert not out.last_hidden_state[0].any()
    assert not out.logits[0].any()
    assert out.last_hidden_state[1].any()


def test_packed_equals_padded(model):
    ids, mask = padded_batch()
    lengths = mask.sum(1).tolist()
    layout = PackLayout.from_lengths(lengths, device=ids.device)
    packed = model.compute_pack(ids[mask == 1], layout)
    assert packed.equal(model(ids, mask).last_hidden_state[mask == 1])
    first = packed[layout.cls_indices]
    assert first.equal(model(ids, mask).last_hidden_state[:, 0])


def test_former_names_warn_and_compute_the_same(model):
    pack = model.lay_out([[0, 7, 2], [0, 2]])
    with pytest.warns(DeprecationWarning, match="GTEModel.encode_pack is now called compute_pack"):
        assert model.encode_pack(*pack).equal(model.compute_pack(*pack))
    with pytest.warns(DeprecationWarning, match="encode_first_tokens is now called compute_cls"):
        assert model.encode_first_tokens(*pack).equal(model.compute_cls(*pack))


def test_half_types_stay_close_to_float32(small_checkpoint, model):
    ids, mask = padded_batch()
    expected = model(ids, mask).last_hidden_state[:, 0]
    for dtype in (torch.bfloat16, torch.float16):
        half = GTEModel.from_pretrained(small_checkpoint, dtype=dtype)
        states = half(ids, mask).last_hidden_state[:, 0].float()
        assert half.dtype == dtype
        assert half.inverse_frequencies.dtype == torch.float32
        assert torch.cosine_similarity(states, expected).min() > 0.9995


def test_token_weights_need_the_sparse_head(tmp_path):
    model = GTEModel.from_pretrained(random_checkpoint(tmp_path, task=None))
    with pytest.raises(MissingHeadError, match="no sparse head"):
        model.token_weights(torch.zeros(1, 64))
