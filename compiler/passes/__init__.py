"""The passes over the graph and the plan, one a file."""
