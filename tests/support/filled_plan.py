"""A small plan with a tensor buffer that is filled, as text: every part of it can be replaced."""

from __future__ import annotations

FILL = "fill %near dims [16, 8] strides [8, 1] from %w.l2 dims [2, 16, 8] strides [8, 16, 1] on dies 0x3\n"
"""Each of two SPCs gets half of the columns of `w`."""
NEAR = "buffer %near : f32 512 bytes scratch in tb at 0x0 live 1 to 3"
PRODUCT = '  run {\n    kernel "product"'

FILLED = (
    """\
plan "filled" on tiny dies 2 precision model macs 4096 tensor_buffer_bytes 1024 {
  buffer %x : f32 1024 bytes input in hbm at 0x0 live 2 to 2
  buffer %y : f32 1024 bytes output in hbm at 0x400 live 3 to 3
  buffer %w : f32 1024 bytes constant in hbm at 0x800 live 0 to 0
  buffer %w.l2 : f32 1024 bytes scratch in l2 at 0x0 live 0 to 3 mirrors %w
  buffer %h : f32 1024 bytes scratch in l2 at 0x400 live 2 to 3
  buffer %near : f32 512 bytes scratch in tb at 0x0 live 1 to 3
  input "x" : f32[16, 16] {
    piece 3 [0, 0] %x dims [16, 16] strides [16, 1]
  }
  output "y" : f32[16, 16] {
    piece 1 [0, 0] %y dims [16, 16] strides [16, 1]
  }
  copy %w to %w.l2
  """
    + FILL
    + """\
  run {
    kernel "before" {
      space [par m 16, par n 16]
      tile [m 16, n 16]
      phase {
        v0 = vld %x[m, n] dims [16, 16] strides [16, 1]
        v1 = vmax(v0, 0.0)
        vst(v1) %h[m, n] dims [16, 16] strides [16, 1]
      }
    }
    same
  }
  run {
    kernel "product" macs 4096 {
      space [par spc 2, par m 16, par n 8, red k 16]
      contract tf32p rows 1 [m] columns [n] depth 1
        a = %h[m, k] dims [16, 16] strides [16, 1]
        b = %near[k, n] dims [16, 8] strides [8, 1]
      tile [spc 1, m 16, n 8, k 16] spcs [spc 2]
      phase {
        v0 = vacc
        vst(v0) %y[spc, m, n] dims [2, 16, 8] strides [8, 16, 1]
      }
    }
    same
  }
}
"""
)


def changed(*changes: tuple[str, str]) -> str:
    """The plan with one text after the other replaced, each of which it has."""
    text = FILLED
    for old, new in changes:
        if old not in text:
            raise ValueError(old)
        text = text.replace(old, new, 1)
    return text
