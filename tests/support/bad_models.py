"""The corpus of bad models, of all kinds."""

from __future__ import annotations

from bad_model import BadModel
from bad_models_files import FILES, STRUCTURES
from bad_models_operators import CONTROL, OPERATORS
from bad_models_tensors import EXTERNALS, TENSORS

CORPUS: tuple[BadModel, ...] = (*FILES, *STRUCTURES, *TENSORS, *EXTERNALS, *OPERATORS, *CONTROL)
