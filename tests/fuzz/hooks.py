"""What schemathesis is told beside its command. Loaded by it, where nothing of ragray is installed."""

import schemathesis

MODELS = {"/v1/chat/completions": "run-1", "/v1/responses": "run-1", "/v1/embeddings": "hash:64"}
"""The models of `tests.serve.river`: made-up names are refused before anything else is looked at."""


@schemathesis.serializer("application/jsonl")
def lines(context: object, value: object) -> bytes:
    return str(value).encode("utf-8", "surrogatepass")


@schemathesis.hook
def map_body(context: schemathesis.HookContext, body: object) -> object:
    model = MODELS.get(context.operation.path)
    return {**body, "model": model} if model and isinstance(body, dict) and isinstance(body.get("model"), str) else body
