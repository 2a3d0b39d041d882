"""The package's own functions behind this lab's door: what they score shows how far copying gets."""

import os

from minicontainer import netlink, steps, syscalls
from minicontainer.kernel import capabilities, overlay, rootfs


def start(layers, top, command, hostname, address, gateway, keep):
    read, write = os.pipe()
    if os.fork() == 0:
        syscalls.unshare(0x2C020000 | 0x40000000 | 0x02000000)  # all kinds but user and time
        pid = os.fork()
        if pid:
            os.write(write, str(pid).encode())
            os._exit(0)
        syscalls.sethostname(hostname)
        syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
        steps.execute(overlay.mount("/", layers, top, False), {})
        os.makedirs(f"{top}/rootfs/proc", exist_ok=True)
        syscalls.mount("proc", f"{top}/rootfs/proc", "proc")
        steps.execute(rootfs.pivot(f"{top}/rootfs"), {})
        steps.execute(capabilities.apply(dict.fromkeys(("bounding", "effective", "permitted"), keep), 0), {})
        os.execve(f"/bin/{command[0]}", command, {"PATH": "/bin"})
    pid = int(os.read(read, 16))
    netlink.link_add("cable", "veth", peer="eth0", namespace=pid, up=True)
    netlink.address_add("cable", gateway)
    netlink.address_add("eth0", address, namespace=pid)
    netlink.link_set("eth0", up=True, namespace=pid)
    return pid


def finish(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
