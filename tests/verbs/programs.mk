# SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
# For the Makefiles of programs that use our libibverbs. RDMA_CORE is where the
# packages of our rdma-core have been unpacked.
CC ?= cc
RDMA_CORE ?= /opt/migros
CFLAGS ?= -O2 -g
override CFLAGS += -std=gnu11 -Wall -Wextra -Werror -Wmissing-prototypes \
		   -Wno-missing-field-initializers -I$(RDMA_CORE)/usr/include
override LDFLAGS += -L$(RDMA_CORE)/usr/lib/x86_64-linux-gnu
LDLIBS = -libverbs
BUILD ?= .

ABI = ../../drivers/infiniband/sw/rxe/rxe_mig_uapi.h

$(BUILD)/%.o: %.c
	@mkdir -p $(BUILD)
	$(CC) $(CFLAGS) -c -o $@ $<

$(BUILD)/selfmig.o: ../verbs/selfmig.c ../verbs/selfmig.h $(ABI)
	@mkdir -p $(BUILD)
	$(CC) $(CFLAGS) -c -o $@ $<

.PHONY: clean
