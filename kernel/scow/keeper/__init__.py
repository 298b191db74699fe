"""What a supervisor becomes while nobody wants anything of it: a process of three megabytes that holds on.

A supervisor that has settled replaces itself (execve(2)) by `keep`: the same process, so still the container's parent
and the owner of its lock, its descriptors and its mount namespace, but of all that Python only the bare interpreter.
The keeper copies output to the log and waits. When somebody speaks to the control socket, or the container ends, it has
a supervisor made and hands it everything; a supervisor that dies takes nothing with it.

The rule here: modules that are built into the interpreter, and nothing else. What is imported stays in memory once
for each container.
"""
