"""What an answer may hold, and in which order."""
