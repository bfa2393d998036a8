"""Addresses for blocks of memory whose lifetimes are fixed."""
