"""What training minimises: the port `Objective`, and RAG-Sequence and RAG-Token behind it."""
