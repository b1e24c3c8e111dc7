# SPDX-License-Identifier: MIT
"""A small ttrpc client: one call at a time, with descriptors, and frames as broken as a test wants them."""

import array
import os
import random
import socket
import struct

from . import protobuf

HERE = os.path.dirname(os.path.abspath(__file__))
wire, _ = protobuf.load(os.path.join(HERE, ".."), "ttrpc.proto")
HEADER = struct.Struct(">IIBB")
REQUEST, RESPONSE, DATA = 1, 2, 3

INVALID_ARGUMENT, NOT_FOUND, RESOURCE_EXHAUSTED, FAILED_PRECONDITION, UNIMPLEMENTED = 3, 5, 8, 9, 12


def broken_frames():
    """Byte strings that no well-made client sends."""
    noise = random.Random(1)
    pack = HEADER.pack
    return [
        b"", b"\0", pack(100, 1, 1, 0), pack(100, 1, 1, 0) + b"x" * 50, pack(5, 1, 1, 0) + b"\xff" * 5, pack(0, 1, 1, 0),
        pack(0, 2, 1, 0), pack(0, 1, 77, 255), pack(0, 1, 2, 0), pack(0, 1, 3, 0),
        pack(0xFFFFFFFF, 1, 1, 0) + b"y" * 100000,
    ] + [noise.randbytes(noise.randrange(1, 5000)) for _ in range(30)]


def send_broken_frames(path):
    """Each on a connection of its own, to its end; what comes back is read and dropped."""
    for case in broken_frames():
        with Connection(path, timeout=5) as connection:
            try:
                if case:
                    connection.send(case)
                connection.socket.shutdown(socket.SHUT_WR)
                while connection.socket.recv(65536):
                    pass
            except OSError:
                pass


class Refused(Exception):
    def __init__(self, status):
        self.code, self.text = status.code, status.message
        super().__init__(f"code {self.code}: {self.text}")


class Connection:
    def __init__(self, path, timeout=120):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        self.socket.connect(path)
        self.stream = -1

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, data, fds=()):
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        sent = self.socket.sendmsg([data], ancillary)
        self.socket.sendall(data[sent:])

    def receive(self):
        """(stream, type, payload) of the next frame; EOFError when the peer closed."""
        length, stream, kind, _flags = HEADER.unpack(self._exactly(HEADER.size))
        return stream, kind, self._exactly(length)

    def _exactly(self, n):
        data = b""
        while len(data) < n:
            more = self.socket.recv(n - len(data))
            if not more:
                raise EOFError("connection closed")
            data += more
        return data

    def frame(self, service, method, payload, stream=None):
        if stream is None:
            self.stream += 2
            stream = self.stream
        body = wire.Request(service=service, method=method, payload=payload).SerializeToString()
        return HEADER.pack(len(body), stream, REQUEST, 0) + body

    def raw_call(self, service, method, payload=b"", fds=()):
        self.send(self.frame(service, method, payload), fds)
        while True:
            stream, kind, body = self.receive()
            if kind == RESPONSE and stream == self.stream:
                break
        response = wire.Response.FromString(body)
        if response.status.code:
            raise Refused(response.status)
        return response.payload


class Service:
    """The methods of one .proto file's service, as functions of keyword arguments."""

    def __init__(self, connection, directory, name):
        self.connection = connection
        self.messages, self.methods = protobuf.load(directory, name)

    def call(self, method, fds=(), **fields):
        path, request, answer = self.methods[method]
        service = path.split("/")[1]
        payload = self.connection.raw_call(service, method, request(**fields).SerializeToString(), fds)
        return answer.FromString(payload)
