"""Evaluation: truth, predictions, baselines, metrics, and how sure they are."""
