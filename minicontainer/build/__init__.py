"""A Dockerfile, from its text to what it means. On engine.client alone; what is here so far is pure.

`dockerfile.parse(text, file)` gives statements, `instructions.read(source)` stages of typed instructions,
`check.check(script)` what is wrong or doubtful about them; `ignore.parse` is for a .dockerignore.
Each raises errors.BuildError and nothing else.
"""
