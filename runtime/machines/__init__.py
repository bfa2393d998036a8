"""The machine descriptions: one TOML file a target, every figure with its source."""
