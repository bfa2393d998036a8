"""The values engine: what a program computes, vectorised over whole loop nests."""
