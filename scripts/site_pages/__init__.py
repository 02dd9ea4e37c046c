"""Pages of the documentation that are not written by hand: docstrings as text, a page a config group, a page a package of the API."""
