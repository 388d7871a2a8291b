"""What a release holds: the folder, its tables, and the session that runs its graphs."""
