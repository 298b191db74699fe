"""The small process that holds one container: its parent, its log, its control socket.

A container is a task tree: mount, network and exec are entered one inside the other, and left in reverse. Nobody
else need stay alive; when a supervisor is killed, its container dies with it and the next command reclaims the rest.
"""
