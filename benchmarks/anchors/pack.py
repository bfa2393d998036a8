"""The sizes of BERT-large and of the pack of sequences that one SPC takes."""

TOKENS = 512  # of a pack
CHANNELS = 1024
HEADS = 16
INNER = 4096  # channels inside the feed-forward part
LAYERS = 24

TILE = 64
DEPTH = 256  # of one BF16 matrix operation
TOKEN_BLOCKS = TOKENS // TILE
PROGRAMS = 2  # vector programs that take the tiles in turn
