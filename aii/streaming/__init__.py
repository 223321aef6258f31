"""One call's audio to events: pure values in and out; no sockets, threads, clocks or torch.

events.py    what happened in a call
policy.py    the interface of a policy: when to decode, what to commit
window.py    the policy of the raw TCP server: 5 s windows, final at 30 s
session.py   one call: buffer + policy + counters
"""
