"""What is handed out: labs for students, labs with their solutions for instructors.

student()       everything but the solutions; works with an installed minicontainer:
                MINICONTAINER_LABS=minicontainer-labs minicontainer lab list, or pytest minicontainer-labs/06_overlay
"""

from __future__ import annotations

from ... import files
from . import LABS, copies, every

Files = dict[str, bytes]  # path in the bundle → content

# pytest's settings, which a checkout has in pyproject.toml: two labs' tests bear one name.
SETTINGS = "[pytest]\naddopts = --import-mode=importlib -ra\n"


def student() -> Files:
    """The labs as learners get them."""
    found = {"README.md": f"{LABS}/README.md", "conftest.py": f"{LABS}/conftest.py"}
    for lab in every():
        found |= {f"{lab.name}/{name}": f"{lab.directory}/{name}" for name in copies.given(lab)}
    return {"pytest.ini": SETTINGS.encode(), **{path: files.read(place) for path, place in found.items()}}
