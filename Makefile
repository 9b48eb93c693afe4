# MigrOS for SoftRoCE. "make help" lists the targets.

VARIANT ?= migros

.PHONY: help tree module debs packages realhost image test debug conformance mutants kill \
	device soak network fuzz sanitize grid perftest pairs instructions rdma-core bench \
	figures demo containers backforth mpi model hotpath check clean

help:
	@echo 'make tree      patched upstream trees in build/tree'
	@echo 'make module    rdma_rxe.ko in build/ (VARIANT=stock|fixes|migros)'
	@echo 'make debs      Debian packages in build/debs: driver, migros, rdma-core, criu'
	@echo 'make packages  those of them that a host needs, installed in a clean Debian'
	@echo 'make realhost  the same on whole Debian hosts, with systemd, AppArmor and podman'
	@echo '               (in work: it has not come to its end yet)'
	@echo 'make image     disk image of the virtual machines'
	@echo 'make test      all tests (TESTS="NAME..." for some: see tests/run -h)'
	@echo 'make debug     some of them on a kernel with KASAN, lockdep and kmemleak (TESTS)'
	@echo 'make conformance the clauses of docs/protocol.md, over IPv4 and IPv6 (ID=CLAUSE)'
	@echo 'make mutants   plant faults into the driver and see which test finds them'
	@echo 'make kill      kill criu and what drives it at each point of a migration; the'
	@echo '               tables of docs/failures.md'
	@echo 'make device    RDMA devices of their own, and addresses that change (in work: not'
	@echo '               run in virtual machines yet)'
	@echo 'make soak      migrations at random, on a bad network: MIGRATIONS=1000 by verbs,'
	@echo '               CRIU_MIGRATIONS of a container (a tenth of that), SEED=...; adds up'
	@echo '               over runs in ~/.local/state/migros/soak.json'
	@echo 'make network   each trouble of a network alone, and each packet of the protocol lost,'
	@echo '               while connections are moved by verbs'
	@echo 'make fuzz      mutated images and packets at the driver, images at criu'\''s plugin'
	@echo '               (SECONDS=60 of each)'
	@echo 'make sanitize  our programs and libraries with the sanitizers of gcc'
	@echo 'make grid      all cells of tests/grid, where make test runs a sample'
	@echo 'make perftest  perftest in all combinations that it accepts, and pingpongs, moved'
	@echo 'make pairs     perftest with the stock driver and with ours, in turns (PAIRS=10)'
	@echo 'make instructions how many the stock driver and ours need for an operation'
	@echo 'make bench     measure what docs/evaluation.md shows (RUNS=20 FIGURES="NAME...")'
	@echo 'make figures   draw what was measured, in build/figures; make figure-NAME: one'
	@echo 'make rdma-core rdma-core'\''s own tests with our libibverbs'
	@echo 'make containers all moves of containers, and all that is in the way of one, where'
	@echo '               make test leaves some out'
	@echo 'make backforth a container moves back and forth (MOVES=20 RUNTIME=runc|podman)'
	@echo 'make mpi       HPCC on four ranks, one of which moves in each part (in work)'
	@echo 'make demo      move a running program between virtual machines'
	@echo 'make model     check the protocol model'
	@echo 'make hotpath   compare the machine code of the data path with stock'
	@echo 'make check     shellcheck, checkpatch, warnings, sparse, coccinelle, clang'\''s analyser'
	@echo 'make clean     remove build/ (the cache is in ~/.cache/migros)'

tree:
	scripts/tree

module:
	@out=$$(scripts/module $(VARIANT)) && mkdir -p build && \
		cp $$out/rdma_rxe.ko build/ && echo build/rdma_rxe.ko

debs:
	@mkdir -p build/debs
	@for name in rdma-core criu; do \
		out=$$(scripts/debs $$name) && cp $$out/*.deb build/debs/ || exit 1; \
	done
	@scripts/deb build/debs && ls -1 build/debs/*.deb

packages:
	PACKAGES=all tests/run packages

realhost:
	REALHOST=yes tests/run packages/real

image:
	@scripts/image

test:
	@tests/run $(TESTS)

debug:
	FUZZ_SECONDS=20 tests/run --kernel debug $(or $(TESTS),driver/unload verbs/cycle \
		verbs/checker-cycles verbs/pyverbs verbs/foreign restore/restore grid/cells fixes/fixed \
		conformance/conformance fuzz/images fuzz/packets)

check:
	@scripts/check

# Parts that have a script or a directory of their own.
demo hotpath:
	@test -x scripts/$@ || { echo 'scripts/$@ is not in this tree' >&2; exit 1; }
	@scripts/$@

conformance:
	PASSES=all ID='$(ID)' tests/run conformance

mutants:
	tests/mutants/run; status=$$?; \
		tests/migros/mutants/run || status=$$?; exit $$status

soak:
	@MIGRATIONS=$(MIGRATIONS) CRIU_MIGRATIONS=$(CRIU_MIGRATIONS) SEED=$(SEED) tests/soak/run

network:
	NETWORK=all tests/run soak/network soak/lost

kill:
	POINTS=all tests/run kill/criu kill/move kill/podman kill/third migros/owner; status=$$?; \
		for name in criu move; do tests/kill/table $$name build/test/kill/$$name.log; done; \
		exit $$status

device:
	DEVICE=yes tests/run migros/device
	POINT=new_address tests/run kill/move
	POINT=own_device tests/run kill/move

unexport SECONDS
fuzz:
	FUZZ_SECONDS=$(or $(SECONDS),60) tests/run fuzz

sanitize:
	tests/run sanitize

grid:
	GRID=full tests/run grid

containers:
	CASES=all tests/run containers strangers criu/settings criu/ucx migros/check

backforth:
	MOVES=$(or $(MOVES),20) tests/run containers/backforth

mpi:
	MPI=all RUNS='$(RUNS)' PARTS='$(PARTS)' N='$(N)' tests/run mpi

perftest:
	PERFTEST=all PINGPONG=all tests/run criu/perftest criu/pingpong

pairs:
	PAIRS=$(or $(PAIRS),10) PROGRAMS=all tests/run driver/pairs

instructions:
	RUNS=3 PROGRAMS=all tests/run driver/instructions

# Nothing else may run beside a measurement.
bench:
	BENCH=yes RUNS=$(or $(RUNS),20) tests/run -j 1 \
		$(or $(addprefix figures/,$(FIGURES)),figures)

figures:
	@tests/figures/plot

figure-%:
	@tests/figures/plot $*

rdma-core:
	RDMA_CORE=ours tests/run rdma-core

model:
	@test -f docs/model/Makefile || { echo 'docs/model is not in this tree' >&2; exit 1; }
	@$(MAKE) --no-print-directory -C docs/model

clean:
	rm -rf build
