"""The operator table: one row an operator, one file a family."""
