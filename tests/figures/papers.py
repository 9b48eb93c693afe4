"""What the papers measured.

MigrOS: Planeta et al., USENIX ATC 2021. MigrRDMA: Li et al., APNet 2024.
"""

# MigrOS, Table 1: bytes in the dump
DUMP_SIZE = {"PD": 12, "MR": 48, "CQ": 64, "SRQ": 68, "QP": 271, "QP w/ SRQ": 823}

# MigrOS, section 5.1, and MigrRDMA, section 4.1: lines of code
CHANGES = {"driver": "10 % of all", "tasks of a QP": "6 % of all", "all": "about 4,000"}
CHANGES_MIGRRDMA = {"driver": "about 3,500", "rdma-core": "about 5,000",
                    "criu, plugin": "about 2,500"}

# MigrRDMA, Table 1: milliseconds of blackout without and with RDMA
BLACKOUT = {1: (67.5, 68.6), 2: (69.5, 70.5), 4: (70.7, 71.4), 8: (71.9, 72.9),
            16: (72.5, 74.3), 32: (73.8, 79.8), 64: (74.6, 85.1), 128: (77.5, 89.6)}

# MigrRDMA, Table 2: cycles of an operation of 64 bytes, without and with it
CYCLES = {"send": (123.7, 128.3), "recv": (59.4, 64.7), "write": (125.0, 133.3),
          "read": (127.3, 133.8)}
