"""The sections of params.yaml, one small class for each; `pipeline.params` puts them together."""
