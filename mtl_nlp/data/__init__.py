"""From corpora of texts to mixed, padded batches.

In: the sources that the task files name (text files, Hub datasets, in-memory tables) with their columns and
labels. Out: the global batches of a run, each a list of rows of several tasks, padded together, with the
labels that every task reads from them. Nothing here knows a model; only `batching` and `features` touch
tensors or tokenizers.
"""
