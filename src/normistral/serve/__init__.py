"""A model over HTTP and in a browser."""
