"""Points, hints and rooms, for all labs: see minicontainer/teach/lab/plugin.py."""

from minicontainer.teach.lab.plugin import *  # noqa: F403
