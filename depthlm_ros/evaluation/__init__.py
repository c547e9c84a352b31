"""Evaluation in the DepthLM benchmark format: reader, metrics, tables."""
