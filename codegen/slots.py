"""The slots of a kernel: one for each view that its instructions touch."""

from __future__ import annotations

from dataclasses import dataclass, field

from birc.compiler.ir.plan import View


@dataclass(slots=True)
class Slots:
    """Views in order of their first use; the position is the slot number."""

    views: list[View] = field(default_factory=list)

    def number(self, view: View) -> int:
        """The slot of a view, new if it has none yet."""
        if view not in self.views:
            self.views.append(view)
        return self.views.index(view)
