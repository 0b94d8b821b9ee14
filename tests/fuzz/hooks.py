"""What schemathesis is told beside its command: how a body of lines is sent. Loaded by it, where nothing of ragray is installed."""

import schemathesis


@schemathesis.serializer("application/jsonl")
def lines(context: object, value: object) -> bytes:
    return str(value).encode("utf-8", "surrogatepass")
