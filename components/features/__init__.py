"""What was known at a cut: features, item table, user states."""
