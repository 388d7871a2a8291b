"""What was shown, and why."""
