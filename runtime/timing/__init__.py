"""The timing engine: the cycles of a program and what they were spent on."""
