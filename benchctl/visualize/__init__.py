"""Looking inside a model: one file per picture."""
