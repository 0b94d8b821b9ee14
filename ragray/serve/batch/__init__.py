"""`POST /v1/batch`: many requests in one, each answered as if it had come alone."""
