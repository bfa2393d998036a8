"""Mean and variance over axes, and what normalisations make of them."""

from __future__ import annotations

from dataclasses import dataclass

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.floats import widened
from birc.compiler.importer.term import Term


@dataclass(frozen=True, slots=True)
class Moments:
    """The deviations of a tensor from its mean; that mean and the variance, whose axes stay with size 1.

    Half precision is computed in FP32, as its squares may overflow.
    """

    centred: Term
    mean: Term
    variance: Term

    @classmethod
    def over(cls, build: GraphBuilder, x: str, axes: tuple[int, ...]) -> Moments:
        """The moments over `axes`."""
        wide = Term(build, widened(build, x))
        mean = wide.reduce("reduce_mean", *axes, keep=True)
        centred = wide - mean
        return cls(centred, mean, (centred * centred).reduce("reduce_mean", *axes, keep=True))

    def inverse(self, epsilon: float) -> Term:
        """1 over the standard deviation."""
        return inverse_root(self.variance, epsilon)

    def standardized(self, epsilon: float) -> Term:
        """Deviations in units of the standard deviation."""
        return self.centred * self.inverse(epsilon)


def inverse_root(variance: Term, epsilon: float) -> Term:
    """1 / sqrt(variance + epsilon)"""
    return (variance + epsilon).row("rsqrt")
