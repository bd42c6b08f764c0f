"""The parts of the demo corpus generator: templates, slot values, noise and composition (see `make_demo_corpus.py`)."""
