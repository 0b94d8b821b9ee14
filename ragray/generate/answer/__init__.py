"""An answer while it is written: its tokens to text, its numbers to sources."""
