"""The commands of ``python -m jaxvars``, one module each: what they take, what they print, their exit codes.

Results go to standard output, all else to standard error; what is printed reads the same in a terminal and in a pipe.
"""
