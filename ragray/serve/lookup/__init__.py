"""Routes that look passages up, in the shape that one kind of client calls."""
