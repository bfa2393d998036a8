"""How every part of a plan is spelt: the one table behind printer and parser.

A step has one entry a die, `same` standing for the kernel of the die before it:

    run { kernel "conv1" macs 118013952 from "conv1" "relu1" { ... } idle }
    %x[n, 2 y +1 r -3] dims [1, 224] strides [224, 1] fill lowest      an access
    v2 = vadd(v0, v1)                                                  a statement
"""

from __future__ import annotations

import dataclasses
import re
from types import NoneType
from typing import Final

from birc.compiler.ir.plan import (
    Access,
    Boundary,
    Buffer,
    Contraction,
    CopyStep,
    Dimension,
    Exchange,
    ExchangeStep,
    FillStep,
    Index,
    Kernel,
    KernelStep,
    Phase,
    Plan,
    ShareStep,
    Statement,
    Tiling,
    View,
)
from birc.compiler.ir.text_form import LEAVES, Again, Codec, Forms, Leaf
from birc.compiler.ir.text_names import quoted, word_text
from birc.compiler.ir.tile_order import TileOrder
from birc.compiler.ir.token_reader import TokenReader

_PLACE: Final = (
    " dims {dims} strides {strides}< lower {lower}>< offset {offset}>< as {seen:word}>< part {word}>< away {away}>"
)
TEMPLATES: Final = {
    View: "{buffer:value}" + _PLACE,
    Access: "{view.buffer:value}{index}" + _PLACE.replace("{", "{view.") + "< fill {fill:word}>",
    Dimension: "{kind:word} {name:word} {extent}",
    Contraction: (
        "{format:word} rows {rows} {row_dims:word} columns {column_dims:word} depth {depth}"
        "\n  a = {a}<\n  and {further:+}>\n  b = {b}"
    ),
    Statement: (
        "<{result:name} = >{op:name}<{arguments:()}>< {access}>< over {dims:word}>"
        "< axis {index_axis} count {index_count}>"
    ),
    Phase: "<{loops:word()}>",
    TileOrder: "{name:word}< by {shifted}>",
    Tiling: (
        "{tile:word}< spcs {spcs:word}>< block {rows} by {columns}>< resident {resident}>"
        "< hoist {hoist:word}>< slots {a_slots} and {b_slots}>< programs {programs}>< turns {turns:word}>"
        "< windows {taps:word}>"
    ),
    Kernel: "{name}< macs {macs}>< from {sources:text+}>",
    Buffer: (
        "{name:value} : {dtype:word} {num_bytes} bytes {role:word} in {space:word}< at {address:hex}>"
        "< live {first} to {last}>< mirrors {home:value}>"
        "< parts {part_offsets} dims {part_dims} strides {part_strides}>"
    ),
    KernelStep: "<beside {beside}>< follows {follows}>< continues {continues}>",
    CopyStep: "{source:value} to {target:value}",
    FillStep: "{target} from {source} on dies {dies:hex}",
    ShareStep: "{buffer:value}",
    Exchange: "{view} from die {sender}",
    ExchangeStep: "<stored {stored}>",
    Boundary: "{name} : {dtype:word}{shape}",
    Plan: (
        "plan {name} on {target:word} dies {dies} precision {precision:word} macs {macs}"
        "< repeat {repeat}>< advances {advances:value}>< bounds {bounds:word}>"
    ),
}
"""The templates (see text_form.py), each after those it is made of."""

BODIES: Final = {
    Phase: (("", "statements", Statement),),
    Kernel: (
        ("space", "space", tuple[Dimension, ...]),
        ("contract", "contraction", Contraction),
        ("tile", "tiling", Tiling),
        ("phase", "phases", Phase),
    ),
    KernelStep: (
        ("kernel", "kernels", Kernel),
        ("same", "kernels", Again),
        ("idle", "kernels", NoneType),
    ),
    ExchangeStep: (("send", "exchanges", Exchange),),
    Boundary: (("piece", "pieces", tuple[int, tuple[int, ...], View]),),
    Plan: (
        ("buffer", "buffers", Buffer),
        ("input", "inputs", Boundary),
        ("output", "outputs", Boundary),
        ("run", "steps", KernelStep),
        ("copy", "steps", CopyStep),
        ("fill", "steps", FillStep),
        ("exchange", "steps", ExchangeStep),
        ("share", "steps", ShareStep),
    ),
}
"""The statements in the bodies of blocks: keyword, field, what it holds."""

_CLAUSE_WORD: Final = re.compile(r"< *([a-z]+)")
_CLAUSE_WORDS: Final = frozenset(word for template in TEMPLATES.values() for word in _CLAUSE_WORD.findall(template)) | {
    field.name for record in TEMPLATES for field in dataclasses.fields(record)
}


def name_text(name: str) -> str:
    """The name of a register value, quoted also when it could be taken for the next part of a statement."""
    return quoted(name) if name in _CLAUSE_WORDS else word_text(name)


def index_text(index: Index) -> str:
    """`2 y +1 r -3`: terms, then the constant unless it is zero."""
    texts = [f"{factor:+d} {word_text(name)}" for name, factor in index.terms]
    if texts:
        texts[0] = texts[0].removeprefix("+").removeprefix("1 ")
    if index.constant or not texts:
        texts.append(f"{index.constant:+d}" if texts else str(index.constant))
    return " ".join(texts)


def read_index(reader: TokenReader) -> Index:
    """What `index_text` writes."""
    terms: list[tuple[str, int]] = []
    if reader.at("word", "string"):
        terms.append((reader.advance().text, 1))
    while reader.at("number"):
        number = reader.whole_number()
        if not reader.at("word", "string"):
            return Index(tuple(terms), number)
        terms.append((reader.advance().text, number))
    if not terms:
        reader.fail("a coordinate such as 2 y +1 r -3")
    return Index(tuple(terms))


def _plan_form() -> Codec:
    name = Leaf(("word", "string"), name_text, lambda reader: reader.take("a name", "word", "string"))
    forms = Forms({**LEAVES, "name": name})
    forms.add(Index, Leaf(("word", "string", "number"), index_text, read_index))
    for record, template in TEMPLATES.items():
        forms.declare(record, template, BODIES.get(record, ()))
    return forms[Plan]


PLAN_FORM: Final = _plan_form()
