"""Programs with the vendor's own mapping whose times the vendor published."""
