"""The engine: where image, network and runtime meet; what library users import, through `client`."""
