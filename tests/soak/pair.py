"""Traffic between h1 and h2, by checkers that migrate themselves."""

from soak import Ends, host, library


def prepare():
    library("build_in tests/checker checker-cycle -- h1 h2")


def _end(role, words, seconds):
    return ("export LD_LIBRARY_PATH=/opt/migros/usr/lib/x86_64-linux-gnu "
            "RDMAV_DRIVERS=/opt/migros/usr/lib/x86_64-linux-gnu/libibverbs/librxe; "
            f"cd /tmp/verbs; rm -f log; timeout {seconds} ./checker-cycle --{role} --log log "
            f"--interval 60 {words} >report || tail -n 20 log; tail -n 1 report")


def traffic(server, client, seconds=600, meanwhile=None):
    """Until both have come to an end; their reports. "meanwhile" is called as soon as there
    is a server."""
    ends = Ends()
    ends.start("server", "h1", _end("server", server, seconds), seconds + 20)
    host("h1", "for i in $(seq 100); do ss -Htln sport = 18515 | grep -q . && "
         "break; sleep 0.1; done")
    ends.start("client", "h2", _end("client 10.77.0.1", client, seconds), seconds + 20)
    if meanwhile:
        meanwhile()
    return ends.finish()
