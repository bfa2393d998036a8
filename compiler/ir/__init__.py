"""The intermediate representations: typed graph, scheduled plan, and their text forms."""
