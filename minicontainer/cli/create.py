"""`create`: make a container from an image and do not start it; the flags are those of `run`."""

from ..engine import client
from . import UsageError, run
from .flags import parse

NOT_OURS = ("--detach", "--detach-keys", "--sig-proxy", "--explain", "--plot", "--lab")
FLAGS = [flag for flag in run.FLAGS if not set(flag.spellings.split()) & set(NOT_OURS)]


def main(arguments: list[str]) -> int:
    """docker-create(1)."""
    values, rest = parse("create [FLAGS] IMAGE [COMMAND …]", FLAGS, arguments, stop=True)
    if not rest:
        raise UsageError('"minicontainer create" needs an image; `minicontainer images` lists those that are here')
    containers = client.Client().containers
    policy, quiet = values.pop("pull", ""), values.pop("quiet")
    options = run.engine_options(values)
    planned = run.plan(containers, policy, quiet, rest[0], command=rest[1:], **options)
    if "cidfile" in values:
        run.note_id(values["cidfile"], planned.record["id"])
    print(containers.make(planned))
    return 0
