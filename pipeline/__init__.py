"""Adapters between `unigendet` and the outside: parameters, Ray, MLflow, DVC outs, the report."""
