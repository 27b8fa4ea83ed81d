"""What a data set is like, before anything is trained on it: near duplicates, give-aways, ranges, and the overview."""
