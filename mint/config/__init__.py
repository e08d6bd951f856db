"""What is run: experiments, trials and sweeps as validated values with keys."""
