"""The runtime: a bundle in, a process out.

It speaks the OCI runtime specification (a `config.json` and a root directory) and knows neither images nor networks:
who calls it hands it the network's steps for the moment at which they are due.

    spec       config.json: the default one, and what is refused by name
    launch     the parent's plan: cgroup, fork, network, go
    init       the child's plan: namespaces, root filesystem, identity, execve
    channel    the messages between the two, and errors that travel up
    monitor    the process that stays: init's parent, until the container is gone
    state      which process is which: a pid and its start time
"""
