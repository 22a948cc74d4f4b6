"""The reference of all settings, as Markdown: `configs/README.md` is generated here from the schema.

The text comes from the JSON Schema of the configuration: types and rules from the fields, meanings from their
docstrings.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, TypeAlias

from raysys.config.schema import Config

JsonSchema: TypeAlias = dict[str, Any]

REMEDY = "raysys config --reference > configs/README.md"
_HEAD = f"""\
# Configuration

A configuration is a YAML file with the sections below. Almost every setting has a default, so a file contains
only what differs from it. `raysys config FILE` prints the resolved configuration, and
`raysys config --schema` prints the JSON Schema.

- **Files extend one another.** `extends: base.yaml` reads another file first, relative to the folder of the
  file. Later values replace earlier ones key by key. A different `kind` replaces its complete section.
- **Overrides** follow the file on the command line as `key=value`. The value is YAML:
  `raysys train configs/demo.yaml train.epochs=3 embed.splits=[val,test] projection.dimensions=null`.
- **Errors** name the file or the override, the key and the remedy:
  `configs/x.yaml: train.lerning_rate: unknown key; did you mean 'learning_rate'?`. The exit status is 2.

| file | for |
|---|---|
| `base.yaml` | settings that most runs share; the other files extend it |
| `demo.yaml` | `raysys demo`: a drawn catalogue and the small pretrained model on a laptop |
| `catalog.yaml` | your catalogue, with the small pretrained model on a laptop |
| `pretrain_tiny.yaml` | how that small model was trained |
| `siglip_b16_1xh200.yaml` | SigLIP ViT-B/16 from its published checkpoint, on one GPU |
| `siglip_b16_8xh100.yaml` | the same on eight GPUs |
| `bench.yaml` | the model and limits of `raysys bench` |

The rest of this page is generated from the docstrings in `raysys/config/`. Change it there, then run
`{REMEDY}`.
"""
_RULES = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}


def reference() -> str:
    """The reference page: a hand-written head, then a table for every section."""
    schema = Config.model_json_schema()
    sections = schema["properties"]
    top = {"properties": {key: field for key, field in sections.items() if not _models(field, schema)}}
    parts = [_HEAD, "## General\n", _table("", top, schema)]
    for key, field in sections.items():
        if models := _models(field, schema):
            parts += _section(key, field, models, schema)
    return "\n".join(parts)


def _section(name: str, field: JsonSchema, models: list[JsonSchema], schema: JsonSchema) -> Iterator[str]:
    """Heading, meaning and table of a section, for each of its kinds, and of the sections inside it."""
    heading = "#" * (2 + name.count("."))
    yield f"{heading} {name}\n"
    if "description" in field:
        yield f"{_text(field)}\n"
    if field["default"] is None:
        yield "Default: null.\n"
    if field["default"] == []:
        yield "A list, empty by default.\n"
    if len(models) > 1:
        kinds = ", ".join(f"`{_kind(model)}`" for model in models)
        yield f"Its `kind` is one of {kinds}; the default is `{field['default']['kind']}`.\n"
    for model in models:
        if len(models) > 1:
            yield f"{heading}# {name}, kind: {_kind(model)}\n"
        yield f"{_text(model)}\n"
        yield _table(name, model, schema)
        for key, inner in model["properties"].items():
            if inner_models := _models(inner, schema):
                yield from _section(f"{name}.{key}", inner, inner_models, schema)


def _table(section: str, model: JsonSchema, schema: JsonSchema) -> str:
    """One row for each setting of a section, without the sections inside it."""
    lines = ["| setting | type | default | meaning |", "|---|---|---|---|"]
    for key, field in model["properties"].items():
        if "const" in field or _models(field, schema):  # a constant `kind` is in the heading
            continue
        default = f"`{_json(field['default'])}`" if "default" in field else "required"
        dotted = f"{section}.{key}".removeprefix(".")
        cells = (f"`{dotted}`", _type(field), default, _text(field))
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _models(field: JsonSchema, schema: JsonSchema) -> list[JsonSchema]:
    """The sections that a field may hold, alone or in a list; none if it holds a plain value."""
    parts = (field, *_alternatives(field), field.get("items", {}))
    references = [part["$ref"] for part in parts if "$ref" in part]
    return [schema["$defs"][reference.rpartition("/")[2]] for reference in references]


def _kind(model: JsonSchema) -> str:
    return str(model["properties"]["kind"]["const"])


def _type(field: JsonSchema) -> str:
    """The type in words, with its rules: `integer > 0 or null`."""
    if alternatives := _alternatives(field):
        return " or ".join(_type(part) for part in alternatives)
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return " or ".join(f"`{value}`" for value in field["enum"])
    if field["type"] == "array":
        return f"list of {_type(field['items'])}"
    if field["type"] == "object":
        return f"map of names to {_type(field['additionalProperties'])}"
    rules = [f"{sign} {_number(field[rule])}" for rule, sign in _RULES.items() if rule in field]
    return " ".join(["text" if field["type"] == "string" else field["type"], ", ".join(rules)]).strip()


def _alternatives(field: JsonSchema) -> list[JsonSchema]:
    return [*field.get("anyOf", ()), *field.get("oneOf", ())]


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _text(described: JsonSchema) -> str:
    """The docstring in one line."""
    return " ".join(described.get("description", "").split())
