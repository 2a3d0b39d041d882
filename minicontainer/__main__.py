"""`python -m minicontainer`."""

from .cli import console

console()
