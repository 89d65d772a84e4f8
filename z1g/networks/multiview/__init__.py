"""UNets of diffusers that see several images of an object at once."""
