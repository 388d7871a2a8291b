"""Items posted between two releases."""
