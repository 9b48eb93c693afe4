"""migros: moves containers that use RDMA to another host."""

import sys

if __name__ == "__main__":
    # A runtime runs this in the middle of a restore: nothing else is loaded for it.
    if sys.argv[1:] == ["admit"]:
        import admit
        sys.exit(admit.main())
    import cli
    sys.exit(cli.main())
