# SPDX-License-Identifier: MIT
"""Messages and services of a .proto file, compiled when asked for: nothing generated is kept."""

import subprocess
import types

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory


def load(directory, name):
    """Compiles DIRECTORY/NAME by protoc-c, which the build needs anyway. Returns its messages and enum values as
    attributes of one object, and {method: (path, request class, response class)}."""
    compiled = subprocess.run(["protoc-c", f"--proto_path={directory}", "--descriptor_set_out=/dev/stdout", name],
                              check=True, capture_output=True).stdout
    # A pool of its own: other users of the same package names in this process can't be in the way.
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(compiled).file:
        pool.Add(file)
    factory = message_factory.MessageFactory(pool)
    names, methods = types.SimpleNamespace(), {}
    description = pool.FindFileByName(name)
    for message_name, message in description.message_types_by_name.items():
        setattr(names, message_name, factory.GetPrototype(message))
    for enum in description.enum_types_by_name.values():
        for value in enum.values:
            setattr(names, value.name, value.number)
    for service in description.services_by_name.values():
        for method in service.methods:
            methods[method.name] = (f"/{service.full_name}/{method.name}",
                                    factory.GetPrototype(method.input_type), factory.GetPrototype(method.output_type))
    return names, methods
