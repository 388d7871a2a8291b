"""Release: the registry's record of what was learnt, judged and chosen."""
