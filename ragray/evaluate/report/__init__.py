"""A report of answered questions: figures with intervals, slices, a baseline compared, and all of it as one page."""
