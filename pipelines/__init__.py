"""When and in what order: the pipelines, and the command line."""
