"""Where the work of a stage runs. Plain Python without Ray."""
