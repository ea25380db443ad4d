"""What `fit` minimises, as pure functions of (parameters, batch)."""
