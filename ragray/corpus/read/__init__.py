"""Reading sources: files, folders, globs and URIs to documents, each with its line. Plain Python."""
