"""`POST /v1/responses`: the text subset of OpenAI's newer interface, without state."""
