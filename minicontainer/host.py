"""What this machine is and can do: where the store lies, who we are, which features the kernel has.

Offers: the paths of the store, and facts that plans are made from. Every fact is read from the kernel, never guessed.
"""

import fcntl
import os

DEFAULT_ROOT = "/var/lib/minicontainer"


def is_root() -> bool:
    """Root of the machine: uid 0 in the initial user namespace. Uid 0 alone says nothing: `unshare -Ur` gives it to anyone."""
    return os.geteuid() == 0 and not in_user_namespace()


def in_user_namespace() -> bool:
    """Whether some ids of the machine are not mapped here (user_namespaces(7), /proc/PID/uid_map)."""
    with open("/proc/self/uid_map") as file:
        return file.read().split() != ["0", "0", "4294967295"]


def forbids_setgroups() -> bool:
    """Whether this user namespace forbids setgroups(2), as those of ordinary users do (user_namespaces(7))."""
    with open("/proc/self/setgroups") as file:
        return file.read().strip() == "deny"


def owns_network() -> bool:
    """Whether this process may change the network namespace that it is in: no other user namespace owns it."""
    if not in_user_namespace():
        return True
    namespace = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.close(fcntl.ioctl(namespace, NS_GET_USERNS))
        return True
    except PermissionError:  # it is not ours, nor a descendant's (ioctl_ns(2))
        return False
    finally:
        os.close(namespace)


NS_GET_USERNS = 0xB701  # linux/nsfs.h


def privileged() -> bool:
    """Whether this process may mount and make namespaces: root of the machine, or of a user namespace."""
    with open("/proc/self/status") as file:
        effective = next(line.split()[1] for line in file if line.startswith("CapEff:"))
    return os.geteuid() == 0 and bool(int(effective, 16) >> CAP_SYS_ADMIN & 1)


CAP_SYS_ADMIN = 21  # linux/capability.h


def root() -> str:
    """The store's directory: $MINICONTAINER_ROOT, or /var/lib/minicontainer for root, or under $XDG_DATA_HOME."""
    named = os.environ.get("MINICONTAINER_ROOT")
    if named:
        return os.path.abspath(named)
    if is_root():
        return DEFAULT_ROOT
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return os.path.join(data, "minicontainer")


def suffix() -> str:
    """What every shared kernel object's name ends with: empty for the default store, else `-` and six hex digits of its path.

    Two stores on one machine so never meet in a bridge, a table or a cgroup.
    """
    path = root()
    if path == DEFAULT_ROOT:
        return ""
    # FNV-1a, 32 bits (draft-eastlake-fnv): no hashlib on the start path.
    value = 0x811C9DC5
    for byte in os.fsencode(path):
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return f"-{value & 0xFFFFFF:06x}"


def run_root() -> str:
    """Where leases, sockets and state lie until the next boot: /run/minicontainer, or under $XDG_RUNTIME_DIR."""
    if is_root():
        base = "/run"
    else:
        base = os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/minicontainer-{os.stat('/proc/self').st_uid}"
    return f"{base}/minicontainer{suffix()}"
