"""The command line `birc`."""
