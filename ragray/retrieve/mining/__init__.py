"""Hard negatives for questions, and the file that holds them."""
