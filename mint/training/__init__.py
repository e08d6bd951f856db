"""The training loop of baselines and of retraining."""
