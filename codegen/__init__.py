"""Code generation: from the scheduled plan to the instruction stream and the package."""
