"""The verifier: what a decoded instruction stream must satisfy before it may run."""
