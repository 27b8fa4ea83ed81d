"""What a study survives, tried out: `make torture`."""
