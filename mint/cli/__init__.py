"""The command `mint`: arguments in, exit codes out."""
