"""How we answer: from a user to a short list, and why."""
