"""The passages of an index, indexed anew with other weights of its encoder."""
