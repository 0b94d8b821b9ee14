"""Questions and passages to answers. Plain Python without Ray."""
