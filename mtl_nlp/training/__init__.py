"""A recipe → a trained checkpoint: `finetune(recipe)` reads the data, builds the model, trains, scores and saves.

`MultiTaskTrainer` is a thin subclass of `transformers.Trainer`: mixed batches, the contract's loss, one evaluation of all tasks.
"""
