"""Makes the table of the checkpoints that load: ``python docs/checkpoints.py`` writes it anew.

The published repositories are not at hand where this package is built. So every checkpoint is laid
out here as far as its configuration and its card are known: the files that decide its vectors, and
a safetensors file that has the names and shapes of its tensors but no numbers. The table says what
``gte_core.read_capabilities`` reads there, as ``gte info`` would of the real one.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from gte_core import Capabilities, GTEConfig, GTEModel, read_capabilities
from gte_core.checkpoint.config import Task
from gte_core.checkpoint.hub import PINS
from gte_core.testing import random_checkpoint

ROOT = Path(__file__).parent.parent
PAGES = {"table": ROOT / "docs/how-it-works.md", "summary": ROOT / "README.md"}

_SMALL = {
    "vocab_size": 512,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
}

# The file of gte-multilingual-base, field by field, but for its auto_map.
_BASE: dict[str, Any] = {
    "architectures": ["NewModel", "NewForTokenClassification"],
    "attention_probs_dropout_prob": 0.0,
    "classifier_dropout": 0.0,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-12,
    "layer_norm_type": "layer_norm",
    "max_position_embeddings": 8192,
    "model_type": "new",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "num_labels": 1,
    "pack_qkv": True,
    "pad_token_id": 1,
    "position_embedding_type": "rope",
    "rope_scaling": {"factor": 8.0, "type": "ntk"},
    "rope_theta": 20000,
    "torch_dtype": "float16",
    "transformers_version": "4.39.1",
    "type_vocab_size": 1,
    "unpad_inputs": False,
    "use_memory_efficient_attention": False,
    "vocab_size": 250048,
}
_ENCODER = _BASE | {"architectures": ["NewModel"], "num_labels": None}
_ENGLISH = _ENCODER | {
    "pad_token_id": 0,
    "rope_scaling": None,
    "rope_theta": 500000,
    "type_vocab_size": 0,
    "vocab_size": 30528,
}
_LARGE = _ENGLISH | {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "rope_scaling": {"factor": 2.0, "type": "ntk"},
    "rope_theta": 160000,
    "type_vocab_size": 2,
}
_MASKED = {"architectures": ["NewForMaskedLM"]}

_ST = "sentence_transformers.models."
_SPARSE = "sentence_transformers.sparse_encoder.models."


def _modules(*steps: tuple[str, str]) -> list[dict[str, Any]]:
    return [
        {"idx": number, "name": str(number), "path": path, "type": kind}
        for number, (path, kind) in enumerate(steps)
    ]


def _pooled_by(mode: str, *, normalized: bool = True, max_seq_length: int = 8192) -> dict[str, Any]:
    """The files of sentence-transformers that name a pooling."""
    steps = [("", f"{_ST}Transformer"), ("1_Pooling", f"{_ST}Pooling")]
    if normalized:
        steps.append(("2_Normalize", f"{_ST}Normalize"))
    modes = {f"pooling_mode_{each}": each == mode for each in ("cls_token", "mean_tokens")}
    return {
        "modules.json": _modules(*steps),
        "1_Pooling/config.json": {"word_embedding_dimension": 768, **modes},
        "sentence_bert_config.json": {"max_seq_length": max_seq_length, "do_lower_case": False},
    }


_CLS = _pooled_by("cls_token")
_STELLA_SIZES = (512, 768, 1024, 2048, 4096, 6144, 8192)
_INSTRUCT = "Instruct: {}\nQuery: "
_STELLA = (
    _pooled_by("mean_tokens", max_seq_length=512)
    | {
        "modules.json": _modules(
            ("", f"{_ST}Transformer"),
            ("1_Pooling", f"{_ST}Pooling"),
            ("2_Dense_1024", f"{_ST}Dense"),
        ),
        "config_sentence_transformers.json": {
            "prompts": {
                "s2p_query": _INSTRUCT.format(
                    "Given a web search query, retrieve relevant passages that answer the query."
                ),
                "s2s_query": _INSTRUCT.format("Retrieve semantically similar text."),
            },
            "default_prompt_name": None,
        },
    }
    | {
        f"2_Dense_{size}/config.json": {
            "in_features": 1024,
            "out_features": size,
            "bias": True,
            "activation_function": "torch.nn.modules.linear.Identity",
        }
        for size in _STELLA_SIZES
    }
)
_TABLE = "query_0_SparseStaticEmbedding"
_DOC_V3: dict[str, Any] = {
    "modules.json": _modules(("", f"{_ST}Router")),
    "router_config.json": {
        "types": {
            _TABLE: f"{_SPARSE}SparseStaticEmbedding.SparseStaticEmbedding",
            "": f"{_SPARSE}MLMTransformer.MLMTransformer",
            "document_1_SpladePooling": f"{_SPARSE}SpladePooling.SpladePooling",
        },
        "structure": {"query": [_TABLE], "document": ["", "document_1_SpladePooling"]},
        "parameters": {"default_route": "document", "allow_empty_key": True},
    },
    "config_sentence_transformers.json": {"model_type": "SparseEncoder"},
    "sentence_bert_config.json": {"max_seq_length": 8192, "do_lower_case": False},
    "document_1_SpladePooling/config.json": {
        "pooling_strategy": "max",
        "activation_function": "log1p_relu",
        "word_embedding_dimension": 30522,
    },
    f"{_TABLE}/config.json": {"frozen": False},
    f"{_TABLE}/idf.json": {"▁w1": 2.0},
}


@dataclass(frozen=True)
class Form:
    """How the repository of a checkpoint is laid out.

    Attributes:
        name: of the repository, or what a group of them has in common.
        config: its ``config.json``.
        task: the head of its weights.
        prefix: of its tensors' names.
        files: JSON files by path.
    """

    name: str
    config: Mapping[str, Any]
    task: Task | None = None
    prefix: str = ""
    files: Mapping[str, Any] = field(default_factory=dict)

    def write_as_published(self, directory: Path) -> Path:
        """Lay it out at its real sizes, without the numbers of its tensors."""
        self._write_files(directory, dict(self.config))
        config = GTEConfig.from_dict(self.config)
        with torch.device("meta"):
            model = GTEModel(config, task=self.task)
        shapes = {self._stored(name): each.shape for name, each in model.named_parameters()}
        _write_header(directory / "model.safetensors", shapes)
        for size, folder in _matrices(directory):
            shapes = {"linear.weight": (size, config.hidden_size), "linear.bias": (size,)}
            _write_header(folder / "model.safetensors", shapes)
        return directory

    def write_small(self, directory: Path) -> Path:
        """Lay it out with small random weights, so that it loads and computes."""
        from safetensors.torch import save_file

        config = self.config | _SMALL
        random_checkpoint(directory, config, task=self.task, prefix=self.prefix)
        self._write_files(directory, config)
        for size, folder in _matrices(directory):
            settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            _write_json(folder / "config.json", settings | {"in_features": config["hidden_size"]})
            matrix = {"linear.weight": torch.randn(size, config["hidden_size"])}
            save_file(matrix | {"linear.bias": torch.zeros(size)}, folder / "model.safetensors")
        return directory

    def _write_files(self, directory: Path, config: Mapping[str, Any]) -> None:
        for path, content in {**self.files, "config.json": config}.items():
            _write_json(directory / path, content)

    def _stored(self, name: str) -> str:
        return name if name.startswith(("classifier.", "lm_head.")) else self.prefix + name


FORMS = (
    Form(
        "Alibaba-NLP/gte-multilingual-base",
        _BASE,
        "token_classification",
        "new.",
        _CLS,
    ),
    Form(
        "Alibaba-NLP/gte-multilingual-reranker-base",
        _BASE | {"architectures": ["NewForSequenceClassification"], "id2label": {"0": "LABEL_0"}},
        "sequence_classification",
        "new.",
    ),
    Form("Alibaba-NLP/gte-base-en-v1.5", _ENGLISH, files=_CLS),
    Form("Alibaba-NLP/gte-large-en-v1.5", _LARGE, files=_CLS),
    Form(
        "Snowflake/snowflake-arctic-embed-m-v2.0",
        _ENCODER
        | {"model_type": "gte", "architectures": ["GteModel"], "matryoshka_dimensions": [256]}
        | {"rope_scaling": None, "rope_theta": 160000}
        | {"unpad_inputs": "true", "use_memory_efficient_attention": "true"},
        files=_CLS
        | {
            "config_sentence_transformers.json": {
                "prompts": {"query": "query: "},
                "default_prompt_name": None,
            }
        },
    ),
    Form("NovaSearch/stella_en_400M_v5", _LARGE, prefix="new.", files=_STELLA),
    Form("BookingCare/gte-multilingual-base-v2.1", _ENCODER, files=_CLS),
    Form(
        "dangvantuan/vietnamese-document-embedding",
        _ENCODER | {"architectures": ["VietnameseModel"], "model_type": "Vietnamese"},
        files=_CLS,
    ),
    Form("fine-tunes that pool by mean", _ENCODER, files=_pooled_by("mean_tokens")),
    Form(
        "opensearch-project/opensearch-neural-sparse-encoding-doc-v3-gte",
        _ENGLISH | _MASKED | {"vocab_size": 30522},
        "masked_lm",
        "new.",
        _DOC_V3,
    ),
    Form("Alibaba-NLP/gte-multilingual-mlm-base", _ENCODER | _MASKED, "masked_lm", "new."),
    Form("Alibaba-NLP/gte-en-mlm-base", _ENGLISH | _MASKED, "masked_lm", "new."),
    Form("Alibaba-NLP/gte-en-mlm-large", _LARGE | _MASKED, "masked_lm", "new."),
)


Read = list[tuple[Form, Capabilities]]


def read_forms() -> Read:
    """What is read of every form at its real size."""
    with TemporaryDirectory() as folder:
        directories = (Path(folder, str(number)) for number in range(len(FORMS)))
        return [
            (form, read_capabilities(form.write_as_published(directory)))
            for form, directory in zip(FORMS, directories, strict=True)
        ]


def table(found: Read) -> str:
    """All of them in Markdown, one a line."""
    heads = ("checkpoint", "gives", "pooling", "dense sizes", "queries", "reads", "parameters")
    rows = [heads, ("---",) * len(heads), *(_row(form, each) for form, each in found)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def summary(found: Read) -> str:
    """Names by what they give, in Markdown."""
    groups: dict[str, list[str]] = {}
    for form, each in found:
        kind = "refused" if _is_refused(each) else _gives(each)
        groups.setdefault(kind, []).append(_short(form.name))
    return "\n".join(f"- {kind}: {', '.join(names)}." for kind, names in groups.items())


def _row(form: Form, found: Capabilities) -> Iterable[str]:
    yield _named(form, found)
    yield _gives(found)
    yield {"cls": "CLS", None: "–"}.get(found.pooling, str(found.pooling))
    yield _sizes(found)
    yield _queries(found)
    yield f"{found.max_length:,}"
    yield f"{found.n_parameters or 0:,}"


def _named(form: Form, found: Capabilities) -> str:
    notes = ["pinned"] if form.name in PINS else []
    if found.understood_as:
        notes.append(f"its `{found.architecture}` is `{found.understood_as}`")
    name = f"`{form.name}`" if "/" in form.name else form.name
    return f"{name} ({', '.join(notes)})" if notes else name


def _gives(found: Capabilities) -> str:
    if found.is_reranker:
        return "scores of pairs (`GTEReranker`, and `rerank=` of a search)"
    if found.refusal:
        return f"nothing: {_reason(found)}"
    kinds = {"tokens": "sparse", "vocabulary": "learned sparse", None: ""}
    return " and ".join(filter(None, ("dense" if found.has_dense else "", kinds[found.sparse])))


def _is_refused(found: Capabilities) -> bool:
    return found.refusal is not None and not found.is_reranker


def _reason(found: Capabilities) -> str:
    sentence = re.sub(r"\S*/(?=[\w.-]+\.json)", "", found.refusal or "").split(". ")[0]
    return sentence.split(", and ")[0].rstrip(".")


def _sizes(found: Capabilities) -> str:
    if found.sizes:
        others = ", ".join(f"{size:,}" for size in found.sizes if size != found.dimensions)
        return f"{found.dimensions:,}; {others}: a matrix each"
    return f"1 to {found.dimensions:,}" if found.has_dense else "–"


def _queries(found: Capabilities) -> str:
    if found.queries_are_looked_up:
        return "by look-up, no pass"
    names = [name for name, prompt in found.prompts.items() if prompt == found.query_prefix]
    return f"after its prompt `{names[0]}`" if found.query_prefix else "–"


def _short(name: str) -> str:
    return name.rpartition("/")[2]


def _matrices(directory: Path) -> Iterator[tuple[int, Path]]:
    for file in directory.glob("*_Dense_*/config.json"):
        yield json.loads(file.read_text(encoding="utf-8"))["out_features"], file.parent


def _write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def _write_header(path: Path, shapes: Mapping[str, Iterable[int]]) -> None:
    """A safetensors file of float16 tensors that takes no room: behind its header is a hole."""
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "F16", "shape": [*shape], "data_offsets": [begin, end]}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        file.truncate(8 + len(encoded) + end)


def with_part(page: str, name: str, content: str) -> str:
    """A page with the part between its two marks made anew."""
    begin, end = f"<!-- {name}: made by docs/checkpoints.py -->", f"<!-- end of {name} -->"
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n\n{content}\n\n{end}{after}"


def pages() -> dict[Path, str]:
    """Every page that has a part of this, as it should be."""
    found = read_forms()
    parts = {"table": table(found), "summary": summary(found)}
    return {
        path: with_part(path.read_text(encoding="utf-8"), name, parts[name])
        for name, path in PAGES.items()
    }


if __name__ == "__main__":
    for path, content in pages().items():
        path.write_text(content, encoding="utf-8")
