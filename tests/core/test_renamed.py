"""Checkpoints that hold this network under another class name, as published fine-tunes do."""

import json
import re
import shutil

import pytest
from safetensors.torch import load_file, save_file

from gte_core import ConfigError, GTEConfig, GTEEmbedder, GTEReranker, WeightsError
from gte_core.testing import random_checkpoint

TEXTS = ["w1 w2 w3", "a w9"]

# All that gte-multilingual-base's file says, which its renamed copies keep, at a small size.
PUBLISHED = {
    "architectures": ["VietnameseModel"],
    "attention_probs_dropout_prob": 0.0,
    "auto_map": {"AutoModel": "someone/Vietnamese_impl--modeling.VietnameseModel"},
    "classifier_dropout": 0.0,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 64,
    "initializer_range": 0.02,
    "intermediate_size": 128,
    "layer_norm_eps": 1e-12,
    "layer_norm_type": "layer_norm",
    "max_position_embeddings": 8192,
    "model_type": "Vietnamese",
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "pack_qkv": True,
    "pad_token_id": 1,
    "position_embedding_type": "rope",
    "rope_scaling": {"factor": 8.0, "type": "ntk"},
    "rope_theta": 20000,
    "torch_dtype": "float32",
    "transformers_version": "4.41.2",
    "type_vocab_size": 1,
    "unpad_inputs": False,
    "use_memory_efficient_attention": False,
    "vocab_size": 512,
}
# Of Nomic's model, which has rotary positions and code of its own too.
NOMIC = {
    "architectures": ["NomicBertModel"],
    "auto_map": {"AutoModel": "nomic-ai/nomic-bert-2048--modeling_hf_nomic_bert.NomicBertModel"},
    "model_type": "nomic_bert",
    "activation_function": "swiglu",
    "n_embd": 768,
    "n_head": 12,
    "n_layer": 12,
    "rotary_emb_fraction": 1.0,
    "vocab_size": 30528,
}
BERT = {
    "architectures": ["BertModel"],
    "hidden_act": "gelu",
    "hidden_size": 768,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "model_type": "bert",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "position_embedding_type": "absolute",
    "type_vocab_size": 2,
    "vocab_size": 30522,
}
OTHERS = {
    "bert": BERT,
    "xlm-roberta": BERT | {"model_type": "xlm-roberta", "architectures": ["XLMRobertaModel"]},
    "modernbert": BERT
    | {"model_type": "modernbert", "architectures": ["ModernBertModel"], "layer_norm_eps": None}
    | {"global_rope_theta": 160000.0, "local_attention": 128, "norm_eps": 1e-05},
    "nomic_bert": NOMIC,
    "qwen2": BERT
    | {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "rope_theta": 1e6}
    | {"num_key_value_heads": 2, "rms_norm_eps": 1e-6},
}


def renamed_checkpoint(directory, *, task=None, prefix="", **fields):
    return random_checkpoint(directory, PUBLISHED | fields, task=task, prefix=prefix)


def rename_tensors(directory, pattern, replacement):
    path = directory / "model.safetensors"
    save_file({re.sub(pattern, replacement, k): v for k, v in load_file(path).items()}, path)


def test_a_renamed_model_gives_the_vectors_of_the_network_and_says_so_once(tmp_path, caplog):
    plain = random_checkpoint(tmp_path / "plain", task=None)
    expected = GTEEmbedder.from_pretrained(plain, dtype="float32").encode_dense(TEXTS)
    caplog.clear()
    directory = renamed_checkpoint(tmp_path / "renamed")
    found = GTEEmbedder.from_pretrained(directory, dtype="float32").encode_dense(TEXTS)
    assert (found == expected).all()
    [line] = [record.getMessage() for record in caplog.records]
    assert "VietnameseModel, understood as NewModel" in line


@pytest.mark.parametrize("prefix", ["new.", "vietnamese.", "Vietnamese.", "model."])
def test_heads_go_by_suffix_and_tensors_by_what_stands_before_the_words(tmp_path, prefix):
    expected = GTEEmbedder.from_pretrained(random_checkpoint(tmp_path / "plain")).encode(TEXTS)
    directory = renamed_checkpoint(
        tmp_path / "renamed",
        task="token_classification",
        prefix=prefix,
        architectures=["VietnameseModel", "VietnameseForTokenClassification"],
    )
    assert GTEConfig.from_pretrained(directory).task == "token_classification"
    both = GTEEmbedder.from_pretrained(directory).encode(TEXTS)
    assert (both.dense == expected.dense).all()
    assert (both.sparse != expected.sparse).nnz == 0


def test_a_renamed_reranker_ranks(tmp_path):
    directory = renamed_checkpoint(
        tmp_path,
        task="sequence_classification",
        prefix="vietnamese.",
        architectures=["VietnameseForSequenceClassification"],
        id2label={"0": "LABEL_0"},
    )
    assert len(GTEReranker.from_pretrained(directory).rank("w1", ["w1", "w2"])) == 2


def test_a_renamed_masked_language_model_is_refused_as_one(tmp_path):
    directory = renamed_checkpoint(tmp_path, architectures=["VietnameseForMaskedLM"])
    with pytest.raises(ConfigError, match="a masked language model"):
        GTEEmbedder.from_pretrained(directory)


@pytest.mark.parametrize("model_type", ["new", "gte"])
def test_a_renamed_class_may_keep_the_model_type(model_type):
    assert GTEConfig.from_dict(PUBLISHED | {"model_type": model_type}).task is None


def test_what_transformers_5_saves_of_a_renamed_model():
    parameters = {"rope_type": "ntk", "type": "ntk", "factor": 8.0, "rope_theta": 20000}
    fields = {name: value for name, value in PUBLISHED.items() if not name.startswith("rope_")}
    config = GTEConfig.from_dict(fields | {"rope_parameters": parameters, "dtype": "float32"})
    assert config.rotary == GTEConfig.from_dict(PUBLISHED).rotary


@pytest.mark.parametrize("fields", OTHERS.values(), ids=OTHERS)
def test_other_architectures_are_refused_by_their_model_type(fields):
    message = rf"model_type is '{fields['model_type']}'; supported are \['gte', 'new'\]\. Only .*"
    with pytest.raises(ConfigError, match=rf"^{message}can be loaded\.$"):
        GTEConfig.from_dict(fields)


@pytest.mark.parametrize(
    "field", ["vocab_size", "type_vocab_size", "layer_norm_type", "position_embedding_type"]
)
def test_a_renamed_class_leaves_nothing_to_defaults(field):
    fields = {name: value for name, value in PUBLISHED.items() if name != field}
    with pytest.raises(ConfigError, match=rf"'Vietnamese'.* config\.json lacks \['{field}'\]"):
        GTEConfig.from_dict(fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rope_theta": None}, r"lacks \['rope_theta'\]"),
        ({"num_key_value_heads": 2}, r"has the fields \['num_key_value_heads'\], which this"),
        ({"sliding_window": 128, "moe": True}, r"has the fields \['moe', 'sliding_window'\]"),
        ({"layer_norm_type": "rms_norm"}, "layer_norm_type is 'rms_norm'"),
        ({"position_embedding_type": "absolute"}, "position_embedding_type is 'absolute'"),
        ({"logn_attention_scale": True}, "logn_attention_scale is true"),
        ({"architectures": ["VietnameseForQuestionAnswering"]}, "names 'VietnameseForQuestionA"),
        ({"model_type": ["Vietnamese"]}, r"model_type is \['Vietnamese'\]"),
        ({"model_type": "new", "is_decoder": True}, r"architectures names .*\['is_decoder'\]"),
    ],
)
def test_what_the_network_is_not_is_refused_by_field(fields, message):
    with pytest.raises(ConfigError, match=message):
        GTEConfig.from_dict(PUBLISHED | fields)


def test_a_feature_that_is_off_is_none():
    assert GTEConfig.from_dict(PUBLISHED | {"sliding_window": None, "is_decoder": False})


def test_tensors_that_do_not_match_are_refused(tmp_path):
    directory = renamed_checkpoint(tmp_path / "renamed", prefix="vietnamese.")
    shutil.copytree(directory, tmp_path / "mixed")
    rename_tensors(directory, r"mlp_ln", "output.LayerNorm")
    with pytest.raises(WeightsError, match=r"missing: encoder\.layer\.0\.mlp_ln\.bias"):
        GTEEmbedder.from_pretrained(directory)
    rename_tensors(tmp_path / "mixed", r"vietnamese\.encoder", "other.encoder")
    with pytest.raises(WeightsError, match="has weights of 0 layers"):
        GTEEmbedder.from_pretrained(tmp_path / "mixed")


def test_the_renamed_configuration_is_read_like_the_original():
    original = PUBLISHED | {"model_type": "new", "architectures": ["NewModel"]}
    assert GTEConfig.from_dict(PUBLISHED) == GTEConfig.from_dict(json.loads(json.dumps(original)))
