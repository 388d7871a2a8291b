"""Whether the world is still the one that was learnt: drift of what is served, measured against the week the champion was judged on."""
