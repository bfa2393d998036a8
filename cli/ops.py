"""`birc ops`: the table of core ops."""

from __future__ import annotations

from typing import Any

from birc.cli.output import Format, FormatOption, print_json, print_table
from birc.compiler.ir.op import OpRow
from birc.compiler.ir.table import OPS


def ops_command(format: FormatOption = Format.TEXT) -> None:
    """List the core ops, to which ONNX operators are lowered.

    Examples:

        birc ops

        birc ops --format json
    """
    if format is Format.JSON:
        print_json({"schema": "birc.ops/1", "ops": [_row_json(row) for row in OPS]})
        return
    rows = [(row.name, row.inputs, ", ".join(row.attributes), row.category, row.doc) for row in OPS]
    print_table(("op", "inputs", "attributes", "category", "meaning"), rows)


def _row_json(row: OpRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "doc": row.doc,
        "category": row.category,
        "inputs": [
            {"name": operand.name, "optional": operand.is_optional, "variadic": operand.is_variadic}
            for operand in row.operands
        ],
        "attributes": {name: {"kind": item.kind, "doc": item.doc} for name, item in row.attributes.items()},
        "data_dependent": row.data_dependent,
        "in_f32": row.in_f32,
    }
