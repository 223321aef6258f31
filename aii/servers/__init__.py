"""Sockets and threads; no ML.

``tcp.py`` accepts calls, ``connection.py`` is the thread of one call, ``services.py`` what each is
given, ``lifecycle.py`` has signals, limits of the process, and the bell that wakes a thread which
waits for a socket.
"""
