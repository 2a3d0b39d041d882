"""The package's own functions behind this lab's door: what they score shows how far copying gets."""

from minicontainer import errors
from minicontainer.runtime import lifecycle, spec


def refused(config):
    try:
        spec.check(spec.complete(config))
    except errors.MiniContainerError as error:
        return [str(error)]
    return [f"{level}.{name}" if level else name for level, name in spec.beside(config)]


def create(home, name, bundle):
    try:
        return lifecycle.Runtime(home).create(name, bundle)
    except errors.Conflict as error:
        raise FileExistsError(str(error)) from None
    except errors.CommandNotFound as error:
        raise FileNotFoundError(str(error)) from None


def start(home, names):
    for name in names:
        try:
            lifecycle.Runtime(home).start(name)
        except errors.Conflict as error:
            raise RuntimeError(str(error)) from None


def state(home, name):
    try:
        found = lifecycle.Runtime(home).state(name)
    except errors.ContainerNotFound as error:
        raise LookupError(str(error)) from None
    return {"status": found["status"], "pid": found["pid"]}


def remove(home, name, seconds):
    lifecycle.Runtime(home).delete(name, force=True)
