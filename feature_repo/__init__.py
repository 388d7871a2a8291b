"""What we know: the tables, the features, and Feast's view of them."""
