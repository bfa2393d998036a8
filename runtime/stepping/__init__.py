"""The stepping engine: one instruction of one iteration at a time; the meaning of the instruction set."""
