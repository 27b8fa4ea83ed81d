"""The hyperparameter search. The only folder that imports Optuna."""
