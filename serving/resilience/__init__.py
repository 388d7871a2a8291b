"""An answer, always: the ladder of rungs, the budget, breakers and caches."""
