"""What teaches: plans told to people (explain, shell), figures that can be believed (measure, bench, plot), and the
course: its notebooks' kernel (sandbox), what their cells call (child, lesson), how they are run (course)."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def load_ipython_extension(shell: "Any") -> None:
    """`%load_ext minicontainer.teach` gives notebooks the cell magic `%%child`.

    The whole cell runs in a fresh process with one thread; words behind `%%child` name variables to take along.
    """
    from . import child

    def magic(line: str, cell: str) -> None:
        child.cell(cell, {name: shell.user_ns[name] for name in line.split()})

    shell.register_magic_function(magic, "cell", "child")
