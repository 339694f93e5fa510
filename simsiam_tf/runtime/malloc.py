"""Settings of the native allocator: freed memory is kept, and a process out of memory ends with a message."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable

from simsiam_tf.runtime import cores

# glibc's names and numbers, from <malloc.h>
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def retain_freed_memory() -> bool:
    """Makes this process keep the memory that it frees, for the next step; returns False without glibc.

    By default, glibc gives large blocks back to the system. A training step then spends much of its time on
    page faults, two million a step for a ResNet-18 at batch 128. With these settings threads share few
    arenas, one on up to eight cores (`cores.training_arenas`), so that a block freed by one thread serves
    others. The process then keeps its peak of memory to the end, and the peak may be higher than by default.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    arenas = cores.training_arenas()
    return all([mallopt(_M_MMAP_MAX, 0), mallopt(_M_TRIM_THRESHOLD, -1), mallopt(_M_ARENA_MAX, arenas)])


_handlers: list = []  # keeps the functions alive that C++ may call at any time


def end_when_exhausted(say: Callable[[], object], status: int) -> None:
    """Ends the process with a message when native code runs out of memory. Does nothing without libstdc++.

    By default, std::bad_alloc, which no Python code can catch, aborts the process. Other uncaught C++
    exceptions abort it as before.

    say: writes the message; it must need little memory itself. status: exit status of the process.
    """
    try:
        library = ctypes.CDLL("libstdc++.so.6")
        set_terminate, exception_type = library._ZSt13set_terminatePFvvE, library.__cxa_current_exception_type
    except (OSError, AttributeError):
        return
    function = ctypes.CFUNCTYPE(None)
    set_terminate.restype = exception_type.restype = ctypes.c_void_p

    def terminate() -> None:
        info = exception_type()  # a std::type_info, whose second word is the name
        name = ctypes.cast(info, ctypes.POINTER(ctypes.c_char_p))[1] if info else b""
        if b"bad_alloc" in name:
            say()
            os._exit(status)
        former()

    handler = function(terminate)
    former = function(set_terminate(handler))
    _handlers.append(handler)
