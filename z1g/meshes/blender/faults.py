"""What stops one object, and what stops all of them."""


class MeshError(Exception):
    """The mesh cannot be used; the message is for people."""


class Unable(Exception):
    """These settings cannot be obeyed here at all; the message is for people."""
