"""minicontainer: a container engine small enough to read in a weekend, real enough to use on Monday."""

__version__ = "0.1.0"
