"""Samples to words for all calls: the interface, who goes next, and the part that owns the model.

``api.py`` is all that servers know of an engine; ``batcher.py`` orders the waiting requests (pure);
``local.py`` computes in this process, on one thread that owns the model.
"""
