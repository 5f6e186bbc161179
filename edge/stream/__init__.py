"""Adapting by forward passes: the support set streams through the network, and the head is computed from what it says.

`passes` says what is run, `heads` turns features into a head, `adaptation` does it in one arena, `selftest` checks it.
"""
