"""OpenAPI of the control plane, from the operations' own types."""

from __future__ import annotations

from typing import Any

import msgspec

from taut import __version__
from taut.entrypoints import errors
from taut.entrypoints.operations import OperationTable
from taut.entrypoints.operations.operation import Operation
from taut.entrypoints.streams import NDJSON


def describe(table: OperationTable) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document."""
    operations = list(table)
    _, components = msgspec.json.schema_components(
        [operation.request for operation in operations], ref_template="#/components/schemas/{name}"
    )
    components["Error"] = _ERROR
    return {
        "openapi": "3.1.0",
        "info": {"title": "taut control plane", "version": __version__},
        "paths": {operation.path: _path(operation) for operation in operations},
        "components": {
            "schemas": components,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"bearer": []}],
    }


_ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "request_id"],
            "properties": {
                "code": {"type": "string", "enum": sorted(errors.TABLE)},
                "message": {"type": "string"},
                "request_id": {"type": "string"},
            },
        }
    },
}


def _path(operation: Operation) -> dict[str, Any]:
    noun, _, verb = operation.name.partition(".")
    answers = {
        "200": {
            "description": "Done. With `Accept: application/x-ndjson`, progress lines and then the result.",
            "content": {
                "application/json": {"schema": {"type": "object"}},
                NDJSON: {"schema": {"type": "object"}},
            },
        },
        "default": {
            "description": "Refused or failed.",
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        },
    }
    common = {
        "summary": operation.summary,
        "tags": [noun],
        "responses": answers,
        "x-taut-action": operation.action,
        **({"security": []} if operation.open else {}),
    }
    reference = {"$ref": f"#/components/schemas/{operation.request.__name__}"}
    post = {
        **common,
        "operationId": f"{noun}_{verb}",
        "requestBody": {"content": {"application/json": {"schema": reference}}},
    }
    if not operation.reads:
        return {"post": post}
    return {
        "post": post,
        "get": {**common, "operationId": f"get_{noun}_{verb}", "parameters": _query(operation)},
    }


def _query(operation: Operation) -> list[dict[str, Any]]:
    return [
        {
            "name": field.encode_name,
            "in": "query",
            "required": field.required,
            "schema": {"type": "string"},
        }
        for field in msgspec.structs.fields(operation.request)
    ]
