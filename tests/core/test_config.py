import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gte_core import ConfigError, GTEConfig
from gte_core.checkpoint.config import RotaryConfig

NEW = {"model_type": "new", "hidden_size": 64, "num_attention_heads": 4}
NTK = {"type": "ntk", "factor": 8.0}


def parse(**fields):
    return GTEConfig.from_dict(NEW | fields)


def test_inverse_frequencies_of_gte_multilingual_base():
    frequencies = RotaryConfig(20_000, "ntk", 8.0).inverse_frequencies(64)
    assert frequencies[:4].tolist() == pytest.approx([0.9371, 0.6444, 0.4431, 0.3047], abs=5e-5)


def test_ntk_equals_the_linear_form_of_the_republished_checkpoint():
    ntk = RotaryConfig(20_000, "ntk", 8.0).inverse_frequencies(64)
    linear = RotaryConfig(160_000, "linear", 8 ** (1 / 32)).inverse_frequencies(64)
    assert ntk.allclose(linear, rtol=1e-6)


def test_ntk_with_mixed_b_follows_its_formula():
    config = RotaryConfig(10_000, "ntk", 4.0, mixed_b=0.625)
    a = math.log(4.0) / 8**0.625
    expected = [10_000 ** (-2 * i / 16) / math.exp(a * (i + 1) ** 0.625) for i in range(8)]
    assert config.inverse_frequencies(16).tolist() == pytest.approx(expected, rel=1e-6)


def test_ntk_of_factor_one_is_plain():
    plain = RotaryConfig(500_000).inverse_frequencies(64)
    assert RotaryConfig(500_000, "ntk", 1.0).inverse_frequencies(64).equal(plain)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"rope_theta": 20_000, "rope_scaling": NTK}, RotaryConfig(20_000, "ntk", 8.0)),
        (
            {"rope_theta": 20_000, "rope_scaling": NTK | {"mixed_b": 0.6}},
            RotaryConfig(20_000, "ntk", 8.0, 0.6),
        ),
        ({"rope_theta": 500_000, "rope_scaling": None}, RotaryConfig(500_000)),
        ({}, RotaryConfig(10_000)),
        ({"model_type": "gte"}, RotaryConfig(160_000)),
        (
            {"rope_parameters": {"rope_type": "ntk", "rope_theta": 20_000, "factor": 8.0} | NTK},
            RotaryConfig(20_000, "ntk", 8.0),
        ),
        (
            {"rope_parameters": {"rope_type": "linear", "rope_theta": 160_000.0, "factor": 1.067}},
            RotaryConfig(160_000, "linear", 1.067),
        ),
        (
            {"rope_parameters": {"rope_type": "default", "rope_theta": 160_000.0}},
            RotaryConfig(160_000),
        ),
        (
            {"rope_theta": None, "rope_parameters": {"rope_type": "default", "rope_theta": 5}},
            RotaryConfig(5),
        ),
        ({"rope_theta": 7.0, "rope_parameters": {"rope_type": "default"}}, RotaryConfig(7.0)),
    ],
)
def test_every_published_form_of_rotary_settings(fields, expected):
    assert parse(**fields).rotary == expected


def test_both_rotary_forms_may_stand_together_when_they_agree():
    linear = {"rope_type": "linear", "rope_theta": 160_000, "factor": 8 ** (1 / 8)}
    config = parse(rope_theta=20_000, rope_scaling=NTK, rope_parameters=linear)
    assert config.rotary.scaling == "linear"


def test_rotary_forms_that_disagree_are_refused():
    plain = {"rope_type": "default", "rope_theta": 20_000}
    with pytest.raises(ConfigError, match=r"rope_parameters .* and rope_scaling .* different"):
        parse(rope_theta=20_000, rope_scaling=NTK, rope_parameters=plain)


@pytest.mark.parametrize("value", [True, False, "true", "false", "True"])
def test_booleans_may_be_strings(value):
    assert parse(pack_qkv=value, unpad_inputs=value, use_memory_efficient_attention=value)


@pytest.mark.parametrize("types", [0, 1, 2])
def test_type_vocab_sizes(types):
    assert parse(type_vocab_size=types).type_vocab_size == types


@pytest.mark.parametrize(
    ("architectures", "task"),
    [
        (["NewModel", "NewForTokenClassification"], "token_classification"),
        (["GteForSequenceClassification"], "sequence_classification"),
        (["NewForMaskedLM"], None),
        (["NewForTokenClassification", "NewForSequenceClassification"], "sequence_classification"),
        (["GteModel"], None),
        ([], None),
        (None, None),
    ],
)
def test_task_comes_from_the_architectures(architectures, task):
    assert parse(architectures=architectures).task == task


@pytest.mark.parametrize(
    ("fields", "labels"),
    [({"num_labels": 1}, 1), ({"id2label": {"0": "a", "1": "b"}}, 2), ({}, None)],
)
def test_number_of_labels(fields, labels):
    assert parse(**fields).num_labels == labels


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": "bert"}, r"model_type is 'bert'; supported are \['gte', 'new'\]"),
        ({"model_type": ["new"]}, "model_type is"),
        ({"hidden_act": "gelu_new"}, "hidden_act is 'gelu_new'; supported is 'gelu'"),
        ({"layer_norm_type": "rms_norm"}, "layer_norm_type is 'rms_norm'"),
        ({"position_embedding_type": "absolute"}, "position_embedding_type is 'absolute'"),
        ({"is_decoder": True}, "is_decoder is True"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is"),
        (
            {"rope_scaling": {"type": "yarn", "factor": 2.0}},
            "rope_scaling: The rotary scaling is",
        ),
        (
            {"rope_scaling": {"type": "ntk"}},
            "factor of the rotary scaling must be",
        ),
        ({"rope_scaling": NTK | {"beta": 1}}, r"rope_scaling has the unknown fields \['beta'\]"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor is 0.5"),
        ({"rope_parameters": 3}, "rope_parameters must be an object or null, got 3"),
        ({"rope_theta": -1}, "rope_theta must be a positive number, got -1"),
        ({"rope_scaling": NTK | {"rope_type": "default"}}, "rope_scaling has two types"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0, "mixed_b": 0.5}}, "mixed_b is 0.5"),
        ({"layer_norm_eps": 10**400}, "layer_norm_eps must be a positive number"),
        ({"id2label": "abc"}, "id2label must be an object or null"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads is"),
        ({"add_cross_attention": True}, "add_cross_attention is True"),
        ({"num_attention_heads": 5}, "hidden_size 64 cannot be split into 5"),
        ({"head_dim": 32}, "head_dim is 32"),
        ({"vocab_size": "1000"}, "vocab_size must be an integer of at least 1, got '1000'"),
        ({"num_hidden_layers": True}, "num_hidden_layers must be an integer"),
        ({"type_vocab_size": -1}, "type_vocab_size must be an integer of at least 0"),
        ({"layer_norm_eps": math.nan}, "layer_norm_eps must be a positive number"),
        ({"pack_qkv": "yes"}, "pack_qkv must be true or false, got 'yes'"),
        ({"architectures": ["NewForQuestionAnswering"]}, "names 'NewForQuestionAnswering'"),
        ({"architectures": "NewModel"}, "architectures must be a list"),
        ({"architectures": [["NewModel"]]}, r"architectures names \['NewModel'\]"),
        ({"vocab_size": 10**12}, "vocab_size must be an integer of at most 16,777,216, got 1000"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers must be an integer of at most 1,024"),
        ({"hidden_size": 10**30}, "hidden_size must be an integer of at most 65,536"),
        ({"type_vocab_size": 10**12}, "type_vocab_size must be an integer of at most"),
        ({"num_labels": 10**12}, "num_labels must be an integer of at most"),
        ({"pad_token_id": 10**30}, "pad_token_id must be an integer of at most"),
        ({"hidden_size": 10**5000}, "got a int too long to write out"),
        ({"layer_norm_eps": 2}, "layer_norm_eps must be a positive number from 1e-30 to 1, got 2"),
        ({"rope_theta": 1e30}, r"rope_theta must be a positive number from 1e-06 to 1e\+12"),
        ({"rope_scaling": NTK | {"mixed_b": 1e9}}, "mixed_b must be a positive number from 1e-06"),
        ({"rope_scaling": NTK | {"factor": 1e300}}, "factor of the rotary scaling must be a pos"),
        ({"logn_attention_scale": True}, "logn_attention_scale is true; supported is false"),
        ({"logn_attention_clip1": "True"}, "logn_attention_clip1 is true; supported is false"),
        ({"logn_attention_scale": 1}, "logn_attention_scale must be true or false, got 1"),
    ],
)
def test_what_is_not_supported_is_named(fields, message):
    with pytest.raises(ConfigError, match=message):
        parse(**fields)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1.0,), "rope_theta must be a positive number"),
        ((1.0, "foo"), "The rotary scaling is 'foo'"),
        ((1.0, "ntk", 0.0), "factor of the rotary scaling must be a positive number"),
    ],
)
def test_a_rotary_configuration_refuses_nonsense_on_construction(arguments, message):
    with pytest.raises(ConfigError, match=message):
        RotaryConfig(*arguments)


def test_from_pretrained_reads_the_golden_config(golden):
    config = GTEConfig.from_pretrained(golden / "s1_tokencls_ntk" / "model")
    assert (config.hidden_size, config.head_dim, config.num_labels) == (64, 16, 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[]", "must hold a JSON object"),
        ('{"model_type": "new", "vocab_size": 0}', r"config\.json: vocab_size must be an integer"),
    ],
)
def test_unreadable_files(tmp_path, content, message):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError, match=message):
        GTEConfig.from_pretrained(tmp_path)


def test_a_config_of_defaults_only_takes_the_class_defaults():
    config = GTEConfig.from_dict(json.loads('{"model_type": "new"}'))
    assert (config.vocab_size, config.hidden_size, config.max_position_embeddings) == (
        30_528,
        768,
        2048,
    )


ANYTHING = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.sampled_from([0, -1, 2**31, 2**63, 10**12, 10**30, 10**400]),
        st.floats(),
        st.sampled_from([5e-324, 1e30, 1e300, math.inf, "ntk", "default", "true", "NewModel"]),
        st.text(st.characters(exclude_categories=()), max_size=20),
        st.just("x" * 5000),
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "factor", "mixed_b", "rope_theta"]), inner)
    ),
    max_leaves=6,
)
FIELDS = [
    *("model_type", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"),
    *("head_dim", "intermediate_size", "max_position_embeddings", "type_vocab_size"),
    *("layer_norm_eps", "rope_theta", "rope_scaling", "rope_parameters", "pad_token_id"),
    *("num_labels", "id2label", "architectures", "pack_qkv", "logn_attention_scale"),
    *("hidden_act", "is_decoder", "pruned_heads", "quantization_config"),
]


@settings(deadline=None, max_examples=150)
@given(st.dictionaries(st.sampled_from(FIELDS), ANYTHING, max_size=3))
def test_whatever_a_config_holds_it_loads_or_is_a_short_error_of_ours(fields):
    message = ""
    try:
        config = parse(**fields)
        assert config.rotary.inverse_frequencies(config.head_dim).isfinite().all()
    except ConfigError as error:
        message = str(error)
    assert len(message.encode()) < 1000
