"""Several finished models → one: ensembles, merged weights, distillation.

Checkpoints of this library or plain fine-tuned models of transformers come in; an ordinary checkpoint (of an ensemble: a folder of
them) goes out:

    fuse_merge(["runs/sst2", "runs/ner"], "runs/merged", method="ties")
"""
