"""Concepts of the kernel, one module each: what a container is made of.

namespaces, rootfs, overlay, mounts, cgroups, capabilities, seccomp, terminal. Each offers plans (generators of steps)
and the few functions that its steps call. They know the ground floor, and here and there a neighbour on this one.
"""
