"""What a checkpoint is on disk: `save_model`, `load_model`, and the state that a run resumes from."""
