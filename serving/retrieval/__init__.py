"""Where candidates come from: one module a source, their interest, their fusion."""
