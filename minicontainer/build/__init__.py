"""A Dockerfile, from its text to an image. On engine.client alone; the engine knows nothing of it.

`dockerfile.parse(text, file)` gives statements, `instructions.read(source)` stages of typed instructions,
`check.check(script)` what is wrong or doubtful about them; `ignore.parse` is for a .dockerignore, and `builder.Builder`
makes the image. `build` is all of that for who writes Python. Each raises errors.BuildError for what the text says.
"""

from .library import build

__all__ = ["build"]
