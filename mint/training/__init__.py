"""The one training loop, for baselines and retraining."""
