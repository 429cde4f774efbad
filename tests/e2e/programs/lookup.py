# SPDX-License-Identifier: Apache-2.0
"""lookup.py NAME [FAMILY [addrconfig]]: print a name's addresses, or "unknown"."""

import socket
import sys

family = {"4": socket.AF_INET, "6": socket.AF_INET6}.get(
    sys.argv[2] if len(sys.argv) > 2 else "", socket.AF_UNSPEC)
flags = socket.AI_ADDRCONFIG if len(sys.argv) > 3 else 0
try:
    for info in socket.getaddrinfo(
            sys.argv[1], 80, family, socket.SOCK_STREAM, flags=flags):
        print(info[4][0])
except socket.gaierror as error:
    print("unknown" if error.errno in (socket.EAI_NONAME, socket.EAI_NODATA)
          else error)
