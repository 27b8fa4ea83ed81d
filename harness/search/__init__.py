"""The search: what Optuna is asked and told. The only folder that knows Optuna's distributions and trials."""
