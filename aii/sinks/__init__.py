"""Events to the outside.

``base.py`` keeps a slow reader of our output from delaying a call; ``console.py`` and ``jsonl.py``
write lines for people and for programs; ``socket.py`` makes the replies on the call's own socket.
"""
