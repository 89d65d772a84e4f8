"""A page for photographs (`z1g app`): uploads, a queue of samples, a server of the standard library.

Everything is in memory: no address of the page names a file of this machine.
"""
