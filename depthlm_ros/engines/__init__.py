"""Engines: what runs the model. They know nothing of depth."""
