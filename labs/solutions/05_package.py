"""The package's own functions behind this lab's door: what they score shows how far copying gets."""

import os

from minicontainer.image import layers as package


def apply(layers, target):
    for number, layer in enumerate(layers):
        unpacked = f"{target}.{number}"
        os.mkdir(unpacked)
        with open(layer, "rb", buffering=0) as file:
            package.unpack(file.read, unpacked)
        os.system(f"cp -a {unpacked}/. {target}")
