"""What a model or a mixture is like: studies of a run that are not the run itself."""
