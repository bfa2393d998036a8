"""The verifier's one entry: a decoded program and a machine in, nothing or all findings out."""

from __future__ import annotations

from birc.runtime.machine import Machine
from birc.runtime.program import Program
from birc.runtime.residents import has_residents, later_calls
from birc.runtime.verifier.commands import CommandCheck
from birc.runtime.verifier.findings import Findings, VerificationError
from birc.runtime.verifier.first_call import check_first_call
from birc.runtime.verifier.layout import check_layout
from birc.runtime.verifier.structure import check_kernel


def verify_program(program: Program, machine: Machine) -> None:
    """Prove that every asynchronous execution of the program ends and gives the values of the sequential one.

    What cannot be proved is refused. First the form of program and kernels, then (only if that is sound)
    their execution. Where later calls leave out what the first one brought, both streams are proved. Raises
    `VerificationError` with all findings.
    """
    findings = Findings()
    check_layout(program, machine, findings)
    for kernel in program.kernels:
        check_kernel(kernel, machine, findings)
    if not findings:
        check_first_call(program, findings)
    if not findings:
        first = CommandCheck(program, machine, findings)
        first.check()
        if has_residents(program) and not findings:
            first.of_later_calls(later_calls(program)).check()
    if findings:
        raise VerificationError(program.name, findings.found)
