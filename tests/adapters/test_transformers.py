import copy
import io
import json
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForMultipleChoice,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

import gte_integrations.transformers as face
from gte_core import GTEEmbedder, GTEModel
from gte_core.testing import random_checkpoint
from gte_core.tokenizer import GTETokenizer

TOLERANCE = 2e-5
MODES = {"no_grad": torch.no_grad, "grad": torch.enable_grad, "inference": torch.inference_mode}
HEADS = {
    "s1_tokencls_ntk": AutoModelForTokenClassification,
    "s2_seqcls_reranker": AutoModelForSequenceClassification,
}


def golden_batch(golden, case, side="right"):
    """Ids, mask, expected arrays, and which places of them hold tokens; padded on a side."""
    expected = np.load(golden / case / "expected.npz")
    ids, mask = expected["input_ids"], expected["attention_mask"]
    if side == "left":
        turned = [np.argsort(row, kind="stable") for row in mask]
        ids, mask = (np.take_along_axis(x, np.array(turned), 1) for x in (ids, mask))
    return torch.from_numpy(ids), torch.from_numpy(mask), expected


@pytest.fixture
def directory(tmp_path):
    return random_checkpoint(tmp_path / "model")


@pytest.fixture
def batch():
    ids = torch.arange(5, 41).reshape(3, 12)
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("case", HEADS)
def test_every_head_gives_what_the_original_gives(golden, case, side, mode):
    ids, mask, expected = golden_batch(golden, case, side)
    model = HEADS[case].from_pretrained(golden / case / "model", dtype=torch.float32)
    with MODES[mode]():
        out = model(input_ids=ids, attention_mask=mask)
    assert model.num_labels == 1
    real = expected["attention_mask"] == 1
    wanted = expected["logits"]
    found = out.logits.detach().numpy()
    if wanted.ndim == 3:
        states = out.last_hidden_state.detach().numpy()[mask == 1]
        np.testing.assert_allclose(states, expected["last_hidden_state"][real], atol=TOLERANCE)
        found, wanted = found[mask == 1], wanted[real]
    np.testing.assert_allclose(found, wanted, atol=TOLERANCE)


@pytest.mark.parametrize("case", HEADS)
def test_the_encoder_alone_gives_the_original_states(golden, case):
    ids, mask, expected = golden_batch(golden, case)
    model, report = AutoModel.from_pretrained(
        golden / case / "model", dtype=torch.float32, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    with torch.no_grad():
        states = model(ids, mask).last_hidden_state.numpy()
        by_position = model(ids, mask, position_ids=torch.arange(ids.shape[1])[None] + 7)
    real = expected["attention_mask"] == 1
    np.testing.assert_allclose(states[real], expected["last_hidden_state"][real], atol=TOLERANCE)
    # Only the distance of positions counts.
    np.testing.assert_allclose(by_position.last_hidden_state.numpy(), states, atol=TOLERANCE)


def test_masked_language_models_give_what_transformers_gives(tmp_path):
    gte = pytest.importorskip("transformers.models.gte")  # since 5.23
    config = gte.GteConfig(
        vocab_size=300, hidden_size=48, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=80, rope_parameters={"rope_type": "default", "rope_theta": 500_000.0},
    )  # fmt: skip
    torch.manual_seed(0)
    native = gte.GteForMaskedLM(config).eval()
    weights = {
        name.replace("gte.", "new.", 1)
        .replace(".layers.", ".encoder.layer.")
        .replace("self_attn", "attention")
        .replace("post_attention_layernorm", "attn_ln")
        .replace("post_mlp_layernorm", "mlp_ln")
        .replace("lm_head.layer_norm", "lm_head.norm"): weight
        for name, weight in native.state_dict().items()
        if name != "lm_head.decoder.weight"
    }
    for layer in range(2):
        mlp = f"new.encoder.layer.{layer}.mlp."
        parts = [weights.pop(f"{mlp}{name}_proj.weight") for name in ("up", "gate")]
        weights[f"{mlp}up_gate_proj.weight"] = torch.cat(parts)
    fields = {
        "model_type": "new", "architectures": ["NewForMaskedLM"], "vocab_size": 300,
        "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "pack_qkv": False,
        "intermediate_size": 80, "rope_theta": 500_000, "pad_token_id": 1,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(fields))
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    model = AutoModelForMaskedLM.from_pretrained(tmp_path)
    ids = torch.randint(0, 300, (2, 9))
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, native(ids).logits, atol=2e-5, rtol=0)
    assert model.lm_head.decoder.weight is model.new.embeddings.word_embeddings.weight
    model.save_pretrained(tmp_path / "again")
    again = AutoModelForMaskedLM.from_pretrained(tmp_path / "again")
    with torch.no_grad():
        assert again(ids).logits.equal(model(ids).logits)


def test_token_ids_are_those_of_tokenizer_json(golden):
    directory = golden / "s3_gte_embedding_script" / "model"
    expected = json.loads((directory.parent / "expected.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(directory)
    assert tokenizer(expected["texts"])["input_ids"] == expected["input_ids"]
    texts = ["ﬁne ½ Ⅷ", "a\u00a0b", "ABC ｆｕｌｌ"]  # a normalizer of one's own changes these
    ours = GTETokenizer.from_pretrained(directory).tokenize(texts, 64)
    assert tokenizer(texts)["input_ids"] == [text.ids for text in ours]


def test_custom_normalizers_are_kept(tmp_path):
    directory = random_checkpoint(tmp_path)
    settings = json.loads((directory / "tokenizer_config.json").read_text())
    settings |= {"tokenizer_class": "XLMRobertaTokenizer"}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    ours = GTETokenizer.from_pretrained(directory).tokenize(["ｗ１ ﬁ w2"], 64)
    assert AutoTokenizer.from_pretrained(directory)(["ｗ１ ﬁ w2"])["input_ids"] == [ours[0].ids]


@pytest.mark.parametrize("trust", [None, False, True])
def test_code_of_the_repository_is_never_asked_for(directory, trust):
    config = json.loads((directory / "config.json").read_text())
    config["auto_map"] = {
        name: f"modeling.{name}"
        for name in ("AutoConfig", "AutoModel", "AutoModelForTokenClassification")
    } | {"AutoModelForMultipleChoice": "modeling.NewForMultipleChoice"}
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "modeling.py").write_text("raise SystemExit('code of the repository ran')")
    given = {} if trust is None else {"trust_remote_code": trust}
    assert isinstance(AutoConfig.from_pretrained(directory, **given), face.NewConfig)
    assert isinstance(AutoModel.from_pretrained(directory, **given), face.NewModel)
    AutoModelForTokenClassification.from_pretrained(directory, **given)
    AutoTokenizer.from_pretrained(directory, **given)
    with pytest.raises(ValueError, match=r"Unrecognized configuration class .*NewConfig"):
        AutoModelForMultipleChoice.from_pretrained(directory, **given)


@pytest.mark.parametrize("kind", [AutoModel, AutoModelForTokenClassification])
def test_saved_models_load_here_and_in_the_core(directory, tmp_path, batch, kind):
    model = kind.from_pretrained(directory)
    with torch.no_grad():
        before = model(**batch).last_hidden_state
    model.save_pretrained(tmp_path / "saved", max_shard_size="40KB")
    again = kind.from_pretrained(tmp_path / "saved")
    with torch.no_grad():
        assert again(**batch).last_hidden_state.equal(before)
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert config["rope_scaling"] == {"type": "ntk", "factor": 8.0}
    assert config["rope_theta"] == 20000
    assert "auto_map" not in config
    core = GTEModel.from_pretrained(tmp_path / "saved")
    found = core(batch["input_ids"], batch["attention_mask"]).last_hidden_state
    torch.testing.assert_close(found, before, atol=TOLERANCE, rtol=0)


CHANGES = {}


def change(way):
    """Register a way to change the weights of a model."""
    CHANGES[way.__name__] = way
    return way


@change
def load(model):
    model.load_state_dict({name: weight * 1.25 for name, weight in model.state_dict().items()})


@change
def assign(model):
    state = {name: weight * 1.25 for name, weight in model.state_dict().items()}
    model.load_state_dict(state, assign=True)


@change
def multiply_in_place(model):
    model.encoder.layer[0].mlp.down_proj.weight.mul_(1.5)


@change
def write_data(model):
    model.encoder.layer[0].attention.qkv_proj.weight.data.mul_(1.5)


@change
def write_a_row_of_data(model):
    model.encoder.layer[0].mlp.down_proj.weight.data[3] += 1


@change
def write_a_column_of_data(model):
    model.encoder.layer[0].mlp.down_proj.weight.data[:, 5] *= 30


@change
def write_the_data_of_a_norm(model):
    model.encoder.layer[0].attn_ln.weight.data.mul_(2)


@change
def write_the_data_of_the_table(model):
    model.embeddings.word_embeddings.weight.data.mul_(2)


@change
def average(model):
    weights = [weight.data for weight in model.parameters()]
    torch._foreach_lerp_(weights, [weight * 1.5 for weight in weights], 0.5)


@change
def step_a_fused_optimizer(model):
    with torch.enable_grad():
        model(torch.tensor([[5, 6]])).last_hidden_state[0, 0, 0].backward()
    torch.optim.AdamW(model.parameters(), lr=0.1, fused=True).step()


@change
def replace_a_weight(model):
    attention = model.encoder.layer[0].attention
    attention.o_proj.weight = torch.nn.Parameter(attention.o_proj.weight * 2)


@change
def swap_a_weight(model):
    weight = model.encoder.layer[0].attention.o_proj.weight
    torch.utils.swap_tensors(weight, torch.nn.Parameter(weight * 2))


@change
def replace_a_product(model):
    model.encoder.layer[0].mlp.down_proj = torch.nn.Linear(128, 64)


@change
def replace_a_forward(model):
    product = model.encoder.layer[0].mlp.down_proj
    own = product.forward
    product.forward = lambda hidden: 2 * own(hidden)


@change
def drop_a_layer(model):
    model.encoder.layer = model.encoder.layer[:1]


@change
def resize_the_table_too(model):
    model.resize_token_embeddings(600)
    multiply_in_place(model)


@pytest.mark.parametrize("name", CHANGES)
def test_changed_weights_are_computed_with(directory, batch, name):
    model = AutoModel.from_pretrained(directory)
    with torch.no_grad():
        before = model(**batch).last_hidden_state
        CHANGES[name](model)
        after = model(**batch).last_hidden_state
    plain = model(**batch).last_hidden_state.detach()  # with gradients: torch's own layers
    assert not after.allclose(before, atol=1e-3)
    torch.testing.assert_close(after, plain, atol=TOLERANCE, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_types_are_changed_as_asked(directory, batch, dtype):
    model = AutoModelForTokenClassification.from_pretrained(directory, dtype=torch.float32)
    with torch.no_grad():
        before = model(**batch).logits
        out = model.to(dtype)(**batch)
        assert (out.logits.dtype, model.dtype) == (dtype, dtype)
        torch.testing.assert_close(out.logits.float(), before, atol=0.2, rtol=0.1)
        back = model.float()(**batch)
    assert back.logits.dtype == torch.float32
    exact = GTEModel.from_pretrained(directory)
    assert model.new._inverse_frequencies.equal(exact.inverse_frequencies)


def test_long_texts_train_as_they_are_computed(directory):
    model = AutoModel.from_pretrained(directory)
    ids = torch.randint(5, 500, (1, 3000))
    states = model(ids).last_hidden_state
    states.sum().backward()
    with torch.no_grad():
        found = model(ids).last_hidden_state
    torch.testing.assert_close(found, states.detach(), atol=TOLERANCE, rtol=0)


def test_three_steps_lower_a_loss(directory, batch):
    model = AutoModelForTokenClassification.from_pretrained(
        directory, num_labels=2, ignore_mismatched_sizes=True
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    labels = torch.where(batch["attention_mask"] == 1, batch["input_ids"] % 2, -100)
    losses = []
    for _ in range(3):
        loss = model(**batch, labels=labels).loss
        loss.backward()
        assert all(weight.grad is not None for weight in model.parameters())
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[0] > losses[1] > losses[2]
    with torch.no_grad():
        logits = model.eval()(**batch).logits
    found = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
    assert found < losses[2]


def test_gradients_are_those_of_finite_differences(directory):
    model = AutoModel.from_pretrained(directory, dtype=torch.float64)
    embedded = torch.randn(2, 3, 64, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[1, 1, 1], [0, 1, 1]])

    def states(given):
        return model(inputs_embeds=given, attention_mask=mask).last_hidden_state[..., :2]

    assert torch.autograd.gradcheck(states, embedded, fast_mode=True)


def test_training_drops_out_and_evaluation_does_not(directory, batch):
    model = AutoModel.from_pretrained(directory)
    with torch.no_grad():
        assert model(**batch).last_hidden_state.equal(model(**batch).last_hidden_state)
        model.train()
        assert not model(**batch).last_hidden_state.equal(model(**batch).last_hidden_state)


def test_checkpointed_gradients_are_the_same(directory, batch):
    gradients = []
    for checkpointed in (False, True):
        model = AutoModel.from_pretrained(directory, hidden_dropout_prob=0.0).train()
        if checkpointed:
            former = "gradient_checkpointing_enable"  # until 5.22
            enable = getattr(model, "activation_checkpointing_enable", None)
            (enable or getattr(model, former))({"use_reentrant": False})
        model(**batch).last_hidden_state.square().sum().backward()
        gradients.append(model.embeddings.word_embeddings.weight.grad)
    torch.testing.assert_close(*gradients)


def test_hidden_states_and_tuples_come_as_asked(directory, batch):
    model = AutoModelForTokenClassification.from_pretrained(directory)
    with torch.no_grad():
        out = model(**batch, output_hidden_states=True)
        assert len(out.hidden_states) == 3
        assert out.hidden_states[-1].equal(out.last_hidden_state)
        logits, states = model(**batch, return_dict=False)
    assert logits.equal(out.logits)
    assert states.equal(out.last_hidden_state)
    with pytest.raises(ValueError, match="output_attentions is True, but"):
        model(**batch, output_attentions=True)


def test_hooks_and_adapters_see_every_pass(directory, batch):
    model = AutoModel.from_pretrained(directory)
    seen = []
    hook = model.encoder.layer[1].register_forward_hook(lambda *_: seen.append(1))
    with torch.no_grad():
        hooked = model(**batch).last_hidden_state
        assert seen == [1]
        hook.remove()
        torch.testing.assert_close(model(**batch).last_hidden_state, hooked, atol=1e-5, rtol=0)

    class Adapted(torch.nn.Module):
        def __init__(self, base):
            super().__init__()
            self.base, self.in_features = base, base.in_features

        def forward(self, x):
            return 2 * self.base(x)

    model.encoder.layer[0].attention.o_proj = Adapted(model.encoder.layer[0].attention.o_proj)
    with torch.no_grad():
        assert not model(**batch).last_hidden_state.allclose(hooked, atol=1e-3)


def test_every_product_takes_an_adapter(directory, batch):
    """As peft's ``target_modules="all-linear"`` does: it replaces each by one of the same sizes."""

    class Adapted(torch.nn.Module):
        def __init__(self, base):
            super().__init__()
            self.base = base
            self.down = torch.nn.Linear(base.in_features, 2, bias=False)
            self.up = torch.nn.Linear(2, base.out_features, bias=False)

        def forward(self, x):
            return self.base(x) + self.up(self.down(x))

    model = AutoModel.from_pretrained(directory)
    with torch.no_grad():
        before = model(**batch).last_hidden_state
    model.requires_grad_(False)
    products = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)]
    for name in products:
        model.set_submodule(name, Adapted(model.get_submodule(name)))
    adapted = model(**batch).last_hidden_state
    adapted.sum().backward()
    assert all(weight.grad is not None for weight in model.parameters() if weight.requires_grad)
    with torch.no_grad():
        torch.testing.assert_close(model(**batch).last_hidden_state, adapted.detach())
        for name in products:  # merged
            adapter = model.get_submodule(name)
            adapter.base.weight += adapter.up.weight @ adapter.down.weight
            model.set_submodule(name, adapter.base)
        merged = model(**batch).last_hidden_state
    torch.testing.assert_close(merged, adapted.detach(), atol=1e-4, rtol=0)
    assert not merged.allclose(before, atol=1e-3)


def test_copies_and_pickles_compute_the_same(directory, batch):
    model = AutoModel.from_pretrained(directory)
    with torch.no_grad():
        expected = model(**batch).last_hidden_state
        for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert copied(**batch).last_hidden_state.equal(expected)
        buffer = io.BytesIO()
        torch.save(model, buffer)
        buffer.seek(0)
        assert torch.load(buffer, weights_only=False)(**batch).last_hidden_state.equal(expected)


def test_threads_share_a_model(directory, batch):
    model = AutoModel.from_pretrained(directory)
    found = []

    def compute():
        with torch.no_grad():
            found.append(model(**batch).last_hidden_state)

    threads = [threading.Thread(target=compute) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(states.equal(found[0]) for states in found)


def test_odd_batches_are_computed_or_refused(directory):
    model = AutoModel.from_pretrained(directory)
    ids = torch.tensor([[5, 6, 7], [8, 9, 1]])
    with torch.no_grad():
        empty = model(ids, torch.tensor([[1, 1, 1], [0, 0, 0]])).last_hidden_state
        assert not empty[1].any()
        embedded = model.get_input_embeddings()(ids)
        torch.testing.assert_close(
            model(inputs_embeds=embedded).last_hidden_state, model(ids).last_hidden_state
        )
        types = torch.ones_like(ids)
        model(ids, token_type_ids=types)
        assert types.all()  # the original sets them to zero in place
    for arguments, message in (
        ({}, "0 of input_ids and inputs_embeds were given"),
        ({"input_ids": ids, "inputs_embeds": embedded}, "2 of input_ids"),
        ({"input_ids": ids, "attention_mask": torch.ones(1, 3)}, r"attention_mask has the shape"),
        ({"input_ids": ids, "attention_mask": ids - 9e9}, "attention_mask holds negative"),
        ({"input_ids": ids[0]}, r"input_ids has the shape \(3,\), but must be \(batch, length\)"),
    ):
        with pytest.raises(ValueError, match=message):
            model(**arguments)


def test_what_is_not_computed_is_refused(directory):
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"hidden_act": "relu"}))
    with pytest.raises(ValueError, match="hidden_act is 'relu'"):
        AutoModel.from_pretrained(directory)


def test_tables_can_be_resized(directory, batch):
    model = AutoModelForTokenClassification.from_pretrained(directory)
    with torch.no_grad():
        before = model(**batch).logits
        model.resize_token_embeddings(600)
        torch.testing.assert_close(model(**batch).logits, before)
        assert model(torch.tensor([[599]])).logits.isfinite().all()


def test_the_embedder_and_transformers_agree(directory):
    texts = ["w1 w2 w3", "w7", ""]
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForTokenClassification.from_pretrained(directory)
    with torch.no_grad():
        out = model(**tokenizer(texts, padding=True, return_tensors="pt"))
    dense = torch.nn.functional.normalize(out.last_hidden_state[:, 0]).numpy()
    ours = GTEEmbedder.from_pretrained(directory, dtype="float32").encode(texts)
    np.testing.assert_allclose(dense, ours.dense, atol=TOLERANCE)


def test_weights_stay_ordinary_parameters(directory, batch):
    model = AutoModelForTokenClassification.from_pretrained(directory)
    with torch.no_grad():
        model(**batch)
    stored = load_file(directory / "model.safetensors")
    assert model.state_dict().keys() == stored.keys()
    assert all(model.state_dict()[name].equal(weight) for name, weight in stored.items())


SNAPSHOT = """
from transformers.conversion_mapping import get_checkpoint_conversion_mapping
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING, TOKENIZER_MAPPING_NAMES
from transformers import BertConfig

def tables():
    known = vars(modeling_auto).items()
    maps = {n: m for n, m in known if n[:6] == "MODEL_" and hasattr(m, "_extra_content")}
    return (
        set(CONFIG_MAPPING.keys()),
        dict(TOKENIZER_MAPPING_NAMES),
        dict(TOKENIZER_MAPPING._extra_content),
        {n: dict(m._extra_content) for n, m in maps.items()},
        maps["MODEL_MAPPING"][BertConfig],
        str(get_checkpoint_conversion_mapping("mixtral")),
    )

before = tables()
"""


def run(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout


def test_the_import_changes_one_model_type_and_no_other_door_does():
    code = SNAPSHOT + (
        "import sys, gte_core, gte_integrations\n"
        "from gte_core import GTEEmbedder\n"
        "assert tables() == before\n"
        "assert 'gte_integrations.transformers' not in sys.modules\n"
        "import gte_integrations.transformers as face\n"
        "after = tables()\n"
        "assert after[0] - before[0] == {'new'}, after[0] - before[0]\n"
        "assert {k: v for k, v in after[1].items() if k != 'new'} == before[1]\n"
        "assert after[2] == before[2] and after[4:] == before[4:]\n"
        "added = [k for maps in after[3].values() for k in maps]\n"
        "assert set(added) == {face.NewConfig}, added\n"
        "assert not any(before[3].values())\n"
        "print('same')"
    )
    assert run(code) == "same\n"
