"""Restricts the ports of this process to the addresses that a user named.

TensorFlow's servers, tf.data's included, listen on every interface whatever address they are given, and
run graphs, which read and write files, for whoever reaches them. Their sockets get a filter: Linux then drops
packets to other addresses before a connection is made.
"""

from __future__ import annotations

import ctypes
import errno
import ipaddress
import os
import socket
import stat
import struct
import sys
from collections.abc import Iterator

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_ATTACH_FILTER = 26  # SO_ATTACH_FILTER, which Python does not name
_LOAD_BYTE, _LOAD_WORD, _AND, _JUMP_UNLESS_EQUAL, _RETURN = 0x30, 0x20, 0x54, 0x15, 0x06  # classic BPF
_IP_HEADER = 0xFFF00000  # SKF_NET_OFF


def listen_addresses(host: str) -> tuple[Address, ...]:
    """Returns the addresses to listen at for a host's name or IP address; an empty tuple: every interface.

    The tuple is empty for a name other than localhost: other machines may resolve it otherwise, and many a
    machine calls itself 127.0.1.1. It is also empty for an address that is not this machine's, as behind a
    router that translates addresses.
    """
    host = host.strip("[]")
    if host == "localhost":
        return ipaddress.IPv4Address("127.0.0.1"), ipaddress.IPv6Address("::1")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return ()
    try:
        with socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6) as trial:
            trial.bind((host, 0))
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            return ()
    return () if address.is_unspecified else (address,)


def restrict_port(port: int, host: str) -> bool:
    """Makes this process's servers at a port unreachable except at `listen_addresses(host)`.

    Returns whether it did: False if `host` gives no address, if nothing listens at the port, and on systems
    other than Linux or without such filters. Existing connections stay open.
    """
    addresses = listen_addresses(host)
    if not addresses or sys.platform != "linux":
        return False
    program = _filter_program(addresses)
    buffer = ctypes.create_string_buffer(program, len(program))
    option = struct.pack("HP", len(program) // 8, ctypes.addressof(buffer))
    restricted = False
    for server in _listening_sockets(port):
        try:
            server.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, option)
        except OSError:  # a kernel without filters
            return False
        restricted = True
    return restricted


def _listening_sockets(port: int) -> Iterator[socket.socket]:
    """Yields copies of the sockets on which this process listens at a port."""
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        try:
            if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                continue
            copy = socket.socket(fileno=os.dup(descriptor))
        except OSError:  # closed meanwhile
            continue
        with copy:
            internet = copy.family in (socket.AF_INET, socket.AF_INET6)
            listens = internet and copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            if listens and copy.getsockname()[1] == port:
                yield copy


def _filter_program(addresses: tuple[Address, ...]) -> bytes:
    """Returns the instructions of a filter that keeps packets whose destination is among the addresses."""
    program = b""
    for address in addresses:
        first = 16 if address.version == 4 else 24  # byte of the destination in an IP header
        words = struct.unpack(f">{len(address.packed) // 4}I", address.packed)
        steps = [(_LOAD_BYTE, _IP_HEADER), (_AND, 0xF0), (_JUMP_UNLESS_EQUAL, address.version << 4)]
        for i, word in enumerate(words):
            steps += [(_LOAD_WORD, _IP_HEADER + first + 4 * i), (_JUMP_UNLESS_EQUAL, word)]
        steps.append((_RETURN, 0xFFFFFFFF))
        for i, (code, value) in enumerate(steps):
            skip = len(steps) - 1 - i if code == _JUMP_UNLESS_EQUAL else 0  # to the next address
            program += struct.pack("HBBI", code, 0, skip, value)
    return program + struct.pack("HBBI", _RETURN, 0, 0, 0)
