"""User namespaces: what is no container's to see from inside. The rest is in tests/runtime."""

import os

import pytest

from minicontainer.kernel import idmap

pytestmark = pytest.mark.root

NOBODY = 65534


def test_a_pipe_is_given_by_who_may_and_stays_anothers_else() -> None:
    """An ordinary user's own container begins, also with root's pipe behind its standard output."""
    user = (idmap.Range(0, NOBODY, 1),)
    for began_as, owner in ((NOBODY, 0), (0, NOBODY)):
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.dup2(writer, 1)
                os.setresuid(began_as, began_as, began_as)
                idmap.give_pipes(idmap.Maps(user, user, False), 0, 0)
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        assert (status, os.fstat(reader).st_uid) == (0, owner)
        os.close(reader)
        os.close(writer)
