"""Read the small JSON files of a model directory, with errors that say which and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gte_core.exceptions import GTEError


def read_json_object(path: Path, error_type: type[GTEError]) -> dict[str, Any]:
    """The object in a JSON file; ``error_type`` if there is no such file or no object in it."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise error_type(
            f"{path} does not exist. A model directory holds config.json, tokenizer.json and "
            "*.safetensors; check the path."
        ) from error
    except OSError as error:
        raise error_type(f"{path} cannot be read ({error}). Check the path.") from error
    except (ValueError, RecursionError) as error:
        raise error_type(f"{path} is not valid JSON ({error}). Download it again.") from error
    if not isinstance(value, dict):
        raise error_type(f"{path} must hold a JSON object, not {type(value).__name__}.")
    return value
