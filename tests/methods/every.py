"""Every method, ready to edit a small base: what the suites over all methods are run on."""

from collections.abc import Callable

from instructedit.base import Base
from instructedit.methods.base import EditMethod
from instructedit.methods.calinet import CaliNet
from instructedit.methods.ft_l import FTL
from instructedit.methods.grace import GRACE
from instructedit.methods.hyper import HyperMethod
from tests.core import editor_on, ke_on


def mend(base: Base) -> EditMethod:
    """A hypernetwork nobody has trained, with steps large enough to change answers."""
    editor, stage = editor_on(base, alpha=0.1)
    return HyperMethod(editor, stage, "MEND")


def ke(base: Base) -> EditMethod:
    """KE, untrained too."""
    editor, stage = ke_on(base)
    return HyperMethod(editor, stage, "KE")


EVERY: dict[str, Callable[[Base], EditMethod]] = {
    "ft-l": lambda _: FTL(lr=1e-2, norm_constraint=0.1),
    "calinet": lambda _: CaliNet(steps=30),
    "grace": lambda _: GRACE(steps=20),
    "ke": ke,
    "mend": mend,
}
"""By their names in the table; InstructEdit is MEND with instructions in the requests."""
