"""migros: moves containers that use RDMA to another host."""

import sys

if __name__ == "__main__":
    # criu runs this in the middle of a checkpoint: nothing else is loaded for it.
    if sys.argv[1:2] == ["hook"]:
        import gate
        sys.exit(gate.hook())
    import cli
    sys.exit(cli.main())
