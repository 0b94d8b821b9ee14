"""The page at `/` and the documentation of the routes at `/docs`: static files and their routes."""
