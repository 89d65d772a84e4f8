"""Errors of one object and of the settings."""


class MeshError(Exception):
    """The mesh cannot be used; the message is shown to the user."""


class SettingsError(Exception):
    """The settings are not supported on this machine; the message is shown to the user."""
