"""`POST /mcp`: a server of the Model Context Protocol, with the tools that OpenAI's connectors and deep research call."""
