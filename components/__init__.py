"""How we learn: one folder a stage, plain functions of paths and a config."""
