"""The runtime: instruction table, machine descriptions, package format and the engines that run it."""
