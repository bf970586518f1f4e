"""The JSON Schema of recipes: what an editor needs to complete keys and show their meaning."""

from __future__ import annotations

from typing import Any

from bertshrink.data.settings import DataSettings
from bertshrink.recipe.recipe import MeasureSettings, _Body
from bertshrink.techniques import TECHNIQUES


def schema() -> dict[str, Any]:
    """Draft 2020-12, self-contained."""
    recipe = _Body.model_json_schema()
    definitions: dict[str, Any] = recipe.pop("$defs", {})

    def define(name: str, model: Any) -> dict[str, str]:
        body = model.model_json_schema(ref_template="#/$defs/{model}")
        definitions.update(body.pop("$defs", {}))
        definitions[name] = body
        return {"$ref": f"#/$defs/{name}"}

    entries: list[dict[str, Any]] = [{"enum": sorted(TECHNIQUES)}]
    for name, technique in TECHNIQUES.items():
        settings = {"anyOf": [define(name, technique), {"type": "null"}]}
        entries.append(
            {"type": "object", "properties": {name: settings}, "required": [name], "additionalProperties": False}
        )
    properties = recipe["properties"]
    properties["stages"]["items"] = {"anyOf": entries}
    properties["measure"] = define("measure", MeasureSettings) | {"description": "what is measured"}
    limit = {"type": "string", "pattern": r"^\s*[<>]=\s*[+]?[0-9]"}
    entry = {"limit": limit, "severity": {"enum": ["fail", "warn"]}}
    table = {"type": "object", "properties": entry, "required": ["limit"], "additionalProperties": False}
    properties["gates"] |= {"additionalProperties": {"anyOf": [limit, table]}}
    texts = [{"type": "string"}, define("data", DataSettings)]
    properties["data"] = {"anyOf": texts, "description": properties["data"]["description"]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "bertshrink recipe",
        **{key: value for key, value in recipe.items() if key not in ("title", "description")},
        "$defs": definitions,
    }
