"""What is known of a user, and where it is kept."""
