"""GTE checkpoints in transformers' own Auto classes, without the repository's code.

After ``import gte_integrations.transformers``, ``AutoConfig``, ``AutoModel``,
``AutoModelForTokenClassification``, ``AutoModelForSequenceClassification``,
``AutoModelForMaskedLM`` and ``AutoTokenizer`` load the model type ``"new"`` by themselves:
hub repositories and local directories, no prompt, no ``trust_remote_code``. Where that is passed,
it changes nothing. Every other model type is as before.
"""

from __future__ import annotations

try:
    from transformers import (
        AutoConfig,
        AutoModel,
        AutoModelForMaskedLM,
        AutoModelForSequenceClassification,
        AutoModelForTokenClassification,
    )
    from transformers.conversion_mapping import register_checkpoint_conversion_mapping
    from transformers.core_model_loading import Concatenate, WeightConverter
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES
except ImportError as error:
    raise ImportError(
        "gte_integrations.transformers needs transformers 5.7 or newer; "
        "pip install 'gte-integrations[transformers]'"
    ) from error

from gte_integrations._transformers.configuration import NewConfig
from gte_integrations._transformers.modeling import (
    NewForMaskedLM,
    NewForSequenceClassification,
    NewForTokenClassification,
    NewModel,
    NewPreTrainedModel,
    NewTokenClassifierOutput,
)

__all__ = [
    "NewConfig",
    "NewForMaskedLM",
    "NewForSequenceClassification",
    "NewForTokenClassification",
    "NewModel",
    "NewPreTrainedModel",
    "NewTokenClassifierOutput",
]

AutoConfig.register(NewConfig.model_type, NewConfig, exist_ok=True)
AutoModel.register(NewConfig, NewModel, exist_ok=True)
AutoModelForMaskedLM.register(NewConfig, NewForMaskedLM, exist_ok=True)
AutoModelForSequenceClassification.register(NewConfig, NewForSequenceClassification, exist_ok=True)
AutoModelForTokenClassification.register(NewConfig, NewForTokenClassification, exist_ok=True)
# The class that runs tokenizer.json as it is. AutoTokenizer.register is not asked where
# tokenizer_config.json names a class, and that class rebuilds the pipeline with other ids.
TOKENIZER_MAPPING_NAMES[NewConfig.model_type] = "TokenizersBackend"

# Files of ``pack_qkv: false`` hold what the network computes as one product in three parts.
_PARTS = ["attention.q_proj", "attention.k_proj", "attention.v_proj"]
register_checkpoint_conversion_mapping(
    NewConfig.model_type,
    [WeightConverter(_PARTS, "attention.qkv_proj", operations=[Concatenate(dim=0)])],
    overwrite=True,
)
