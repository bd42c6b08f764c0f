"""One encoder, many heads: token ids in, each task's logits out.

`MultiTaskModel.from_encoder(name, tasks)` builds a model on a pretrained encoder, `MultiTaskModel.from_pretrained(folder)` loads a
checkpoint strictly. Tensors carry their letters: B rows of the batch, b rows of one task, T tokens, H hidden size, K labels.
"""
