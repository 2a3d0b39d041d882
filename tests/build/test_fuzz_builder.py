"""Whole Dockerfiles of noise, from the text to the image's config, with no workshop: whatever is
written, a build ends in BuildError (with a line) or in an image's document. No container, no mount.
"""

import os
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minicontainer import errors
from minicontainer.build import builder, cache, check, context, dockerfile, instructions, running
from minicontainer.image import making

WORDS = st.sampled_from(
    """a / . .. ../x *.c a* [a-z] [ a/b ${X} $X ${X:-y} ${X:?no} ${X#*} ${X//a/b} ${ $ "q" 'q "q \\ \\$X é \x00 --
    --from=0
    --from=s --chmod=7 --chown=a:b --chown=$X --link --parents --exclude=* --mount=type=cache,target=/c --mount=x
    --mount=type=bind,source=a,target=b --mount=type=secret,id=s --mount=type=tmpfs,target=/,size=x --network=none X=1 X
    X=$X ="" <<E <<-E [] ["a"] ["a", {"a":1] 80 80/tcp 1-9 9-1 $X/udp 99999 ALL NONE CMD --interval=1s --retries=-1
    SIGTERM 0 -1 root:1 s AS as scratch plain 0 1 X=a=b s=\\ --platform=linux/arm64 --platform=$X/y ONBUILD RUN FROM
    https://[x/a file:///x --checksum=sha256:x --unpack""".split(" ")
)
KEYWORDS = st.sampled_from(sorted(instructions.READERS) + ["RUN", "COPY", "ENV", "ARG", "NO", "#"])
LINE = st.builds(lambda name, words, end: f"{name} {' '.join(words)}{end}\n", KEYWORDS, st.lists(WORDS, max_size=5),
                 st.sampled_from(["", "", "", " \\", "\r", "\nE", " # x"]))  # fmt: skip
TEXT = st.lists(LINE, max_size=8).map("".join)


class Stubbed(builder.Builder):
    """A build of which no step is done."""

    def begin(self, stage: builder.Stage, base: instructions.From) -> list[instructions.Instruction]:
        earlier = check.stage_named(self.script._replace(stages=self.script.stages[: stage.index]), base.image)
        return super().begin(stage, base._replace(image=base.image if earlier is not None else "scratch"))

    def tree(self, stage: builder.Stage, statement: dockerfile.Statement, name: str) -> Any:
        return super().tree(stage, statement, "")

    def memory(self) -> str:
        return self.engine.root

    def cached(self, stage: builder.Stage, work: running.Work) -> builder.Waiting:
        self.step(stage, work.statement)
        yield from ()
        cache.key_of(work.inputs())
        stage.snapshot = making.Snapshot((*stage.snapshot.descriptors, LAYER), (*stage.snapshot.diff_ids, EMPTY))
        stage.image = work.noted("2024-01-31T12:00:00Z")
        work.close()


EMPTY = f"sha256:{'0' * 64}"
LAYER = {"mediaType": "x", "digest": EMPTY, "size": 0}


def built(text: str, place: str, aside: str) -> None:
    script = instructions.read(dockerfile.parse(text))
    check.check(script)
    engine: Any = SimpleNamespace(images=SimpleNamespace(root=place), root=place)
    root = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        given_ = builder.Given(context.Tree(root), "x")
        one = Stubbed(engine, script, builder.Settings(build_args={"Z": "z"}), lambda *_: None, given_)
        workshop: Any = SimpleNamespace(folder=lambda kind: tempfile.mkdtemp(kind, dir=aside))
        one.workshop = workshop
        order = check.needed(one.script)
        one.stages(order)
        last = one.built[order[-1]]
        making.Draft(last.snapshot, last.image.document(last.created))
    finally:
        os.close(root)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(TEXT, st.sampled_from(["", "ARG X=v\n", "# escape=`\n"]))
def test_noise_ends_in_build_errors_alone(text: str, head: str) -> None:
    whole = f"{head}FROM scratch AS s\nARG X\n{text}"
    with tempfile.TemporaryDirectory() as place, tempfile.TemporaryDirectory() as aside:
        (Path(place) / "a").write_text("a")
        try:
            built(whole, place, aside)
        except errors.BuildError as error:
            assert 1 <= error.line <= whole.count("\n") + 1, (error, whole)
            assert str(error)
